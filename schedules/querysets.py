"""Filters on schedules and occurrences; they chain."""

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    from schedules.models import Occurrence, Schedule  # noqa: F401 - in the quoted bases below


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def live(self) -> "ScheduleQuerySet":
        """All but the deleted ones."""
        return self.exclude(status="deleted")

    def due(self, *, by: datetime) -> "ScheduleQuerySet":
        """Active ones with an occurrence to open at or before ``by``, the longest due first."""
        return self.filter(status="active", next_run_at__lte=by).order_by("next_run_at")


class OccurrenceQuerySet(models.QuerySet["Occurrence"]):
    def open(self) -> "OccurrenceQuerySet":
        """Those whose books are not closed yet."""
        return self.filter(closed_at__isnull=True)

    def running(self) -> "OccurrenceQuerySet":
        return self.filter(state="running", closed_at__isnull=True)
