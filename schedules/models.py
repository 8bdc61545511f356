"""Schedules and what they are made of: recipients, templates, schedules, their versions and occurrences.

Invariants are database constraints; rows change through ``schedules.operations`` and ``schedules.occurrences``.
Instants are UTC.
"""

from datetime import date
from typing import Final

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now, Upper
from django.db.models.lookups import Exact
from django.utils.translation import gettext_lazy as _

from schedules.fields import BlindIndexField, EncryptedBytesField, EncryptedTextField
from schedules.querysets import KeptQuerySet, OccurrenceQuerySet, ScheduleQuerySet, TemplateQuerySet


def _json_type(field: str) -> models.Func:
    return models.Func(F(field), function="jsonb_typeof", output_field=models.TextField())


class Channel(models.TextChoices):
    EMAIL = "email", _("E-mail")
    PUSH = "push", _("Push")
    IN_APP = "in_app", _("In-app")


class Recipient(models.Model):
    """A profile. The ledger knows only its id, so deleting the profile is the anonymisation.

    ``locale`` and ``time_zone`` are kept as they came, valid or not: a bad zone falls back when it is used, and the
    ledger row says so. ``consent`` maps a channel to a boolean; ``false`` means opted out, absent means no objection.
    ``version`` rises whenever somebody changes the profile or its devices; that a push provider has retired a device
    is nobody's change. Rows change through ``schedules.recipients`` and ``schedules.imports``.
    """

    external_id = models.CharField(max_length=200, unique=True)
    email = EncryptedTextField(max_length=320, blank=True, default="")
    email_index = BlindIndexField(of="email")
    locale = models.CharField(max_length=35, blank=True)
    time_zone = models.CharField(max_length=64, blank=True)
    attributes = models.JSONField(default=dict, blank=True)
    tags = models.JSONField(default=list, blank=True)
    consent = models.JSONField(default=dict, blank=True)
    version = models.PositiveIntegerField(default=1, db_default=1, editable=False)
    updated_by = models.CharField(max_length=100, blank=True, db_default="", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(external_id=""), name="recipient_external_id_given"),
            models.CheckConstraint(
                condition=Q(Exact(_json_type("attributes"), "object"))
                & Q(Exact(_json_type("tags"), "array"))
                & Q(Exact(_json_type("consent"), "object")),
                name="recipient_json_shapes",
            ),
            models.CheckConstraint(
                condition=Q(email="", email_index__isnull=True) | (~Q(email="") & Q(email_index__isnull=False)),
                name="recipient_email_indexed",
            ),
        ]
        indexes = [
            GinIndex(fields=["attributes"], name="recipient_attributes_gin", opclasses=["jsonb_path_ops"]),
            GinIndex(fields=["tags"], name="recipient_tags_gin", opclasses=["jsonb_path_ops"]),
            models.Index(fields=["locale"], name="recipient_locale_idx"),
            models.Index(fields=["time_zone"], name="recipient_time_zone_idx"),
            models.Index(fields=["created_at"], name="recipient_created_at_idx"),
            models.Index(fields=["id"], name="recipient_no_email_idx", condition=Q(email="")),
            models.Index(fields=["email_index"], name="recipient_email_idx", condition=Q(email_index__isnull=False)),
        ]
        ordering = ["id"]

    def __str__(self) -> str:
        return self.external_id


class Device(models.Model):
    """Where push reaches a person: a registration token of the push provider."""

    recipient = models.ForeignKey(Recipient, on_delete=models.CASCADE, related_name="devices")
    token = EncryptedTextField(max_length=500)
    token_index = BlindIndexField(of="token", is_address=False, unique=True)
    platform = models.CharField(max_length=10, choices=[("android", "Android"), ("ios", "iOS"), ("web", "Web")])
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(token_index__isnull=False), name="device_token_indexed")]

    def __str__(self) -> str:
        return f"{self.platform} …{self.token[-6:]}"


class ErasedPerson(models.Model):
    """Somebody who was erased and whom no import brings back: a keyed fingerprint (``schedules.fingerprints``)."""

    fingerprint = models.UUIDField(primary_key=True)
    erased_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "erased people"

    def __str__(self) -> str:
        return str(self.fingerprint)


class MessageTemplate(models.Model):
    """A message in its channels and locales. ``version`` counts what was published; see ``TemplateVersion``.

    A deleted one stays as a row, for the occurrences that ran with its versions, and gives its name free.
    """

    name = models.CharField(max_length=200)
    default_locale = models.CharField(max_length=35, default="en")
    version = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = TemplateQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name"], condition=Q(deleted_at__isnull=True), name="template_name_once")
        ]
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class TemplateContent(models.Model):
    """What a template says in one channel and locale. ``subject`` is the title in push and in-app."""

    template = models.ForeignKey(MessageTemplate, on_delete=models.CASCADE, related_name="contents")
    channel = models.CharField(max_length=10, choices=Channel)
    locale = models.CharField(max_length=35)
    subject = models.CharField(max_length=998, blank=True)
    text = models.TextField(blank=True)
    html = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["template", "channel", "locale"], name="template_content_unique"),
            models.CheckConstraint(
                condition=~Q(text="") | ~Q(html="") | ~Q(subject=""), name="template_content_says_something"
            ),
        ]
        ordering = ["channel", "locale"]

    def __str__(self) -> str:
        return f"{self.channel} {self.locale}"


class TemplateVersion(models.Model):
    """What a template said once: written at each publication, never changed. An occurrence pins one."""

    template = models.ForeignKey(MessageTemplate, on_delete=models.CASCADE, related_name="versions")
    version = models.PositiveIntegerField()
    contents = models.JSONField(help_text="[{channel, locale, subject, text, html}]")
    default_locale = models.CharField(max_length=35)
    created_by = models.CharField(max_length=100, blank=True, db_default="")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["template", "version"], name="template_version_unique")]

    def __str__(self) -> str:
        return f"{self.template_id} v{self.version}"


class Catalogue(models.Model):
    """Translations of one locale, shared by all templates: ``{key: text or {plural category: text}}``.

    A deleted one stays as a row that says nothing, so that its ``version`` goes on when it is written anew.
    """

    locale = models.CharField(max_length=35, unique=True)
    messages = models.JSONField(default=dict)
    version = models.PositiveIntegerField(default=1, db_default=1, editable=False)
    updated_by = models.CharField(max_length=100, blank=True, db_default="", editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = KeptQuerySet.as_manager()

    class Meta:
        ordering = ["locale"]

    def __str__(self) -> str:
        return self.locale


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


class Schedule(models.Model):
    """What, to whom, when, within which limits.

    ``next_run_at`` is the instant at which anyone of the next occurrence can be due, ``next_occurrence_at`` that
    occurrence's identity; only the tick and the operation that changes the timing write them, under the row's lock.
    """

    name = models.CharField(max_length=200)
    channel = models.CharField(max_length=10, choices=Channel)
    audience_query = models.JSONField(default=dict)
    template = models.ForeignKey(
        MessageTemplate, on_delete=models.PROTECT, null=True, blank=True, related_name="schedules"
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
            models.CheckConstraint(condition=Q(status__in=ScheduleStatus.values), name="schedule_status_known"),
            models.CheckConstraint(condition=Q(channel__in=Channel.values), name="schedule_channel_known"),
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


class RecipientImport(models.Model):
    """An uploaded file of people: looked through first, imported when somebody says so (``imports.uploads``).

    ``token`` and ``leased_until`` (real time) name the worker that is at it; ``people`` and ``position`` (bytes) say
    how far it has come. ``report`` is ``uploads.Found``, ``bad`` holds the first bad lines: [[line, field, reason]].
    """

    class State(models.TextChoices):
        CHECK = "check"
        CHECKED = "checked"
        IMPORT = "import"
        DONE = "done"
        FAILED = "failed"
        DISCARDED = "discarded"

    name = models.CharField(max_length=200)
    size = models.PositiveBigIntegerField()
    format = models.CharField(max_length=10)
    encoding = models.CharField(max_length=40)
    delimiter = models.CharField(max_length=1, blank=True)
    infer_types = models.BooleanField(default=False)
    bring_back = models.BooleanField(default=False, db_default=False, help_text="People too who were erased before")
    state = models.CharField(max_length=10, choices=State, default=State.CHECK)
    stage = models.CharField(max_length=10, blank=True)
    people = models.PositiveBigIntegerField(default=0)
    position = models.PositiveBigIntegerField(default=0)
    token = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    report = models.JSONField(default=dict)
    bad = models.JSONField(default=list)
    failure = models.CharField(max_length=20, blank=True)
    detail = models.CharField(max_length=1000, blank=True)
    created_by = models.CharField(max_length=100)
    created_at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["id"], name="recipient_import_open_idx", condition=Q(state__in=["check", "import"]))
        ]

    def __str__(self) -> str:
        return self.name


class RecipientImportChunk(models.Model):
    """A piece of an uploaded file, so that any worker on any machine can read it; gone when the file is done with."""

    upload = models.ForeignKey(RecipientImport, on_delete=models.CASCADE, related_name="chunks")
    number = models.PositiveIntegerField()
    data = EncryptedBytesField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["upload", "number"], name="recipient_import_chunk_once")]

    def __str__(self) -> str:
        return f"{self.upload_id}/{self.number}"
