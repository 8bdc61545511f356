"""Encrypting anew, under the primary key, what is kept under another one: beside a service that runs.

Pieces are committed one by one, so whoever is killed goes on where he was. A row that somebody has locked is left for
the next round: nobody waits for us, nor we for him. No version rises and no date changes.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from django.apps import apps
from django.db import connection, transaction

from schedules import encryption
from schedules.encryption import HEAD_BYTES, Undecryptable
from schedules.fields import BlindIndexField, Encrypted, EncryptedBytesField

_ROUNDS: Final = 5
_PAUSE_S: Final = 0.5  # for those who hold rows


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
    """What became of it. ``unreadable``: table, column and id of values that can't be decrypted, and why.

    ``held`` counts values that others held to the end, ``kept`` all values by the name of the key they are under now.
    """

    done: int = 0
    held: int = 0
    unreadable: dict[tuple[str, str, int], str] = field(default_factory=dict)
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
    until it is through, equal addresses and tokens are not found.
    """
    result = Rotated()
    for column in columns():
        _pass(column, result, progress, reindex=reindex)
        for _ in range(_ROUNDS):
            if not _left(column, result):
                break
            time.sleep(_PAUSE_S)
            _pass(column, result, progress, reindex=False)
        result.held += _left(column, result)
        result.kept += _by_key(column)
    return result


def _column(encrypted: Encrypted) -> Column:
    beside = [each for each in encrypted.model._meta.fields if isinstance(each, BlindIndexField)]
    index = next((each for each in beside if each.of == encrypted.name), None)
    piece = 8 if isinstance(encrypted, EncryptedBytesField) else 500
    return Column(encrypted.model._meta.db_table, str(encrypted.column), encrypted.place, index, piece)


def _pass(column: Column, result: Rotated, progress: Callable[[int], None], *, reindex: bool) -> None:
    """Once over the table by ascending id."""
    after = 0
    while True:
        with transaction.atomic():
            rows = _locked(column, after, reindex=reindex)
            done = _write(column, rows, result, reindex=reindex)
        if not rows:
            return
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


def _write(column: Column, rows: list[tuple[int, bytes]], result: Rotated, *, reindex: bool) -> int:
    keyset = encryption.keyset()
    ids, values, indexes = [], [], []
    for pk, kept in rows:
        try:
            data = keyset.decrypt(kept, column.place)
        except Undecryptable as error:
            result.unreadable[column.table, column.name, pk] = str(error)
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
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {column.table} t SET {made} FROM unnest({types}) AS v({names}) WHERE t.id = v.id", given
        )
        return int(cursor.rowcount)


def _left(column: Column, result: Rotated) -> int:
    unreadable = sum(key[:2] == (column.table, column.name) for key in result.unreadable)
    return max(outdated(column) - unreadable, 0)


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
