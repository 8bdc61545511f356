"""The ledger: one row per recipient per occurrence, its batches, its failures; the inbox and the outbox.

``Delivery``, ``FailedAttempt`` and ``Feedback`` are partitioned by the day of their occurrence and made by SQL in the
migrations; nothing has a foreign key to or from them. Only ``delivery.ledger`` and ``delivery.materialise`` write them.
"""

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Now
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

import delivery.endpoint_models  # noqa: F401  models of its own file
from delivery.fields import TransactionField
from schedules import encryption
from schedules.fields import BlindIndexField, EncryptedTextField
from schedules.models import Channel, Occurrence, Recipient


class State(models.IntegerChoices):
    """What has become of a delivery. From ``SENT`` on it is an outcome."""

    PENDING = 0, "pending"
    SENDING = 1, "sending"
    UNKNOWN = 2, "unknown"
    SENT = 10, "sent"
    FAILED = 11, "failed"
    RATE_LIMITED = 12, "rate_limited"
    SUPPRESSED = 13, "suppressed"
    UNADDRESSABLE = 14, "unaddressable"
    CANCELLED = 15, "cancelled"
    ERASED = 16, "erased"
    EXPIRED = 17, "expired"

    @property
    def is_outcome(self) -> bool:
        return self >= State.SENT


# The reason of those failed who may have the message all the same: nobody ever answered for them.
OUTCOME_UNKNOWN = "outcome_unknown"
# The reason of those who wait for their send window to open again, of those who wait for the end of their quiet hours,
# of those whose quiet hours leave nothing of the window, and of those for whom nobody waits any longer.
OUTSIDE_WINDOW = "outside_window"
QUIET_HOURS = "quiet_hours"
WINDOW_IS_QUIET = "window_in_quiet_hours"
WAITED_TOO_LONG = "waited_too_long"
# The reason of those sent to of whom no answer, but a later event of the provider's says so.
CONFIRMED = "confirmed"
# Ids of occurrences that no occurrence will ever have: the messages of tests have these from here on, so that inbox,
# outbox and providers' events tell them from what was really sent.
FIRST_TEST_ID = 2**62


class ZoneSource(models.IntegerChoices):
    """Whose time zone decided a delivery's instant."""

    FIXED = 0, "the schedule's instant"
    PROFILE = 1, "the profile's zone"
    MISSING = 2, "no zone in the profile: the schedule's"
    INVALID = 3, "unknown zone in the profile: the schedule's"


class Delivery(models.Model):
    """The ledger row. ``wave_at`` is the instant promised to the person; ``due_at`` starts there and moves at a retry.

    ``expires_at``: until when it may wait, if not to the end of its run.

    ``leased_until`` is real time, all else business time. ``claimed_at`` is when the latest claim took the row, by
    which it counts toward the caps; ``called_at`` is when the provider call started. ``detail`` says more about the
    reason: the provider's own words, or as JSON the messages that used up a cap. ``reached`` lists the ids of devices
    that have the message.
    """

    pk = models.CompositePrimaryKey("day", "occurrence_id", "recipient_id")
    day = models.DateField()
    occurrence_id = models.BigIntegerField()
    recipient_id = models.BigIntegerField()
    batch_id = models.BigIntegerField()
    wave_at = models.DateTimeField()
    due_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    state = models.SmallIntegerField(choices=State)
    zone_source = models.SmallIntegerField(choices=ZoneSource)
    attempt = models.SmallIntegerField()
    version = models.IntegerField()
    claim_token = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)
    claimed_at = models.DateTimeField(null=True)
    called_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)
    reason = models.TextField()
    detail = models.TextField()
    provider_id = models.TextField()
    reached = models.TextField()

    class Meta:
        managed = False
        db_table = "delivery_delivery"
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"{self.day:%Y%m%d}-{self.occurrence_id}-{self.recipient_id}"


class FailedAttempt(models.Model):
    """A provider call that did not end in ``sent``, for one person. Append-only."""

    pk = models.CompositePrimaryKey("day", "occurrence_id", "recipient_id", "attempt", "at")
    day = models.DateField()
    occurrence_id = models.BigIntegerField()
    recipient_id = models.BigIntegerField()
    attempt = models.SmallIntegerField()
    at = models.DateTimeField()
    verdict = models.TextField()
    reason = models.TextField()
    detail = models.TextField()

    class Meta:
        managed = False
        db_table = "delivery_failedattempt"


class News(models.IntegerChoices):
    """What a provider tells of a message after it has answered for it, the gravest last.

    Delivery outweighs a soft bounce: mail servers write back when somebody is on holiday.
    """

    ACCEPTED = 1, "accepted"
    DELAYED = 2, "delayed"
    BOUNCED_SOFT = 3, "bounced_soft"
    DELIVERED = 4, "delivered"
    REJECTED = 5, "rejected"
    NOT_RENDERED = 6, "not_rendered"
    BOUNCED_HARD = 7, "bounced_hard"
    COMPLAINED = 8, "complained"

    @property
    def bit(self) -> int:
        return 1 << (self - 1)


class Feedback(models.Model):
    """What the provider has told of one delivery since it was called: one row for each, whatever comes twice or late.

    ``news`` is the gravest of it, to which ``detail`` (the provider's codes) and ``provider_id`` belong. ``kinds`` has
    a bit for each of ``News`` that has come, ``kinds_before`` the same before the last write: by the two a writer sees
    what was new. Each instant is the provider's own, of the first event of its kind. Names and addresses are not here.
    """

    pk = models.CompositePrimaryKey("day", "occurrence_id", "recipient_id")
    day = models.DateField()
    occurrence_id = models.BigIntegerField()
    recipient_id = models.BigIntegerField()
    news = models.SmallIntegerField(choices=News)
    kinds = models.SmallIntegerField()
    kinds_before = models.SmallIntegerField()
    accepted_at = models.DateTimeField(null=True)
    delayed_at = models.DateTimeField(null=True)
    bounced_soft_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)
    rejected_at = models.DateTimeField(null=True)
    not_rendered_at = models.DateTimeField(null=True)
    bounced_hard_at = models.DateTimeField(null=True)
    complained_at = models.DateTimeField(null=True)
    detail = models.TextField()
    provider_id = models.TextField()

    class Meta:
        managed = False
        db_table = "delivery_feedback"
        verbose_name_plural = "feedback"

    def __str__(self) -> str:
        return f"{News(self.news).label}: {self.day:%Y%m%d}-{self.occurrence_id}-{self.recipient_id}"


class FeedbackCount(models.Model):
    """One writer's share of how many people of an occurrence stand at which ``news``; below zero where they moved on.

    Raised in the transaction of the feedback it counts, in slots as ``Count``; kept when the rows are gone.
    """

    occurrence_id = models.BigIntegerField()
    news = models.SmallIntegerField(choices=News)
    slot = models.SmallIntegerField()
    people = models.IntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["occurrence_id", "news", "slot"], name="feedback_count_once")]

    def __str__(self) -> str:
        return f"{self.people} {News(self.news).label} of occurrence {self.occurrence_id}"


def _counts() -> models.expressions.CombinedExpression:
    names = [state.label for state in State]
    total = F(names[0]) + F(names[1])
    for name in names[2:]:
        total += F(name)
    return total


class Batch(models.Model):
    """Up to ``BATCH_SIZE`` rows of one occurrence: the unit of publishing, lease and counting.

    The counters are the second record that the books compare; the database refuses one that does not add up.
    ``next_due_at`` is the least ``due_at`` of the pending rows, empty when none is pending. ``queued_at`` (real time)
    is set while a message or a worker holds the batch and refreshed by every claim; the sweep frees it when it grows
    old. ``lease_until`` (real time) is the latest lease of its SENDING rows. ``figures`` is what of it is in
    ``Figure``, as ``delivery.figures`` writes it; ``is_counted``: nobody has got or lost an outcome since.
    """

    occurrence = models.ForeignKey(Occurrence, on_delete=models.CASCADE, related_name="batches")
    day = models.DateField(_("day"))
    channel = models.CharField(_("channel"), max_length=10, choices=Channel)
    wave_at = models.DateTimeField(null=True, help_text="Empty where waves of few people share the batch")
    size = models.PositiveIntegerField(_("people"))
    next_due_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True, help_text="When the first of its people has waited for too long")
    queued_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)

    pending = models.PositiveIntegerField(default=0)
    sending = models.PositiveIntegerField(default=0)
    unknown = models.PositiveIntegerField(default=0)
    sent = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    rate_limited = models.PositiveIntegerField(default=0)
    suppressed = models.PositiveIntegerField(default=0)
    unaddressable = models.PositiveIntegerField(default=0)
    cancelled = models.PositiveIntegerField(default=0)
    erased = models.PositiveIntegerField(default=0)
    expired = models.PositiveIntegerField(default=0)

    is_counted = models.BooleanField(default=False, db_default=False)
    figures = models.JSONField(default=list, db_default=Value([], models.JSONField()))

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        constraints = [
            models.CheckConstraint(condition=Q(size=_counts()), name="batch_books_close"),
            models.CheckConstraint(
                condition=Q(pending=0, next_due_at__isnull=True) | Q(pending__gt=0, next_due_at__isnull=False),
                name="batch_due_while_pending",
            ),
        ]
        indexes = [
            models.Index(
                fields=["channel", "next_due_at"],
                name="batch_due_idx",
                condition=Q(queued_at__isnull=True, pending__gt=0),
            ),
            models.Index(fields=["queued_at"], name="batch_queued_idx", condition=Q(queued_at__isnull=False)),
            models.Index(fields=["lease_until"], name="batch_lease_idx", condition=Q(sending__gt=0)),
            models.Index(fields=["id"], name="batch_unknown_idx", condition=Q(unknown__gt=0)),
            models.Index(
                fields=["occurrence"],
                name="batch_open_idx",
                condition=Q(pending__gt=0) | Q(sending__gt=0) | Q(unknown__gt=0),
            ),
            models.Index(fields=["day", "id"], name="batch_uncounted_idx", condition=Q(is_counted=False)),
        ]

    def __str__(self) -> str:
        return gettext("batch %(id)s of run %(run)s") % {"id": self.pk, "run": self.occurrence_id}


class Figure(models.Model):
    """How many people got an outcome within some minutes: what the ledger's rows of that time come to.

    Written by ``delivery.figures`` alone, and kept when the rows are gone. ``slot`` begins the ``minutes`` in which
    ``settled_at`` lies; ``lateness`` is a step of ``delivery.figures``, ``NOT_TIMED`` where none is measured.
    """

    minutes = models.SmallIntegerField()
    slot = models.DateTimeField()
    channel = models.CharField(max_length=10, choices=Channel)
    state = models.SmallIntegerField(choices=State)
    reason = models.TextField(blank=True)
    lateness = models.SmallIntegerField()
    people = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["minutes", "slot", "channel", "state", "reason", "lateness"], name="figure_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.people} {State(self.state).label} at {self.slot}"


class InboxMessage(models.Model):
    """A message in a person's in-app inbox: written in the transaction of its outcome, hence exactly once.

    ``written_in``: by it ``arrivals`` knows what nobody can have been told yet.
    """

    recipient = models.ForeignKey(Recipient, on_delete=models.CASCADE, related_name="inbox")
    occurrence_id = models.BigIntegerField()
    title = EncryptedTextField(blank=True, default="")
    body = EncryptedTextField(blank=True, default="")
    created_at = models.DateTimeField()
    read_at = models.DateTimeField(null=True, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True)
    written_in = TransactionField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["recipient", "occurrence_id"], name="inbox_exactly_once")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return str(self.title)


class OutboxMessage(models.Model):
    """What the outbox provider would have sent, rendered, to look at."""

    recipient = models.ForeignKey(Recipient, on_delete=models.CASCADE, related_name="outbox")
    occurrence_id = models.BigIntegerField()
    to = EncryptedTextField(default="")
    to_index = BlindIndexField(of="to")
    subject = EncryptedTextField(blank=True, default="")
    text = EncryptedTextField(blank=True, default="")
    html = EncryptedTextField(blank=True, default="")
    unsubscribe_url = models.CharField(max_length=500, blank=True, default="", db_default="")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["recipient", "occurrence_id"], name="outbox_once")]
        indexes = [models.Index(fields=["to_index"], name="outbox_to_idx")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return str(self.subject or self.text[:50])


class TestSend(models.Model):
    """A schedule's message, wished to be sent to one person to be looked at; no part of the ledger.

    ``to`` replaces the person's own address, ``locale`` his language. ``created_at`` and ``settled_at`` are business
    time; ``created_real_at`` and ``handed_out_at`` (to a worker's queue) real time.
    """

    __test__ = False  # pytest would take the name for that of a test

    class State(models.TextChoices):
        WAITING = "waiting"
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"
        UNANSWERED = "unanswered"

    schedule_id = models.BigIntegerField(_("schedule"))
    recipient_id = models.BigIntegerField(_("recipient"))
    channel = models.CharField(_("channel"), max_length=10, choices=Channel)
    to = EncryptedTextField(max_length=320, blank=True, default="")
    to_index = BlindIndexField(of="to")
    locale = models.CharField(_("language"), max_length=35, blank=True)
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    reason = models.CharField(max_length=60, blank=True)
    detail = EncryptedTextField(_("the provider's own words"), max_length=400, blank=True, default="")
    provider_id = models.CharField(_("id at the provider"), max_length=200, blank=True)
    subject = EncryptedTextField(_("subject"), max_length=998, blank=True, default="")
    created_by = models.CharField(max_length=100)
    created_at = models.DateTimeField()
    created_real_at = models.DateTimeField(db_default=Now(), editable=False)
    handed_out_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("test message")
        verbose_name_plural = _("test messages")
        indexes = [
            models.Index(fields=["id"], name="test_send_open_idx", condition=Q(state__in=["waiting", "sending"]))
        ]

    def __str__(self) -> str:
        return gettext("test message %(id)s of schedule #%(schedule)s") % {"id": self.pk, "schedule": self.schedule_id}


def sent_to(person: Recipient) -> Q:
    """Of outbox and test sends, what went to the person's address in any use of small letters and large.

    By the index alone: the address need not be readable.
    """
    index = person.email_index
    return Q(pk__in=[]) if index is None else Q(to_index__range=encryption.range_of_index(index))


class Circuit(models.Model):
    """Sending of a channel is held because its provider refuses the whole account. Every claim looks.

    ``scope``: a channel; or ``email:ses``, one of its several providers, which is passed over meanwhile; or
    ``template:7``, which the template service renders for nobody.

    No call is made before ``probe_at`` (real time); then one is, by whoever moves ``probe_at`` on, and its answer
    closes the circuit or opens it again for longer. ``openings`` counts since the last success.
    """

    scope = models.CharField(max_length=200, primary_key=True)
    reason = models.CharField(max_length=60)
    detail = models.CharField(_("the provider's own words"), max_length=200, blank=True)
    opened_at = models.DateTimeField()
    probe_at = models.DateTimeField()
    openings = models.PositiveIntegerField(_("refusals in a row"), default=1)

    class Meta:
        verbose_name = _("refusal by a provider")
        verbose_name_plural = _("refusals by providers")

    def __str__(self) -> str:
        kind, _colon, name = self.scope.partition(":")
        if kind not in Channel.values:
            return gettext("template #%(id)s") % {"id": name}
        label = str(Channel(kind).label)
        return gettext("%(channel)s by %(provider)s") % {"channel": label, "provider": name} if name else label


class ProviderAccount(models.Model):
    """What a provider's account let through when it was asked last. ``scope`` as a circuit's.

    ``left``: people of the 24 hours before ``read_at`` (real time) who could still be sent to.
    """

    scope = models.CharField(max_length=200, primary_key=True)
    per_s = models.FloatField(null=True)
    per_day = models.BigIntegerField(null=True)
    left = models.BigIntegerField(null=True)
    read_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.scope


class Heartbeat(models.Model):
    """When something that must go on happening last did, in real time: ``tick``, ``sweep``, ``queue:NAME``."""

    name = models.CharField(max_length=40, primary_key=True)
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class Count(models.Model):
    """One writer's share of a counter at ``/metrics``, raised in the transaction of what it counts.

    Each process writes to a ``slot`` of its own as far as there are enough, so that none waits for another; the counter
    is the sum. Committed with the outcomes, it can neither miss one nor count one twice, whoever dies.
    """

    name = models.CharField(max_length=60)
    channel = models.CharField(max_length=10, blank=True)
    label = models.CharField(max_length=40, blank=True)
    slot = models.SmallIntegerField()
    value = models.FloatField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "channel", "label", "slot"], name="count_once")]

    def __str__(self) -> str:
        return self.name


class Continuity(models.Model):
    """What this database has been through, as ``delivery.continuity`` tells it outside too: one row, none before.

    ``number`` rises with each look; ``service`` is the name under which it is told. ``server`` is PostgreSQL's system
    identifier and timeline; ``proven_until`` is real time, all else business time. From ``restored_to`` on the database
    knows nothing; ``last_seen_at``: when the service that was lost looked for the last time, where that is known. Ids
    of occurrences that were opened since begin with ``runs_from``. These four are empty unless it was restored and has
    not been settled.
    """

    service = models.UUIDField()
    number = models.BigIntegerField(default=0)
    server = models.CharField(max_length=80)
    seen_at = models.DateTimeField()
    proven_until = models.DateTimeField()
    restored_to = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True)
    noticed_at = models.DateTimeField(null=True)
    runs_from = models.BigIntegerField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="continuity_single")]

    def __str__(self) -> str:
        return f"look {self.number}"
