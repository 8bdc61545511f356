"""What the doors keep for themselves: who may come in by program, and what was answered."""

from django.db import models
from django.utils.translation import gettext_lazy as _
from django_otp.plugins.otp_totp.models import TOTPDevice
from oauth2_provider.models import AbstractApplication

from schedules.fields import EncryptedBytesField


class Client(AbstractApplication):  # type: ignore[misc]
    """A program that asks for access tokens: a service with its own secret, or one through which people sign in."""

    scopes = models.CharField(max_length=200, blank=True, help_text="What it may ask for, separated by spaces")

    class Meta(AbstractApplication.Meta):  # type: ignore[misc]
        abstract = False
        verbose_name = _("client")
        verbose_name_plural = _("clients")

    def __str__(self) -> str:
        return str(self.name or self.client_id)


class Authenticator(TOTPDevice):  # type: ignore[misc]
    """The app that shows a person's codes: django-otp's device, whose own ``key`` stays empty."""

    class Meta:
        proxy = True

    @property
    def bin_key(self) -> bytes:
        """Raises ``schedules.encryption.Undecryptable``."""
        return bytes(self.kept.secret)


class AuthenticatorSecret(models.Model):
    """What the app and the service share, encrypted with the keys of everything else."""

    device = models.OneToOneField(Authenticator, on_delete=models.CASCADE, related_name="kept")
    secret = EncryptedBytesField()

    def __str__(self) -> str:
        return f"the secret of {self.device_id}"


class RecoveryCode(models.Model):
    """What lets a person in once without the app: SHA-256 of 118 bits of chance, hence without salt or rounds."""

    device = models.ForeignKey(Authenticator, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["device", "digest"], name="recovery_code_once")]

    def __str__(self) -> str:
        return f"a recovery code of {self.device_id}"


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
