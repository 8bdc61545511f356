"""Columns that lie encrypted in the database, and their blind indexes (``schedules.encryption``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import structlog
from django.core.exceptions import FieldError
from django.db import models
from django.db.models.lookups import Exact, IsNull, Lookup
from django.utils.html import escape
from django.utils.translation import gettext

from schedules import encryption
from schedules.problems import Saying, say

log = structlog.get_logger(__name__)


class UnreadableText(Saying):
    """Stands where a kept text can't be decrypted, and says so to people: one damaged value spoils no whole page.

    Written again, it is what was kept.
    """

    kept: bytes
    error: encryption.Undecryptable

    @classmethod
    def of(cls, kept: bytes, error: encryption.Undecryptable) -> UnreadableText:
        words = say("(unreadable)")
        made = cls(words)
        made.text, made.values, made.kept, made.error = words.text, words.values, kept, error
        return made

    def __html__(self) -> str:
        """For templates: in the reader's language."""
        return escape(gettext(self.text))


def legible(texts: Iterable[str]) -> list[str]:
    """Those that are not empty and could be read."""
    return [text for text in texts if text and not isinstance(text, UnreadableText)]


class _IsEmpty(Exact):
    """Equality with the empty text, which is kept as no bytes. Anything else is encrypted anew each time."""

    def get_prep_lookup(self) -> bytes:
        if self.rhs not in ("", b""):
            raise FieldError(f"{self.lhs.output_field.name} is encrypted: look it up by its blind index.")
        return b""


class Encrypted(models.Field):  # type: ignore[type-arg]
    """What the columns have in common: ``bytea``, of which SQL can ask only whether it is empty.

    ``place`` is authenticated with each value. ``rotation`` reads and writes what is kept, without these methods.
    """

    def get_internal_type(self) -> str:
        return "BinaryField"

    @property
    def place(self) -> bytes:
        return place(self.model._meta.db_table, str(self.column))

    def db_check(self, connection: Any) -> str:
        """Nothing but the empty value and what begins with the version, so that nobody can leave a text in clear."""
        return f"substr({connection.ops.quote_name(str(self.column))}, 1, 1) IN ('', '\\x01')"

    def get_lookup(self, lookup_name: str) -> type[Lookup[Any]]:
        if lookup_name == "exact":
            return _IsEmpty
        if lookup_name == "isnull":
            return IsNull
        raise FieldError(f"{self.name} is encrypted: it can't be asked for {lookup_name}.")


class EncryptedTextField(Encrypted):
    """A text. ``max_length`` counts characters of it, not bytes of what is kept. One that can't be read is shown so."""

    def get_prep_value(self, value: Any) -> bytes | None:
        if isinstance(value, UnreadableText):
            return value.kept
        return None if value is None else encryption.encrypt(str(value), self.place)

    def from_db_value(self, value: bytes | None, *_: Any) -> str | None:
        if value is None:
            return None
        kept = bytes(value)
        try:
            return encryption.decrypt(kept, self.place)
        except encryption.Undecryptable as error:
            log.error("undecryptable", reason=error.reason, key_id=error.key_id, of=self.place.decode())
            return UnreadableText.of(kept, error)

    def to_python(self, value: Any) -> str | None:
        return None if value is None else str(value)


class EncryptedBytesField(Encrypted):
    """Bytes, none of which are kept as none. Reading them raises ``encryption.Undecryptable``."""

    def get_prep_value(self, value: Any) -> bytes | None:
        return encryption.keyset().encrypt(bytes(value), self.place) if value else value

    def from_db_value(self, value: bytes | None, *_: Any) -> bytes | None:
        return encryption.keyset().decrypt(bytes(value), self.place) if value else value


class BlindIndexField(models.UUIDField):  # type: ignore[type-arg]
    """The blind index of the encrypted text ``of`` beside it; empty where that is.

    Written with the row. Whoever writes the text by ``update()`` or SQL writes its index too.
    """

    def __init__(self, *args: Any, of: str = "", is_address: bool = True, **kwargs: Any) -> None:
        self.of, self.is_address = of, is_address
        super().__init__(*args, **{**kwargs, "null": True, "editable": False})

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, {**kwargs, "of": self.of, "is_address": self.is_address}

    def index(self, text: str) -> UUID | None:
        return encryption.index_of_address(text) if self.is_address else encryption.index_of_token(text)

    def pre_save(self, model_instance: models.Model, add: bool) -> UUID | None:
        text = getattr(model_instance, self.of)
        found = getattr(model_instance, self.attname) if isinstance(text, UnreadableText) else self.index(text)
        setattr(model_instance, self.attname, found)
        return found


def place(table: str, column: str) -> bytes:
    """What is authenticated with a column's values."""
    return f"{table}.{column}".encode()
