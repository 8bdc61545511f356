"""What providers tell of messages afterwards: kept once for each delivery, counted for each occurrence.

Nothing here changes what became of a delivery (``ledger.confirm`` does where nobody had known). A row is what was told,
whatever came twice, late or in another order: bits are added, instants become earlier, the gravest news stays.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import orjson
from django.db import connection
from django.db.models import Sum

from delivery import counts
from delivery.models import Feedback, FeedbackCount, News

Key = tuple[date, int, int]  # a delivery's: day, occurrence, recipient
_NAMES = [news.label for news in News]


@dataclass(frozen=True)
class Told:
    """One thing that a provider tells of a delivery. ``at`` is the provider's own instant of it."""

    key: Key
    news: News
    at: datetime
    detail: str = ""
    provider_id: str = ""


@dataclass(frozen=True)
class Kept:
    """Of a delivery that the ledger has: what is known of it now, and what of it was new."""

    kinds: int
    before: int

    def is_new(self, news: News) -> bool:
        return bool(self.kinds & ~self.before & news.bit)


def gravest(kinds: int) -> News | None:
    """Of some bits the one that counts."""
    return News(kinds.bit_length()) if kinds else None


# One row for each delivery: those whose row is not there are left out. Nothing is written where nothing is new.
_MERGED = {
    "kinds": "f.kinds | EXCLUDED.kinds",
    "news": "GREATEST(f.news, EXCLUDED.news)",
    **{f"{name}_at": f"LEAST(f.{name}_at, EXCLUDED.{name}_at)" for name in _NAMES},
    **{
        name: f"CASE WHEN EXCLUDED.news > f.news THEN EXCLUDED.{name} WHEN EXCLUDED.news < f.news THEN f.{name}"
        f" ELSE GREATEST(f.{name}, EXCLUDED.{name}) END"
        for name in ("detail", "provider_id")
    },
}
_COLUMNS = ", ".join(_MERGED)
_TYPES = {"kinds": "smallint", "news": "smallint", "detail": "text", "provider_id": "text"}
_KEEP = f"""
WITH told AS MATERIALIZED (
    SELECT t.* FROM jsonb_to_recordset(%(told)s::jsonb) AS t(day date, occurrence_id bigint, recipient_id bigint,
        {", ".join(f"{name} {_TYPES.get(name, 'timestamptz')}" for name in _MERGED)})
    JOIN delivery_delivery d ON d.day = t.day AND d.occurrence_id = t.occurrence_id AND d.recipient_id = t.recipient_id
    WHERE d.day = ANY(%(days)s::date[]) AND d.occurrence_id = ANY(%(occurrences)s::bigint[])
      AND d.recipient_id = ANY(%(recipients)s::bigint[])
), kept AS (
    INSERT INTO delivery_feedback AS f (day, occurrence_id, recipient_id, {_COLUMNS})
    SELECT day, occurrence_id, recipient_id, {_COLUMNS} FROM told ORDER BY day, occurrence_id, recipient_id
    ON CONFLICT (day, occurrence_id, recipient_id) DO UPDATE SET
        kinds_before = f.kinds, {", ".join(f"{name} = {merged}" for name, merged in _MERGED.items())}
    WHERE ROW({", ".join(f"f.{name}" for name in _MERGED)}) IS DISTINCT FROM ROW({", ".join(_MERGED.values())})
    RETURNING f.day, f.occurrence_id, f.recipient_id, f.kinds, f.kinds_before
)
SELECT t.day, t.occurrence_id, t.recipient_id, COALESCE(k.kinds, t.kinds), COALESCE(k.kinds_before, t.kinds)
FROM told t LEFT JOIN kept k USING (day, occurrence_id, recipient_id)
"""


def keep(told: Iterable[Told]) -> dict[Key, Kept]:
    """Write it down, in the caller's transaction; of deliveries that the ledger does not have nothing comes back.

    Rows are locked in the order of their keys.
    """
    merged = _merged(told)
    if not merged:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            _KEEP,
            {
                "told": orjson.dumps(list(merged.values())).decode(),
                "days": sorted({key[0] for key in merged}),
                "occurrences": sorted({key[1] for key in merged}),
                "recipients": sorted({key[2] for key in merged}),
            },
        )
        return {(row[0], row[1], row[2]): Kept(row[3], row[4]) for row in cursor.fetchall()}


def _merged(told: Iterable[Told]) -> dict[Key, dict[str, object]]:
    """What is told at once, as one row for each delivery: a statement writes none twice."""
    by_key: dict[Key, list[Told]] = {}
    for each in told:
        by_key.setdefault(each.key, []).append(each)
    return {key: _row(key, each) for key, each in by_key.items()}


def _row(key: Key, told: Sequence[Told]) -> dict[str, object]:
    news = max(each.news for each in told)
    of_gravest = [each for each in told if each.news is news]
    kinds = 0
    for each in told:
        kinds |= each.news.bit
    return {
        "day": key[0],
        "occurrence_id": key[1],
        "recipient_id": key[2],
        "news": int(news),
        "kinds": kinds,
        "detail": max(each.detail for each in of_gravest),
        "provider_id": max(each.provider_id for each in of_gravest),
        **{f"{kind.label}_at": min((each.at for each in told if each.news is kind), default=None) for kind in News},
    }


# --- Counted for each occurrence --------------------------------------------------------------------------------------


_COUNT = """
INSERT INTO delivery_feedbackcount AS c (occurrence_id, news, slot, people)
SELECT * FROM unnest(%(occurrences)s::bigint[], %(news)s::smallint[], %(slots)s::smallint[], %(people)s::int[])
ON CONFLICT (occurrence_id, news, slot) DO UPDATE SET people = c.people + EXCLUDED.people
"""


def count(kept: Mapping[Key, Kept]) -> None:
    """Move the people of whom something graver is known than before, in the transaction that wrote it."""
    moved: Counter[tuple[int, int]] = Counter()
    for (_, occurrence_id, _), each in kept.items():
        before, now = gravest(each.before), gravest(each.kinds)
        if before is now:
            continue
        if before:
            moved[occurrence_id, int(before)] -= 1
        if now:
            moved[occurrence_id, int(now)] += 1
    rows = [(*key, people) for key, people in sorted(moved.items()) if people]
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            _COUNT,
            {
                "occurrences": [row[0] for row in rows],
                "news": [row[1] for row in rows],
                "slots": [counts.slot()] * len(rows),
                "people": [row[2] for row in rows],
            },
        )


@dataclass(frozen=True)
class Heard:
    """Of one occurrence, how many people stand at which news: each at the gravest that was told of them."""

    people: Mapping[News, int]

    @property
    def is_any(self) -> bool:
        return any(self.people.values())

    @property
    def delivered(self) -> int:
        """Those who complained have it too."""
        return self.people[News.DELIVERED] + self.people[News.COMPLAINED]

    @property
    def complained(self) -> int:
        return self.people[News.COMPLAINED]

    @property
    def delayed(self) -> int:
        return self.people[News.DELAYED]

    @property
    def bounced(self) -> int:
        return self.people[News.BOUNCED_HARD] + self.people[News.BOUNCED_SOFT]

    @property
    def refused(self) -> int:
        """Taken by the provider, which then did not send it."""
        return self.people[News.REJECTED] + self.people[News.NOT_RENDERED]

    def awaited(self, sent: int) -> int:
        """Of so many that were sent to, those of whom nothing final was told."""
        return max(sent - self.delivered - self.bounced - self.refused, 0)


def of_occurrences(occurrence_ids: Iterable[int]) -> dict[int, Heard]:
    """By the counts, however many people; for the days past their retention too."""
    occurrence_ids = list(occurrence_ids)
    sums = FeedbackCount.objects.filter(occurrence_id__in=occurrence_ids).values_list("occurrence_id", "news")
    found = {(pk, news): people for pk, news, people in sums.annotate(people=Sum("people")).order_by()}
    return {pk: Heard({news: found.get((pk, int(news)), 0) for news in News}) for pk in occurrence_ids}


def of_deliveries(keys: Iterable[Key]) -> dict[Key, Feedback]:
    """What was told of these, each by its key."""
    keys = list(keys)
    if not keys:
        return {}
    rows = Feedback.objects.filter(
        day__in={key[0] for key in keys},
        occurrence_id__in={key[1] for key in keys},
        recipient_id__in={key[2] for key in keys},
    )
    wanted = set(keys)
    return {key: row for row in rows if (key := (row.day, row.occurrence_id, row.recipient_id)) in wanted}
