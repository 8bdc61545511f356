"""The circuit of a channel: open while its provider refuses the account as a whole, so that nothing is burnt on it.

An open circuit is a row that every claim looks at (``delivery.ledger``). After a while one claim may pass as a probe;
its answer closes the circuit or keeps it open for longer. People who could not be sent to stay pending. Of several
providers each has one of its own besides (``of_provider``), at which ``delivery.routes`` looks.

A template that its service renders for nobody has one likewise: there claims come through once the time of a probe has
come, and the first who asks is it (``ask``).
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from django.db import connection, transaction

from audit import trail
from audit.models import Action
from delivery.models import Circuit
from delivery.providers import registry

log = structlog.get_logger(__name__)

# Real seconds until the first probe; each further opening doubles it, where the provider is asked by it.
FIRST_S = 30
LONGEST_S = 900
# Of templates: nobody's account suffers from being asked.
LONGEST_OF_TEMPLATES_S: Final = 300
# Real seconds for the answer of a probe of a template; without one the next probe follows.
PROBE_S: Final = 15
BY = "system:circuit"
OF_TEMPLATE: Final = "template:"


def of_template(template_id: int) -> str:
    """The scope of its circuit; ``ledger.unrendered`` says the same in SQL."""
    return f"{OF_TEMPLATE}{template_id}"


def of_provider(channel: str, name: str) -> str:
    """The scope of the circuit of one of the channel's several providers."""
    return f"{channel}:{name}"


def of_channel(channel: str) -> list[str]:
    """The scopes of its providers in their order: the channel's own where there is one alone."""
    names = registry.several(channel)
    return [of_provider(channel, name) for name in names] or [channel]


def asked(channel: str, passed_over: Collection[str]) -> str:
    """The scope of the channel's provider that is asked at present: the first whose circuit is not among these."""
    scopes = of_channel(channel)
    return next((scope for scope in scopes if scope not in passed_over), scopes[0])


class Leave(NamedTuple):
    """What circuits say to who would ask: by scope why he must not, and of which he is the probe."""

    held: dict[str, str]
    probes: set[str]


def ask(scopes: Collection[str]) -> Leave:
    """Look at these circuits, of templates or providers; those that nobody has opened are in neither."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH probe AS (
                UPDATE delivery_circuit SET probe_at = clock_timestamp() + make_interval(secs => %(probe)s)
                WHERE scope = ANY(%(scopes)s) AND probe_at <= clock_timestamp() RETURNING scope
            )
            SELECT c.scope, c.reason, p.scope IS NOT NULL
            FROM delivery_circuit c LEFT JOIN probe p USING (scope) WHERE c.scope = ANY(%(scopes)s)
            """,
            {"scopes": list(scopes), "probe": PROBE_S},
        )
        found = cursor.fetchall()
    held = {scope: reason for scope, reason, is_probe in found if not is_probe}
    return Leave(held, {scope for scope, _, is_probe in found if is_probe})


def open_circuit(
    scope: str, *, reason: str, detail: str, now: datetime, grows: bool = True, least_s: float = 0.0
) -> None:
    """The provider refuses the account: hold the channel. Or the template, or the provider, that ``scope`` names.

    Unless its wait ``grows``, one that is open for this reason stays as it is, and is probed each ``ledger.PROBE_S``.
    ``least_s``: real seconds for which it is left alone at least.
    """
    longest = LONGEST_OF_TEMPLATES_S if scope.startswith(OF_TEMPLATE) else LONGEST_S
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO delivery_circuit AS c (scope, reason, detail, opened_at, probe_at, openings)
            VALUES (%(scope)s, %(reason)s, %(detail)s, %(now)s,
                    clock_timestamp() + make_interval(secs => GREATEST(%(first)s, %(least)s)), 1)
            ON CONFLICT (scope) DO UPDATE SET
                reason = EXCLUDED.reason, detail = EXCLUDED.detail, openings = c.openings + 1,
                probe_at = clock_timestamp()
                           + make_interval(secs => GREATEST(
                                 LEAST(%(first)s * 2 ^ LEAST(c.openings, 20), %(longest)s), %(least)s))
                -- the answers of calls under way together are one opening
                WHERE %(grows)s AND c.probe_at < clock_timestamp() + make_interval(secs => %(first)s / 2.0)
                   OR c.reason <> EXCLUDED.reason
            RETURNING c.openings
            """,
            {
                "scope": scope,
                "reason": reason,
                "detail": detail,
                "now": now,
                "first": FIRST_S,
                "longest": longest if grows else FIRST_S,
                "least": least_s,
                "grows": grows,
            },
        )
        news = cursor.fetchone()
        if news:
            # What the provider says besides may name a person: it goes with the circuit, and stands neither here nor
            # in the log.
            changes = {**_named(scope), "reason": reason, "openings": news[0]}
            trail.record(action=Action.CIRCUIT_OPEN, by=BY, now=now, changes=changes)
    if news:
        log.error("circuit_open", **_named(scope), reason=reason)


def close_circuit(scope: str, *, now: datetime) -> None:
    """The provider takes messages again, or the service renders the template."""
    with transaction.atomic():
        closed = Circuit.objects.filter(scope=scope).delete()[0]
        if closed:
            trail.record(action=Action.CIRCUIT_CLOSE, by=BY, now=now, changes=_named(scope))
    if closed:
        log.warning("circuit_closed", **_named(scope))


def _named(scope: str) -> dict[str, str | int]:
    """As the audit and the log have it."""
    kind, _colon, name = scope.partition(":")
    if scope.startswith(OF_TEMPLATE):
        return {"template": int(name)}
    return {"channel": kind, "provider": name} if name else {"channel": kind}
