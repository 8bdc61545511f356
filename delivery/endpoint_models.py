"""Who is told what happens: subscribers' addresses, what they are told, and each try to bring it to them.

``retry_at``, ``due_at``, leases and the instants of attempts are real time, all else business time. Only
``delivery.subscribers`` writes these, but for what ``delivery.untold`` notes for it.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from schedules.fields import EncryptedTextField


class EventType(models.TextChoices):
    SCHEDULE_CHANGED = "schedule.changed"
    OCCURRENCE_STARTED = "occurrence.started"
    OCCURRENCE_FINISHED = "occurrence.finished"
    DELIVERIES_SETTLED = "deliveries.settled"
    DELIVERIES_REPORTED = "deliveries.reported"
    TEST = "endpoint.test"


class Endpoint(models.Model):
    """A subscriber's address. ``types``: what it is told of, everything where empty.

    ``off_reason`` is empty while it is called. ``old_secret`` signs too until ``old_secret_until``. ``failing_since``:
    nothing has come through since then; ``failures`` counts the calls in vain, one after the other, and before
    ``retry_at`` it is not called again. Who holds the lease calls it, and nobody else.
    """

    class Off(models.TextChoices):
        PERSON = "person"
        GONE = "gone"
        FAILING = "failing"

    url = EncryptedTextField(_("address"), max_length=2_000)
    description = models.CharField(_("description"), max_length=200, blank=True)
    types = models.JSONField(default=list)
    secret = EncryptedTextField()
    old_secret = EncryptedTextField(blank=True, default="")
    old_secret_until = models.DateTimeField(null=True)
    off_reason = models.CharField(max_length=10, choices=Off, blank=True)
    off_at = models.DateTimeField(null=True)
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=100)

    failing_since = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)
    answered_at = models.DateTimeField(null=True)
    retry_at = models.DateTimeField(null=True)
    lease = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.description or f"endpoint {self.pk}"


class Event(models.Model):
    """Something that happened. ``id`` rises in the order in which events are told; ``event_id`` is the ``webhook-id``.

    ``data`` names people by the ledger's own number alone. ``source``, where it stands, keeps one thing from being
    told twice. ``of``: the one endpoint that a test is for.
    """

    event_id = models.CharField(max_length=40, unique=True)
    type = models.CharField(max_length=40, choices=EventType)
    source = models.CharField(max_length=60, unique=True, null=True)  # noqa: DJ001  many have none
    occurred_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now())
    data = models.JSONField()
    of = models.ForeignKey(Endpoint, on_delete=models.CASCADE, null=True, related_name="tests")

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["created_at"], name="event_created_idx")]

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"


class Posting(models.Model):
    """An event on its way to an endpoint. ``due_at`` is set while it waits; ``attempts`` are those of this round."""

    class State(models.TextChoices):
        WAITING = "waiting"
        DELIVERED = "delivered"
        FAILED = "failed"

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="postings")
    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="postings")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(null=True, db_default=Now())
    settled_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "event"], name="posting_once"),
            models.CheckConstraint(
                condition=Q(state="waiting", due_at__isnull=False) | (~Q(state="waiting") & Q(due_at__isnull=True)),
                name="posting_due_while_waiting",
            ),
        ]
        indexes = [
            models.Index(fields=["endpoint", "due_at"], name="posting_due_idx", condition=Q(state="waiting")),
            models.Index(fields=["endpoint", "state", "-event"], name="posting_list_idx"),
        ]
        ordering = ["-event_id"]

    def __str__(self) -> str:
        return f"event {self.event_id} to endpoint {self.endpoint_id}"


class Attempt(models.Model):
    """One try. ``status`` is that of the answer, none without one; ``outcome`` a slug of ``subscribers.calling``.

    ``answer``: the first kilobyte of what a refusal said.
    """

    posting = models.ForeignKey(Posting, on_delete=models.CASCADE, related_name="tries")
    at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    outcome = models.CharField(max_length=20)
    status = models.PositiveSmallIntegerField(null=True)
    answer = EncryptedTextField(blank=True, default="")

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.outcome} of posting {self.posting_id}"


class ToldBatch(models.Model):
    """What of a batch has been told: by recipient the outcome's mark. ``is_changed``: somebody got one since."""

    batch_id = models.BigIntegerField(primary_key=True)
    day = models.DateField()
    is_changed = models.BooleanField()
    told = models.JSONField(default=dict)

    class Meta:
        indexes = [models.Index(fields=["batch_id"], name="toldbatch_changed_idx", condition=Q(is_changed=True))]


class ClosedRun(models.Model):
    """An occurrence whose end is still to be told."""

    occurrence_id = models.BigIntegerField(primary_key=True)


class Report(models.Model):
    """Something a provider told of a delivery, still to be passed on."""

    day = models.DateField()
    occurrence_id = models.BigIntegerField()
    recipient_id = models.BigIntegerField()
    news = models.SmallIntegerField()
    at = models.DateTimeField()


class AuditPlace(models.Model):
    """How far the audit has been told: the last row's transaction and id. One row."""

    ONLY = 1

    tx = models.BigIntegerField()
    row_id = models.BigIntegerField()
