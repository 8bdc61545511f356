"""Columns that lie encrypted in the database, and their blind indexes (``schedules.encryption``)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.exceptions import FieldError
from django.db import models
from django.db.models.lookups import Exact, IsNull, Lookup

from schedules import encryption


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

    def get_lookup(self, lookup_name: str) -> type[Lookup[Any]]:
        if lookup_name == "exact":
            return _IsEmpty
        if lookup_name == "isnull":
            return IsNull
        raise FieldError(f"{self.name} is encrypted: it can't be asked for {lookup_name}.")


class EncryptedTextField(Encrypted):
    """A text. ``max_length`` counts characters of it, not bytes of what is kept."""

    def get_prep_value(self, value: Any) -> bytes | None:
        return None if value is None else encryption.encrypt(str(value), self.place)

    def from_db_value(self, value: bytes | None, *_: Any) -> str | None:
        return None if value is None else encryption.decrypt(bytes(value), self.place)

    def to_python(self, value: Any) -> str | None:
        return None if value is None else str(value)


class EncryptedBytesField(Encrypted):
    """Bytes, none of which are kept as none."""

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
        found = self.index(getattr(model_instance, self.of))
        setattr(model_instance, self.attname, found)
        return found


def place(table: str, column: str) -> bytes:
    """What is authenticated with a column's values."""
    return f"{table}.{column}".encode()
