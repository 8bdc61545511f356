"""Links by which people end a subscription, or set what they are sent, without signing in.

A link holds a token that names the person by the surrogate id alone, with the channel and topic of the message that it
came in; it is signed (keyed BLAKE2b, RFC 7693), so that nobody can make one for somebody else. It has no end: it is as
good as long as the secret with which it was signed stands in ``SECRET_KEY`` or ``SECRET_KEY_FALLBACKS``, and harmless
when it comes twice. What it opens is the same for whoever has it, as with every such link: a forwarded message can be
unsubscribed from by its reader.
"""

import base64
import binascii
import hmac
import re
import struct
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from django.conf import settings

from schedules.consents import Asked, is_topic_key
from schedules.models import Channel

UNSUBSCRIBE: Final = "/u/"
PREFERENCES: Final = "/p/"
# Stands for a token where no person is meant: in previews and in what is sent as a test.
SAMPLE: Final = "sample"

_VERSION: Final = 1
_HEAD: Final = struct.Struct(">BBQ")  # version, channel, person; behind it the topic's key
_MAC: Final = 16  # bytes: nobody guesses one of 2**128
_CHANNELS: Final = {Channel.EMAIL.value: 1, Channel.PUSH.value: 2, Channel.IN_APP.value: 3}
_OF_NUMBER: Final = {number: channel for channel, number in _CHANNELS.items()}
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{35,100}", re.ASCII)


class Link(NamedTuple):
    """Whose it is, and what the message was about; without a topic all messages of the channel are meant."""

    recipient_id: int
    channel: str
    topic: str | None


class Urls(NamedTuple):
    """Where one click ends what a message belongs to, and where everything is set; empty: there is no such link."""

    unsubscribe: str = ""
    preferences: str = ""

    def tokens(self) -> dict[str, str]:
        """By the names that templates know them by."""
        return {"unsubscribe_url": self.unsubscribe, "preferences_url": self.preferences}


NONE: Final = Urls()


def urls_of(recipient_id: int, asked: Asked) -> Urls:
    """Of a message for the person. A transactional one can't be unsubscribed from."""
    if not settings.PUBLIC_URL:
        return NONE
    return _urls(sign(Link(recipient_id, asked.channel, asked.topic)), asked)


def sample_urls(asked: Asked) -> Urls:
    """Of the same form, and belonging to nobody."""
    return _urls(SAMPLE, asked) if settings.PUBLIC_URL else NONE


def _urls(token: str, asked: Asked) -> Urls:
    unsubscribe = "" if asked.is_transactional else f"{settings.PUBLIC_URL}{UNSUBSCRIBE}{token}"
    return Urls(unsubscribe, f"{settings.PUBLIC_URL}{PREFERENCES}{token}")


def sign(link: Link) -> str:
    """At most 100 characters that an address holds as they are."""
    said = _HEAD.pack(_VERSION, _CHANNELS[link.channel], link.recipient_id) + (link.topic or "").encode("ascii")
    return _text(said + _mac(settings.SECRET_KEY, said))


def read(token: str) -> Link | None:
    """What a token says; None for one that was not made here, or by a secret that is gone."""
    if not _TOKEN.fullmatch(token):
        return None
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error:
        return None
    said, mac = raw[:-_MAC], raw[-_MAC:]
    if len(said) < _HEAD.size or _text(raw) != token or not _is_ours(said, mac):
        return None
    version, number, recipient_id = _HEAD.unpack_from(said)
    topic = said[_HEAD.size :].decode("ascii", errors="replace")
    if version != _VERSION or number not in _OF_NUMBER or (topic and not is_topic_key(topic)):
        return None
    return Link(recipient_id, _OF_NUMBER[number], topic or None)


def _is_ours(said: bytes, mac: bytes) -> bool:
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(hmac.compare_digest(_mac(secret, said), mac) for secret in secrets)


def _mac(secret: str, said: bytes) -> bytes:
    return blake2b(said, key=_key(secret), digest_size=_MAC).digest()  # a third of what HMAC-SHA256 takes


@lru_cache(maxsize=32)
def _key(secret: str) -> bytes:
    """A key for this alone, so that nothing else that the secret signs is ever taken for a link."""
    return hmac.digest(secret.encode(), b"notification-scheduler/links", "sha256")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
