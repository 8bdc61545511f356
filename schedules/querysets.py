"""Filters on schedules and occurrences; they chain."""

from datetime import datetime
from typing import Self, TypeVar

from django.db import connection, models

# The model is named by the model itself, which imports this room.
_Row = TypeVar("_Row", bound=models.Model, covariant=True)


class ScheduleQuerySet(models.QuerySet[_Row]):
    def live(self) -> Self:
        """All but the deleted ones."""
        return self.exclude(status="deleted")

    def due(self, *, by: datetime) -> Self:
        """Active ones with an occurrence to open at or before ``by``, the longest due first."""
        return self.filter(status="active", next_run_at__lte=by).order_by("next_run_at")


class KeptQuerySet(models.QuerySet[_Row]):
    def live(self) -> Self:
        """All but the deleted ones."""
        return self.filter(deleted_at__isnull=True)


class TemplateQuerySet(KeptQuerySet[_Row]):
    def hold(self, template_id: int) -> bool:
        """Keep it from being deleted until the transaction ends; false where it is not there.

        ``FOR KEY SHARE``, which Django can't say: it stands in the way of a deletion and of nobody else who holds it.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM schedules_messagetemplate WHERE id = %s AND deleted_at IS NULL FOR KEY SHARE",
                [template_id],
            )
            return cursor.fetchone() is not None


class OccurrenceQuerySet(models.QuerySet[_Row]):
    def open(self) -> Self:
        """Those whose books are not closed yet."""
        return self.filter(closed_at__isnull=True)
