"""How long 10,000 people take from the user service to the ledger, its reference answering in 200 ms a page.

    python -m benchmarks.user_service [--people 10000] [--others 1000000] [--runs 5] [--shared 300] [--pages 10]

A run is one attempt of the worker: ask, mirror, write the rows. ``first_s``: of people of whom nothing is known;
``again_s``: of the same, in whom nothing is new; ``changed_s``: a tenth of them moved to another city. All have an
address, a device and six attributes. The peer is the same audience among people kept here. ``--others``: people kept
here besides, of whom the service says nothing.

``shared_s``: of the runs of one hour that ask the same, all of which one worker finds the people of, for each run; the
peer is one that asks alone. ``page_first_s``, ``page_again_s``: of as many times the people, for each page.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from benchmarks import people, told
from benchmarks.harness import emit, execute, note, prepare, query
from delivery import dispatch, materialise
from schedules import clock, operations
from schedules.definition import Definition
from stubs.testing import RunningUserService

NAME = "user_service"
PEER = "the same audience among people kept here"
ALONE = "a run that asks alone"


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Audiences told by a service.")
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=0, help="people kept here besides")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median is told")
    parser.add_argument("--shared", type=int, default=300, help="runs of one hour that ask the same; 0: none")
    parser.add_argument("--pages", type=int, default=10, help="pages of one audience; 0: none")
    options = parser.parse_args()
    prepare()
    if options.others:
        note(f"Inserting {options.others:,} other people")
        people.insert(options.others)
    template_id = people.save_template(now=clock.now()).pk
    with told.telling(options.people) as running:
        alone = _one_page(running, template_id, options)
        if options.shared:
            _shared(running, template_id, options, alone_s=alone["again_s"])
    if options.pages:
        with told.telling(options.people * options.pages) as running:
            _many_pages(running, template_id, options, alone=alone)


def _one_page(running: RunningUserService, template_id: int, options: argparse.Namespace) -> Mapping[str, float]:
    """Seconds by figure."""

    def median(before: Callable[[int], object]) -> float:
        taken = []
        for number in range(options.runs):
            before(number)
            taken.append(_attempt(template_id, options.people))
        note(f"  {', '.join(f'{each:.3f}' for each in taken)}")
        return statistics.median(taken)

    told.answered_by(running)
    figures = {
        "first_s": median(lambda number: told.forget()),
        "again_s": median(lambda number: None),
        "changed_s": median(lambda number: _move_a_tenth(running, options.people, number)),
    }
    execute("VACUUM ANALYZE schedules_recipient, schedules_device")
    told.answered_by(None)
    local = median(lambda number: None)
    for figure, value in figures.items():
        emit(NAME, figure, value, "s", peer=PEER, ratio=local / value)
    emit(NAME, "local_s", local, "s")
    return figures


def _shared(running: RunningUserService, template_id: int, options: argparse.Namespace, *, alone_s: float) -> None:
    told.answered_by(running)
    asked_before = _pages_asked(running)
    for _ in range(options.shared):
        _plan(template_id)
    opened = len(dispatch.open_due(now=clock.now()).occurrence_ids)
    if opened != options.shared:
        raise SystemExit(f"{opened} runs opened of {options.shared}: nothing was measured.")
    begun = time.perf_counter()
    while waiting := dispatch.to_materialise():
        for occurrence_id in waiting:
            _materialise(occurrence_id, options.people)
            opened -= 1
    seconds = (time.perf_counter() - begun) / options.shared
    if opened:
        raise SystemExit(f"{opened} runs have no people yet: nothing was measured.")
    note(
        f"  {options.shared} runs: {_pages_asked(running) - asked_before} pages asked, {seconds * options.shared:.1f} s"
    )
    emit(NAME, "shared_pages", _pages_asked(running) - asked_before, "pages")
    emit(NAME, "shared_s", seconds, "s", peer=ALONE, ratio=alone_s / seconds)


def _many_pages(
    running: RunningUserService, template_id: int, options: argparse.Namespace, *, alone: Mapping[str, float]
) -> None:
    told.answered_by(running)
    told.forget()
    for kind in ("first_s", "again_s"):
        seconds = _attempt(template_id, options.people * options.pages) / options.pages
        note(f"  {options.pages} pages: {seconds * options.pages:.1f} s")
        emit(NAME, f"page_{kind}", seconds, "s", peer=ALONE, ratio=alone[kind] / seconds)


def _pages_asked(running: RunningUserService) -> int:
    return int(running.stats()["calls"].get("Page", 0))


def _attempt(template_id: int, count: int) -> float:
    """Seconds from the attempt's begin to its commit."""
    _plan(template_id)
    (occurrence_id,) = dispatch.open_due(now=clock.now()).occurrence_ids
    begun = time.perf_counter()
    _materialise(occurrence_id, count)
    seconds = time.perf_counter() - begun
    ((rows,),) = query("SELECT count(*) FROM delivery_delivery WHERE occurrence_id = %s", [occurrence_id])
    if rows != count:
        raise SystemExit(f"The ledger has {rows} rows in place of {count}: nothing was measured.")
    return seconds


def _plan(template_id: int) -> None:
    definition = Definition(
        name="Told", channel="email", template_id=template_id, schedule_type="once", run_at=clock.now(),
        audience_query=told.AUDIENCE, time_zone_mode="user_local",
    )  # fmt: skip
    operations.create(definition=definition, by="benchmark", now=clock.now())


def _materialise(occurrence_id: int, count: int) -> None:
    done = materialise.attempt(occurrence_id=occurrence_id, now=clock.now())
    if done is None or done.targeted != count:
        raise SystemExit(f"{count} people were to be found, and it came to {done}: nothing was measured.")


def _move_a_tenth(running: RunningUserService, count: int, number: int) -> None:
    now = datetime.now(UTC).isoformat()
    moved = range(number % 10, count, 10)
    running.put(*(told.profile(each, city=f"City {number}", updated=now) for each in moved))


if __name__ == "__main__":
    main()
