"""What the doors keep for themselves: who may come in by program, and what was answered."""

from django.db import models
from oauth2_provider.models import AbstractApplication


class Client(AbstractApplication):  # type: ignore[misc]
    """A program that asks for access tokens: a service with its own secret, or one through which people sign in."""

    scopes = models.CharField(max_length=200, blank=True, help_text="What it may ask for, separated by spaces")

    class Meta(AbstractApplication.Meta):  # type: ignore[misc]
        abstract = False

    def __str__(self) -> str:
        return str(self.name or self.client_id)


class HookEvent(models.Model):
    """A signed message of another service that was done, so that it is done once. Named by the sender."""

    event_id = models.CharField(max_length=200, unique=True)
    received_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.event_id


class IdempotencyKey(models.Model):
    """The answer to a POST that carried an ``Idempotency-Key``, written in the transaction of what the POST did.

    ``client`` is the client that sent it, for a person's token with the person; ``fingerprint`` tells the request
    apart from another with the same key. ``body`` is JSON as it was sent, which ``jsonb`` would put in another order.
    """

    client = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    body = models.TextField()
    headers = models.JSONField(default=dict)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["client", "key"], name="idempotency_key_once")]
        indexes = [models.Index(fields=["created_at"], name="idempotency_key_age_idx")]

    def __str__(self) -> str:
        return f"{self.client} {self.key}"
