"""The circuit of a channel: open while its provider refuses the account as a whole, so that nothing is burnt on it.

An open circuit is a row that every claim looks at (``delivery.ledger``). After a while one claim may pass as a probe;
its answer closes the circuit or keeps it open for longer. People who could not be sent to stay pending.
"""

from datetime import datetime

import structlog
from django.db import connection, transaction

from audit import trail
from audit.models import Action
from delivery.models import Circuit

log = structlog.get_logger(__name__)

# Real seconds until the first probe; each further opening doubles it, where the provider is asked by it.
FIRST_S = 30
LONGEST_S = 900
BY = "system:circuit"


def open_circuit(channel: str, *, reason: str, detail: str, now: datetime, grows: bool = True) -> None:
    """The provider refuses the account: hold the channel.

    Unless its wait ``grows``, one that is open for this reason stays as it is, and is probed each ``ledger.PROBE_S``.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO delivery_circuit AS c (channel, reason, detail, opened_at, probe_at, openings)
            VALUES (%(channel)s, %(reason)s, %(detail)s, %(now)s,
                    clock_timestamp() + make_interval(secs => %(first)s), 1)
            ON CONFLICT (channel) DO UPDATE SET
                reason = EXCLUDED.reason, detail = EXCLUDED.detail, openings = c.openings + 1,
                probe_at = clock_timestamp()
                           + make_interval(secs => LEAST(%(first)s * 2 ^ LEAST(c.openings, 20), %(longest)s))
                -- the answers of calls under way together are one opening
                WHERE %(grows)s AND c.probe_at < clock_timestamp() + make_interval(secs => %(first)s / 2.0)
                   OR c.reason <> EXCLUDED.reason
            RETURNING c.openings
            """,
            {
                "channel": channel,
                "reason": reason,
                "detail": detail,
                "now": now,
                "first": FIRST_S,
                "longest": LONGEST_S if grows else FIRST_S,
                "grows": grows,
            },
        )
        news = cursor.fetchone()
        if news:
            # What the provider says besides may name a person: it goes with the circuit, and stands neither here nor
            # in the log.
            changes = {"channel": channel, "reason": reason, "openings": news[0]}
            trail.record(action=Action.CIRCUIT_OPEN, by=BY, now=now, changes=changes)
    if news:
        log.error("circuit_open", channel=channel, reason=reason)


def close_circuit(channel: str, *, now: datetime) -> None:
    """The provider takes messages again."""
    with transaction.atomic():
        closed = Circuit.objects.filter(channel=channel).delete()[0]
        if closed:
            trail.record(action=Action.CIRCUIT_CLOSE, by=BY, now=now, changes={"channel": channel})
    if closed:
        log.warning("circuit_closed", channel=channel)
