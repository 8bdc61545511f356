"""Columns and read-only fields that several admins share."""

from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin
from django.db.models import Model
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.translation import gettext_lazy

from frontend import actors
from frontend.instants import show

Column = Callable[[Any, Any], Any]


def moment(field: str, label: str | Promise) -> Column:
    """The instant ``field`` in UTC, with its zone said; the column sorts by it."""

    @admin.display(description=cast(str, label), ordering=field)
    def column(_: Any, row: Model) -> str:
        return show(getattr(row, field))

    return column


def linked(page: str, field: str, label: str | Promise) -> Column:
    """The number in ``field``, leading to the page of ours that is so named."""

    @admin.display(description=cast(str, label), ordering=field)
    def column(_: Any, row: Model) -> str:
        pk = getattr(row, field)
        return format_html('<a class="ns-link" href="{}">{}</a>', reverse(page, args=[pk]), pk)

    return column


def named(field: str, label: str | Promise) -> Column:
    """``field`` as it is, under another name than a library has given it."""

    @admin.display(description=cast(str, label), ordering=field)
    def column(_: Any, row: Model) -> Any:
        return getattr(row, field)

    return column


@admin.display(description=gettext_lazy("made by"), ordering="created_by")
def maker(_: Any, row: Any) -> str:
    """Who made the row, by name; of a list all are known already."""
    return getattr(row, "known_maker", None) or actors.name(row.created_by)
