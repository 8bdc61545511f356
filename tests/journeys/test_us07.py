"""A marketer plans something for each person's own local time, and everybody gets it at that hour: the whole way.

In a browser through the wizard, on real processes, with the test clock; the judge is the log of the stub of Amazon SES.
Who is expected when is worked out here from Python's zone data alone.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from http.client import HTTPConnection
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from scheduler_project.local.fleet import fleet, web
from scheduler_project.local.ports import LOOPBACK, free_port
from tests.accounts import PASSWORD
from tests.journeys.conftest import WIDE
from tests.running import Running, running_service

# Pacific time, Central European time, UTC+13, and others on the way.
ZONES = ["America/Los_Angeles", "Europe/Berlin", "Pacific/Tongatapu", "Asia/Kolkata", "America/New_York"]
# Where the clock goes from 02:00 to 03:00 on this night, and the days around it.
SPRING = date(2027, 3, 14)
SKIPPED_IN = {"America/Los_Angeles", "America/New_York"}

_SETUP = """
from django.contrib.auth.models import Group, User
from schedules import clock, templates
from schedules.models import Recipient
person = User.objects.create_user("marketer", password={password!r})
person.groups.add(Group.objects.get(name="MARKETER"))
for number, zone in enumerate({zones!r} * 2):
    Recipient.objects.create(external_id=f"p{{number}}", email=f"p{{number}}@example.com", time_zone=zone, locale="en")
contents = [{{"channel": "email", "locale": "en", "subject": "Good morning", "text": "It is time."}}]
templates.save(name="Morning letter", contents=contents, by="system:test", now=clock.now())
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    """The whole service and the address of its pages."""
    port = free_port()
    queues = {"clock": 1, "materialise": 1, "email": 1}
    with running_service(
        tmp_path_factory.mktemp("us07"),
        lambda env: [*fleet(concurrency=queues, env=env), web(port, env=env)],
        stub="scheduler_project.demo.mailbox",
        settings={"TEST_CLOCK": "1"},
    ) as running:
        running.python(_SETUP.format(password=PASSWORD, zones=ZONES))
        running.wait_for("the pages", partial(_answers, port), seconds=60)
        yield running, f"http://{LOOPBACK}:{port}"


@pytest.fixture
def page(service, browser) -> Page:
    """A marketer, signed in."""
    page = browser.new_context(viewport=WIDE, base_url=service[1]).new_page()
    page.goto("/")
    page.get_by_label("Username").fill("marketer")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(lambda address: "/login/" not in address)
    return page


def test_each_person_gets_a_one_off_at_their_own_hour(service, page):
    running, _ = service
    day = (_now(running) + timedelta(days=2)).date()  # ahead everywhere, in Tonga too
    _begin(page, "Good morning, everywhere")
    page.get_by_label("Once", exact=True).check()
    page.get_by_label("Day", exact=True).fill(f"{day}")
    page.locator("#id_run_time").fill("09:00")
    page.get_by_label("For each person at this time on their own clock").check()
    schedule = _activate(page)

    running.manage("clock", "advance", f"{day + timedelta(days=1)}T22:00:00Z")
    running.wait_for("closed", partial(_is_closed, running, schedule, runs=1), seconds=30)
    assert _received(running, schedule) == Counter((number, f"{day} 09:00") for number in range(2 * len(ZONES)))

    ((run,),) = running.sql("SELECT id FROM schedules_occurrence WHERE schedule_id = %s", schedule)
    page.goto(f"/occurrences/{run}/")
    expect(page.get_by_text("The books close: 10 targeted, 10 accounted for.")).to_be_visible()


def test_each_person_gets_a_repeating_one_at_their_own_hour_across_a_change_of_clocks(service, page):
    """At half past two, which the night of the change does not have in America: there it comes an hour later."""
    running, _ = service
    running.manage("clock", "advance", f"{SPRING - timedelta(days=2)}T00:00:00Z")
    _begin(page, "Each night, everywhere")
    page.get_by_label("Again and again").check()
    page.get_by_label("Repeat").select_option(label="every day")
    page.get_by_label("At", exact=True).fill("02:30")
    page.get_by_label("For each person at this time on their own clock").check()
    page.get_by_text("Start, end and number of runs").click()
    days = [SPRING + timedelta(days=shift) for shift in (-1, 0, 1)]
    page.get_by_label("Not before").fill(f"{days[0]}")
    page.get_by_label("At most so many runs").fill("3")
    schedule = _activate(page)

    running.manage("clock", "advance", f"{SPRING + timedelta(days=2)}T22:00:00Z")
    running.wait_for("closed", partial(_is_closed, running, schedule, runs=3), seconds=30)
    expected = Counter()
    for number, zone in enumerate(ZONES * 2):
        expected += Counter(
            (number, f"{day} {'03:30' if day == SPRING and zone in SKIPPED_IN else '02:30'}") for day in days
        )
    assert _received(running, schedule) == expected
    # The same hour on the wall is another one by UTC, once the clocks have changed.
    assert _utc_hour("America/Los_Angeles", days[0]) != _utc_hour("America/Los_Angeles", days[2])


def _begin(page: Page, name: str) -> None:
    """Through the wizard up to the question when."""
    page.goto("/schedules/new/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("E-mail").check()
    _next(page, "Audience")
    page.get_by_label("Everyone").check()
    _next(page, "Message")
    page.get_by_label("Morning letter").check()
    _next(page, "When")


def _next(page: Page, title: str) -> None:
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()


def _activate(page: Page) -> int:
    """The rest of the way; the schedule's id."""
    _next(page, "Limits")
    _next(page, "Review")
    expect(page.get_by_text("would get it").first).to_be_visible()
    page.get_by_role("button", name="Activate", exact=True).click()
    expect(page.get_by_text("is active.")).to_be_visible()
    found = re.search(r"/schedules/(\d+)/$", page.url)
    assert found
    return int(found[1])


def _received(running: Running, schedule: int) -> Counter[tuple[int, str]]:
    """Who got a message of the schedule, and what the clock on that person's wall showed, to the minute."""
    runs = {pk for (pk,) in running.sql("SELECT id FROM schedules_occurrence WHERE schedule_id = %s", schedule)}
    received: Counter[tuple[int, str]] = Counter()
    for line in running.accepted():
        _day, run, _person = line["delivery"].split("-")
        if int(run) in runs:
            number = int(line["to"].removeprefix("p").partition("@")[0])
            zone = ZoneInfo(ZONES[number % len(ZONES)])
            received[number, f"{datetime.fromisoformat(line['at']).astimezone(zone):%Y-%m-%d %H:%M}"] += 1
    return received


def _is_closed(running: Running, schedule: int, *, runs: int) -> bool:
    found = running.sql("SELECT state FROM schedules_occurrence WHERE schedule_id = %s", schedule)
    return [state for (state,) in found] == ["finished"] * runs


def _utc_hour(zone: str, day: date) -> int:
    return datetime.combine(day, time(9), ZoneInfo(zone)).astimezone(UTC).hour


def _now(running: Running) -> datetime:
    return datetime.fromisoformat(running.python("from schedules import clock; print(clock.now().isoformat())"))


def _answers(port: int) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=60)
    try:
        connection.request("GET", "/admin/login/")
        return connection.getresponse().status < 400
    except OSError:
        return False
    finally:
        connection.close()
