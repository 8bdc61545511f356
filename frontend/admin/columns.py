"""Columns and read-only fields that several admins share."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from django.contrib import admin
from django.db.models import Model
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from frontend.instants import show

Column = Callable[[Any, Any], Any]
F = TypeVar("F", bound=Column)


def badge(*, description: str, ordering: str, colours: Mapping[str, str]) -> Callable[[F], F]:
    """Show the column's value as a label, coloured by value: success, warning, info, danger."""
    return cast(Callable[[F], F], display(description=description, ordering=ordering, label=dict(colours)))


def moment(field: str, label: str | Promise = "") -> Column:
    """The instant ``field`` in UTC, with its zone said; the column sorts by it."""

    @admin.display(description=cast(str, label) or field.replace("_", " "), ordering=field)
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
