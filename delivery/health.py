"""How the service is at this moment: what waits, what holds it, and whether everybody who must work does."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import connection

from delivery import circuits, heartbeats, ledger, pace, partitions
from delivery.counters import CountersAway
from delivery.heartbeats import Life
from delivery.models import Circuit, ProviderAccount
from schedules.models import Channel, Occurrence, StopSwitch


@dataclass(frozen=True)
class Waiting:
    """People of a channel who may be due: in its queue, not yet in it, and held back by a pause, stop or circuit.

    ``oldest_due_s``: since the oldest who may go became due; 0 where nobody is.
    """

    queued: int = 0
    due: int = 0
    held_back: int = 0
    oldest_due_s: float = 0.0


@dataclass(frozen=True)
class Line:
    """One channel. ``account``: of the provider that is asked at present; ``passed_over``: circuits of the others.

    ``rate``: people a second at which a provider is called that has asked to slow down; None if none has.
    """

    channel: str
    provider: str
    waiting: Waiting
    is_stopped: bool
    circuit: Circuit | None
    rate: float | None
    account: ProviderAccount | None = None
    passed_over: Sequence[Circuit] = ()


@dataclass(frozen=True)
class Health:
    """Ages in seconds of real time, None where it has never happened. ``strays``: rows whose day has no partition."""

    tick_ago: float | None
    sweep_ago: float | None
    queues: Mapping[str, Life]
    lines: list[Line]
    counters_up: bool
    held_runs: int
    strays: int


def read(*, now: datetime) -> Health:
    """Everything from tables and partial indexes of a few rows; none of the ledger's rows."""
    ages = heartbeats.ages()
    stopped = {scope.removeprefix("channel:") for scope in _stops()}
    open_circuits = {each.scope: each for each in Circuit.objects.all()}
    waits = waiting(now=now)
    paces = _rates(open_circuits)
    accounts = {each.scope: each for each in ProviderAccount.objects.all()}
    lines = [
        Line(
            channel,
            settings.PROVIDERS.get(channel, ""),
            waits[channel],
            bool(stopped & {StopSwitch.ALL, channel}),
            open_circuits.get(channel),
            paces.get(channel) if paces is not None else None,
            accounts.get(circuits.asked(channel, open_circuits)),
            [
                open_circuits[scope]
                for scope in circuits.of_channel(channel)
                if scope != channel and scope in open_circuits
            ],
        )
        for channel in Channel.values
    ]
    return Health(
        ages.get(heartbeats.TICK),
        ages.get(heartbeats.SWEEP),
        heartbeats.of_queues(ages),
        lines,
        paces is not None,
        Occurrence.objects.open().exclude(held_reason="").count(),
        partitions.rows_in_default(),
    )


def _stops() -> list[str]:
    return list(StopSwitch.objects.exclude(scope__startswith="schedule:").values_list("scope", flat=True))


def rates() -> Mapping[str, float | None] | None:
    """By channel, people a second at which a provider is called that has asked to slow down; ``None`` if none has.

    Nothing at all while the counters are away.
    """
    return _rates(set(Circuit.objects.values_list("scope", flat=True)))


def _rates(passed_over: Collection[str]) -> Mapping[str, float | None] | None:
    """Of each channel's provider that is asked at present. None while the counters are away."""
    try:
        return {channel: pace.rate(circuits.asked(channel, passed_over)) for channel in Channel.values}
    except CountersAway:
        return None


# The batches in the queues, by their partial index: at most as many as fit the publishing window. Those due and not
# queued, by theirs. Whatever waits for its instant is in neither. Summed before the occurrences are looked up, since
# one has hundreds of batches; each is then looked up by its key (OFFSET 0 keeps the planner from joining all schedules,
# which it prefers when it takes the few that wait for many).
_BATCHES = f"""
WITH waiting AS MATERIALIZED (
    SELECT channel, occurrence_id, true AS is_queued, sum(pending) AS rows, min(next_due_at) AS next_due_at
    FROM delivery_batch WHERE queued_at IS NOT NULL GROUP BY 1, 2
    UNION ALL
    SELECT channel, occurrence_id, false, sum(pending), min(next_due_at)
    FROM delivery_batch
    WHERE channel = ANY(%(channels)s) AND queued_at IS NULL AND pending > 0 AND next_due_at <= %(now)s GROUP BY 1, 2
), judged AS (
    SELECT w.channel, w.is_queued, w.rows, w.next_due_at, found.may_go
    FROM waiting w CROSS JOIN LATERAL (
        SELECT {ledger.GOES} AND NOT {ledger.stopped("w.channel")} AS may_go
        FROM schedules_occurrence o JOIN schedules_schedule s ON s.id = o.schedule_id
        WHERE o.id = w.occurrence_id OFFSET 0
    ) AS found
)
SELECT channel, COALESCE(sum(rows) FILTER (WHERE may_go AND is_queued), 0)::bigint,
       COALESCE(sum(rows) FILTER (WHERE may_go AND NOT is_queued), 0)::bigint,
       COALESCE(sum(rows) FILTER (WHERE NOT may_go), 0)::bigint,
       GREATEST(COALESCE(extract(epoch FROM %(now)s - min(next_due_at) FILTER (WHERE may_go)), 0), 0)::float8
FROM judged GROUP BY 1
"""


def waiting(*, now: datetime) -> Mapping[str, Waiting]:
    """By channel, all of them."""
    with connection.cursor() as cursor:
        cursor.execute(_BATCHES, {"now": now, "channels": Channel.values})
        found = {channel: Waiting(*rest) for channel, *rest in cursor.fetchall()}
    return {channel: found.get(channel, Waiting()) for channel in Channel.values}
