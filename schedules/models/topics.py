"""What messages are about: what people may say no to without saying no to all of them."""

from typing import Final

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from schedules.models.templates import Channel
from schedules.querysets import TopicQuerySet

LONGEST_KEY: Final = 40


class Purpose(models.TextChoices):
    """What a message is for. A transactional one goes to whoever it concerns, whatever was agreed to."""

    MARKETING = "marketing"
    TRANSACTIONAL = "transactional"


class Default(models.TextChoices):
    """What holds for whoever has said nothing of a topic."""

    OPTED_IN = "opted_in"
    OPTED_OUT = "opted_out"


class Topic(models.Model):
    """What schedules write about, and people subscribe to by channel. Rows change through ``schedules.topics``.

    ``key`` and ``default`` never change: profiles, schedules and links name the one, and the other would make a yes of
    somebody's silence. ``names`` are those in other languages, by locale. None is deleted, since profiles name it; an
    archived one (``archived_at``) is offered no more.
    """

    key = models.CharField(max_length=LONGEST_KEY, unique=True)
    name = models.CharField(max_length=100)
    names = models.JSONField(default=dict)
    description = models.CharField(max_length=300, blank=True)
    default = models.CharField(max_length=10, choices=Default, default=Default.OPTED_IN)
    version = models.PositiveIntegerField(default=1, editable=False)
    updated_by = models.CharField(max_length=100, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    archived_at = models.DateTimeField(null=True, editable=False)

    objects = TopicQuerySet.as_manager()

    class Meta:
        constraints = [
            # A colon parts it from the channel in a profile's consent, and a channel of that name has another meaning.
            models.CheckConstraint(
                condition=Q(key__regex=r"^[a-z0-9][a-z0-9_-]*$") & ~Q(key__in=Channel.values),
                name="topic_key_shape",
            ),
            models.CheckConstraint(condition=Q(default__in=Default.values), name="topic_default_known"),
        ]
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.key

    @property
    def needs_agreement(self) -> bool:
        """Whether nobody is written to who has not said yes."""
        return self.default == Default.OPTED_OUT
