"""A person's in-app inbox, as the person reads it."""

from datetime import datetime
from functools import partial

from django.db import transaction
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Coalesce

from delivery import wakeups
from delivery.models import InboxMessage
from schedules.models import Recipient


class NoInbox(LookupError):
    """The account belongs to nobody who is written to."""

    def __init__(self) -> None:
        super().__init__(
            "There is no inbox for this account: its username is no recipient's externalId. Ask an admin to make them "
            "the same."
        )


class NoSuchMessage(LookupError):
    """There is none of that id in this inbox."""

    def __init__(self) -> None:
        super().__init__("There is no such message in this inbox.")


def owner(*, username: str) -> Recipient:
    """The recipient whose external id is the account's ``username``. Raises ``NoInbox``."""
    found = Recipient.objects.filter(external_id=username).first()
    if found is None:
        raise NoInbox
    return found


def messages(*, recipient_id: int, unread: bool | None = None, archived: bool = False) -> QuerySet[InboxMessage]:
    """What stands in the inbox, or what was archived; with ``unread`` only what is, or is not, read."""
    found = InboxMessage.objects.filter(recipient_id=recipient_id, archived_at__isnull=not archived)
    return found if unread is None else found.filter(read_at__isnull=unread)


def unread_count(*, recipient_id: int) -> int:
    return messages(recipient_id=recipient_id, unread=True).count()


def read(*, recipient_id: int, message_id: int, now: datetime) -> InboxMessage:
    """Mark as read; what was read already keeps its instant. Raises ``NoSuchMessage``."""
    return _mark(recipient_id, message_id, read_at=Coalesce(F("read_at"), Value(now)))


def unread(*, recipient_id: int, message_id: int) -> InboxMessage:
    """Raises ``NoSuchMessage``."""
    return _mark(recipient_id, message_id, read_at=None)


def archive(*, recipient_id: int, message_id: int, now: datetime) -> InboxMessage:
    """Take out of the list; read or not stays as it was. Raises ``NoSuchMessage``."""
    return _mark(recipient_id, message_id, archived_at=Coalesce(F("archived_at"), Value(now)))


def read_all(*, recipient_id: int, now: datetime, up_to: int | None = None) -> int:
    """Mark as read what isn't archived, none that is newer than the message ``up_to``; how many were unread."""
    found = messages(recipient_id=recipient_id, unread=True)
    count = (found if up_to is None else found.filter(pk__lte=up_to)).update(read_at=now)
    _tell(recipient_id)
    return count


def _mark(recipient_id: int, message_id: int, **changes: object) -> InboxMessage:
    found = InboxMessage.objects.filter(pk=message_id, recipient_id=recipient_id)
    if not found.update(**changes):
        raise NoSuchMessage
    _tell(recipient_id)
    return found.get()


def _tell(recipient_id: int) -> None:
    """The person's other open pages count anew."""
    transaction.on_commit(partial(wakeups.tell, [recipient_id]))
