"""Providers that a certain message kills, with the process that they are in."""

import os
import signal
from collections.abc import Sequence

from delivery.providers.base import Answer, Message, Permit
from delivery.providers.fcm import FcmProvider
from delivery.providers.ses import SesProvider

# Whose text holds it dies in the attempt to send it.
POISON = "poison-"


class DeadlySes(SesProvider):
    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        _perhaps_die(messages)
        return super()._call(messages, permit=permit)


class DeadlyFcm(FcmProvider):
    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        _perhaps_die(messages)
        return super()._call(messages, permit=permit)


def _perhaps_die(messages: Sequence[Message]) -> None:
    if any(POISON in message.text for message in messages):
        os.kill(os.getpid(), signal.SIGKILL)
