"""Columns and read-only fields that several admins share."""

import json
from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.utils.html import format_html
from django.utils.safestring import SafeString

from frontend.instants import show

Column = Callable[[Any, Any], Any]


def moment(field: str, label: str = "") -> Column:
    """The instant ``field`` in UTC, with its zone said; the column sorts by it."""

    @admin.display(description=label or field.replace("_", " "), ordering=field)
    def column(_: Any, row: Model) -> str:
        return show(getattr(row, field))

    return column


def as_json(field: str, label: str = "") -> Column:
    """The JSON ``field``, indented."""

    @admin.display(description=label or field.replace("_", " "))
    def column(_: Any, row: Model) -> SafeString:
        text = json.dumps(getattr(row, field), indent=2, ensure_ascii=False)
        return format_html('<pre class="ns-json">{}</pre>', text)

    return column
