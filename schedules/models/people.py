"""People, the devices by which push reaches them, and the files by which they come."""

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Cast, Now
from django.db.models.lookups import Exact, Regex

from schedules.fields import BlindIndexField, EncryptedBytesField, EncryptedTextField
from schedules.models.templates import Channel


def _json_type(field: str) -> models.Func:
    return models.Func(F(field), function="jsonb_typeof", output_field=models.TextField())


_CLOCK = r'"([01][0-9]|2[0-3]):[0-5][0-9]"'
# As PostgreSQL writes an object of jsonb: the shorter name first.
_QUIET_HOURS = rf'^\{{"to": {_CLOCK}, "from": {_CLOCK}\}}$'


class Recipient(models.Model):
    """A profile. The ledger knows only its id, so deleting the profile is the anonymisation.

    ``locale`` and ``time_zone`` are kept as they came, valid or not: a bad zone falls back when it is used, and the
    ledger row says so. ``consent`` maps a channel (``email``), and a topic in a channel (``news:email``), to a
    boolean: ``false`` means opted out, absent means no objection, or with some topics no agreement
    (``schedules.consents``).
    ``objected_at`` has an instant (ISO 8601) under the same key for each objection that was made here: when it last
    was. An objection that the user service alone has told has none. ``consent_source`` says of each key who last
    changed it, and when: ``{"by": actor, "at": ISO 8601}``; none where that was before it was kept.
    ``quiet_hours`` is ``{"from": "22:00", "to": "07:00"}`` or null (``schedules.quiet_hours``), and
    ``quiet_hours_source`` says in the same way who last changed them; null where nobody ever did.
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
    consent_source = models.JSONField(default=dict, db_default=Value({}, models.JSONField()), editable=False)
    objected_at = models.JSONField(default=dict, db_default=Value({}, models.JSONField()), editable=False)
    quiet_hours = models.JSONField(null=True, blank=True)
    quiet_hours_source = models.JSONField(null=True, editable=False)
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
                condition=Q(quiet_hours__isnull=True)
                | (
                    Regex(Cast("quiet_hours", models.TextField()), _QUIET_HOURS)
                    & ~Q(quiet_hours__from=F("quiet_hours__to"))
                ),
                name="recipient_quiet_hours_shape",
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
            # The few that differ are found by a probe each, however many people have them.
            models.Index(
                fields=["quiet_hours", "time_zone"],
                name="recipient_quiet_hours_idx",
                condition=Q(quiet_hours__isnull=False),
            ),
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


class Suppression(models.Model):
    """An address that is not written to any more, whoever has it (``schedules.suppressions``); it survives an erasure.

    ``fingerprint``: what the blind index of the address has in common over small letters and large. ``source`` is the
    actor, ``occurrence_id`` the one whose message brought it about, ``detail`` the provider's codes.
    """

    class Reason(models.TextChoices):
        """As the ledger's rows have it that are suppressed by it, the weightiest last."""

        BLOCKED = "blocked"
        BOUNCED_OFTEN = "bounced_often"
        BOUNCED = "bounced"
        COMPLAINED = "complained"

    channel = models.CharField(max_length=10, choices=Channel)
    fingerprint = models.BinaryField(max_length=12)
    reason = models.CharField(max_length=20, choices=Reason)
    source = models.CharField(max_length=100)
    occurrence_id = models.BigIntegerField(null=True)
    detail = models.CharField(max_length=200, blank=True, default="", db_default="")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["channel", "fingerprint"], name="suppression_once")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.channel}: {self.reason}"


class SoftBounce(models.Model):
    """A message that an address did not take for the time being, for a fortnight; several of them suppress it."""

    channel = models.CharField(max_length=10, choices=Channel)
    fingerprint = models.BinaryField(max_length=12)
    occurrence_id = models.BigIntegerField()
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["channel", "fingerprint", "occurrence_id"], name="soft_bounce_once")
        ]
        indexes = [models.Index(fields=["created_at"], name="soft_bounce_created_at_idx")]

    def __str__(self) -> str:
        return f"{self.channel}, occurrence {self.occurrence_id}"


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
