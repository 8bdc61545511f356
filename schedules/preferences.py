"""What a person sets without signing in, by a link in a message: what is sent and at which hours not, and no more.

Whoever has the link is taken for the person. Each operation is one transaction of change and audit event.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schedules import consents, recipients, topics
from schedules.links import Link
from schedules.models import Channel, Recipient, Topic

# The actor, for the audit; the event names the person by the surrogate id.
PERSON: Final = "system:person"


@dataclass(frozen=True)
class Switch:
    """What a person may turn on and off: a topic in a channel, or without ``topic`` the whole channel."""

    key: str
    topic: Topic | None
    is_on: bool


@dataclass(frozen=True)
class OfChannel:
    """``whole`` off keeps back what the ``topics`` say, too."""

    channel: Channel
    whole: Switch
    topics: Sequence[Switch]


def of_person(person: Recipient, channels: Collection[Channel]) -> list[OfChannel]:
    """What the person can set in these channels; one statement."""
    offered = topics.offered()
    return [
        OfChannel(
            channel,
            Switch(channel.value, None, person.consent.get(channel.value) is not False),
            [_switch(person.consent, topic, channel) for topic in offered],
        )
        for channel in channels
    ]


def _switch(consent: Mapping[str, bool], topic: Topic, channel: Channel) -> Switch:
    key = consents.key(channel.value, topic.key)
    return Switch(key, topic, consent.get(key, not topic.needs_agreement))


def unsubscribe(link: Link, *, now: datetime) -> Recipient:
    """The person wants no more of what the link's message belongs to. Once more changes nothing but how old that is.

    Raises ``NoSuchRecipient`` for somebody erased.
    """
    return change(recipient_id=link.recipient_id, said={"consent": {_key(link): False}}, now=now)


def is_unsubscribed(link: Link, person: Recipient) -> bool:
    """Whether the person has said no to what the link's message belongs to, or to its whole channel."""
    return False in (person.consent.get(link.channel), person.consent.get(_key(link)))


def _key(link: Link) -> str:
    key = consents.key(link.channel, link.topic)
    return link.channel if topics.unknown([key]) else key  # the topic of a message from before this database


def change(*, recipient_id: int, said: Mapping[str, Any], now: datetime) -> Recipient:
    """Keep what the person says: ``consent`` by keys of ``consents``, ``quiet_hours`` as in ``schedules.quiet_hours``.

    Raises ``NoSuchRecipient`` and ``InvalidRecipient``.
    """
    return recipients.update(recipient_id=recipient_id, changes=said, by=PERSON, now=now)
