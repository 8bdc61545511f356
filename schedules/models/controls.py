"""What an operator sets: the stop switch, and the test clock."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from schedules.models.templates import Channel


class StopSwitch(models.Model):
    """Sending is stopped while such a row stands. Every claim looks."""

    ALL = "all"

    scope = models.CharField(max_length=40, unique=True, help_text="all, channel:NAME or schedule:ID")
    reason = models.CharField(_("reason"), max_length=500, blank=True)
    created_by = models.CharField(max_length=100)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("stop switch")
        verbose_name_plural = _("stop switches")
        constraints = [
            models.CheckConstraint(
                condition=Q(scope__regex=r"^(all|channel:(email|push|in_app)|schedule:[0-9]+)$"),
                name="stop_switch_scope_known",
            )
        ]

    def __str__(self) -> str:
        """What is stopped."""
        kind, _colon, name = self.scope.partition(":")
        if kind == "channel":
            return str(Channel(name).label)
        return gettext("Schedule #%(id)s") % {"id": name} if kind == "schedule" else gettext("All sending")


class TestClock(models.Model):
    """How far the test clock is ahead of the database's: one row, absent when it shows the real time."""

    shift = models.DurationField(_("ahead by"))

    class Meta:
        verbose_name = verbose_name_plural = _("test clock")
        constraints = [models.CheckConstraint(condition=Q(id=1), name="test_clock_single")]

    def __str__(self) -> str:
        return gettext("test clock")
