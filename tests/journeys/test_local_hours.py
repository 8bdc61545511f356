"""The main job, as a stranger would check it: a file of people, a local hour, and the provider's own log.

Who is expected when is worked out here from the file and Python's zone data alone.
"""

import csv
import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from scheduler_project.local.fleet import fleet
from tests.running import Running, running_service

PEOPLE = 10_000
HOUR = 9
FALLBACK = "Europe/Berlin"
ZONES = [
    "America/Los_Angeles", "America/New_York", "America/St_Johns", "Europe/London", "Europe/Berlin", "Asia/Kolkata",
    "Asia/Kathmandu", "Asia/Tokyo", "Australia/Adelaide", "Australia/Lord_Howe", "Pacific/Chatham",
    "Pacific/Tongatapu", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Etc/GMT+12", "", "Mars/Olympus",
]  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("hours")
    queues = {"clock": 1, "materialise": 1, "email": 2}
    with running_service(
        root,
        lambda env: fleet(concurrency=queues, env=env),
        stub="scheduler_project.demo.mailbox",
        settings={"TEST_CLOCK": "1"},
    ) as service:
        yield service


def test_everyone_in_the_file_gets_it_once_at_nine_by_the_clock_on_the_wall(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    people = _write_people(file)
    running.manage("import_recipients", str(file))
    now = datetime.fromisoformat(running.python("from schedules import clock; print(clock.now().isoformat())"))
    # Far enough ahead that nine o'clock is still to come where the day begins first, at UTC+14.
    day = (now + timedelta(hours=48)).date()
    schedule = int(running.python(_SCHEDULE.format(wall=f"{day}T{HOUR:02}:00:00+00:00", fallback=FALLBACK)))

    running.manage("clock", "advance", f"{day + timedelta(days=1)}T{HOUR + 12}:30:00Z")
    running.wait_for("closed", lambda: _state(running, schedule) == "finished", seconds=30)

    received = running.accepted()
    times = Counter(line["to"] for line in received)
    assert [to for to, count in times.items() if count > 1] == []
    assert times.keys() <= people.keys()
    for line in received:
        local = datetime.fromisoformat(line["at"]).astimezone(_zone(people[line["to"]]["Time Zone"]))
        late = local - local.replace(
            year=day.year, month=day.month, day=day.day, hour=HOUR, minute=0, second=0, microsecond=0
        )
        assert timedelta(0) <= late < timedelta(minutes=1), f"{line['to']} at {local}"

    explained = _outcomes(running, schedule)
    assert explained.keys() == {person["User ID"] for person in people.values()} | _without_address(file)
    for address, person in people.items():
        opted_out = person["consent_email"] == "no"
        assert (address in times) is not opted_out
        assert explained[person["User ID"]] == ((13, "opted_out") if opted_out else (10, ""))
    assert {explained[who] for who in _without_address(file)} == {(13, "opted_out"), (14, "no_address")}
    running.manage("books")


def _write_people(file: Path) -> dict[str, dict[str, str]]:
    """A file as a spreadsheet saves it: semicolons, a byte-order mark, headings of its own. By address."""
    draw = random.Random(7)
    rows = [
        {
            "User ID": f"c-{number}",
            "Email": "" if number % 97 == 0 else f"c{number}@example.com",
            "Time Zone": draw.choice(ZONES),
            "Locale": draw.choice(["de-AT", "en", "fr", ""]),
            "consent_email": "no" if number % 31 == 0 else "yes",
            "first_name": draw.choice(["Zoë", "José; Jr.", 'Ann "A"', "李"]),
        }
        for number in range(PEOPLE)
    ]
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return {row["Email"]: row for row in rows if row["Email"]}


def _without_address(file: Path) -> set[str]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return {row["User ID"] for row in csv.DictReader(stream, delimiter=";") if not row["Email"]}


def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name if name and "Mars" not in name else FALLBACK)


def _outcomes(running: Running, schedule: int) -> dict[str, tuple[int, str]]:
    rows = running.sql(
        "SELECT r.external_id, d.state, d.reason FROM delivery_delivery d"
        " JOIN schedules_recipient r ON r.id = d.recipient_id"
        " JOIN schedules_occurrence o ON o.id = d.occurrence_id WHERE o.schedule_id = %s",
        schedule,
    )
    assert len(rows) == len({row[0] for row in rows})
    return {external_id: (state, reason) for external_id, state, reason in rows}


def _state(running: Running, schedule: int) -> str:
    found = running.sql("SELECT state FROM schedules_occurrence WHERE schedule_id = %s", schedule)
    return str(found[0][0]) if found else ""


_SCHEDULE = """
from datetime import datetime
from schedules import clock, operations, templates
from schedules.definition import Definition
now = clock.now()
contents = [{{
    "channel": "email", "locale": "en", "subject": "Good morning {{{{ first_name }}}}",
    "text": "It is {{{{ occurrence.at|time('short') }}}}", "html": "<p>{{{{ first_name }}}}</p>",
}}]
template = templates.save(name="morning", contents=contents, by="system:test", now=now)
definition = Definition(
    name="morning", channel="email", template_id=template.pk, schedule_type="once", time_zone_mode="user_local",
    audience_query={{"all": []}}, run_at=datetime.fromisoformat("{wall}"), time_zone="{fallback}",
)
print(operations.create(definition=definition, by="system:test", now=now).pk)
"""
