"""Checks of a service against its contract: what one is, what became of it, and all of them one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from schedules.remote.errors import ServiceError


class Subject(Protocol):
    """The service under check. ``asked``: the last request, as it is told."""

    asked: str


S = TypeVar("S", bound=Subject)


class Failed(Exception):
    """What came instead of what the contract says."""


class Skipped(Exception):
    """Nothing can be told; the words say why."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(NamedTuple, Generic[S]):
    """``ask`` says what came, or raises ``Failed``, ``Skipped`` or ``ServiceError``.

    ``contract``: what must come; ``remedy``: what to look at when it does not; ``needs``: names of checks without which
    this one would tell nothing.
    """

    name: str
    contract: str
    remedy: str
    ask: Callable[[S], str]
    needs: tuple[str, ...] = ()


class Result(NamedTuple):
    """``asked``: the last request of the check; empty where none was made."""

    name: str
    outcome: Outcome
    asked: str
    came: str
    contract: str
    remedy: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "outcome": str(self.outcome), "seconds": round(self.seconds, 3)}


def run(
    checks: Sequence[Check[S]], subject: S, *, on_check: Callable[[Check[S]], None] = lambda check: None
) -> Iterator[Result]:
    """The result of each check, in their order; ``on_check`` is told before one begins.

    A check without which others would tell nothing makes them skipped when it does not pass.
    """
    passed: set[str] = set()
    for check in checks:
        on_check(check)
        missing = [name for name in check.needs if name not in passed]
        began = time.monotonic()
        subject.asked = ""
        outcome, came = (Outcome.SKIPPED, f"needs {missing[0]}") if missing else _became(check, subject)
        if outcome is Outcome.PASSED:
            passed.add(check.name)
        seconds = time.monotonic() - began
        yield Result(check.name, outcome, subject.asked, came, check.contract, check.remedy, seconds)


def _became(check: Check[S], subject: S) -> tuple[Outcome, str]:
    try:
        return Outcome.PASSED, check.ask(subject)
    except Failed as failed:
        return Outcome.FAILED, str(failed)
    except Skipped as skipped:
        return Outcome.SKIPPED, str(skipped)
    except ServiceError as error:
        return Outcome.FAILED, f"it {error.reason}"
