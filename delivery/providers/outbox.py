"""The outbox sends nothing: it keeps what would have been sent, rendered, to look at. The embedded default."""

from collections.abc import Sequence
from typing import ClassVar

from delivery.models import OutboxMessage
from delivery.providers.base import Answer, Message, Permit, Provider, Verdict
from schedules import clock


class OutboxProvider(Provider):
    name: ClassVar[str] = "outbox"
    channels: ClassVar[frozenset[str]] = frozenset({"email", "push"})
    max_per_call: ClassVar[int] = 500
    transactional: ClassVar[bool] = True
    repeats_unknown: ClassVar[bool] = True

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        now = clock.now()
        OutboxMessage.objects.bulk_create(
            OutboxMessage(
                recipient_id=message.recipient_id,
                occurrence_id=message.occurrence_id,
                to=message.to or ",".join(target.token for target in message.targets),
                subject=message.subject,
                text=message.text,
                html=message.html,
                unsubscribe_url=message.unsubscribe_url,
                created_at=now,
            )
            for message in messages
        )
        return [
            Answer(message.key, Verdict.SENT, reached=tuple(target.device_id for target in message.targets))
            for message in messages
        ]
