"""A version of a remote template, and what its service gets to know of a person: the tokens it reads and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from delivery.rendering import LINKS, Shared
from delivery.rendering_limits import MAX_VALUE, RenderError
from schedules.problems import say
from schedules.recurrence import UnknownZone, zone
from schedules.template_service.client import Item

_FIELDS: Final = ("external_id", "locale", "time_zone", "email", "attributes")
_OF_NOBODY: Final = frozenset({"schedule", "occurrence"})


@dataclass(frozen=True)
class Remote:
    """``template_id`` is ours, ``service_id`` and ``version`` the service's.

    ``channels``: in which it says anything. ``tokens``: dotted names of what it reads.
    """

    template_id: int
    service_id: str
    version: str
    channels: frozenset[str]
    tokens: tuple[str, ...]

    @property
    def is_of_nobody(self) -> bool:
        """Whether it reads nothing of the person, so that the same locale and zone mean the same message."""
        return all(name.partition(".")[0] in _OF_NOBODY for name in self.tokens)

    def reads(self, field: str) -> bool:
        """Whether it reads this field of ``recipient``."""
        dotted = f"recipient.{field}"
        return any(name in ("recipient", dotted) or name.startswith(f"{dotted}.") for name in self.tokens)

    def item(self, recipient: Mapping[str, Any], shared: Shared) -> Item:
        """As ``rendering.render_many`` gets a recipient. Raises ``RenderError`` (too_large)."""
        values = self.values(recipient, shared)
        for value in values.values():
            _check_size(value)
        return Item(recipient.get("locale") or "", _zone_name(recipient, shared), values)

    def values(self, recipient: Mapping[str, Any], shared: Shared) -> dict[str, Any]:
        """Of each token that has one: the names that messages of our own may use, with the same meaning."""
        at = recipient.get("at") or shared.occurrence_at
        known = {
            **(recipient.get("attributes") or {}),
            "recipient": {name: value for name in _FIELDS if (value := recipient.get(name))},
            "schedule": {"name": shared.schedule_name},
            "occurrence": {"at": _written(at)},
            **{name: recipient.get(name) or None for name in LINKS},
        }
        found = {name: _at(known, name) for name in self.tokens}
        return {name: value for name, value in found.items() if value is not None}


def _at(known: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        known = known.get(name) if isinstance(known, dict) else None
    return known


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _zone_name(recipient: Mapping[str, Any], shared: Shared) -> str:
    """The schedule's for recipients without a valid zone."""
    for name in (recipient.get("time_zone"), shared.schedule_zone):
        try:
            if name:
                zone(name)
                return str(name)
        except UnknownZone:
            continue
    return "UTC"


def _check_size(value: Any) -> None:
    if isinstance(value, str):
        if len(value) > MAX_VALUE:
            raise RenderError("too_large", say("an attribute is longer than %(most)s characters", most=MAX_VALUE))
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_size(each)
