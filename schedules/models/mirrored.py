"""What the user service has told: when of whom, audiences page by page, and how many people it counts in one."""

from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from schedules.fields import EncryptedTextField

# In the place of an occurrence's id: everybody there is, for the sake of the copy.
EVERYBODY: Final = 0


class MirroredPerson(models.Model):
    """When the user service last told of a person, beside the profile: that is not written where nothing is new in it.

    ``source_updated_at``: when the service says that it had last changed the person, null where it never said; what is
    older changes nothing. ``resolution_id``: the last resolution in which the person came, by which it knows who comes
    twice. No foreign keys: a page does not fail since one of its people is erased meanwhile.
    """

    recipient_id = models.BigIntegerField(primary_key=True)
    mirrored_at = models.DateTimeField()
    source_updated_at = models.DateTimeField(null=True)
    resolution_id = models.BigIntegerField(null=True)

    class Meta:
        verbose_name_plural = "mirrored people"

    def __str__(self) -> str:
        return str(self.recipient_id)


class Resolution(models.Model):
    """An audience as the user service tells it, page by page, so that whoever dies goes on where he was.

    ``audience``: a blind index of the service and the query, empty once the pages are gone. ``as_of``: one instant
    for all pages. ``cursor``: by which the next page is asked for; empty: the first. ``pages``: read so far; of two who
    read the same one, the second finds another number.

    ``people``: each once. ``repeated``: statements about people who had come before. ``flawed``: profiles of which
    something could not be kept, ``unreadable``: those nobody can be made out by. ``left_out``: people who were erased
    here. ``barren``: pages in a row in which somebody came again and nobody was new, ``idle``: those in which nobody
    was new for whatever reason. ``total``: people in all as the service reckons.

    ``asked_by`` is the worker that asks for its pages, until ``asked_until`` (real time).

    Once ``completed_at`` is set nobody is missing. When all who ask for it have their rows in the ledger the pages go,
    and this row says how it was.
    """

    audience = models.CharField(max_length=64)
    as_of = models.DateTimeField()
    cursor = EncryptedTextField(max_length=2_000, blank=True, default="")
    pages = models.PositiveIntegerField(default=0)
    people = models.PositiveBigIntegerField(default=0)
    repeated = models.PositiveBigIntegerField(default=0)
    flawed = models.PositiveBigIntegerField(default=0)
    unreadable = models.PositiveBigIntegerField(default=0)
    left_out = models.PositiveBigIntegerField(default=0)
    barren = models.PositiveSmallIntegerField(default=0)
    idle = models.PositiveIntegerField(default=0, db_default=0)
    total = models.PositiveBigIntegerField(null=True)
    asked_by = models.UUIDField(null=True)
    asked_until = models.DateTimeField(null=True)
    last_page_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["audience"], name="resolution_audience_idx", condition=~Q(audience=""))]

    def __str__(self) -> str:
        return f"audience as of {self.as_of}, {self.pages} pages"


class ResolutionUse(models.Model):
    """A run that waits for a resolution, or has taken its people from it: once ``used_at`` is set the ledger has them.

    Runs that ask the same at the same time share one. ``occurrence_id`` may be ``EVERYBODY``.
    """

    occurrence_id = models.BigIntegerField(primary_key=True)
    resolution = models.ForeignKey(Resolution, on_delete=models.CASCADE, related_name="uses")
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.occurrence_id}: {self.resolution_id}"


class ResolutionPage(models.Model):
    """The people of a page who had not come before, by their numbers alone: a join drops who is erased meanwhile.

    ``came_by``: the blind index of the page's own cursor, null for the first: one that comes again is known.
    """

    # The constraints below bring the index.
    resolution = models.ForeignKey(Resolution, on_delete=models.CASCADE, related_name="read", db_index=False)
    number = models.PositiveIntegerField()
    came_by = models.UUIDField(null=True)
    ids = ArrayField(models.BigIntegerField())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["resolution", "number"], name="resolution_page_once"),
            models.UniqueConstraint(fields=["resolution", "came_by"], name="resolution_cursor_once"),
        ]

    def __str__(self) -> str:
        return f"{self.resolution_id}/{self.number}"


class ServedCount(models.Model):
    """How many people the user service counted in an audience, kept for all processes (``user_service.counting``).

    ``key``: a blind index of the service and the audience. ``people`` is null where it gave no number, and ``reason``
    says why. It holds before ``good_until``, and somebody asks at this moment before ``asked_until``; both are real
    time.
    """

    key = models.UUIDField(primary_key=True)
    people = models.PositiveBigIntegerField(null=True)
    as_of = models.DateTimeField()
    reason = models.CharField(max_length=30, blank=True, default="")
    good_until = models.DateTimeField()
    asked_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.people} as of {self.as_of}"


class LeftAlone(models.Model):
    """A kind of question that the user service did not answer (``user_service.left_alone``): nobody asks it before
    ``until``, and then one alone, before ``asked_until``; both are real time.

    ``question``: a blind index of its kind and the service. ``failures``: in a row.
    """

    question = models.UUIDField(primary_key=True)
    failures = models.PositiveIntegerField()
    until = models.DateTimeField()
    asked_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"left alone until {self.until}"
