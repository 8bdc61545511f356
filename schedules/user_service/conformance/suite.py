"""All checks, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from schedules.user_service.conformance import answers, paging, selecting
from schedules.user_service.conformance.checks import Check, Failed, Outcome, Result, Skipped
from schedules.user_service.conformance.subject import Subject
from schedules.user_service.errors import UserServiceError

CHECKS: Final[tuple[Check, ...]] = (*answers.CHECKS, *paging.CHECKS, *selecting.CHECKS)


def run(subject: Subject, *, on_check: Callable[[Check], None] = lambda check: None) -> Iterator[Result]:
    """The result of each check, in their order; ``on_check`` is told before one begins.

    A check without which others would tell nothing makes them skipped when it does not pass.
    """
    passed: set[str] = set()
    for check in CHECKS:
        on_check(check)
        missing = [name for name in check.needs if name not in passed]
        began = time.monotonic()
        subject.asked = ""
        outcome, came = (Outcome.SKIPPED, f"needs {missing[0]}") if missing else _became(check, subject)
        if outcome is Outcome.PASSED:
            passed.add(check.name)
        seconds = time.monotonic() - began
        yield Result(check.name, outcome, subject.asked, came, check.contract, check.remedy, seconds)


def _became(check: Check, subject: Subject) -> tuple[Outcome, str]:
    try:
        return Outcome.PASSED, check.ask(subject)
    except Failed as failed:
        return Outcome.FAILED, str(failed)
    except Skipped as skipped:
        return Outcome.SKIPPED, str(skipped)
    except UserServiceError as error:
        return Outcome.FAILED, f"it {error.reason}"
