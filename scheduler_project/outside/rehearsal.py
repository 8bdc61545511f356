"""A rehearsal of the load: one schedule to many marked people, timed by the ledger and by a program that looks on."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from scheduler_project.outside import bulk, runs, traces
from scheduler_project.outside.client import Client, OutsideError
from scheduler_project.outside.traces import Marks
from scheduler_project.outside.waiting import PAUSE_S, until

MARKS: Final = Marks(name="Load test", tag="load-test", prefix="load-test-")
# Addresses at which Amazon takes every message and shows it nobody.
_ADDRESS: Final = "success+{}@simulator.amazonses.com"
_PIECE: Final = 1_000  # people in one request
_AHEAD: Final = timedelta(seconds=15)
# Parts of a host's name by which it says that nobody's customers are behind it.
_REHEARSING: Final = {"staging", "stage", "test", "dev", "demo", "canary", "localhost"}


@dataclass(frozen=True)
class Report:
    """Seconds, but for people and shares. Lateness: from the instant promised to the start of the first call."""

    people: int
    outcomes: dict[str, int]
    first_call_late: float
    late_p50: float
    late_p99: float
    until_last: float
    per_second: float
    api_requests: int
    api_failures: int
    api_p50: float
    api_p99: float
    books_close: bool
    differences: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Everybody was sent to, the books close, and the API failed nobody who looked on."""
        return self.outcomes == {"sent": self.people} and self.books_close and not self.api_failures


def looks_like_production(url: str) -> bool:
    """Whether nothing in the host's name says that it is for rehearsals, or is this machine."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return not ip_address(host).is_loopback
    return not _REHEARSING & set(host.replace("-", ".").split("."))


@dataclass
class Rehearsal:
    """``patience_s`` is for the whole run, from the instant to the last outcome."""

    client: Client
    channel: str
    people: int
    patience_s: float
    _asked: list[float] = field(default_factory=list)
    _failures: int = 0

    def make_people(self) -> None:
        """As many as are wanted, those that are there already as they shall be. Raises ``OutsideError``."""
        traces.people(self.client, MARKS)  # nobody who is called so may be a stranger
        for begin in range(0, self.people, _PIECE):
            piece = range(begin, min(begin + _PIECE, self.people))
            bulk.put(self.client, map(self._person, piece), query="bringBack=true")

    def clean(self, *, with_people: bool) -> None:
        """Take away whatever a rehearsal made, this one or another. Raises ``OutsideError``."""
        traces.without_people(self.client, MARKS)
        if with_people:
            traces.erase(self.client, traces.people(self.client, MARKS))

    def run(self) -> Report:
        """Send, look on, and count. Raises ``OutsideError``."""
        schedule = runs.make(
            self.client,
            name=MARKS.name,
            channel=self.channel,
            subject="A rehearsal",
            text="For {{ first_name }}.",
            audience={"field": "tags", "op": "contains", "value": MARKS.tag},
            ahead=_AHEAD,
        )
        with self._looking_on(schedule):
            run = until(
                lambda: runs.ended(self.client, schedule),
                seconds=_AHEAD.total_seconds() + self.patience_s,
                otherwise="not everybody had an outcome: see the workers' logs and manage.py books",
            )
        found = self.client.get(f"occurrences/{run['id']}", rows="true")
        return self._counted(found, list(self.client.every("deliveries", occurrence=run["id"])))

    def _person(self, number: int) -> dict[str, Any]:
        person: dict[str, Any] = {"externalId": f"{MARKS.prefix}{number:06}", "tags": [MARKS.tag], "timeZone": "UTC"}
        return person | ({"email": _ADDRESS.format(f"{MARKS.prefix}{number:06}")} if self.channel == "email" else {})

    @contextmanager
    def _looking_on(self, schedule: int) -> Iterator[None]:
        """Meanwhile a program asks for the schedule, over and over."""
        going = [True]

        def look() -> None:
            while going:
                began = time.monotonic()
                try:
                    self.client.get(f"schedules/{schedule}")
                except OutsideError:
                    self._failures += 1
                self._asked.append(time.monotonic() - began)
                time.sleep(PAUSE_S / 5)

        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(look)
            try:
                yield
            finally:
                going.clear()
                looking.result()

    def _counted(self, occurrence: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Report:
        instant = datetime.fromisoformat(occurrence["occurrenceAt"])
        called = sorted(_seconds(instant, row["calledAt"]) for row in rows if row["calledAt"] and row["attempt"] == 1)
        settled = [_seconds(instant, row["settledAt"]) for row in rows if row["settledAt"]]
        last = max(settled, default=0.0)
        asked = sorted(self._asked)
        return Report(
            people=self.people,
            outcomes={state: number for state, number in occurrence["counted"].items() if number},
            first_call_late=called[0] if called else 0.0,
            late_p50=_percentile(called, 50),
            late_p99=_percentile(called, 99),
            until_last=last,
            per_second=len(settled) / last if last > 0 else 0.0,
            api_requests=len(asked),
            api_failures=self._failures,
            api_p50=_percentile(asked, 50),
            api_p99=_percentile(asked, 99),
            books_close=occurrence["books"]["closes"] and len(rows) == self.people,
            differences=occurrence["books"]["differences"],
        )


def _seconds(begin: datetime, end: str) -> float:
    return (datetime.fromisoformat(end) - begin).total_seconds()


def _percentile(values: Sequence[float], share: int) -> float:
    """Of sorted ones, the nearest rank; 0 of none."""
    return values[min(len(values) - 1, len(values) * share // 100)] if values else 0.0
