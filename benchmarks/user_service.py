"""How long 10,000 people take from the user service to the ledger, its reference answering in 200 ms a page.

    python -m benchmarks.user_service [--people 10000] [--others 1000000] [--runs 5]

A run is one attempt of the worker: ask, mirror, write the rows. ``first_s``: of people of whom nothing is known;
``again_s``: of the same, in whom nothing is new; ``changed_s``: a tenth of them moved to another city. All have an
address, a device and six attributes. The peer is the same audience among people kept here. ``--others``: people kept
here besides, of whom the service says nothing.
"""

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings

from benchmarks import people
from benchmarks.environment import ROOT
from benchmarks.harness import emit, execute, note, prepare, query
from delivery import dispatch, materialise
from schedules import clock, operations
from schedules.definition import Definition
from stubs.testing import RunningUserService, running_user_service

NAME = "user_service"
PEER = "the same audience among people kept here"
LATENCY_S = 0.2
AUDIENCE = {"field": "tags", "op": "contains", "value": "told"}
CITIES = ("Lisbon", "Vienna", "Kyoto", "Montréal", "Porto")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney")


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Audiences told by a service.")
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=0, help="people kept here besides")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median is told")
    options = parser.parse_args()
    prepare()
    if options.others:
        note(f"Inserting {options.others:,} other people")
        people.insert(options.others)
    template_id = people.save_template(now=clock.now()).pk
    with running_user_service(people=_file(options.people), token="of-the-benchmark") as running:
        running.fault({"kind": "latency", "match": {"operation": "Page"}, "seconds": LATENCY_S})

        def median(before: Callable[[int], object], *, is_told: bool = True) -> float:
            settings.USER_SERVICE_URL = running.url if is_told else ""
            settings.USER_SERVICE_TOKEN = running.token
            taken = []
            for number in range(options.runs):
                before(number)
                taken.append(_attempt(template_id, options.people))
            note(f"  {', '.join(f'{each:.3f}' for each in taken)}")
            return statistics.median(taken)

        figures = {
            "first_s": median(lambda number: _forget()),
            "again_s": median(lambda number: None),
            "changed_s": median(lambda number: _move_a_tenth(running, options.people, number)),
        }
        execute("VACUUM ANALYZE schedules_recipient, schedules_device")
        local = median(lambda number: None, is_told=False)
    for figure, value in figures.items():
        emit(NAME, figure, value, "s", peer=PEER, ratio=local / value)
    emit(NAME, "local_s", local, "s")


def _attempt(template_id: int, count: int) -> float:
    """Seconds from the attempt's begin to its commit."""
    definition = Definition(
        name="Told", channel="email", template_id=template_id, schedule_type="once", run_at=clock.now(),
        audience_query=AUDIENCE, time_zone_mode="user_local",
    )  # fmt: skip
    operations.create(definition=definition, by="benchmark", now=clock.now())
    (occurrence_id,) = dispatch.open_due(now=clock.now()).occurrence_ids
    begun = time.perf_counter()
    done = materialise.attempt(occurrence_id=occurrence_id, now=clock.now())
    seconds = time.perf_counter() - begun
    if done is None or done.targeted != count:
        raise SystemExit(f"{count} people were to be found, and it came to {done}: nothing was measured.")
    ((rows,),) = query("SELECT count(*) FROM delivery_delivery WHERE occurrence_id = %s", [occurrence_id])
    if rows != count:
        raise SystemExit(f"The ledger has {rows} rows in place of {count}: nothing was measured.")
    return seconds


def _forget() -> None:
    """Nobody whom the service tells of is known any more."""
    told = "(SELECT id FROM schedules_recipient WHERE external_id LIKE 'told-%%')"
    execute(f"DELETE FROM schedules_mirroredperson WHERE recipient_id IN {told}")
    execute(f"DELETE FROM schedules_device WHERE recipient_id IN {told}")
    execute("DELETE FROM schedules_recipient WHERE external_id LIKE 'told-%%'")
    execute("VACUUM schedules_recipient, schedules_device, schedules_mirroredperson")


def _move_a_tenth(running: RunningUserService, count: int, number: int) -> None:
    now = datetime.now(UTC).isoformat()
    moved = [_profile(each, city=f"City {number}", updated=now) for each in range(number % 10, count, 10)]
    running.put(*moved)


def _file(count: int) -> Path:
    path = ROOT / "people.ndjson"
    path.write_text("".join(f"{line}\n" for line in _lines(count)))
    return path


def _lines(count: int) -> Iterator[str]:
    for number in range(count):
        yield json.dumps(_profile(number, city=CITIES[number % 5], updated="2026-01-01T00:00:00Z"))


def _profile(number: int, *, city: str, updated: str) -> dict[str, Any]:
    noise = hashlib.sha256(str(number).encode()).hexdigest()
    return {
        "externalId": f"told-{number}",
        "email": f"told{number}@example.com",
        "locale": ("en", "de", "fr", "es")[number % 4],
        "timeZone": ZONES[number % 4],
        "attributes": {
            "first_name": "Ada", "city": city, "plan": ("free", "plus", "pro")[number % 3],
            "points": number % 1000, "coupon": noise[:10], "cell": number // 20,
        },
        "tags": ["member", "told"],
        "consent": {"email": True} if number % 4 else {},
        "devices": [{"platform": "android", "token": f"{noise[:22]}:APA91b{noise}{noise}"}],
        "updatedAt": updated,
    }  # fmt: skip


if __name__ == "__main__":
    main()
