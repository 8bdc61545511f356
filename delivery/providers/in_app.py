"""The in-app inbox: written in the transaction of its outcome, hence delivered exactly once."""

from collections.abc import Sequence
from typing import ClassVar

from delivery.models import InboxMessage
from delivery.providers.base import Answer, Message, Permit, Provider, Verdict
from schedules import clock


class InAppProvider(Provider):
    name: ClassVar[str] = "in_app"
    channels: ClassVar[frozenset[str]] = frozenset({"in_app"})
    max_per_call: ClassVar[int] = 500
    transactional: ClassVar[bool] = True

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        now = clock.now()
        InboxMessage.objects.bulk_create(
            InboxMessage(
                recipient_id=message.recipient_id,
                occurrence_id=message.occurrence_id,
                title=message.subject,
                body=message.text,
                created_at=now,
            )
            for message in messages
        )
        return [Answer(message.key, Verdict.SENT) for message in messages]
