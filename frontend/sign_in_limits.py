"""How often a password may be tried: django-axes, which counts failures by account and by address.

Axes asks first and counts afterwards, so that fifty tries at once would all be let through. Here tries at one account
wait for each other (``turn``), and the eleventh finds ten failures. Programs that sign in by OAuth pass none of this:
their secrets are 128 characters of chance, and an account must not be locked by whoever knows a client's id.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

# What one turn may wait: ten tries before it hash a password each, those after them are refused without.
_TURN_MS = 15_000


class Handler(AxesDatabaseHandler):  # type: ignore[misc]
    """``AXES_HANDLER``. An address may fail more often than an account: a whole office may share it."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Failures as axes compares them with the account's limit."""
        by_account, by_address = (
            attempts.aggregate(tries=Sum("failures_since_start"))["tries"] or 0
            for attempts in self.get_user_attempts(request, credentials)
        )
        if request.axes_ip_address is None:  # type: ignore[attr-defined]
            return int(by_account)
        share = by_address * settings.AXES_FAILURE_LIMIT // settings.SIGN_IN_TRIES_PER_ADDRESS
        return int(max(by_account, share))


@contextmanager
def turn(username: str) -> Iterator[None]:
    """One try at the account ``username`` at a time, in a transaction.

    Raises OperationalError after 15 s of waiting. What is raised inside undoes the count: hold it until afterwards.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{_TURN_MS}ms"])
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sign-in {username}"])
        yield


def purge() -> int:
    """Throw away tries that count no more, with the names that were typed and where they came from; how many."""
    return int(AccessAttempt.objects.filter(attempt_time__lte=timezone.now() - settings.AXES_COOLOFF_TIME).delete()[0])


def client_address(request: HttpRequest) -> str | None:
    """``AXES_CLIENT_IP_CALLABLE``: who is at the other end; None where that is a socket in a folder.

    ``X-Forwarded-For`` is read from its end, and only as far as ``TRUSTED_PROXIES`` have written it: what stands before
    is the visitor's own say. Of an IPv6 address the first 64 bits count, as the rest is free to whoever has one.
    """
    hops = [request.META.get("REMOTE_ADDR", ""), *reversed(request.headers.get("X-Forwarded-For", "").split(","))]
    found = None
    for hop in hops:
        try:
            address = ip_address(_without_port(hop.strip()))
        except ValueError:
            break
        found = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        if not any(found in network for network in settings.TRUSTED_PROXIES):
            break
    if isinstance(found, IPv6Address):
        return str(IPv6Network((found, 64), strict=False).network_address)
    return str(found) if found else None


def _without_port(hop: str) -> str:
    """Some proxies add it: ``198.51.100.1:4711``, ``[2001:db8::1]:4711``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def refused(request: HttpRequest, response: HttpResponse, credentials: dict[str, Any] | None = None) -> HttpResponse:
    """``AXES_LOCKOUT_CALLABLE``: the login page as it is, whose form says why, with the status that means it."""
    response.status_code = 429
    response["Retry-After"] = str(int(settings.AXES_COOLOFF_TIME.total_seconds()))
    return response
