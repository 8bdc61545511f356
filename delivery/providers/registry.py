"""Which provider serves which channel: the setting PROVIDERS, e.g. {"email": "ses", "push": "outbox"}.

A provider of one's own is named by its dotted path instead: {"email": "shop.mail.OurProvider"}.
"""

from __future__ import annotations

from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from delivery.providers.base import Provider

# Paths, not classes: a process imports the libraries of those providers only that it uses.
BUILT_IN = {
    "fcm": "delivery.providers.fcm.FcmProvider",
    "in_app": "delivery.providers.in_app.InAppProvider",
    "outbox": "delivery.providers.outbox.OutboxProvider",
    "ses": "delivery.providers.ses.SesProvider",
}
# Those with `repeats_unknown`, told here too so that asking for it imports none of them.
REPEATING = frozenset({"fcm", "in_app", "outbox"})


@cache
def for_channel(channel: str) -> Provider:
    """The channel's provider, one per process; raises ImproperlyConfigured naming what to change."""
    name = settings.PROVIDERS.get(channel)
    if name is None:
        raise ImproperlyConfigured(f"PROVIDERS names no provider for {channel!r}: add one of {_choices()}.")
    provider = _class(name).from_settings()
    if channel not in provider.channels:
        served = ", ".join(sorted(provider.channels))
        raise ImproperlyConfigured(f"PROVIDERS[{channel!r}] is {name!r}, which serves {served} only.")
    return provider


def repeats_unknown(channel: str) -> bool:
    """Whether the channel's provider may be called again where nobody knows what became of a call."""
    name = settings.PROVIDERS.get(channel, "")
    return name in REPEATING if name in BUILT_IN else _class(name).repeats_unknown


def _class(name: str) -> type[Provider]:
    path = name if "." in name else BUILT_IN.get(name)
    if path is None:
        raise ImproperlyConfigured(f"PROVIDERS names {name!r}: use one of {_choices()}, or a dotted path.")
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"PROVIDERS names {name!r}, which can't be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Provider)):
        raise ImproperlyConfigured(f"PROVIDERS names {name!r}, which is no Provider.")
    return found


def _choices() -> str:
    return ", ".join(sorted(BUILT_IN))
