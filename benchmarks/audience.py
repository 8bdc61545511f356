"""How long a page of 10,000 out of 1,000,000 recipients takes, by index and by scan.

The peer is the least that a page can cost: the same keyset page without any condition. `page_10k_ms` is the slower
of the two pages below it. Pages are taken at the start, in the middle and late in the table.
"""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from benchmarks.harness import emit, execute, median_ms, note, prepare, query
from schedules import encryption
from schedules.audience.parser import parse
from schedules.audience.sources import MAX_PAGE, LocalSource
from schedules.audience.tree import Node
from schedules.fields import place
from schedules.models import Recipient

PEOPLE = 1_000_000
RUNS = 9
PEER = "keyset page without a condition"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

# 30 % are pro, 81 % are older than 30, 20 share a referrer, 2 % have ordered within the last week.
_INSERT = """
INSERT INTO schedules_recipient
    (external_id, email, email_index, locale, time_zone, attributes, tags, consent, created_at)
SELECT 'user-' || n, %(address)s, md5(n::text)::uuid, (ARRAY['en', 'de', 'fr', 'ja'])[1 + h %% 4],
       (ARRAY['Europe/Berlin', 'America/New_York', 'Asia/Tokyo', 'Pacific/Tongatapu', ''])[1 + h / 4 %% 5],
       jsonb_build_object(
           'plan', CASE WHEN h %% 100 < 30 THEN 'pro' WHEN h %% 100 < 90 THEN 'free' ELSE 'team' END,
           'age', 18 + h / 100 %% 70, 'score', h %% 10000 / 100.0, 'referrer', 'r' || n %% %(referrers)s,
           'last_order', to_char(timestamp '2025-03-20' + h %% 500000 * interval '1 min', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
       ),
       CASE WHEN h %% 50 = 0 THEN '["vip", "beta"]' WHEN h %% 3 = 0 THEN '["beta"]' ELSE '[]' END::jsonb,
       CASE WHEN h %% 20 = 0 THEN '{"email": false}' ELSE '{}' END::jsonb,
       timestamptz '2024-01-01 00:00Z' + n * interval '1 minute'
FROM (SELECT n, abs(hashint8(n)::bigint) AS h FROM generate_series(1, %(people)s::bigint) AS n) AS people
"""


def clause(field: str, op: str, value: object) -> Node:
    return parse({"field": field, "op": op, "value": value})


INDEXED = clause("attributes.plan", "eq", "pro")
SCAN = clause("attributes.age", "gt", 30)
FEW = clause("attributes.referrer", "eq", "r77")
RECENT = clause("attributes.last_order", "within_last", "7d")


def main() -> None:
    prepare()
    _insert()
    ((first_id,),) = query("SELECT min(id) FROM schedules_recipient")
    starts = [first_id + PEOPLE * tenths // 10 for tenths in (0, 5, 9)]

    floor = _median_from(starts, _plain_page)
    indexed = _median_from(starts, lambda after: _page(INDEXED, after))
    scan = _median_from(starts, lambda after: _page(SCAN, after))
    for figure, value in [
        ("page_10k_ms", max(indexed, scan)),
        ("page_10k_indexed_ms", indexed),
        ("page_10k_scan_ms", scan),
    ]:
        emit("audience", figure, value, "ms", peer=PEER, ratio=floor / value)
    emit("audience", "peer_page_10k_ms", floor, "ms")

    source = LocalSource(timeout_ms=60_000)
    others: list[tuple[str, Callable[[], Any]]] = [
        ("few_of_1m_ms", lambda: source.page(FEW, now=NOW)),
        ("dates_page_ms", lambda: source.page(RECENT, now=NOW)),
        ("count_indexed_ms", lambda: source.count(INDEXED, now=NOW)),
        ("count_scan_ms", lambda: source.count(SCAN, now=NOW)),
        ("zones_ms", lambda: source.zones(INDEXED, now=NOW)),
        ("sample_ms", lambda: source.sample(INDEXED, now=NOW, n=5)),
    ]
    for figure, action in others:
        action()
        emit("audience", figure, median_ms(action, runs=RUNS), "ms")


def _insert() -> None:
    note(f"Inserting {PEOPLE:,} recipients")
    indexes = Recipient._meta.indexes
    with connection.schema_editor() as editor:  # indexes are built faster than they are kept
        for index in indexes:
            editor.remove_index(Recipient, index)
    # The same address for all: nothing here reads it.
    address = encryption.encrypt("user@example.com", place("schedules_recipient", "email"))
    execute(_INSERT, {"people": PEOPLE, "referrers": PEOPLE // 20, "address": address})
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.add_index(Recipient, index)
    execute("VACUUM ANALYZE schedules_recipient")


def _median_from(starts: list[int], page: Callable[[int], Any]) -> float:
    for start in starts:  # once unmeasured: the first run pays for plans and caches
        page(start - 1)
    places = itertools.cycle(starts)
    return median_ms(lambda: page(next(places) - 1), runs=RUNS * len(starts))


def _page(node: Node, after_id: int) -> list[int]:
    ids = LocalSource().page(node, now=NOW, after_id=after_id, limit=MAX_PAGE)
    if len(ids) != MAX_PAGE:
        raise SystemExit(f"The page has {len(ids)} recipients in place of {MAX_PAGE}: nothing was measured.")
    return ids


def _plain_page(after_id: int) -> list[int]:
    rows = query("SELECT id FROM schedules_recipient WHERE id > %s ORDER BY id LIMIT %s", [after_id, MAX_PAGE])
    return [pk for (pk,) in rows]


if __name__ == "__main__":
    main()
