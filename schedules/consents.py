"""Whether a person may be written to: what was said of the channel, of the topic in it, and what silence means.

``consent`` of a profile maps a channel (``email``), or a topic in a channel (``news:email``), to true or false. No to a
channel outweighs yes to a topic in it. A transactional message asks for no consent at all; an address that is
suppressed (``schedules.suppressions``) is not written to all the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from django.db.models import Q

from schedules.models import LONGEST_KEY, Channel, Purpose, Topic
from schedules.problems import say

OPTED_OUT: Final = "opted_out"
OPTED_OUT_OF_TOPIC: Final = "opted_out_of_topic"
NOT_OPTED_IN: Final = "not_opted_in"
# What a person of whom nothing else is in the way is suppressed for.
REASONS: Final = (OPTED_OUT, OPTED_OUT_OF_TOPIC, NOT_OPTED_IN)

TOPIC_KEY: Final = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{LONGEST_KEY - 1}}}", re.ASCII)
# Taken once: the property makes a list of them at each access, and keys are parted for each person of an import.
_CHANNELS: Final = frozenset(Channel.values)
# Of one person: more than any service has topics and channels.
MOST_KEYS: Final = 1_000


class Asked(NamedTuple):
    """What a message needs of consent. ``needs_agreement``: silence is no yes to its topic."""

    channel: str
    topic: str | None = None
    needs_agreement: bool = False
    is_transactional: bool = False

    @property
    def key(self) -> str:
        """What a person says no to who says no to such messages."""
        return key(self.channel, self.topic)


def key(channel: str, topic: str | None = None) -> str:
    """Under which a profile's ``consent`` has it."""
    return f"{topic}:{channel}" if topic else channel


def parted(said: str) -> tuple[str | None, str]:
    """Topic and channel of a key; the channel is empty where it is none of ours, or the topic can't be one."""
    topic, colon, channel = said.rpartition(":")
    if channel not in _CHANNELS or (colon and not is_topic_key(topic)):
        return None, ""
    return (topic if colon else None), channel


def is_topic_key(text: str) -> bool:
    """Small letters, digits, ``-`` and ``_``; no channel's name."""
    return TOPIC_KEY.fullmatch(text) is not None and text not in _CHANNELS


def asked_by(*, channel: str, topic: str | None = None, purpose: str = Purpose.MARKETING) -> Asked:
    """Of a schedule; a topic that is not there asks for agreement, as nobody can have been told of it."""
    if purpose == Purpose.TRANSACTIONAL:
        return Asked(channel, is_transactional=True)
    if topic is None:
        return Asked(channel)
    found = Topic.objects.filter(key=topic).first()
    return Asked(channel, topic, needs_agreement=found is None or found.needs_agreement)


def objection(consent: Mapping[str, object], asked: Asked) -> str:
    """Why such a message must not be sent, one of ``REASONS``; empty: it may."""
    if asked.is_transactional:
        return ""
    if consent.get(asked.channel) is False:
        return OPTED_OUT
    if asked.topic is None:
        return ""
    said = consent.get(asked.key)
    if said is False:
        return OPTED_OUT_OF_TOPIC
    return NOT_OPTED_IN if asked.needs_agreement and said is not True else ""


def objecting(asked: Asked) -> Q:
    """People with an ``objection``, as a condition on their profiles."""
    if asked.is_transactional:
        return Q(pk__isnull=True)
    found = Q(consent__contains={asked.channel: False})
    if asked.topic is None:
        return found
    if asked.needs_agreement:
        return found | ~Q(consent__contains={asked.key: True})
    return found | Q(consent__contains={asked.key: False})


def fault(keys: Mapping[str, object]) -> str:
    """What is wrong with the keys of a ``consent``, completing “The field …”; empty when they can be kept."""
    if len(keys) > MOST_KEYS:
        return say("has more than %(most)s members", most=MOST_KEYS)
    if all(parted(name)[1] for name in keys):
        return ""
    return say(
        "names an unknown channel: use %(known)s, or a topic's key in front of one, such as news:email",
        known=", ".join(Channel.values),
    )
