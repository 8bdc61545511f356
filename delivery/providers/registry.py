"""Which providers serve which channel: the setting PROVIDERS, e.g. {"email": "ses,smtp", "push": "outbox"}.

The first of several is the one to be asked; the next takes its place while it is away or refuses the account
(`delivery.routes`). A provider of one's own is named by its dotted path instead: {"email": "shop.mail.OurProvider"}.
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
    "smtp": "delivery.providers.smtp.SmtpProvider",
    "webhook": "delivery.providers.webhook.WebhookProvider",
}
# Those with `repeats_unknown`, told here too so that asking for it imports none of them.
REPEATING = frozenset({"fcm", "in_app", "outbox", "webhook"})


def for_channel(channel: str) -> Provider:
    """The channel's provider, the first where it has several; raises ImproperlyConfigured naming what to change."""
    return chain(channel)[0]


@cache
def chain(channel: str) -> tuple[Provider, ...]:
    """The channel's providers, one of each per process; raises ImproperlyConfigured naming what to change."""
    named = names(channel)
    if not named:
        raise ImproperlyConfigured(f"PROVIDERS names no provider for {channel!r}: add one of {_choices()}.")
    made = tuple(_made(channel, name) for name in named)
    if len(set(named)) < len(named):
        raise ImproperlyConfigured(f"PROVIDERS[{channel!r}] names a provider twice: name each once.")
    if len(made) > 1 and (own := [each.name for each in made if each.transactional]):
        raise ImproperlyConfigured(
            f"PROVIDERS[{channel!r}] names {own[0]!r} among others: it writes into our own database, so that it can"
            " neither take another's place nor have its own taken. Name it alone, or leave it out."
        )
    return made


def repeats_unknown(channel: str) -> bool:
    """Whether the channel's provider may be called again where nobody knows what became of a call.

    Of several none: a repeat by another would be a second message.
    """
    named = names(channel)
    if len(named) != 1:
        return False
    (name,) = named
    return name in REPEATING if name in BUILT_IN else _class(name).repeats_unknown


def names(channel: str) -> list[str]:
    """As the setting has them, in their order."""
    return [name.strip() for name in settings.PROVIDERS.get(channel, "").split(",") if name.strip()]


def several(channel: str) -> list[str]:
    """The same, where there is more than one."""
    named = names(channel)
    return named if len(named) > 1 else []


def _made(channel: str, name: str) -> Provider:
    provider = _class(name).from_settings()
    if channel not in provider.channels:
        served = ", ".join(sorted(provider.channels))
        raise ImproperlyConfigured(f"PROVIDERS[{channel!r}] is {name!r}, which serves {served} only.")
    return provider


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
