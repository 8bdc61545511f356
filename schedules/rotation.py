"""Encrypting anew, under the primary key, what is kept under another one: beside a service that runs.

Pieces are committed one by one, so whoever is killed goes on where he was. A row that somebody has locked is left for
the next round: nobody waits for us, nor we for him. No version rises and no date changes.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from django.apps import apps
from django.db import DatabaseError, connection, transaction

from schedules import encryption, suppressions
from schedules.encryption import HEAD_BYTES, Undecryptable
from schedules.fields import BlindIndexField, Encrypted, EncryptedBytesField

log = structlog.get_logger(__name__)

_ROUNDS: Final = 5
_PAUSE_S: Final = 0.5  # for those who hold rows
EXAMPLES: Final = 20  # a key that is lost may be that of millions


@dataclass(frozen=True)
class Column:
    """A column that is kept encrypted. ``index``: its blind index, where it has one; ``piece``: rows at once."""

    table: str
    name: str
    place: bytes
    index: BlindIndexField | None
    piece: int


@dataclass
class Rotated:
    """What became of it. ``unreadable`` counts values that can't be decrypted by table, column and reason.

    ``examples`` names the first of those: table, column, id and why. ``held`` counts values that others held to the
    end, ``doubled`` rows that stood there twice and went, ``kept`` all values by the name of the key they are under
    now.
    """

    done: int = 0
    held: int = 0
    doubled: int = 0
    unreadable: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str, int], str] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)


def columns() -> list[Column]:
    """Every encrypted column of every app."""
    return [_column(each) for model in apps.get_models() for each in model._meta.fields if isinstance(each, Encrypted)]


def outdated(column: Column, *, reindex: bool = False) -> int:
    """How many values need it: those under another key, with ``reindex`` also those that are looked up."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {column.table} WHERE {_wanted(column, reindex)}", _parameters())
        return int(cursor.fetchone()[0])


def rotate(*, progress: Callable[[int], None] = lambda done: None, reindex: bool = False) -> Rotated:
    """Encrypt anew all that needs it; ``progress`` is told how many values more are done.

    ``reindex`` makes the blind indexes anew as well, after a change of their key. Let the service stand still for that:
    until it is through, equal addresses and tokens are not found. If it ran with the new key before, devices that were
    registered meanwhile may stand there twice: the newer one stays.
    """
    result = Rotated()
    for column in columns():
        unreadable = _pass(column, result, progress, reindex=reindex)
        for _ in range(_ROUNDS):
            if not _left(column, unreadable):
                break
            time.sleep(_PAUSE_S)
            unreadable |= _pass(column, result, progress, reindex=False)
        result.held += _left(column, unreadable)
        result.unreadable.update({(column.table, column.name, why): count for why, count in unreadable.items()})
        result.kept += _by_key(column)
    return result


def _column(encrypted: Encrypted) -> Column:
    beside = [each for each in encrypted.model._meta.fields if isinstance(each, BlindIndexField)]
    index = next((each for each in beside if each.of == encrypted.name), None)
    piece = 8 if isinstance(encrypted, EncryptedBytesField) else 500
    return Column(encrypted.model._meta.db_table, str(encrypted.column), encrypted.place, index, piece)


def stale_indexes() -> list[str]:
    """Columns whose blind indexes were made with another key than this process has, by their oldest and newest value.

    Values of them are not found, and a token that is registered again would stand there twice.
    """
    return [f"{column.table}.{column.index.column}" for column in columns() if column.index and _is_stale(column)]


def tell_stale() -> None:
    """At the start of a process: say so in the log where ``BLIND_INDEX_KEY`` is another one than that of the indexes.

    The connection is closed again, since workers and servers fork. A database that is away is no reason not to start.
    """
    try:
        if stale := stale_indexes():
            log.error("blind_index_key_changed", columns=stale, remedy="manage.py rotate_keys --reindex")
    except DatabaseError as error:
        log.warning("indexes_not_compared", error=error)
    finally:
        connection.close()


def _is_stale(column: Column) -> bool:
    assert column.index is not None
    index = column.index.column
    asked = f'(SELECT "{column.name}", {index} FROM {column.table} WHERE {index} IS NOT NULL ORDER BY id %s LIMIT 1)'
    with connection.cursor() as cursor:
        cursor.execute(f"{asked % 'ASC'} UNION ALL {asked % 'DESC'}")
        rows = cursor.fetchall()
    for kept, stored in rows:
        try:
            text = encryption.decrypt(bytes(kept), column.place)
        except Undecryptable:
            continue
        if column.index.index(text) != stored:
            return True
    return False


def _pass(column: Column, result: Rotated, progress: Callable[[int], None], *, reindex: bool) -> Counter[str]:
    """Once over the table by ascending id; how many values can't be read, by reason."""
    after, unreadable = 0, Counter[str]()
    while True:
        with transaction.atomic():
            rows = _locked(column, after, reindex=reindex)
            done = _write(column, rows, result, unreadable, reindex=reindex)
        if not rows:
            return unreadable
        after = rows[-1][0]
        result.done += done
        progress(done)


def _locked(column: Column, after: int, *, reindex: bool) -> list[tuple[int, bytes]]:
    lock = "FOR NO KEY UPDATE" if reindex else "FOR NO KEY UPDATE SKIP LOCKED"
    with connection.cursor() as cursor:
        cursor.execute(
            f'SELECT id, "{column.name}" FROM {column.table} WHERE id > %(after)s AND {_wanted(column, reindex)}'
            f" ORDER BY id LIMIT {column.piece} {lock}",
            {**_parameters(), "after": after},
        )
        return [(pk, bytes(kept)) for pk, kept in cursor.fetchall()]


def _write(
    column: Column, rows: list[tuple[int, bytes]], result: Rotated, unreadable: Counter[str], *, reindex: bool
) -> int:
    keyset = encryption.keyset()
    ids, values, indexes = [], [], []
    for pk, kept in rows:
        try:
            data = keyset.decrypt(kept, column.place)
        except Undecryptable as error:
            unreadable[error.reason] += 1
            if len(result.examples) < EXAMPLES:
                result.examples[column.table, column.name, pk] = str(error)
            continue
        ids.append(pk)
        values.append(keyset.encrypt(data, column.place))
        if column.index and reindex:
            indexes.append(column.index.index(data.decode()))
    if not ids:
        return 0
    given: list[Any] = [ids, values]
    made, names = f'"{column.name}" = v.kept', "id, kept"
    types = "%s::bigint[], %s::bytea[]"
    if column.index and reindex:
        given.append(indexes)
        types, names, made = f"{types}, %s::uuid[]", f"{names}, index", f'{made}, "{column.index.column}" = v.index'
        if column.index.unique:
            result.doubled += _drop_doubled(column.table, str(column.index.column), ids, indexes)
        if column.index.is_address:
            suppressions.follow(column.table, str(column.index.column), ids, indexes)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {column.table} t SET {made} FROM unnest({types}) AS v({names}) WHERE t.id = v.id", given
        )
        return int(cursor.rowcount)


def _drop_doubled(table: str, index: str, ids: list[int], indexes: list[Any]) -> int:
    """Of rows that are to have one index, or of which one has it already, the newest stays; how many went."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH made AS MATERIALIZED (
                SELECT * FROM unnest(%s::bigint[], %s::uuid[]) AS v(id, index)
            ), alike AS MATERIALIZED (
                SELECT id, index FROM made
                UNION SELECT t.id, t.{index} FROM {table} t JOIN made m ON m.index = t.{index}
            )
            DELETE FROM {table} t USING alike a, alike b WHERE t.id = a.id AND a.index = b.index AND a.id < b.id
            """,
            [ids, indexes],
        )
        return int(cursor.rowcount)


def _left(column: Column, unreadable: Counter[str]) -> int:
    return max(outdated(column) - unreadable.total(), 0)


def _by_key(column: Column) -> Counter[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT encode(substr(\"{column.name}\", 2, {HEAD_BYTES - 1}), 'hex'), count(*) FROM {column.table}"
            f" WHERE \"{column.name}\" <> '' GROUP BY 1"
        )
        return Counter(dict(cursor.fetchall()))


def _wanted(column: Column, reindex: bool) -> str:
    is_there = f"\"{column.name}\" <> ''"
    if reindex and column.index:
        return is_there
    return f'{is_there} AND substr("{column.name}", 1, {HEAD_BYTES}) <> %(head)s'


def _parameters() -> dict[str, Any]:
    return {"head": encryption.keyset().head}
