"""Filters on schedules and occurrences; they chain."""

from datetime import datetime
from typing import Self, TypeVar

from django.db import models

# The model is named by the model itself, which imports this room.
_Row = TypeVar("_Row", bound=models.Model, covariant=True)


class ScheduleQuerySet(models.QuerySet[_Row]):
    def live(self) -> Self:
        """All but the deleted ones."""
        return self.exclude(status="deleted")

    def due(self, *, by: datetime) -> Self:
        """Active ones with an occurrence to open at or before ``by``, the longest due first."""
        return self.filter(status="active", next_run_at__lte=by).order_by("next_run_at")


class OccurrenceQuerySet(models.QuerySet[_Row]):
    def open(self) -> Self:
        """Those whose books are not closed yet."""
        return self.filter(closed_at__isnull=True)
