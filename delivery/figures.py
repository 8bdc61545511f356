"""What the ledger comes to over time, kept beside it: people by five minutes, channel, outcome, reason and lateness.

Nobody who sends writes a figure: the outcomes of a moment all belong into the same few rows, which would make of many
workers one. Whoever changes an outcome says so on its batch (``is_counted``), which he writes anyway. ``count`` then
reads the rows of such batches, and adds to the figures by how much they differ from what it had read of them the last
time. So it is no matter what happened, in which order and how long ago. ``read`` adds what is not counted yet.
docs/adr/0013-figures-over-time.md says why.

An outcome belongs to the five minutes in which it was settled, in business time, to the quarter of an hour and to the
hour. Hours and days begin with a quarter in every zone there is, and in most with an hour: a month is read by these.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection, transaction

from delivery import untold
from delivery.models import State

SLOT, QUARTER, HOUR = timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1)
# Batches counted in one transaction. Whoever sends waits for it, where it wants to write one of these.
CHUNK = 20
# Real seconds for which ``count`` goes on: the tick waits for the same worker.
TURN_S = 0.5
# Batches that ``read`` counts at once. There are more only where nobody has counted for a while.
READ_AT_ONCE = 60

_GRAINS = [int(grain / timedelta(minutes=1)) for grain in (SLOT, QUARTER, HOUR)]

# Lateness is kept in steps, four to each doubling: step n ends at 2 ** (n / 4) seconds, from 1 ms up to 12 days.
_STEPS = 4
_FIRST, _LAST = -40, 80
NOT_TIMED = -1_000


def step_ends_s(step: int) -> float:
    """The seconds up to which ``step`` reaches; that before it ends where it begins."""
    return float(2 ** (step / _STEPS))


# As ``punctuality`` has it: of first calls alone, since a retry is late by design.
_LATE_S = "GREATEST(extract(epoch FROM d.called_at - d.wave_at)::float8, 0.000001)"
_LATENESS = f"""
CASE WHEN d.called_at IS NULL OR d.attempt <> 1 OR d.due_at <> d.wave_at THEN {NOT_TIMED}
     ELSE GREATEST({_FIRST}, LEAST({_LAST}, ceil({_STEPS} * ln({_LATE_S}) / ln(2::float8)))) END::smallint"""

# What batches come to by their rows, and what of them is in the figures. Both name the days, for the planner.
_BY_ROWS = f"""
SELECT d.batch_id, floor(extract(epoch FROM d.settled_at) / {SLOT.seconds})::bigint AS slot, d.state, d.reason,
       {_LATENESS} AS lateness, count(*)::int AS people
FROM delivery_delivery d
WHERE d.day = ANY(%(days)s::date[]) AND d.batch_id = ANY({{ids}}) AND d.state >= {int(State.SENT)}
GROUP BY 1, 2, 3, 4, 5"""
_AS_COUNTED = """
SELECT b.id AS batch_id, (f ->> 0)::bigint AS slot, (f ->> 1)::smallint AS state, f ->> 2 AS reason,
       (f ->> 3)::smallint AS lateness, (f ->> 4)::int AS people
FROM delivery_batch b, jsonb_array_elements(b.figures) f WHERE b.id = ANY({ids})"""


def _differences(ids: str) -> str:
    """SQL beside ``fresh``: by how much batches differ from what is counted of them; ``ids``: array of bigint."""
    return f"""
    SELECT g.minutes, to_timestamp(p.slot * {SLOT.seconds} / (g.minutes * 60) * (g.minutes * 60)) AS slot, b.channel,
           p.state, p.reason, p.lateness, sum(p.people)::int AS people
    FROM (SELECT * FROM fresh UNION ALL
          SELECT batch_id, slot, state, reason, lateness, -people FROM ({_AS_COUNTED.format(ids=ids)}) AS counted) AS p
    JOIN delivery_batch b ON b.id = p.batch_id, unnest(%(grains)s::int[]) AS g(minutes)
    GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(p.people) <> 0"""


_IDS = "%(ids)s::bigint[]"
# The figures are locked in one order, though one process counts at a time.
_COUNT = f"""
WITH fresh AS MATERIALIZED ({_BY_ROWS.format(ids=_IDS)}
), added AS (
    INSERT INTO delivery_figure AS f (minutes, slot, channel, state, reason, lateness, people)
    SELECT * FROM ({_differences(_IDS)}) AS changed ORDER BY minutes, slot, channel, state, reason, lateness
    ON CONFLICT (minutes, slot, channel, state, reason, lateness) DO UPDATE SET people = f.people + EXCLUDED.people
)
UPDATE delivery_batch b SET is_counted = true, figures = COALESCE((
    SELECT jsonb_agg(jsonb_build_array(slot, state, reason, lateness, people)) FROM fresh WHERE batch_id = b.id
), '[]')
WHERE b.id = ANY({_IDS})
"""


def count() -> int:
    """Bring the figures up to the ledger, for half a second at most; return how many batches were counted.

    Any number of processes may: one does, the others leave at once. A batch that somebody is writing is left for the
    next time.
    """
    began, counted, after = time.monotonic(), 0, (date.min, 0)
    while time.monotonic() - began < TURN_S:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('figures'))")
            if not cursor.fetchone()[0]:
                break
            batches = _lock(cursor, after=after)
            _count(cursor, batches)
        counted += len(batches)
        if len(batches) < CHUNK:
            break
        after = batches[-1]
    return counted


def count_days(days: Sequence[date]) -> None:
    """Count all that is left of ``days``, in the caller's transaction: their rows are about to go."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('figures'))")
        for day in days:
            cursor.execute(
                "SELECT day, id FROM delivery_batch WHERE day = %s AND NOT is_counted ORDER BY id FOR NO KEY UPDATE",
                [day],
            )
            _count(cursor, cursor.fetchall())


_Key = tuple[date, int]


def _lock(cursor: Any, *, after: _Key) -> list[_Key]:
    """Locked before the rows are read: whoever changes one of these after that says so anew."""
    cursor.execute(
        f"""
        SELECT day, id FROM delivery_batch WHERE NOT is_counted AND (day, id) > (%s, %s)
        ORDER BY day, id LIMIT {CHUNK} FOR NO KEY UPDATE SKIP LOCKED
        """,
        after,
    )
    found: list[_Key] = cursor.fetchall()
    return found


def _count(cursor: Any, batches: Sequence[_Key]) -> None:
    if not batches:
        return
    parameters = {"days": sorted({day for day, _ in batches}), "ids": [pk for _, pk in batches], "grains": _GRAINS}
    cursor.execute(_COUNT, parameters)
    untold.batches([pk for _, pk in batches])
    # Whom an edit has moved elsewhere to the last: it was kept for what it had been counted for.
    cursor.execute(f"DELETE FROM delivery_batch WHERE id = ANY({_IDS}) AND size = 0", parameters)


# --- Reading ----------------------------------------------------------------------------------------------------------


class Sum(NamedTuple):
    """People within one stretch of time. ``stretch`` counts from 0."""

    stretch: int
    channel: str
    state: State
    people: int


class Why(NamedTuple):
    channel: str
    state: State
    reason: str
    people: int


class Late(NamedTuple):
    """People whose first call was late by a step."""

    channel: str
    step: int
    people: int


@dataclass(frozen=True)
class Figures:
    """What was settled within the window. ``behind``: batches whose latest outcomes are not in it, mostly 0."""

    sums: Sequence[Sum]
    reasons: Sequence[Why]
    lateness: Sequence[Late]
    behind: int


_UNCOUNTED = "SELECT day, id FROM delivery_batch WHERE NOT is_counted ORDER BY day, id LIMIT %s"
# One snapshot: a batch that has been counted since it was found is in the figures, and no longer uncounted.
_STILL = f"ARRAY(SELECT id FROM delivery_batch WHERE NOT is_counted AND id = ANY({_IDS}))"
_CHANGED = _differences("(SELECT ids FROM still)::bigint[]")
_READ = f"""
WITH still AS MATERIALIZED (SELECT {_STILL} AS ids), fresh AS MATERIALIZED (
    {_BY_ROWS.format(ids="(SELECT ids FROM still)::bigint[]")}
), parts AS (
    SELECT slot, channel, state, reason, lateness, people FROM delivery_figure
    WHERE minutes = %(minutes)s AND slot >= %(first)s AND slot < %(last)s
    UNION ALL
    SELECT slot, channel, state, reason, lateness, people FROM ({_CHANGED}) AS changed
    WHERE slot >= %(first)s AND slot < %(last)s
)
SELECT width_bucket(slot, %(starts)s::timestamptz[]) - 1 AS stretch, channel, state, reason, lateness,
       sum(people)::bigint, GROUPING(state, reason, lateness)
FROM parts
GROUP BY GROUPING SETS ((1, channel, state), (channel, state, reason), (channel, lateness))
HAVING sum(people) <> 0
"""
_SUMS, _REASONS, _LATENESSES = 0b011, 0b001, 0b110


def read(*, starts: Sequence[datetime], until: datetime) -> Figures:
    """What was settled from the first of ``starts`` up to ``until``, in the stretches that begin there; ascending.

    Instants are at whole five minutes. Equal to the ledger's rows while any of them are kept.
    """
    minutes = max(grain for grain in _GRAINS if all(at.timestamp() % (grain * 60) == 0 for at in (*starts, until)))
    with connection.cursor() as cursor:
        cursor.execute(_UNCOUNTED, [READ_AT_ONCE])
        batches = cursor.fetchall()
        cursor.execute(
            _READ,
            {
                "days": sorted({day for day, _ in batches}),
                "ids": [pk for _, pk in batches],
                "grains": [minutes],
                "minutes": minutes,
                "first": starts[0],
                "last": until,
                "starts": list(starts),
            },
        )
        rows = cursor.fetchall()
        behind = 0
        if len(batches) == READ_AT_ONCE:
            cursor.execute("SELECT count(*) FROM delivery_batch WHERE NOT is_counted")
            behind = max(cursor.fetchone()[0] - READ_AT_ONCE, 0)
    kinds: dict[int, list[Any]] = {_SUMS: [], _REASONS: [], _LATENESSES: []}
    for stretch, channel, state, reason, lateness, people, kind in rows:
        if kind == _SUMS:
            kinds[kind].append(Sum(stretch, channel, State(state), people))
        elif kind == _REASONS:
            kinds[kind].append(Why(channel, State(state), reason, people))
        elif lateness != NOT_TIMED:
            kinds[kind].append(Late(channel, lateness, people))
    return Figures(sorted(kinds[_SUMS]), sorted(kinds[_REASONS]), sorted(kinds[_LATENESSES]), behind)
