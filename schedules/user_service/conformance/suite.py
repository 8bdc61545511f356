"""All checks, in their order."""

from __future__ import annotations

from typing import Final

from schedules.remote.checking import Check
from schedules.user_service.conformance import answers, paging, selecting
from schedules.user_service.conformance.subject import Subject

CHECKS: Final[tuple[Check[Subject], ...]] = (*answers.CHECKS, *paging.CHECKS, *selecting.CHECKS)
