"""What providers' accounts allow: read now and then by one process, kept for all in a table; ``pace`` holds to it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from delivery import circuits
from delivery.models import Circuit, ProviderAccount
from delivery.pace import NONE, Limits
from delivery.providers import registry
from delivery.providers.base import Provider, ProviderError
from schedules import clock

log = structlog.get_logger(__name__)

DAILY_QUOTA: Final = "daily_quota"
# Real time for which it is believed how many are left; after that the rate alone counts.
_BELIEVED: Final = timedelta(hours=1)
# Real seconds for which a process believes what it has read of the table.
_FRESH_S: Final = 5.0

_read: dict[str, tuple[float, Limits]] = {}


def limits(channel: str, provider: Provider, scope: str) -> Limits:
    """Of the provider's account, and of the setting MOST_PER_S. What was known last, while the database is away.

    An account that nobody has asked for yet is asked for here: nothing goes before it is known what may.
    """
    read_at, found = _read.get(scope, (0.0, NONE))
    if not read_at or time.monotonic() - read_at >= _FRESH_S:
        try:
            found = _limits(channel, provider, scope)
        except (OperationalError, InterfaceError) as error:
            log.warning("database_away", error=error)
        else:
            _read[scope] = time.monotonic(), found
    return found


def least_bucket(channel: str) -> int | None:
    """The most people that the account of any of the channel's providers lets through at once; None: any number."""
    scopes = zip(circuits.of_channel(channel), registry.chain(channel), strict=True)
    found = [limits(channel, provider, scope).bucket for scope, provider in scopes if not provider.transactional]
    return min((bucket for bucket in found if bucket is not None), default=None)


def known_rate(channel: str) -> float | None:
    """People a second that the channel's provider may be sent to, as far as it is known here; None: any number.

    Nobody is asked for it. Of several providers it is the one that is asked at present: one behind it that lets
    any number through would have the queue filled with minutes of the first one's work.
    """
    scope = circuits.asked(channel, set(Circuit.objects.values_list("scope", flat=True)))
    kept = ProviderAccount.objects.filter(scope=scope).values_list("per_s", flat=True).first()
    return min((rate for rate in (settings.MOST_PER_S.get(channel), kept) if rate), default=None)


def refresh(*, now: datetime) -> int:
    """Ask after every account that allows so much and no more; how many told. Of the others the last answer is kept."""
    told = 0
    for channel in settings.PROVIDERS:
        try:
            chain = registry.chain(channel)
        except ImproperlyConfigured as error:  # whoever sends by it says so louder
            log.warning("provider_unusable", channel=channel, error=error)
            continue
        for scope, provider in zip(circuits.of_channel(channel), chain, strict=True):
            told += provider.has_quota and _ask(provider, scope, now=now)
    return told


def forget() -> None:
    """As in a process that has just begun."""
    _read.clear()


def _ask(provider: Provider, scope: str, *, now: datetime) -> bool:
    read_at = timezone.now()
    try:
        quota = provider.quota()
    except ProviderError as error:
        log.warning("quota_not_told", provider=provider.name, reason=error.reason)
        ProviderAccount.objects.get_or_create(scope=scope, defaults={"read_at": read_at})
        return False
    left = None if quota.per_day is None else max(quota.per_day - quota.used, 0)
    facts = {"per_s": quota.per_s, "per_day": quota.per_day, "left": left, "read_at": read_at}
    ProviderAccount.objects.update_or_create(scope=scope, defaults=facts)
    if left == 0:
        circuits.open_circuit(scope, reason=DAILY_QUOTA, detail=f"{quota.per_day} in 24 hours", now=now, grows=False)
    elif left and Circuit.objects.filter(scope=scope, reason=DAILY_QUOTA).exists():
        circuits.close_circuit(scope, now=now)
    return True


def _limits(channel: str, provider: Provider, scope: str) -> Limits:
    kept = _account(provider, scope) if provider.has_quota else None
    rates = [rate for rate in (settings.MOST_PER_S.get(channel), kept.per_s if kept else None) if rate]
    per_s = min(rates, default=None)
    if kept is None or kept.left is None or timezone.now() - kept.read_at > _BELIEVED:
        return Limits(per_s)
    return Limits(per_s, kept.left, kept.read_at.astimezone(UTC).isoformat())


def _account(provider: Provider, scope: str) -> ProviderAccount | None:
    kept = ProviderAccount.objects.filter(scope=scope).first()
    if kept is None:
        _ask(provider, scope, now=clock.now())
        kept = ProviderAccount.objects.filter(scope=scope).first()
    return kept
