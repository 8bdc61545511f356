"""All checks, in their order."""

from __future__ import annotations

from typing import Final

from schedules.remote.checking import Check
from schedules.template_service.conformance import listing, rendering
from schedules.template_service.conformance.subject import Subject

CHECKS: Final[tuple[Check[Subject], ...]] = (*listing.CHECKS, *rendering.CHECKS)
