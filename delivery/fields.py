"""Columns of PostgreSQL's that Django has not."""

from typing import Any

from django.db import models
from django.db.models import Func


class TransactionField(models.Field):  # type: ignore[type-arg]
    """The transaction in which the row was written, as PostgreSQL numbers them; SQL alone reads and compares it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        written = Func(function="pg_current_xact_id", output_field=models.TextField())
        super().__init__(*args, **{"db_default": written, "editable": False, **kwargs})

    def db_type(self, connection: Any) -> str:
        return "xid8"
