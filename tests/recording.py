"""A provider that notes what it is asked for and answers as a test wants."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from delivery.providers.base import Answer, Message, Permit, Provider, Verdict


class Call(NamedTuple):
    """One call of the recording provider. ``started_at`` is ``time.monotonic()``."""

    started_at: float
    messages: list[Message]


def sent(message: Message) -> Answer:
    return Answer(message.key, Verdict.SENT, provider_id=f"id-{message.key}")


class RecordingProvider(Provider):
    """A network provider as far as the sender can tell: it notes each call and answers as the test wants.

    ``answer`` says what becomes of a message; ``meanwhile`` runs while the call is under way. Both are reset by the
    fixture that names this provider in the settings.
    """

    name: ClassVar[str] = "recording"
    channels: ClassVar[frozenset[str]] = frozenset({"email", "push", "in_app"})
    max_per_call: ClassVar[int] = 50
    calls: ClassVar[list[Call]] = []
    answer: ClassVar[Callable[[Message], Answer | None]] = staticmethod(sent)
    meanwhile: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    @classmethod
    def reset(cls) -> None:
        cls.calls = []
        cls.answer = staticmethod(sent)
        cls.meanwhile = staticmethod(lambda: None)

    @classmethod
    def answers(cls, verdict: Verdict, reason: str = "said_so", **more: Any) -> None:
        """From now on every message gets this verdict."""
        cls.answer = staticmethod(lambda message: Answer(message.key, verdict, reason, **more))

    @classmethod
    def messages(cls) -> list[Message]:
        return [message for call in cls.calls for message in call.messages]

    @classmethod
    def reached(cls) -> Counter[int]:
        """How often each recipient's message was handed over."""
        return Counter(message.recipient_id for message in cls.messages())

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        type(self).calls.append(Call(time.monotonic(), list(messages)))
        self.meanwhile()
        return [answer for message in messages if (answer := self.answer(message)) is not None]


class Understudy(RecordingProvider):
    """Another of its kind, to take its place."""

    name: ClassVar[str] = "understudy"
