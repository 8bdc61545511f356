"""Schedules, their versions and their occurrences."""

from datetime import date
from typing import Final

from django.contrib.postgres.functions import RandomUUID
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Cast, Upper

from schedules.models.templates import Channel, MessageTemplate
from schedules.models.topics import LONGEST_KEY, Purpose
from schedules.querysets import OccurrenceQuerySet, ScheduleQuerySet


class ScheduleStatus(models.TextChoices):
    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    DELETED = "deleted"
    BROKEN = "broken"


# Of a schedule whose occurrences go on: one that is broken has no next run, and what it began is none the worse for it.
# A finished one has none that could.
GOES_ON: Final = (ScheduleStatus.ACTIVE, ScheduleStatus.BROKEN)


class ScheduleType(models.TextChoices):
    ONCE = "once"
    CRON = "cron"


class TimeZoneMode(models.TextChoices):
    FIXED = "fixed", "At one instant"
    USER_LOCAL = "user_local", "At each recipient's local time"


class OnPast(models.TextChoices):
    SKIP = "skip", "Skip people whose local time has passed"
    SEND_NOW = "send_now", "Send to them at once"


LONGEST_SCHEDULE_KEY: Final = 100


class Schedule(models.Model):
    """What, to whom, when, within which limits.

    ``key`` is how files know it, in whichever database: it is made with the row unless a file has brought one.

    ``next_run_at`` is the instant at which anyone of the next occurrence can be due, ``next_occurrence_at`` that
    occurrence's identity; only the tick and the operation that changes the timing write them, under the row's lock.
    """

    key = models.CharField(
        max_length=LONGEST_SCHEDULE_KEY, db_default=Cast(RandomUUID(), models.TextField()), editable=False
    )
    name = models.CharField(max_length=200)
    channel = models.CharField(max_length=10, choices=Channel)
    audience_query = models.JSONField(default=dict)
    template = models.ForeignKey(
        MessageTemplate, on_delete=models.PROTECT, null=True, blank=True, related_name="schedules"
    )
    topic = models.CharField(max_length=LONGEST_KEY, null=True, blank=True)  # noqa: DJ001  # as on the wire
    purpose = models.CharField(
        max_length=15, choices=Purpose, default=Purpose.MARKETING, db_default=Purpose.MARKETING.value
    )
    schedule_type = models.CharField(max_length=10, choices=ScheduleType)
    run_at = models.DateTimeField(null=True, blank=True)
    cron = models.CharField(max_length=200, blank=True)
    time_zone = models.CharField(max_length=64, default="UTC")
    time_zone_mode = models.CharField(max_length=10, choices=TimeZoneMode, default=TimeZoneMode.FIXED)
    start_at = models.DateTimeField(null=True, blank=True)
    end_at = models.DateTimeField(null=True, blank=True)
    max_runs = models.PositiveIntegerField(null=True, blank=True)
    max_per_user_per_day = models.PositiveIntegerField(null=True, blank=True)
    max_per_user_per_week = models.PositiveIntegerField(null=True, blank=True)
    counts_toward_caps = models.BooleanField(default=True)
    max_per_minute = models.PositiveIntegerField(null=True, blank=True)
    send_window = models.JSONField(null=True, blank=True, help_text="Days and hours on each person's own clock")
    expires_after_minutes = models.PositiveIntegerField(null=True, blank=True)
    misfire_grace_minutes = models.PositiveIntegerField(default=60)
    on_past = models.CharField(max_length=10, choices=OnPast, default=OnPast.SKIP)
    recheck_audience = models.BooleanField(null=True, blank=True, help_text="Empty: yes in user-local mode, else no")

    status = models.CharField(max_length=10, choices=ScheduleStatus, default=ScheduleStatus.DRAFT, editable=False)
    status_reason = models.CharField(max_length=500, blank=True, editable=False)
    paused_at = models.DateTimeField(null=True, editable=False)
    resumed_at = models.DateTimeField(null=True, editable=False)
    next_run_at = models.DateTimeField(null=True, editable=False)
    next_occurrence_at = models.DateTimeField(null=True, editable=False)
    runs = models.PositiveIntegerField(default=0, editable=False, help_text="Occurrences opened or missed so far")
    zone_data = models.CharField(max_length=20, blank=True, editable=False)
    version = models.PositiveIntegerField(default=1, editable=False)
    created_by = models.CharField(max_length=100, editable=False)
    created_at = models.DateTimeField(editable=False)
    updated_at = models.DateTimeField(editable=False)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=~Q(status="deleted"), name="schedule_key_once"),
            models.CheckConstraint(condition=Q(status__in=ScheduleStatus.values), name="schedule_status_known"),
            models.CheckConstraint(condition=Q(channel__in=Channel.values), name="schedule_channel_known"),
            models.CheckConstraint(condition=Q(purpose__in=Purpose.values), name="schedule_purpose_known"),
            models.CheckConstraint(condition=Q(time_zone_mode__in=TimeZoneMode.values), name="schedule_mode_known"),
            models.CheckConstraint(
                condition=Q(status__in=["draft", "cancelled", "deleted"])
                | (Q(schedule_type="once", run_at__isnull=False, cron="") & Q(template__isnull=False))
                | (Q(schedule_type="cron", run_at__isnull=True) & ~Q(cron="") & Q(template__isnull=False)),
                name="schedule_complete_to_run",
            ),
            models.CheckConstraint(
                condition=(Q(max_per_user_per_day__isnull=True) | Q(max_per_user_per_day__gt=0))
                & (Q(max_per_user_per_week__isnull=True) | Q(max_per_user_per_week__gt=0))
                & (Q(max_runs__isnull=True) | Q(max_runs__gt=0)),
                name="schedule_limits_positive",
            ),
            models.CheckConstraint(
                condition=Q(max_per_minute__isnull=True) | Q(max_per_minute__gt=0), name="schedule_rate_positive"
            ),
            models.CheckConstraint(
                condition=Q(end_at__isnull=True) | Q(start_at__isnull=True) | Q(end_at__gt=F("start_at")),
                name="schedule_ends_after_start",
            ),
            models.CheckConstraint(
                condition=Q(next_run_at__isnull=True, next_occurrence_at__isnull=True)
                | Q(next_run_at__isnull=False, next_occurrence_at__isnull=False),
                name="schedule_next_run_whole",
            ),
        ]
        indexes = [
            models.Index(fields=["next_run_at"], name="schedule_due_idx", condition=Q(status="active")),
            models.Index(
                fields=["template"],
                name="schedule_template_live_idx",
                condition=Q(status__in=["draft", "active", "paused", "broken"]),
            ),
            models.Index(
                fields=["topic"],
                name="schedule_topic_live_idx",
                condition=Q(topic__isnull=False, status__in=["draft", "active", "paused", "broken"]),
            ),
            models.Index(fields=["zone_data"], name="schedule_zone_data_idx", condition=Q(next_run_at__isnull=False)),
            # The orders and filters of the list, so that any page of half a million is an index's next rows.
            models.Index(fields=["status", "id"], name="schedule_status_idx"),
            models.Index(fields=["created_by", "id"], name="schedule_creator_idx"),
            models.Index(fields=["name", "id"], name="schedule_name_idx"),
            models.Index(fields=["updated_at", "id"], name="schedule_updated_idx"),
            models.Index(fields=["next_run_at", "id"], name="schedule_next_run_idx"),
            GinIndex(OpClass(Upper("name"), name="gin_trgm_ops"), name="schedule_name_part_idx"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


# The external ids that a definition names in its audience, as a path of JSON.
NAMED_IDS: Final = '$.audienceQuery.** ? (@.field == "external_id").value[*]'


class ScheduleVersion(models.Model):
    """A schedule's definition as it was from one edit to the next; never changed. Keys as on the wire (camelCase)."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="versions")
    version = models.PositiveIntegerField()
    definition = models.JSONField()
    created_by = models.CharField(max_length=100)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["schedule", "version"], name="schedule_version_unique")]
        indexes = [
            # Whoever is erased is looked for in all of them.
            GinIndex(
                OpClass(
                    models.Func(F("definition"), models.Value(NAMED_IDS), function="jsonb_path_query_array"),
                    name="jsonb_path_ops",
                ),
                name="schedule_version_named_idx",
            )
        ]
        ordering = ["-version"]

    def __str__(self) -> str:
        return f"{self.schedule_id} v{self.version}"


class OccurrenceState(models.TextChoices):
    WAITING = "waiting", "Waiting for a new time"
    MATERIALISING = "materialising", "Finding its recipients"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    MISSED = "missed"


class Occurrence(models.Model):
    """One nominal firing. ``occurrence_at`` is its identity and never moves; due times live below it.

    ``targeted`` is the first of the two records that the books compare: raised with each page of rows.
    ``cursor`` says how far the audience is materialised: empty at the start, ``end`` when whole. ``begun_at`` is set
    by the first claim, and from then on an edit no longer applies by itself. While ``held_reason`` says why, nothing of
    it is claimed until a person lets it go on.
    """

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="occurrences")
    occurrence_at = models.DateTimeField()
    state = models.CharField(max_length=15, choices=OccurrenceState, default=OccurrenceState.MATERIALISING)
    reason = models.CharField(max_length=40, blank=True)
    at_once = models.BooleanField(
        default=False, db_default=False, help_text="Somebody ran it besides the schedule's own firings, for all at once"
    )
    version = models.PositiveIntegerField(help_text="Version of the schedule it runs with")
    template_version = models.PositiveIntegerField(default=0)
    opens_at = models.DateTimeField(help_text="The first instant at which anyone can be due")
    ends_at = models.DateTimeField(help_text="Whatever is open then expires")
    targeted = models.PositiveBigIntegerField(default=0)
    cursor = models.CharField(max_length=200, blank=True)
    materialise_queued_at = models.DateTimeField(null=True)
    materialise_lease_until = models.DateTimeField(null=True)
    opened_at = models.DateTimeField()
    materialised_at = models.DateTimeField(null=True)
    begun_at = models.DateTimeField(null=True)
    held_at = models.DateTimeField(null=True)
    held_reason = models.CharField(
        max_length=200, blank=True, db_default="", help_text="Why it is held; empty: it runs"
    )
    released_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)
    outcomes = models.JSONField(null=True, help_text="People by outcome, kept when the ledger's day is dropped")

    objects = OccurrenceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["schedule", "occurrence_at"], name="occurrence_unique"),
            models.CheckConstraint(condition=Q(state__in=OccurrenceState.values), name="occurrence_state_known"),
            models.CheckConstraint(
                condition=Q(closed_at__isnull=True) | Q(state__in=["finished", "cancelled", "missed"]),
                name="occurrence_closed_is_terminal",
            ),
        ]
        indexes = [
            models.Index(fields=["schedule"], name="occurrence_open_idx", condition=Q(closed_at__isnull=True)),
            models.Index(fields=["opens_at"], name="occurrence_materialise_idx", condition=Q(state="materialising")),
            models.Index(fields=["-occurrence_at"], name="occurrence_at_idx"),
            # So that the few of these are found among millions.
            models.Index(
                fields=["state", "-occurrence_at", "-id"],
                name="occurrence_rare_idx",
                condition=Q(state__in=["cancelled", "missed"]),
            ),
        ]
        ordering = ["-occurrence_at", "-id"]
        verbose_name = "run"  # what people call it

    def __str__(self) -> str:
        return f"run {self.pk} of schedule {self.schedule_id}"

    @property
    def day(self) -> date:
        """The ledger's partition: the UTC day of ``occurrence_at``."""
        return self.occurrence_at.date()
