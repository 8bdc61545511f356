"""What can be wrong with a timing, said in a way that a form, the API and a log can all show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a timing.

    `field` is the public name ("cron", "runAt", ...), `code` is stable and meant for programs,
    `message` says what is wrong and what to write instead.
    """

    field: str
    code: str
    message: str


class InvalidTiming(ValueError):
    """A timing that cannot be computed with. Carries `field`, `code` and `message` of its problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.field}: {problem.message}")
        self.problem = problem
        self.field = problem.field
        self.code = problem.code
        self.message = problem.message


class UnknownZone(InvalidTiming):
    """A name that is not in the pinned zone data."""
