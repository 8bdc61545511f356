"""System checks: settings with which the service would stand still, or that must not reach production."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.http.request import validate_host

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


def check_public_url(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``check --deploy``: people can unsubscribe. ``delivery.E010``, ``E011``, ``W012``."""
    given = settings.PUBLIC_URL
    if not given:
        said = "E-mails have no link to unsubscribe: mailboxes ask for one, and so does the law."
        hint = "Set PUBLIC_URL to the https address of this service that people reach (docs/consent.md)."
        return [Warning(said, hint=hint, id="delivery.W012")]
    url = urlsplit(given)
    if url.scheme != "https" or not url.hostname or url.query or url.fragment:
        hint = "Set PUBLIC_URL to an address such as https://mail.example.com: mailboxes unsubscribe by https alone."
        return [Error(f"PUBLIC_URL is {given!r}.", hint=hint, id="delivery.E010")]
    if not validate_host(url.hostname, settings.ALLOWED_HOSTS):
        hint = f"Add {url.hostname} to ALLOWED_HOSTS, or correct PUBLIC_URL."
        return [Error("Links in messages lead to a host that is refused.", hint=hint, id="delivery.E011")]
    return []


def check_test_clock(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``check --deploy``: a clock that anyone can advance sends tomorrow's messages today. ``delivery.E002``."""
    if not settings.TEST_CLOCK:
        return []
    return [Error("The test clock is on.", hint="Take TEST_CLOCK out of the environment.", id="delivery.E002")]
