"""A file of people inside PostgreSQL: copied into a temporary table and checked as a set; ``merging`` does the rest.

All of it happens in the caller's transaction, on tables that end with it: whatever stops it leaves nothing behind.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
from django.db import connection

from schedules import encryption, fingerprints
from schedules.fields import place
from schedules.imports.rows import BadLine, Row
from schedules.problems import say

# Rows from which on the planner is told of a temporary table. With fewer, everything is looked up for each.
_MANY: Final = 200
_BY_INDEX = "SELECT set_config('random_page_cost', '1.1', true)"
_LOOK_UP = ", set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
_STEP: Final = 5_000  # rows between two reports of progress
_EMAIL: Final = place("schedules_recipient", "email")
_TOKEN: Final = place("schedules_device", "token")
_NO_FINGERPRINTS: Final = (None, None)
_NO_DATES: Final = (None, None)
_DISTINCT: Final = 10_000  # values of a column that are looked at, the most frequent ones

_CREATE_PEOPLE = """
DROP TABLE IF EXISTS pg_temp.import_people;
CREATE TEMPORARY TABLE import_people (
    line bigint, external_id text, email bytea, email_index uuid, locale text, time_zone text, tags jsonb,
    consent jsonb, quiet_hours jsonb, attributes jsonb, dropped text[], devices jsonb, of_id uuid, of_address uuid,
    agreed_at timestamptz, quieted_at timestamptz
) ON COMMIT DROP;
"""
_CREATE_DEVICES = """
DROP TABLE IF EXISTS pg_temp.import_devices;
CREATE TEMPORARY TABLE import_devices (
    line bigint, external_id text, platform text, token bytea, token_index uuid
) ON COMMIT DROP;
"""
_CREATE_CHANGED = """
DROP TABLE IF EXISTS pg_temp.import_changed;
CREATE TEMPORARY TABLE import_changed (recipient_id bigint) ON COMMIT DROP;
"""

_COPY_PEOPLE = "COPY pg_temp.import_people FROM STDIN"

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


class StagedPerson(NamedTuple):
    """Somebody of whom the user service tells. ``agreed_at``: older objections made here are taken back by what it says
    of consent; ``quieted_at`` the same of quiet hours. ``is_new``: nobody of that id is kept here."""

    row: Row
    agreed_at: datetime | None
    quieted_at: datetime | None
    is_new: bool


class StagedDevice(NamedTuple):
    """Of the person on that line."""

    line: int
    external_id: str
    platform: str
    token: str


def fill(
    rows: Iterable[Row | BadLine],
    *,
    on_bad: Callable[[BadLine], None],
    progress: Callable[[int], None],
) -> int:
    """Copy ``rows`` into the temporary tables; how many there were, bad ones included."""
    count = 0
    with connection.cursor() as cursor:
        cursor.execute(f"{_CREATE_PEOPLE}{_CREATE_DEVICES}{_CREATE_CHANGED}")
        with cursor.copy(_COPY_PEOPLE) as copy:
            for count, row in enumerate(rows, start=1):
                if isinstance(row, BadLine):
                    on_bad(row)
                else:
                    copy.write_row(_kept(row))
                if count % _STEP == 0:
                    progress(count)
        analyze(cursor, "import_people (external_id)", rows=count)
    progress(count)
    return count


def stage(people: Sequence[StagedPerson], devices: Sequence[StagedDevice]) -> None:
    """Copy what the user service tells into the temporary tables; that of devices is there if there are any."""
    addresses = encryption.encrypt_all([person.row.email or "" for person in people], _EMAIL)
    with connection.cursor() as cursor:
        cursor.execute(_CREATE_PEOPLE)
        with cursor.copy(_COPY_PEOPLE) as copy:
            for (row, *dates, is_new), address in zip(people, addresses, strict=True):
                copy.write_row(_made(row, address, None, dates, is_new=is_new))
        analyze(cursor, "import_people (external_id)", rows=len(people))
        if not devices:
            return
        tokens = encryption.encrypt_all([device.token for device in devices], _TOKEN)
        digits_of = encryption.keyset().digits_of_token
        cursor.execute(_CREATE_DEVICES)
        with cursor.copy("COPY pg_temp.import_devices FROM STDIN") as copy:
            for (line, external_id, platform, token), kept in zip(devices, tokens, strict=True):
                copy.write_row((line, external_id, platform, kept, digits_of(token)))
        analyze(cursor, "import_devices (token_index, external_id)", rows=len(devices))


def find_by_index(cursor: Any, *, rows: int) -> None:
    """Few people among many are found by an index, wherever the server believes that its disk turns. Where there are
    fewer still, keep the planner, who does not know that, from reading large tables as a whole."""
    cursor.execute(f"{_BY_INDEX}{_LOOK_UP}" if rows < _MANY else _BY_INDEX)


def analyze(cursor: Any, columns: str, *, rows: int) -> None:
    """Tell the planner how ``columns`` of a temporary table are spread, if they are worth it."""
    if rows >= _MANY:
        cursor.execute(f"ANALYZE pg_temp.{columns}")


def _kept(row: Row) -> tuple[Any, ...]:
    """A row of ``import_people``: temporary tables lie on the disk too, so it is encrypted before it gets there."""
    devices = _devices(row.devices) if row.devices and row.devices != "[]" else row.devices
    return _made(row, encryption.encrypt(row.email or "", _EMAIL), devices, _NO_DATES, is_new=True)


def _made(
    row: Row, address: bytes, devices: str | None, dates: Sequence[datetime | None], *, is_new: bool
) -> tuple[Any, ...]:
    """``dates``: of consent and of quiet hours. ``is_new``: whether the person may be one who was erased."""
    email = None if row.email is None else address
    index = encryption.keyset().digits_of_address(row.email or "")
    found = fingerprints.digits(row.external_id, row.email) if is_new else _NO_FINGERPRINTS
    return (row.line, row.external_id, email, index, *row[3:-1], devices, *found, *dates)


def _devices(listed: str) -> str:
    """``[{platform, token}]`` with each token as it is kept, and its index."""
    known = orjson.loads(listed)
    for device in known:
        token = device["token"]
        device["token_index"] = encryption.keyset().digits_of_token(token)
        device["token"] = encryption.encrypt(token, _TOKEN).hex()
    return orjson.dumps(known).decode()


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
        analyze(cursor, "import_devices (token_index, external_id)", rows=cursor.rowcount)
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
