"""Messages: templates with contents by channel and locale, their versions, and catalogues."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from schedules.querysets import KeptQuerySet, TemplateQuerySet


class Channel(models.TextChoices):
    EMAIL = "email", _("E-mail")
    PUSH = "push", _("Push")
    IN_APP = "in_app", _("In-app")


class MessageTemplate(models.Model):
    """A message in its channels and locales. ``version`` counts what was published; see ``TemplateVersion``.

    A deleted one stays as a row, for the occurrences that ran with its versions, and gives its name free.

    One that a template service keeps has its id there as ``service_id`` and no contents here: its versions say in which
    channels and locales it speaks, and the service renders it. ``mirrored_at``: when the service was asked whose answer
    last changed something; what had been asked for before changes nothing.
    """

    name = models.CharField(max_length=200)
    default_locale = models.CharField(max_length=35, default="en")
    version = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    service_id = models.CharField(max_length=200, blank=True, default="", db_default="", editable=False)
    mirrored_at = models.DateTimeField(null=True, editable=False)

    objects = TemplateQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name"], condition=Q(deleted_at__isnull=True), name="template_name_once"),
            models.UniqueConstraint(
                fields=["service_id"], condition=~Q(service_id=""), name="template_service_id_once"
            ),
        ]
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_remote(self) -> bool:
        """Whether a template service keeps it: then nothing of it is changed here."""
        return bool(self.service_id)


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
    """What a template said once: written at each publication, never changed. An occurrence pins one.

    ``service_version``: what the template service calls it, empty for one of our own. Then ``contents`` hold channel
    and locale alone, and ``tokens`` the dotted names that the service reads: ``first_name``, ``recipient.locale``.
    """

    template = models.ForeignKey(MessageTemplate, on_delete=models.CASCADE, related_name="versions")
    version = models.PositiveIntegerField()
    contents = models.JSONField(help_text="[{channel, locale, subject, text, html}]")
    default_locale = models.CharField(max_length=35)
    created_by = models.CharField(max_length=100, blank=True, db_default="")
    created_at = models.DateTimeField()
    service_version = models.CharField(max_length=200, blank=True, default="", db_default="")
    tokens = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))

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
