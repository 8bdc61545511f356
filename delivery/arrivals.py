"""What has arrived in inboxes since somebody last looked: nothing left out, nothing twice.

Ids are no measure of that: a transaction may take a smaller id and commit later than another's larger one. So each
message names the transaction that wrote it, and a place in the stream is a snapshot of PostgreSQL's (pg_snapshot): what
that shows has been told, and all else has not.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import connection

from delivery.models import InboxMessage

# Messages that are told one by one. Who missed more reads the list.
MOST = 100
# Characters of a snapshot. It names every transaction under way, and must fit into a header.
_LONG = 1_500

_SNAPSHOT = re.compile(r"[0-9]{1,19}:[0-9]{1,19}:(?:[0-9]{1,19}(?:,[0-9]{1,19})*)?")
_CURSOR = re.compile(r"(?P<seen>[^/]+)(?:/(?P<partly>[^/]+)/(?P<last>[0-9]{1,18}))?")

# `rest`: of what `partly` shows, that which comes after the message `last`. `news`: what neither snapshot shows. A
# message of a transaction that is to come is none: the database was restored, and counts anew.
_LOOK = """
SELECT w.place, pg_current_snapshot()::text,
    COALESCE(pg_snapshot_xmax(COALESCE(w.partly, w.seen)) > pg_snapshot_xmax(pg_current_snapshot()), false),
    (SELECT count(*) FROM delivery_inboxmessage m
     WHERE m.recipient_id = w.recipient_id AND m.read_at IS NULL AND m.archived_at IS NULL),
    ARRAY(SELECT m.id FROM delivery_inboxmessage m
          WHERE m.recipient_id = w.recipient_id AND m.archived_at IS NULL AND m.id > w.last
            AND m.written_in >= pg_snapshot_xmin(w.seen)
            AND pg_visible_in_snapshot(m.written_in, w.partly) AND NOT pg_visible_in_snapshot(m.written_in, w.seen)
          ORDER BY m.id LIMIT %(limit)s),
    ARRAY(SELECT m.id FROM delivery_inboxmessage m
          WHERE m.recipient_id = w.recipient_id AND m.archived_at IS NULL
            AND m.written_in >= pg_snapshot_xmin(COALESCE(w.partly, w.seen))
            AND m.written_in < pg_snapshot_xmax(pg_current_snapshot())
            AND NOT pg_visible_in_snapshot(m.written_in, COALESCE(w.partly, w.seen))
          ORDER BY m.id LIMIT %(limit)s)
FROM unnest(%(recipients)s::bigint[], %(seen)s::pg_snapshot[], %(partly)s::pg_snapshot[], %(last)s::bigint[])
    WITH ORDINALITY AS w(recipient_id, seen, partly, last, place)
"""


class Cursor(NamedTuple):
    """A place in a person's stream: told is what ``seen`` shows, and of what ``partly`` shows that up to ``last``."""

    seen: str
    partly: str = ""
    last: int = 0

    def __str__(self) -> str:
        return f"{self.seen}/{self.partly}/{self.last}" if self.partly else self.seen

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """None where the text is none that was ever written here."""
        found = _CURSOR.fullmatch(text)
        if found is None or not _is_snapshot(found["seen"]):
            return None
        if found["partly"] is None:
            return cls(found["seen"])
        return cls(found["seen"], found["partly"], int(found["last"])) if _is_snapshot(found["partly"]) else None


class Watched(NamedTuple):
    """Without a cursor nothing is wanted of what is there already."""

    recipient_id: int
    cursor: Cursor | None


@dataclass(frozen=True)
class Arrived:
    """``messages`` in the order in which they are told, each with the place after it; ``cursor`` is that after all.

    ``is_cut``: they are too many, or the cursor is of another database, so the list must be read instead.
    """

    cursor: Cursor
    unread: int
    messages: list[tuple[InboxMessage, Cursor]]
    is_cut: bool


def look(watched: Sequence[Watched]) -> list[Arrived]:
    """For each of ``watched``, all by one statement, hence at one moment."""
    given = [each.cursor for each in watched]
    parameters: dict[str, Any] = {
        "recipients": [each.recipient_id for each in watched],
        "seen": [cursor.seen if cursor else None for cursor in given],
        "partly": [cursor.partly or None if cursor else None for cursor in given],
        "last": [cursor.last if cursor else 0 for cursor in given],
        "limit": MOST + 1,
    }
    with connection.cursor() as cursor:
        cursor.execute(_LOOK, parameters)
        rows = sorted(cursor.fetchall())
    wanted = {pk for *_, rest, news in rows for pk in (*rest, *news)}
    found = InboxMessage.objects.in_bulk(wanted) if wanted else {}
    return [_arrived(each, row, found) for each, row in zip(watched, rows, strict=True)]


def _arrived(watched: Watched, row: tuple[Any, ...], found: dict[int, InboxMessage]) -> Arrived:
    _place, snapshot, is_foreign, unread, rest, news = row
    now, was = Cursor(_short(snapshot)), watched.cursor
    if was is None or is_foreign or len(rest) + len(news) > MOST:
        return Arrived(now, unread, [], is_cut=was is not None)
    places = [(pk, Cursor(was.seen, was.partly, pk)) for pk in rest]
    places += [(pk, Cursor(was.partly or was.seen, now.seen, pk)) for pk in news]
    # One that is not found any more was erased in this moment.
    return Arrived(now, unread, [(found[pk], place) for pk, place in places if pk in found], is_cut=False)


def _short(snapshot: str) -> str:
    """One that shows less, where it would be too long: a message may then be told twice, none is left out."""
    least = snapshot.partition(":")[0]
    return snapshot if len(snapshot) <= _LONG else f"{least}:{least}:"


def _is_snapshot(text: str) -> bool:
    """As PostgreSQL reads them: the first transaction that may be under way, the first to come, those under way.

    It takes none whose lower 32 bits are empty for the two.
    """
    if len(text) > _LONG or not _SNAPSHOT.fullmatch(text):
        return False
    least, end, under_way = text.split(":")
    ids = [int(each) for each in under_way.split(",") if each]
    first, last = int(least), int(end)
    ordered = [first, *ids, last]
    is_ordered = ordered == sorted(ordered) and last not in ids and last < 2**63
    return is_ordered and bool(first % 2**32 and last % 2**32)
