"""What an operator sets: the stop switch, and the test clock."""

from django.db import models
from django.db.models import Q


class StopSwitch(models.Model):
    """Sending is stopped while such a row stands. Every claim looks."""

    ALL = "all"

    scope = models.CharField(max_length=40, unique=True, help_text="all, channel:NAME or schedule:ID")
    reason = models.CharField(max_length=500, blank=True)
    created_by = models.CharField(max_length=100)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "stop switches"
        constraints = [
            models.CheckConstraint(
                condition=Q(scope__regex=r"^(all|channel:(email|push|in_app)|schedule:[0-9]+)$"),
                name="stop_switch_scope_known",
            )
        ]

    def __str__(self) -> str:
        return self.scope


class TestClock(models.Model):
    """How far the test clock is ahead of the database's: one row, absent when it shows the real time."""

    shift = models.DurationField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="test_clock_single")]

    def __str__(self) -> str:
        return str(self.shift)
