"""The circuit of a channel: open while its provider refuses the account as a whole, so that nothing is burnt on it.

An open circuit is a row that every claim looks at (``delivery.ledger``). After a while one claim may pass as a probe;
its answer closes the circuit or keeps it open for longer. People who could not be sent to stay pending.
"""

from datetime import datetime

import structlog
from django.db import connection

from delivery.models import Circuit

log = structlog.get_logger(__name__)

# Real seconds until the first probe; each further opening doubles it.
FIRST_S = 30
LONGEST_S = 900


def open_circuit(channel: str, *, reason: str, detail: str, now: datetime) -> None:
    """The provider refuses the account: hold the channel."""
    with connection.cursor() as cursor:
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
                WHERE c.probe_at < clock_timestamp() + make_interval(secs => %(first)s / 2.0)
                   OR c.reason <> EXCLUDED.reason
            """,
            {
                "channel": channel,
                "reason": reason,
                "detail": detail,
                "now": now,
                "first": FIRST_S,
                "longest": LONGEST_S,
            },
        )
        is_news = cursor.rowcount > 0
    if is_news:
        log.error("circuit_open", channel=channel, reason=reason, detail=detail)


def close_circuit(channel: str) -> None:
    """The provider takes messages again."""
    if Circuit.objects.filter(channel=channel).delete()[0]:
        log.warning("circuit_closed", channel=channel)
