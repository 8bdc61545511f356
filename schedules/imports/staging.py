"""A file of people inside PostgreSQL: copied into a temporary table, checked as a set, merged into the profiles.

All of it happens in the caller's transaction, on tables that end with it: whatever stops it leaves nothing behind.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
from django.db import connection

from schedules import encryption, fingerprints
from schedules.fields import place
from schedules.imports.rows import BadLine, Row
from schedules.problems import say

# Two imports that write the same people in different orders would lock each other out: they take turns.
_TURN: Final = 0x696D_706F_7274  # a key of our own among the advisory locks
_STEP: Final = 5_000  # rows between two reports of progress
_EMAIL: Final = place("schedules_recipient", "email")
_TOKEN: Final = place("schedules_device", "token")
_DISTINCT: Final = 10_000  # values of a column that are looked at, the most frequent ones


def is_lost(column: str) -> str:
    """Whether what is kept is under a key that nobody has any more, as SQL."""
    return f"substr({column}, 1, {encryption.HEAD_BYTES}) <> ALL(%(heads)s::bytea[])"


def _is_unreadable(row: str, column: str) -> str:
    """Whether it is lost or ``merge`` has found it damaged, as SQL."""
    return f"({is_lost(f'{row}.{column}')} OR {row}.id = ANY(%(damaged_{column}s)s::bigint[]))"


_CREATE = """
DROP TABLE IF EXISTS pg_temp.import_people, pg_temp.import_devices, pg_temp.import_changed;
CREATE TEMPORARY TABLE import_people (
    line bigint, external_id text, email bytea, email_index uuid, locale text, time_zone text, tags jsonb,
    consent jsonb, attributes jsonb, dropped text[], devices jsonb, of_id uuid, of_address uuid
) ON COMMIT DROP;
CREATE TEMPORARY TABLE import_devices (
    line bigint, external_id text, platform text, token bytea, token_index uuid
) ON COMMIT DROP;
CREATE TEMPORARY TABLE import_changed (recipient_id bigint) ON COMMIT DROP;
"""

_REPEATED_PEOPLE = """
SELECT p.line, f.line AS first FROM pg_temp.import_people p JOIN (
    SELECT external_id, min(line) AS line FROM pg_temp.import_people GROUP BY external_id HAVING count(*) > 1
) f USING (external_id) WHERE p.line > f.line
"""
_SPREAD_DEVICES = """
INSERT INTO pg_temp.import_devices
SELECT p.line, p.external_id, d.platform, decode(d.token, 'hex'), d.token_index
FROM pg_temp.import_people p, jsonb_to_recordset(p.devices) AS d(platform text, token text, token_index uuid)
WHERE p.devices <> '[]'
"""
_REPEATED_DEVICES = """
SELECT d.line, min(f.line) AS first FROM pg_temp.import_devices d JOIN (
    SELECT token_index, min(line) AS line FROM pg_temp.import_devices GROUP BY token_index HAVING count(*) > 1
) f USING (token_index) WHERE d.line > f.line GROUP BY d.line
"""

# Who was erased before and is not there (again). An address that somebody who is there has got is his.
_WAS_ERASED = """
(p.of_id IN (SELECT fingerprint FROM schedules_erasedperson)
 OR p.of_address IN (SELECT fingerprint FROM schedules_erasedperson)) IS TRUE
AND NOT EXISTS (SELECT 1 FROM schedules_recipient r WHERE r.external_id = p.external_id)
"""
_LEAVE_OUT = f"DELETE FROM pg_temp.import_people p WHERE {_WAS_ERASED} RETURNING line, external_id"
_LEAVE_DEVICES_OUT = "DELETE FROM pg_temp.import_devices WHERE line = ANY(%s)"
_WANT_BACK = """
DELETE FROM schedules_erasedperson e USING pg_temp.import_people p WHERE e.fingerprint IN (p.of_id, p.of_address)
"""

# Sorted, since that halves the work of the indexes on external_id; the conflicts are with whoever is quicker.
_CREATE_PEOPLE = """
INSERT INTO schedules_recipient
    (external_id, email, email_index, locale, time_zone, tags, consent, attributes, created_at, updated_at, updated_by)
SELECT external_id, COALESCE(email, ''), email_index, COALESCE(locale, ''), COALESCE(time_zone, ''),
       COALESCE(tags, '[]'), COALESCE(consent, '{}'), COALESCE(attributes, '{}'), %(now)s, %(now)s, %(by)s
FROM pg_temp.import_people p
WHERE NOT EXISTS (SELECT 1 FROM schedules_recipient r WHERE r.external_id = p.external_id)
  -- who is erased at this very moment: the statement sees either the profile or the fingerprint
  AND (p.of_id IN (SELECT fingerprint FROM schedules_erasedperson)) IS NOT TRUE
ORDER BY external_id
ON CONFLICT (external_id) DO NOTHING
"""
# What a profile becomes: the file where it says something, else what it was; consent and attributes by key.
_MERGED = {
    "email_index": "CASE WHEN p.email IS NULL THEN r.email_index ELSE p.email_index END",
    "locale": "COALESCE(p.locale, r.locale)",
    "time_zone": "COALESCE(p.time_zone, r.time_zone)",
    "tags": "COALESCE(p.tags, r.tags)",
    "consent": "r.consent || COALESCE(p.consent, '{}')",
    "attributes": "(r.attributes || COALESCE(p.attributes, '{}')) - COALESCE(p.dropped, '{}')",
}
# An address is encrypted anew each time, so its index tells whether it is another one. What nobody can read is taken
# from the file again.
_LOST = f"(r.email <> '' AND p.email_index = r.email_index AND {_is_unreadable('r', 'email')}) IS TRUE"
_ADDRESS = f"CASE WHEN p.email IS NULL OR (p.email_index = r.email_index AND NOT {_LOST}) THEN r.email ELSE p.email END"
_DATED = "version = r.version + 1, updated_at = %(now)s, updated_by = %(by)s"
_UPDATE_PEOPLE = f"""
UPDATE schedules_recipient r SET {", ".join(f"{column} = {merged}" for column, merged in _MERGED.items())},
    email = {_ADDRESS}, {_DATED}
FROM pg_temp.import_people p
WHERE p.external_id = r.external_id
  AND (({", ".join(f"r.{column}" for column in _MERGED)}) IS DISTINCT FROM ({", ".join(_MERGED.values())})
       OR {_LOST} OR r.id IN (SELECT recipient_id FROM pg_temp.import_changed))
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


def fill(rows: Iterable[Row | BadLine], *, on_bad: Callable[[BadLine], None], progress: Callable[[int], None]) -> int:
    """Copy ``rows`` into the temporary tables; how many there were, bad ones included."""
    count = 0
    with connection.cursor() as cursor:
        cursor.execute(_CREATE)
        with cursor.copy("COPY pg_temp.import_people FROM STDIN") as copy:
            for count, row in enumerate(rows, start=1):
                if isinstance(row, BadLine):
                    on_bad(row)
                else:
                    copy.write_row(_kept(row))
                if count % _STEP == 0:
                    progress(count)
        cursor.execute("ANALYZE pg_temp.import_people (external_id)")
    progress(count)
    return count


def _kept(row: Row) -> tuple[Any, ...]:
    """A row of ``import_people``: temporary tables lie on the disk too, so it is encrypted before it gets there."""
    email = None if row.email is None else encryption.encrypt(row.email, _EMAIL)
    index = encryption.index_of_address(row.email or "")
    devices = _devices(row.devices) if row.devices and row.devices != "[]" else row.devices
    return (row.line, row.external_id, email, index, *row[3:-1], devices, *_fingerprints(row))


def _devices(listed: str) -> str:
    """``[{platform, token}]`` with each token as it is kept, and its index."""
    known = orjson.loads(listed)
    for device in known:
        token = device["token"]
        device["token_index"] = str(encryption.index_of_token(token))
        device["token"] = encryption.encrypt(token, _TOKEN).hex()
    return orjson.dumps(known).decode()


def _fingerprints(row: Row) -> tuple[str, str | None]:
    address = row.email.strip() if row.email else ""
    return fingerprints.of_id(row.external_id).hex, fingerprints.of_address(address).hex if address else None


def drop_repeated() -> Iterator[BadLine]:
    """Remove the people, then the devices that stand in the file already, and tell of each on which line."""
    yield from _drop(_REPEATED_PEOPLE, "external_id", _stands_already)
    if spread_devices():
        yield from _drop(_REPEATED_DEVICES, "devices", _token_of_another)


def spread_devices() -> bool:
    """Give each device a row of its own, as ``merge`` needs it; whether there are any."""
    with connection.cursor() as cursor:
        cursor.execute(_SPREAD_DEVICES)
        if not cursor.rowcount:
            return False
        cursor.execute("ANALYZE pg_temp.import_devices (token_index, external_id)")
        return True


def _stands_already(line: int) -> str:
    return say("stands on line %(line)s already: keep one of the two", line=line)


def _token_of_another(line: int) -> str:
    return say("has a token that somebody else has on line %(line)s: keep one of the two", line=line)


def _drop(repeated: str, field: str, reason: Callable[[int], str]) -> Iterator[BadLine]:
    is_any = False
    with connection.cursor() as cursor:
        # By COPY: as a plain answer, a million of repetitions would be in memory at once.
        with cursor.copy(f"COPY ({repeated} ORDER BY line) TO STDOUT") as copy:
            copy.set_types(["bigint", "bigint"])
            for line, first in copy.rows():
                is_any = True
                yield BadLine(line, field, reason(first))
        for table in ("import_people", "import_devices") if is_any else ():
            cursor.execute(f"DELETE FROM pg_temp.{table} t USING ({repeated}) x WHERE t.line = x.line")


def counts_of(column: str) -> Mapping[str, int]:
    """The values of ``locale`` or ``time_zone`` that aren't empty, with how many people have them."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {column}, count(*) FROM pg_temp.import_people WHERE {column} <> '' "
            f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_DISTINCT}"
        )
        return dict(cursor.fetchall())


def take_turn() -> None:
    """Wait for whoever merges people at this moment, and be the only one until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TURN])


def merge(
    *,
    now: datetime,
    by: str,
    on_person: Callable[[str, bool], None] | None = None,
    on_left_out: Callable[[str], None] | None = None,
    bring_back: bool = False,
    is_piece: bool = False,
) -> Written:
    """Create and update profiles and devices; only what changes is written, dated ``now`` and signed ``by``.

    ``on_person`` is told the external id of each person who is created (true) or updated (false). People who were
    erased are left out, which ``on_left_out`` is told, unless ``bring_back`` forgets that they were. ``is_piece``: more
    follows, so the planner is not told of each.
    """
    take_turn()
    dated: dict[str, Any] = {"now": now, "by": by, "heads": encryption.keyset().heads}
    with connection.cursor() as cursor:
        left_out = 0
        if bring_back:
            cursor.execute(_WANT_BACK)
        else:
            left_out = _leave_out(cursor, on_left_out)
        cursor.execute(_LOCK_DEVICES)
        dated["damaged_emails"] = _damaged(cursor, _STANDING_EMAILS, _EMAIL)
        dated["damaged_tokens"] = _damaged(cursor, _STANDING_TOKENS, _TOKEN)
        cursor.execute("SELECT count(*) FROM pg_temp.import_people")
        (people,) = cursor.fetchone()
        cursor.execute(_FIND_CHANGED, dated)
        created = _write(cursor, _CREATE_PEOPLE, "external_id", dated, _with(on_person, True))
        updated = 0
        if created < people:
            updated = _write(cursor, _UPDATE_PEOPLE, "r.external_id", dated, _with(on_person, False))
        cursor.execute(_COUNT_DEVICES, dated)
        moved, renewed = cursor.fetchone()
        if moved:
            cursor.execute(_DATE_LOSERS, dated)
        cursor.execute(_WRITE_DEVICES, dated)
        added = cursor.rowcount - moved - renewed
        if created >= _STEP and not is_piece:
            # Queries that run right after a large import should not be planned for the table as it was.
            cursor.execute("ANALYZE schedules_recipient")
        cursor.execute("DROP TABLE pg_temp.import_people, pg_temp.import_devices, pg_temp.import_changed")
    return Written(created, updated, people - created - updated, added, moved, renewed, left_out)


def _damaged(cursor: Any, standing: str, of: bytes) -> list[int]:
    """Ids of the rows whose value was changed behind the application's back. SQL finds those whose key is gone."""
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


def _leave_out(cursor: Any, tell: Callable[[str], None] | None) -> int:
    cursor.execute(_LEAVE_OUT)
    found = cursor.fetchall()
    if found:
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
