"""What happened: the append-only table ``notification_audit``."""

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Action(models.TextChoices):
    """The closed vocabulary of audited actions: ``noun.verb``."""

    SCHEDULE_CREATE = "schedule.create"
    SCHEDULE_UPDATE = "schedule.update"
    SCHEDULE_DELETE = "schedule.delete"
    SCHEDULE_ACTIVATE = "schedule.activate"
    SCHEDULE_PAUSE = "schedule.pause"
    SCHEDULE_RESUME = "schedule.resume"
    SCHEDULE_CANCEL = "schedule.cancel"
    SCHEDULE_RUN_NOW = "schedule.run_now"
    SCHEDULE_TEST_SEND = "schedule.test_send"
    SCHEDULE_BREAK = "schedule.break"
    SCHEDULE_FINISH = "schedule.finish"
    SCHEDULE_BULK = "schedule.bulk"
    OCCURRENCE_HOLD = "occurrence.hold"
    OCCURRENCE_RELEASE = "occurrence.release"
    OCCURRENCE_MISS = "occurrence.miss"
    OCCURRENCE_FINISH = "occurrence.finish"
    DELIVERY_RETRY = "delivery.retry"
    TEMPLATE_PUBLISH = "template.publish"
    TEMPLATE_DELETE = "template.delete"
    CATALOGUE_SAVE = "catalogue.save"
    CATALOGUE_DELETE = "catalogue.delete"
    TOPIC_CREATE = "topic.create"
    TOPIC_UPDATE = "topic.update"
    TOPIC_ARCHIVE = "topic.archive"
    TOPIC_RESTORE = "topic.restore"
    CLIENT_CREATE = "client.create"
    CLIENT_REVOKE = "client.revoke"
    CLIENT_DELETE = "client.delete"
    RECIPIENT_SAVE = "recipient.save"
    RECIPIENT_ERASE = "recipient.erase"
    RECIPIENT_IMPORT = "recipient.import"
    SUPPRESSION_ADD = "suppression.add"
    SUPPRESSION_REMOVE = "suppression.remove"
    SENDING_STOP = "sending.stop"
    SENDING_GO = "sending.go"
    SENDING_SETTLE = "sending.settle"
    CIRCUIT_OPEN = "circuit.open"
    CIRCUIT_CLOSE = "circuit.close"
    ACCOUNT_CREATE = "account.create"
    ACCOUNT_UPDATE = "account.update"
    ACCOUNT_ROLES = "account.roles"
    ACCOUNT_DELETE = "account.delete"
    ACCOUNT_SIGN_IN = "account.sign_in"
    ACCOUNT_REFUSE = "account.refuse"
    ACCOUNT_FACTOR_ON = "account.factor_on"
    ACCOUNT_FACTOR_OFF = "account.factor_off"
    ACCOUNT_FACTOR_RESET = "account.factor_reset"
    ACCOUNT_FACTOR_REFUSE = "account.factor_refuse"
    ACCOUNT_END_SESSIONS = "account.end_sessions"
    CLOCK_UPDATE = "clock.update"
    CLOCK_CREATE = "clock.create"
    EXPORT_FILE = "export.file"
    ENDPOINT_CREATE = "endpoint.create"
    ENDPOINT_UPDATE = "endpoint.update"
    ENDPOINT_ROTATE = "endpoint.rotate"
    ENDPOINT_REPLAY = "endpoint.replay"
    ENDPOINT_ON = "endpoint.on"
    ENDPOINT_OFF = "endpoint.off"
    ENDPOINT_DELETE = "endpoint.delete"


class AuditEvent(models.Model):
    """One action. Rows refer to others by id alone: an event outlives what it tells of."""

    action = models.CharField(max_length=40)
    actor_id = models.CharField(max_length=100, help_text="user:ID, client:ID or system:NAME")
    actor_label = models.CharField(max_length=200, blank=True, db_default="", help_text="The actor's name at the time")
    schedule_id = models.BigIntegerField(null=True, blank=True)
    payload_diff = models.JSONField(default=dict, help_text="{field: [before, after]}")
    request_id = models.CharField(max_length=100, blank=True)
    correlation_id = models.CharField(
        max_length=100, blank=True, db_default="", help_text="What the request belongs to, over several services"
    )
    created_at = models.DateTimeField()

    class Meta:
        db_table = "notification_audit"
        # Each filter of the timeline has its own: the latest events that fit are read from its end.
        indexes = [
            models.Index(fields=["schedule_id", "-created_at"], name="audit_schedule_idx"),
            models.Index(fields=["actor_id", "id"], name="audit_actor_idx"),
            models.Index(fields=["action", "id"], name="audit_action_idx"),
            models.Index(fields=["created_at"], name="audit_time_idx"),
            models.Index(
                fields=["request_id"],
                name="audit_request_idx",
                opclasses=["varchar_pattern_ops"],
                condition=~models.Q(request_id=""),
            ),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.action} by {self.actor_id}"


class Seal(models.Model):
    """What the audit held: the rows of some transactions, each by its hash, signed, with the digest of the seal before.

    ``digest`` is that of ``audit.seals.statement``, in hexadecimal digits as all the others; ``signature`` is Ed25519's
    over its bytes, by the key that ``key_id`` begins to tell.
    """

    number = models.BigIntegerField(primary_key=True)
    first_tx = models.BigIntegerField(help_text="Of the transactions whose rows it covers")
    end_tx = models.BigIntegerField(help_text="The first one that it does not cover")
    rows = models.IntegerField()
    row_ids = ArrayField(models.BigIntegerField())
    row_hashes = models.BinaryField(help_text="32 bytes a row, in the order of row_ids")
    previous = models.CharField(max_length=64)
    digest = models.CharField(max_length=64)
    key_id = models.CharField(max_length=16)
    signature = models.CharField(max_length=128)
    sealed_at = models.DateTimeField()

    class Meta:
        db_table = "notification_audit_seal"
        ordering = ["number"]

    def __str__(self) -> str:
        return f"seal {self.number}"


class ExportedSeal(models.Model):
    """That a seal lies in the bucket with its rows: where to go on, and nothing to rely on."""

    number = models.BigIntegerField(primary_key=True)
    version_id = models.CharField(max_length=1024)
    exported_at = models.DateTimeField()
    locked_until = models.DateTimeField(
        null=True, help_text="Nobody can remove the object before; none for what was noted before this was"
    )

    class Meta:
        db_table = "notification_audit_export"

    def __str__(self) -> str:
        return f"export of seal {self.number}"
