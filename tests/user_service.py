"""The reference of the user service, for tests: who put people in takes them out again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from delivery import materialise
from delivery.models import Delivery
from schedules.models import LeftAlone, Occurrence, Recipient, Resolution, ServedCount
from schedules.user_service import client
from stubs.testing import RunningUserService, running_user_service
from tests.factories import NOW

TOKEN = "of-the-test"
# Before the instant at which tests take place, so that it is no future for them.
LONG_SINCE = datetime(2026, 11, 1, tzinfo=UTC)


def profile(external_id: str, **members: Any) -> dict[str, Any]:
    """A profile of the contract with an address, last changed long since."""
    address = {"email": f"{external_id}@example.com"}
    return {"externalId": external_id, **address, "updatedAt": LONG_SINCE.isoformat(), **members}


def said_at(days: int) -> str:
    """``updatedAt`` of a change so many days after ``LONG_SINCE``."""
    return (LONG_SINCE + timedelta(days=days)).isoformat()


@dataclass
class UserService:
    """Knows nobody at first, behaves well, and counts its calls from zero."""

    running: RunningUserService
    known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._calls_before = self._calls()

    def put(self, *profiles: dict[str, Any]) -> None:
        self.known |= {each["externalId"] for each in profiles}
        self.running.put(*profiles)

    def put_people(self, count: int, **members: Any) -> list[str]:
        """So many people, by name ``person-001`` and on; in that order they come."""
        names = [f"person-{number:03}" for number in range(1, count + 1)]
        self.put(*(profile(name, **members) for name in names))
        return names

    def remove(self, external_id: str) -> None:
        self.known.discard(external_id)
        self.running.remove(external_id)

    def fault(self, kind: str, **rule: Any) -> None:
        """One rule in the place of those in force; ``at``: the pages that it concerns, by a glob for their cursors."""
        match = {"operation": "Page", "to": rule.pop("at", "*")}
        self.running.fault({"kind": kind, "match": match, **rule})

    @property
    def pages_asked(self) -> int:
        return self._calls() - self._calls_before

    def _calls(self) -> int:
        return int(self.running.stats()["calls"].get("Page", 0))


@contextmanager
def used_by(settings: Any, running: RunningUserService) -> Iterator[UserService]:
    """Audiences are answered by the reference."""
    settings.USER_SERVICE_URL, settings.USER_SERVICE_TOKEN = running.url, running.token
    made = UserService(running)
    try:
        yield made
    finally:
        running.clear_faults()
        for external_id in made.known:
            running.remove(external_id)


@contextmanager
def running_reference() -> Iterator[RunningUserService]:
    with running_user_service(token=TOKEN) as running:
        yield running


def attempt(occurrence: Occurrence) -> Occurrence:
    """One attempt to materialise, whatever it was put off for; the occurrence afterwards."""
    let_ask()
    Occurrence.objects.filter(pk=occurrence.pk).update(materialise_lease_until=None, materialise_queued_at=None)
    materialise.attempt(occurrence_id=occurrence.pk, now=NOW)
    return Occurrence.objects.get(pk=occurrence.pk)


def let_ask() -> None:
    """Nobody asks the service at this moment, and nobody leaves it alone."""
    Resolution.objects.update(asked_by=None, asked_until=None)
    LeftAlone.objects.all().delete()


def forget_counts() -> None:
    """Nobody remembers how many people the service counted, or that it did not answer."""
    ServedCount.objects.all().delete()
    LeftAlone.objects.all().delete()


def named(occurrence: Occurrence) -> list[str]:
    """Who has a row, by external id."""
    rows = Delivery.objects.filter(occurrence_id=occurrence.pk).values("recipient_id")
    return sorted(Recipient.objects.filter(pk__in=rows).values_list("external_id", flat=True))


def interrupting(patched: Any, at: int, do: Callable[[], object]) -> None:
    """``do()`` comes before the page of that number is asked for."""
    asked = iter(range(1, 1_000))
    real = client.read_page

    def read_page(audience: Any, **arguments: Any) -> client.Page:
        if next(asked) == at:
            do()
        return real(audience, **arguments)

    patched.setattr(client, "read_page", read_page)


class Crash(Exception):
    """As if the worker died."""


def crash() -> None:
    raise Crash
