"""System checks: what must not reach production."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error


def check_test_clock(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``check --deploy``: a clock that anyone can advance sends tomorrow's messages today. ``delivery.E002``."""
    if not settings.TEST_CLOCK:
        return []
    return [Error("The test clock is on.", hint="Take TEST_CLOCK out of the environment.", id="delivery.E002")]
