"""What a check is, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from schedules.user_service.conformance.subject import Subject


class Failed(Exception):
    """What came instead of what the contract says."""


class Skipped(Exception):
    """Nothing can be told; the words say why."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(NamedTuple):
    """``ask`` says what came, or raises ``Failed``, ``Skipped`` or ``UserServiceError``.

    ``contract``: what must come; ``remedy``: what to look at when it does not; ``needs``: names of checks without which
    this one would tell nothing.
    """

    name: str
    contract: str
    remedy: str
    ask: Callable[[Subject], str]
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
