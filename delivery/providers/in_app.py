"""The in-app inbox: written in the transaction of its outcome, hence delivered exactly once."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from django.db import connection

from delivery.providers.base import Answer, Message, Permit, Provider, Verdict
from schedules import clock
from schedules.encryption import encrypt_all
from schedules.fields import place

# A model instance for each message would cost as much as all the rest of its delivery.
_INSERT = """
INSERT INTO delivery_inboxmessage (recipient_id, occurrence_id, title, body, created_at)
SELECT v.*, %s FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[], %s::bytea[]) AS v
"""

_TITLE: Final = place("delivery_inboxmessage", "title")
_BODY: Final = place("delivery_inboxmessage", "body")


class InAppProvider(Provider):
    name: ClassVar[str] = "in_app"
    channels: ClassVar[frozenset[str]] = frozenset({"in_app"})
    max_per_call: ClassVar[int] = 500
    transactional: ClassVar[bool] = True
    repeats_unknown: ClassVar[bool] = True

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        columns: list[list[Any]] = [
            [message.recipient_id for message in messages],
            [message.occurrence_id for message in messages],
            encrypt_all((message.subject for message in messages), _TITLE),
            encrypt_all((message.text for message in messages), _BODY),
        ]
        with connection.cursor() as cursor:
            cursor.execute(_INSERT, [clock.now(), *columns])
        return [Answer(message.key, Verdict.SENT) for message in messages]
