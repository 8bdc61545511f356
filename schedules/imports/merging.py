"""People who stand in the temporary tables of ``staging``, into the profiles: as a set, and only what changes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection

from schedules import encryption
from schedules.fields import place

# Two files that write the same people in different orders would lock each other out: each has the turn alone. What the
# user service tells comes in small pieces, which have it together: of them ``user_service.mirror`` keeps those apart
# that name the same people.
_TURN: Final = 0x696D_706F_7274  # a key of our own among the advisory locks
_MANY_NEW: Final = 5_000  # people, from whom on the planner is told of a file
_EMAIL: Final = place("schedules_recipient", "email")
_TOKEN: Final = place("schedules_device", "token")


def is_lost(column: str) -> str:
    """Whether what is kept is under a key that nobody has any more, as SQL."""
    return f"substr({column}, 1, {encryption.HEAD_BYTES}) <> ALL(%(heads)s::bytea[])"


def _is_unreadable(row: str, column: str) -> str:
    """Whether it is lost or ``merge`` has found it damaged, as SQL."""
    return f"({is_lost(f'{row}.{column}')} OR {row}.id = ANY(%(damaged_{column}s)s::bigint[]))"


# Who was erased before and is not there (again). An address that somebody who is there has got is his.
_WAS_ERASED = """
(EXISTS (SELECT 1 FROM schedules_erasedperson e WHERE e.fingerprint = p.of_id)
 OR EXISTS (SELECT 1 FROM schedules_erasedperson e WHERE e.fingerprint = p.of_address))
AND NOT EXISTS (SELECT 1 FROM schedules_recipient r WHERE r.external_id = p.external_id)
"""
_LEAVE_OUT = f"DELETE FROM pg_temp.import_people p WHERE {_WAS_ERASED} RETURNING line, external_id"
_LEAVE_DEVICES_OUT = "DELETE FROM pg_temp.import_devices WHERE line = ANY(%s)"
_WANT_BACK = """
DELETE FROM schedules_erasedperson e USING pg_temp.import_people p WHERE e.fingerprint IN (p.of_id, p.of_address)
"""

# An objection that is said here is as old as the last time it was. What the user service says takes none of those back
# that were made here, unless it is known to be younger.
_IS_NO = "p.consent @? '$.* ? (@ == false)'"
_SAID_NO = """
(SELECT COALESCE(jsonb_object_agg(c.key, to_jsonb(%(now)s::timestamptz)), '{}')
 FROM jsonb_each(p.consent) c WHERE c.value = 'false')"""
_OBJECTED = f"CASE WHEN NOT %(is_told)s AND {_IS_NO} THEN {_SAID_NO} ELSE '{{}}' END"
_HEARD = """
CASE WHEN p.consent IS NULL THEN '{}' WHEN %(is_told)s AND r.objected_at <> '{}' THEN (
    SELECT COALESCE(jsonb_object_agg(c.key, c.value), '{}') FROM jsonb_each(p.consent) c
    WHERE c.value = 'false' OR NOT r.objected_at ? c.key
       OR p.agreed_at > (r.objected_at ->> c.key)::timestamptz
) ELSE p.consent END"""
_STILL_OBJECTED = f"""
CASE WHEN r.objected_at = '{{}}' THEN r.objected_at
     ELSE r.objected_at - ARRAY(SELECT c.key FROM jsonb_each({_HEARD}) c WHERE c.value = 'true') END"""

# Quiet hours that were set here stand against the user service in the same way.
_QUIET_TOLD = "NULLIF(p.quiet_hours, 'null'::jsonb)"
_QUIET_HEARD = """
(p.quiet_hours IS NOT NULL AND (NOT %(is_told)s OR COALESCE(r.quiet_hours_source ->> 'by' = %(by)s, true)
    OR p.quieted_at > (r.quiet_hours_source ->> 'at')::timestamptz)) IS TRUE"""
_QUIET_NOW = f"CASE WHEN {_QUIET_HEARD} THEN {_QUIET_TOLD} ELSE r.quiet_hours END"


def _source_of(said: str, where: str = "true") -> str:
    """SQL: who says by this import what changes under the keys of ``said`` (SQL too), and when."""
    members = f"SELECT jsonb_object_agg(c.key, {_TOLD}) FROM jsonb_each({said}) c WHERE {where}"
    return f"COALESCE(({members}), '{{}}')"


_TOLD = "jsonb_build_object('by', %(by)s::text, 'at', to_jsonb(%(now)s::timestamptz))"


# Sorted, since that halves the work of the indexes on external_id; the conflicts are with whoever is quicker.
_CREATE_PEOPLE = f"""
INSERT INTO schedules_recipient
    (external_id, email, email_index, locale, time_zone, tags, consent, consent_source, objected_at, quiet_hours,
     quiet_hours_source, attributes, created_at, updated_at, updated_by)
SELECT external_id, COALESCE(email, ''), email_index, COALESCE(locale, ''), COALESCE(time_zone, ''),
       COALESCE(tags, '[]'), COALESCE(consent, '{{}}'), {_source_of("p.consent")}, {_OBJECTED},
       {_QUIET_TOLD}, CASE WHEN {_QUIET_TOLD} IS NOT NULL THEN {_TOLD} END,
       COALESCE(attributes, '{{}}'), %(now)s, %(now)s, %(by)s
FROM pg_temp.import_people p
WHERE NOT EXISTS (SELECT 1 FROM schedules_recipient r WHERE r.external_id = p.external_id)
  -- who is erased at this very moment: the statement sees either the profile or the fingerprint
  AND NOT EXISTS (SELECT 1 FROM schedules_erasedperson e WHERE e.fingerprint = p.of_id)
ORDER BY external_id
ON CONFLICT (external_id) DO NOTHING
"""
# What a profile becomes: the file where it says something, else what it was; consent and attributes by key.
_MERGED = {
    "email_index": "CASE WHEN p.email IS NULL THEN r.email_index ELSE p.email_index END",
    "locale": "COALESCE(p.locale, r.locale)",
    "time_zone": "COALESCE(p.time_zone, r.time_zone)",
    "tags": "COALESCE(p.tags, r.tags)",
    "consent": f"r.consent || {_HEARD}",
    "quiet_hours": _QUIET_NOW,
    "attributes": "(r.attributes || COALESCE(p.attributes, '{}')) - COALESCE(p.dropped, '{}')",
}
# An address is encrypted anew each time, so its index tells whether it is another one. What nobody can read is taken
# from the file again.
_LOST = f"(r.email <> '' AND p.email_index = r.email_index AND {_is_unreadable('r', 'email')}) IS TRUE"
_ADDRESS = f"CASE WHEN p.email IS NULL OR (p.email_index = r.email_index AND NOT {_LOST}) THEN r.email ELSE p.email END"
_DATED = "version = r.version + 1, updated_at = %(now)s, updated_by = %(by)s"
_UPDATE_PEOPLE = f"""
UPDATE schedules_recipient r SET {", ".join(f"{column} = {merged}" for column, merged in _MERGED.items())},
    email = {_ADDRESS}, objected_at = {_STILL_OBJECTED} || {_OBJECTED},
    consent_source = CASE WHEN p.consent IS NULL THEN r.consent_source ELSE r.consent_source || {
    _source_of(_HEARD, "r.consent -> c.key IS DISTINCT FROM c.value")
} END,
    quiet_hours_source = CASE WHEN r.quiet_hours IS DISTINCT FROM {_QUIET_NOW} THEN {_TOLD}
                              ELSE r.quiet_hours_source END,
    {_DATED}
FROM pg_temp.import_people p
WHERE p.external_id = r.external_id
  AND (({", ".join(f"r.{column}" for column in _MERGED)}) IS DISTINCT FROM ({", ".join(_MERGED.values())})
       OR {_LOST} OR r.id IN (__CHANGED__))
"""
_CHANGED_BY_FILE = "SELECT recipient_id FROM pg_temp.import_changed"
_CHANGED_BY_SERVICE = "SELECT unnest(%(changed)s::bigint[])"
# Who objects once more has changed nothing but how old the objection is, which is no version of the profile.
_OBJECT_AGAIN = f"""
UPDATE schedules_recipient r SET objected_at = r.objected_at || {_SAID_NO}
FROM pg_temp.import_people p
WHERE p.external_id = r.external_id AND {_IS_NO} AND NOT r.objected_at @> {_SAID_NO}
"""

# What stands there already, and is looked at: only who decrypts it sees that it is damaged.
_STANDING_EMAILS = """
SELECT r.id, r.email FROM pg_temp.import_people p JOIN schedules_recipient r USING (external_id)
WHERE p.email_index = r.email_index
"""
_STANDING_TOKENS = "SELECT v.id, v.token FROM pg_temp.import_devices d JOIN schedules_device v USING (token_index)"

# Devices are locked before profiles, in the order in which deleting a person locks them.
_LOCK_DEVICES = """
SELECT count(*) FROM (
    SELECT 1 FROM schedules_device v JOIN pg_temp.import_devices d USING (token_index) ORDER BY v.id FOR UPDATE OF v
) locked
"""
# Who is known already and gets a device, or has one renewed.
_FIND_CHANGED = f"""
INSERT INTO pg_temp.import_changed
SELECT DISTINCT r.id
FROM pg_temp.import_devices d
JOIN schedules_recipient r USING (external_id) LEFT JOIN schedules_device v USING (token_index)
WHERE (v.recipient_id, v.platform, v.active) IS DISTINCT FROM (r.id, d.platform, true) OR {_is_unreadable("v", "token")}
"""
_DATE_LOSERS = f"""
UPDATE schedules_recipient r SET {_DATED} WHERE r.id IN (
    SELECT v.recipient_id FROM pg_temp.import_devices d
    JOIN schedules_device v USING (token_index) JOIN schedules_recipient o USING (external_id)
    WHERE v.recipient_id <> o.id
)
"""
_COUNT_DEVICES = f"""
SELECT count(*) FILTER (WHERE v.recipient_id <> r.id),
       count(*) FILTER (
           WHERE v.recipient_id = r.id AND (NOT v.active OR v.platform <> d.platform OR {_is_unreadable("v", "token")}))
FROM pg_temp.import_devices d
JOIN schedules_device v USING (token_index) JOIN schedules_recipient r USING (external_id)
"""
# In the order of what is unique, as in ``schedules.recipients``: two who write the same new devices wait in turn.
_WRITE_DEVICES = f"""
INSERT INTO schedules_device AS v (recipient_id, token, token_index, platform, active, created_at)
SELECT r.id, d.token, d.token_index, d.platform, true, %(now)s
FROM pg_temp.import_devices d JOIN schedules_recipient r USING (external_id)
ORDER BY d.token_index
ON CONFLICT (token_index) DO UPDATE
SET recipient_id = excluded.recipient_id, platform = excluded.platform, active = true,
    token = CASE WHEN {_is_unreadable("v", "token")} THEN excluded.token ELSE v.token END
WHERE (v.recipient_id, v.platform, v.active) IS DISTINCT FROM (excluded.recipient_id, excluded.platform, true)
   OR {_is_unreadable("v", "token")}
"""


class Piece(NamedTuple):
    """What is staged of what the user service tells: people who are not known and those who are, and whether there are
    devices. ``changed``: the numbers of those who are known and whose devices change. ``damaged``: of those whose
    address was changed behind the application's back."""

    new: int
    known: int
    has_devices: bool
    changed: Collection[int]
    damaged: Sequence[int]


class Written(NamedTuple):
    """How many profiles and devices became what. A device is *renewed* when it was inactive, changed platform or
    could not be read.

    ``left_out``: people who were erased before, and are not brought back.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    devices_added: int = 0
    devices_moved: int = 0
    devices_renewed: int = 0
    left_out: int = 0


def take_turn(*, with_pieces: bool = False) -> None:
    """Wait for whoever merges a file at this moment, and be the only one until the transaction ends.

    ``with_pieces``: no file is merged meanwhile, but others may have taken the turn in this way too.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock{'_shared' if with_pieces else ''}(%s)", [_TURN])


def merge(
    *,
    now: datetime,
    by: str,
    on_person: Callable[[str, bool], None] | None = None,
    on_left_out: Callable[[str], None] | None = None,
    bring_back: bool = False,
    piece: Piece | None = None,
) -> Written:
    """Create and update profiles and devices; only what changes is written, dated ``now`` and signed ``by``.

    ``on_person`` is told the external id of each person who is created (true) or updated (false). People who were
    erased are left out, which ``on_left_out`` is told, unless ``bring_back`` forgets that they were.

    ``piece``: of what the user service tells, and the turn is taken. Objections that were made here stand against it
    unless it is younger. More follows, so the planner is not told of each. Where others create some of its new people
    at the same moment, ``created`` is less than these, and the caller takes all of it back.
    """
    if piece is None:
        take_turn()
    dated: dict[str, Any] = {"now": now, "by": by, "heads": encryption.keyset().heads, "is_told": piece is not None}
    with connection.cursor() as cursor:
        people, has_devices = _count(cursor) if piece is None else (piece.new + piece.known, piece.has_devices)
        if not people:
            return Written()
        left_out = 0
        if bring_back:
            cursor.execute(_WANT_BACK)
        elif (piece is None or piece.new) and (left_out := _leave_out(cursor, on_left_out, has_devices=has_devices)):
            people -= left_out
        standing = has_devices and _lock_devices(cursor)
        dated["damaged_tokens"] = _damaged(cursor, _STANDING_TOKENS, _TOKEN) if standing else []
        if piece is None:
            if has_devices:
                cursor.execute(_FIND_CHANGED, dated)
            dated["damaged_emails"] = _damaged(cursor, _STANDING_EMAILS, _EMAIL)
        else:
            dated |= {"damaged_emails": list(piece.damaged), "changed": list(piece.changed)}
        created = 0
        if piece is None or piece.new:
            created = _write(cursor, _CREATE_PEOPLE, "external_id", dated, _with(on_person, True))
        if piece is not None and created < piece.new - left_out:
            # Others were quicker to create some of them, whose rows are held by nobody here: to change these now, in
            # whatever order, could lock two such pieces out of each other.
            return Written(created, left_out=left_out)
        updated = 0
        if created < people:
            changed = _CHANGED_BY_FILE if piece is None else _CHANGED_BY_SERVICE
            update = _UPDATE_PEOPLE.replace("__CHANGED__", changed)
            updated = _write(cursor, update, "r.external_id", dated, _with(on_person, False))
        if piece is None:
            cursor.execute(_OBJECT_AGAIN, dated)
        added, moved, renewed = _write_devices(cursor, dated, standing=standing) if has_devices else (0, 0, 0)
        if created >= _MANY_NEW and piece is None:
            # Queries that run right after a large import should not be planned for the table as it was.
            cursor.execute("ANALYZE schedules_recipient")
    return Written(created, updated, people - created - updated, added, moved, renewed, left_out)


def _count(cursor: Any) -> tuple[int, bool]:
    """How many people there are, and whether they have devices that are not known."""
    cursor.execute("SELECT count(*), EXISTS (SELECT 1 FROM pg_temp.import_devices) FROM pg_temp.import_people")
    people, has_devices = cursor.fetchone()
    return people, has_devices


def _lock_devices(cursor: Any) -> bool:
    """Whether any of them stands there already."""
    cursor.execute(_LOCK_DEVICES)
    return bool(cursor.fetchone()[0])


def _write_devices(cursor: Any, dated: Mapping[str, Any], *, standing: bool) -> tuple[int, int, int]:
    """How many were added, moved and renewed. ``standing``: whether any stood there before."""
    moved = renewed = 0
    if standing:
        cursor.execute(_COUNT_DEVICES, dated)
        moved, renewed = cursor.fetchone()
    if moved:
        cursor.execute(_DATE_LOSERS, dated)
    cursor.execute(_WRITE_DEVICES, dated)
    return cursor.rowcount - moved - renewed, moved, renewed


def _damaged(cursor: Any, standing: str, of: bytes) -> list[int]:
    """Of what is to be kept: ids of rows that were changed behind the application's back. SQL finds those whose key is
    gone."""
    keyset, found = encryption.keyset(), []
    with cursor.copy(f"COPY ({standing}) TO STDOUT (FORMAT BINARY)") as copy:
        copy.set_types(["bigint", "bytea"])
        for pk, kept in copy.rows():
            try:
                keyset.decrypt(kept, of)
            except encryption.Tampered:
                found.append(pk)
            except encryption.UnknownKey:
                pass
    return found


def _leave_out(cursor: Any, tell: Callable[[str], None] | None, *, has_devices: bool) -> int:
    cursor.execute(_LEAVE_OUT)
    found = cursor.fetchall()
    if found and has_devices:
        cursor.execute(_LEAVE_DEVICES_OUT, [[line for line, _ in found]])
    for _, external_id in found:
        if tell:
            tell(external_id)
    return len(found)


def _with(on_person: Callable[[str, bool], None] | None, is_new: bool) -> Callable[[str], None] | None:
    return (lambda external_id: on_person(external_id, is_new)) if on_person else None


def _write(
    cursor: Any, statement: str, named: str, parameters: Mapping[str, Any], tell: Callable[[str], None] | None
) -> int:
    """How many rows it wrote. ``named`` is the column by which ``tell`` is told of each."""
    cursor.execute(f"{statement} RETURNING {named}" if tell else statement, parameters)
    if tell:
        for (external_id,) in cursor:
            tell(external_id)
    return int(cursor.rowcount)
