"""What is raised where a timing cannot be computed with. `checks` reports the same problems without raising."""

from __future__ import annotations

from schedules.problems import Problem


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
