"""Exceptions as logs tell them: of what type, where, and in no words that may quote what somebody typed.

Libraries quote what they were given: ``KeyError: 'anna@example.com'``. PostgreSQL quotes whole rows in DETAIL. Hence
words are kept of errors alone that speak of machines and code; of the database the SQLSTATE and the names of what was
violated.
"""

import re
import traceback
from collections.abc import Iterator
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from psycopg import Error as PostgresError
from redis import RedisError

_OF_CODE: Final = (
    ImproperlyConfigured,
    OSError,
    RedisError,
    ImportError,
    AttributeError,
    NameError,
    TypeError,
)
_LONGEST: Final = 300
_QUOTED: Final = re.compile(r"\S+@\S+")


def without_values(exc_info: Any) -> str:
    """The exception and those that it comes from, first to last, as Python writes them but for the words."""
    return "\n".join(_told(error) for error in reversed([*_chain(exc_info[1])]))


def briefly(error: BaseException) -> str:
    """Its type, and the first words that it or what it comes from may be told by."""
    words = next((words for each in _chain(error) if (words := in_words(each))), "")
    return _named(error, words)


def in_words(error: BaseException) -> str:
    """What of an error's own words may be told: a line without line breaks, empty where none may.

    An error of ours whose words name nobody says so by ``names_nobody``.
    """
    if isinstance(error, DatabaseError | PostgresError):
        return _of_database(error)
    if not (isinstance(error, _OF_CODE) or getattr(error, "names_nobody", False)):
        return ""
    words = str(error).partition("\n")[0]
    return _QUOTED.sub("…", words)[:_LONGEST]


def _told(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    return frames + _named(error, in_words(error))


def _named(error: BaseException, words: str) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}{': ' if words else ''}{words}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _of_database(error: BaseException) -> str:
    """Django's errors have psycopg's as their cause, and psycopg's know what PostgreSQL said, part by part."""
    own = error if isinstance(error, PostgresError) else error.__cause__
    diag = getattr(own, "diag", None)
    if diag is None or diag.sqlstate is None:  # no answer of the server's: of the connection or of Django
        return _QUOTED.sub("…", str(error).partition("\n")[0])[:_LONGEST] if own is not None else ""
    named = (diag.table_name, diag.column_name, diag.constraint_name)
    return " ".join(("SQLSTATE", diag.sqlstate, *(each for each in named if each)))
