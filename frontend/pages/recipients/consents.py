"""What a person has said of channels and topics, and what silence means: a table for the person's page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from frontend import actors
from schedules import consents
from schedules.models import Channel, Recipient, Topic


@dataclass(frozen=True)
class Cell:
    """``by`` and ``at``: who said it last and when, as far as that is known."""

    channel: str
    words: str
    css: str
    by: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class Row:
    """One topic, or with an empty ``key`` the channels as a whole; a cell for each channel."""

    name: str
    key: str
    is_archived: bool
    cells: Sequence[Cell]


def table(person: Recipient) -> list[Row]:
    """The channels, the topics that are offered, and those of which the person has said something."""
    said = {topic for topic, _channel in map(consents.parted, person.consent) if topic}
    topics = [each for each in Topic.objects.all() if each.archived_at is None or each.key in said]
    names = actors.names(told["by"] for told in person.consent_source.values())
    whole = Row(_("All messages"), "", False, [_cell(person, channel, None, names) for channel in Channel])
    return [
        whole,
        *(
            Row(
                topic.name,
                topic.key,
                topic.archived_at is not None,
                [_cell(person, channel, topic, names) for channel in Channel],
            )
            for topic in topics
        ),
    ]


def _cell(person: Recipient, channel: Channel, topic: Topic | None, names: Mapping[str, str]) -> Cell:
    key = consents.key(channel.value, topic.key if topic else None)
    told: Mapping[str, Any] = person.consent_source.get(key) or {}
    at = told.get("at") or person.objected_at.get(key)
    words, css = _state(person.consent.get(key), topic)
    by = names.get(told.get("by", ""), "")
    return Cell(str(channel.label), words, css, by, datetime.fromisoformat(at) if at else None)


def _state(agreed: object, topic: Topic | None) -> tuple[str, str]:
    if agreed is False:
        return _("Opted out: gets nothing here"), "suppressed"
    if agreed is True:
        return _("Agreed"), "sent"
    if topic is not None and topic.needs_agreement:
        return _("Has not said: gets nothing until then"), "none"
    return _("Has not said: no objection"), "none"
