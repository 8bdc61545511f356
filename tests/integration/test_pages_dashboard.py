"""The dashboard: its figures are the ledger's, its words say what to do, its windows are the viewer's clock's."""

import csv
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from html import unescape
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from redis import Redis

from delivery import circuits, figures, heartbeats, pace, timeline
from delivery.figures import Late
from delivery.models import Delivery, Figure, Heartbeat, State
from delivery.providers.base import Answer, Verdict
from delivery.timeline import Window, stretches
from frontend.pages.dashboard import charts
from schedules import stops
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.recording import sent
from tests.service import DAY, HOUR, MINUTE

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def rows_of(response) -> list[dict[str, str]]:
    text = b"".join(response.streaming_content).decode().removeprefix("\ufeff")
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture
def past(service, provider):
    """Two runs by different channels, hours apart, with people of most outcomes; the clock then stands a day later."""
    people(6)
    RecipientFactory(email="")
    RecipientFactory(consent={"email": False})
    provider.answer = staticmethod(
        lambda message: (
            Answer(message.key, Verdict.PERMANENT, "message_rejected")
            if message.recipient_id % 3 == 0
            else sent(message)
        )
    )
    ScheduleFactory(max_per_user_per_day=1)
    service.step()
    ScheduleFactory(run_at=NOW + HOUR + 7 * MINUTE, channel="in_app", max_per_user_per_day=1)
    service.at(NOW + HOUR + 7 * MINUTE).step()
    ScheduleFactory(run_at=NOW + 20 * HOUR, channel="push")
    service.at(NOW + 20 * HOUR).step()
    figures.count()
    return service.at(NOW + 21 * HOUR)


ZONES = ["UTC", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"]


@pytest.mark.parametrize("zone_name", ZONES)
@pytest.mark.parametrize("window", Window)
def test_the_file_is_equal_to_the_ledgers_rows_cut_by_the_zones_clock(past, window, zone_name):
    client = signed_in(Role.ANALYST)
    client.cookies.load({"times": "mine", "zone": zone_name})
    lines = rows_of(client.get("/dashboard/file/outcomes", {"window": window}))
    begins = datetime.fromisoformat(lines[0]["From (UTC)"])
    assert datetime.fromisoformat(lines[0]["From"]) == begins
    counted = Counter(
        {
            (line["Channel"], datetime.fromisoformat(line["From"]), words): int(line[words])
            for line in lines
            for words in list(line)[5:-1]
        }
    )
    expected: Counter = Counter()
    zone = ZoneInfo(zone_name)
    for row in Delivery.objects.filter(state__gte=State.SENT, settled_at__gte=begins):
        local = row.settled_at.astimezone(zone)
        whole = {
            Window.HOUR: local.replace(minute=local.minute // 5 * 5, second=0, microsecond=0),
            Window.DAY: local.replace(minute=0, second=0, microsecond=0),
        }.get(window, local.replace(hour=0, minute=0, second=0, microsecond=0))
        channel = {1: "E-mail", 2: "In-app", 3: "Push"}[list(_runs()).index(row.occurrence_id) + 1]
        words = {"unaddressable": "no address", "rate_limited": "rate limited"}.get(
            State(row.state).label, State(row.state).label
        )
        expected[channel, whole, words] += 1
    assert +counted == expected
    assert all(int(line["Total"]) == sum(int(line[words]) for words in list(line)[5:-1]) for line in lines)
    if window is not Window.HOUR:
        assert {words for _channel, _at, words in expected} >= {"sent", "failed", "suppressed", "no address"}


def _runs() -> list[int]:
    return sorted(Delivery.objects.values_list("occurrence_id", flat=True).distinct())


def test_the_page_shows_what_the_file_says_with_a_table_beside_each_chart(past):
    page = signed_in(Role.ANALYST).get("/dashboard/?window=day")
    words = text_of(page)
    total = Delivery.objects.filter(state__gte=State.SENT).count()
    assert f"What became of {total} messages" in words
    html = page.content.decode()
    for chart in page.context["charts"]:
        assert f'aria-label="{chart.words}"' in html
        assert sum(int(line.total) for line in chart.lines) == int(chart.total)
        assert len(chart.lines) == 24
    assert {chart.channel for chart in page.context["charts"]} == {"email", "push", "in_app"}
    assert "What was settled from 2026-11-21 08:00:00 UTC until now, 2026-11-22 07:00:00 UTC" in words
    assert "style=" not in html.partition("<main")[2]


def test_reasons_are_told_in_words_with_the_way_to_their_rows_and_a_remedy(past):
    page = signed_in(Role.MARKETER).get("/dashboard/")
    failures, others = page.context["failures"], page.context["others"]
    assert ("The provider rejected the message.", "E-mail") in {(each.words, each.channel) for each in failures}
    assert failures[0].link == "/ledger/?state=11&reason=message_rejected"
    assert {each.outcome for each in others} >= {"suppressed", "no address"}
    assert page.client.get(failures[0].link).context["rows"]
    told = rows_of(page.client.get("/dashboard/file/reasons"))
    assert told[0]["Reason in words"]
    assert sum(int(each["People"]) for each in told) == Delivery.objects.filter(state__gte=11).count()


def test_lateness_is_told_by_channel_in_words_and_as_a_file(service, provider):
    people(100)
    ScheduleFactory()
    service.at(NOW + timedelta(seconds=8)).step()
    page = signed_in(Role.ANALYST).get("/dashboard/?window=hour")
    (late,) = page.context["lateness"]
    assert (late.channel, late.people) == ("E-mail", "100")
    (row,) = rows_of(page.client.get("/dashboard/file/lateness?window=hour"))
    assert 6.7 <= float(row["Half within (s)"]) <= float(row["99 % within (s)"]) <= 8.0


def test_percentiles_are_good_to_a_tenth():
    spread = [Late("email", step, 100) for step in range(12)]  # up to 1, 1.19, ... 6.7 s
    (found,) = timeline.percentiles(spread)
    assert found.people == 1_200
    assert found.p50 == pytest.approx(2 ** (5 / 4))
    assert found.p99 == pytest.approx(2 ** (11 / 4), rel=0.1)


@pytest.mark.parametrize(
    ("zone_name", "day", "hours"),
    [
        ("Europe/Berlin", "2026-10-25", 25),
        ("Europe/Berlin", "2026-03-29", 23),
        ("Australia/Lord_Howe", "2026-10-04", 23.5),
    ],
)
def test_a_day_is_as_long_as_its_clock_makes_it(zone_name, day, hours):
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone_name)).astimezone(UTC)
    last = stretches(Window.WEEK, zone_name=zone_name, now=noon)[-1]
    assert (last.ends - last.begins) == timedelta(hours=hours)
    assert f"{last.begins.astimezone(ZoneInfo(zone_name)):%Y-%m-%d %H:%M}" == f"{day} 00:00"


def test_an_hour_that_comes_twice_is_two_stretches_and_one_that_never_comes_none():
    def hours(at: str) -> list[str]:
        zone = ZoneInfo("Europe/Berlin")
        cut = stretches(Window.DAY, zone_name="Europe/Berlin", now=datetime.fromisoformat(at))
        assert len(cut) == 24
        assert [each.ends for each in cut[:-1]] == [each.begins for each in cut[1:]]
        assert {each.ends - each.begins for each in cut} == {HOUR}
        return [f"{each.begins.astimezone(zone):%H}" for each in cut]

    assert hours("2026-10-25T12:00Z").count("02") == 2
    assert hours("2026-03-29T12:00Z").count("02") == 0


@pytest.mark.parametrize("zone_name", ["UTC", "Asia/Kathmandu", "Pacific/Chatham", "America/St_Johns"])
@pytest.mark.parametrize("window", Window)
def test_windows_end_now_and_have_no_gap(window, zone_name):
    now = datetime(2026, 11, 21, 10, 52, 13, tzinfo=UTC)
    cut = stretches(window, zone_name=zone_name, now=now)
    assert len(cut) == {"hour": 12, "day": 24, "week": 7, "month": 30}[window]
    assert cut[-1].begins <= now < cut[-1].ends
    assert [each.ends for each in cut[:-1]] == [each.begins for each in cut[1:]]
    if window is Window.DAY:
        assert {each.begins.astimezone(ZoneInfo(zone_name)).minute for each in cut} == {0}


def test_signs_say_what_is_wrong_and_what_to_do_the_worst_first(service, provider):
    stops.stop_sending(scope="channel:push", by="user:1", now=NOW)
    circuits.open_circuit("email", reason="account_suspended", detail="", now=NOW)
    people(3)
    ScheduleFactory(channel="in_app")
    service.open()
    service.after(5 * MINUTE)
    heartbeats.beat(heartbeats.TICK)
    heartbeats.beat(heartbeats.SWEEP)
    Heartbeat.objects.filter(name="tick").update(seen_at=NOW - DAY)
    page = signed_in(Role.ANALYST).get("/dashboard/")
    found = [(sign.what, sign.level) for sign in page.context["signs"]]
    assert found[:2] == [("Clock", "trouble"), ("E-mail", "trouble")]
    assert ("Push", "attention") in found
    assert ("In-app", "attention") in found
    words = text_of(page)
    assert "It waits: the provider refuses the account. The provider has suspended the account." in words
    assert "3 people wait, the first of them for 5 min." in words
    assert "nothing new is started. What to do: Start beat" in words


def test_the_pace_of_a_provider_that_slowed_us_down_is_told_and_counters_away_too(service, provider, settings):
    client = signed_in(Role.ANALYST)
    pace.slow_down("email", wait_s=1.0)
    assert "The provider has asked to slow down" in text_of(client.get("/dashboard/health"))
    with Redis.from_url(settings.COUNTERS_URL) as counters:
        counters.flushall()
    assert "asked to slow down" not in text_of(client.get("/dashboard/health"))


def test_counters_that_are_away_are_told(service, provider, own_counters):
    own_counters.kill()
    assert "Their counters are away" in text_of(signed_in(Role.ANALYST).get("/dashboard/health"))


def test_the_page_reads_figures_and_never_the_ledger_however_much_there_is(past):
    client = signed_in(Role.ANALYST)
    client.get("/dashboard/")
    with CaptureQueriesContext(connection) as few:
        client.get("/dashboard/?window=month")
    Figure.objects.bulk_create(
        Figure(
            minutes=15,
            slot=NOW - n * figures.QUARTER,
            channel="push",
            state=11,
            reason=f"r{n % 9}",
            lateness=n % 40,
            people=2,
        )
        for n in range(2_800)
    )
    with CaptureQueriesContext(connection) as many:
        client.get("/dashboard/?window=month")
    assert len(many) == len(few) <= 22
    of_rows = [query["sql"] for query in many if "FROM delivery_delivery d\n" in query["sql"]]
    assert of_rows
    assert all("d.day = ANY('{}'::date[])" in sql for sql in of_rows)  # of no day


def test_an_empty_service_says_so_and_strangers_stay_outside(service, client):
    page = signed_in(Role.ANALYST).get("/dashboard/?window=nonsense")
    assert "Nothing was settled in this time." in text_of(page)
    assert client.get("/dashboard/").status_code == 302
    assert signed_in(None).get("/dashboard/").status_code == 403
    assert page.client.get("/dashboard/file/nothing").status_code == 404
    assert page.client.get("/dashboard/file/outcomes?channel=pigeon").status_code == 404


def test_few_people_among_many_are_still_seen_and_no_stack_is_too_high():
    for counted in ({10: 1_000_000, 11: 1}, {10: 1}, dict.fromkeys(range(10, 18), 1)):
        top = charts._round_up(sum(counted.values()))
        parts = charts._parts(counted, top)
        assert len(parts) == len(counted)
        assert all(float(part.height) >= 0.7 for part in parts)
        assert top >= sum(counted.values())
        assert sum(float(part.height) for part in parts) <= 100.01
        assert min(float(part.y) for part in parts) >= 0
