"""Which of a channel's providers takes the next calls, where the setting names several.

The first is the one to be asked. It has a circuit of its own (``delivery.circuits``), which opens when it refuses the
account, and when it was away for some calls one after another. Meanwhile the next in the list takes its place, and one
message now and then asks how it is. The channel is held, as one with a single provider is, when all are passed over.

An unclear outcome changes no provider: what one may have accepted is never handed to another.
"""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from django.db import InterfaceError, OperationalError

from delivery import circuits
from delivery.models import Circuit
from delivery.providers import registry
from delivery.providers.base import Answer, Provider, Verdict

log = structlog.get_logger(__name__)

# Calls of one process, one after another, to which the provider gave nobody an answer of its own.
AWAY_CALLS: Final = 3
# Real seconds for which a process believes what it has read of the circuits.
_FRESH_S: Final = 1.0
# What is said, or not said, by a provider that is away.
_AWAY: Final = frozenset({"unreachable", "provider_error", "no_answer"})
# Answers that a provider gives only where it has nothing against the account.
_ACCOUNT_WORKS: Final = (Verdict.SENT, Verdict.PERMANENT, Verdict.THROTTLED)


class Route(NamedTuple):
    """A provider, and the scope of its circuit: the channel's where it is the only one. ``is_probe``: a call asks
    whether it works again."""

    channel: str
    provider: Provider
    scope: str
    is_probe: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether the channel has no other provider."""
        return self.scope == self.channel

    @property
    def repeats_unknown(self) -> bool:
        """Whether it may be asked again where nobody knows what became of a call: of several none, for a repeat by
        another would be a second message."""
        return self.is_alone and self.provider.repeats_unknown


class Routes(NamedTuple):
    """Of a channel at this moment: the ``route`` of calls, and that of one ``probe`` where its time has come."""

    route: Route
    probe: Route | None = None


_read_at: dict[str, tuple[float, frozenset[str]]] = {}
_away: Counter[str] = Counter()


def of(channel: str) -> Routes:
    """Raises ImproperlyConfigured."""
    chain = registry.chain(channel)
    if len(chain) == 1:
        return Routes(Route(channel, chain[0], channel))
    routes = [Route(channel, each, scope) for each, scope in zip(chain, circuits.of_channel(channel), strict=True)]
    read_at, passed_over = _read_at.get(channel, (0.0, frozenset()))
    probes: set[str] = set()
    if time.monotonic() - read_at >= _FRESH_S:
        try:
            leave = circuits.ask([route.scope for route in routes])
        except (OperationalError, InterfaceError) as error:  # people are claimed already: what was known last will do
            log.warning("database_away", error=error)
        else:
            probes, passed_over = leave.probes, frozenset({*leave.held, *leave.probes})
            _read_at[channel] = (time.monotonic(), passed_over)
    # None left: the channel itself is held then, and whoever comes through is its probe.
    route = next((route for route in routes if route.scope not in passed_over), routes[0])
    probe = next((each._replace(is_probe=True) for each in routes if each.scope in probes), None)
    return Routes(route, probe)


def learn(route: Route, answers: Sequence[Answer], *, is_probe: bool, now: datetime) -> None:
    """What a call's answers mean for those that follow. ``is_probe``: it went through the channel's open circuit."""
    refused = next((each for each in answers if each.verdict is Verdict.MISCONFIGURED), None)
    asked = [answer for answer in answers if answer.asked]
    if refused:
        _pass_over(route, refused, now=now)
    elif (is_probe or route.is_probe) and any(each.verdict in _ACCOUNT_WORKS for each in asked):
        _works(route, now=now)
    elif not route.is_alone and asked:
        is_away = all(each.verdict is not Verdict.SENT and each.reason in _AWAY for each in asked)
        _away[route.scope] = _away[route.scope] + 1 if is_away else 0
        if _away[route.scope] >= AWAY_CALLS or (is_away and route.is_probe):
            _pass_over(route, asked[0], now=now)


def _pass_over(route: Route, answer: Answer, *, now: datetime) -> None:
    circuits.open_circuit(route.scope, reason=answer.reason, detail=answer.detail, now=now)
    if route.is_alone:
        return
    _forget(route)
    scopes = circuits.of_channel(route.channel)
    if Circuit.objects.filter(scope__in=scopes).count() == len(scopes):
        circuits.open_circuit(route.channel, reason=answer.reason, detail=answer.detail, now=now)


def _works(route: Route, *, now: datetime) -> None:
    circuits.close_circuit(route.scope, now=now)
    if not route.is_alone:
        circuits.close_circuit(route.channel, now=now)
        _forget(route)


def _forget(route: Route) -> None:
    _read_at.pop(route.channel, None)
    _away.pop(route.scope, None)


def forget() -> None:
    """Of tests: as a process that has just begun."""
    _read_at.clear()
    _away.clear()
