"""System checks: settings with which the service would stand still, or that must not reach production."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from delivery.providers import registry

# The least with which anything moves. A tick takes a tenth of the window at once.
_LEAST = {"BATCH_SIZE": 1, "CALLS_IN_FLIGHT": 1, "PUBLISH_WINDOW_ROWS": 10}


def check_providers(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``check --deploy``: every channel's provider can be made. ``delivery.E001``, one message per channel."""
    problems: list[CheckMessage] = []
    for channel in settings.PROVIDERS:
        try:
            registry.for_channel(channel)
        except ImproperlyConfigured as error:
            hint = "Correct the setting or its environment variable and start again."
            problems.append(Error(str(error), hint=hint, obj=f"PROVIDERS[{channel!r}]", id="delivery.E001"))
    return problems


def check_sizes(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """A size with which nothing would ever be sent. ``delivery.E003``, one message per setting."""
    return [
        Error(f"{name} is {getattr(settings, name)}: nothing would ever be sent.", hint=hint, id="delivery.E003")
        for name, least in _LEAST.items()
        if getattr(settings, name) < least
        for hint in (f"Set {name} to {least} or more, or take it out of the environment.",)
    ]


def check_test_clock(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``check --deploy``: a clock that anyone can advance sends tomorrow's messages today. ``delivery.E002``."""
    if not settings.TEST_CLOCK:
        return []
    return [Error("The test clock is on.", hint="Take TEST_CLOCK out of the environment.", id="delivery.E002")]
