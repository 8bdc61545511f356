"""What an event of the audit changed: by the names of the fields, each value in words, before and after."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from audit.models import Action, AuditEvent
from frontend.wording.actions import SCOPES
from frontend.wording.reasons import HELD, Words, number, reason
from frontend.wording.schedules import CHANNELS, FIELDS, STATUSES, value_in_words
from frontend.wording.timings import kept_interval
from frontend.wording.topics import DEFAULTS

Clock = tuple[str, str]
"""Zone and mode of the schedule at the time: its instants are told on that clock."""
_Words = Callable[[str, Any, int], str]

# What the sentence has said already.
_TOLD: Mapping[Action, frozenset[str]] = {
    Action.SCHEDULE_CREATE: frozenset({"name"}),
    Action.SCHEDULE_TEST_SEND: frozenset({"recipient", "test_send"}),
    Action.DELIVERY_RETRY: frozenset({"people"}),
    Action.TEMPLATE_PUBLISH: frozenset({"version"}),
    Action.TEMPLATE_DELETE: frozenset({"name", "version"}),
    Action.TOPIC_CREATE: frozenset({"topic", "key"}),
    Action.TOPIC_UPDATE: frozenset({"topic"}),
    Action.TOPIC_ARCHIVE: frozenset({"topic"}),
    Action.TOPIC_RESTORE: frozenset({"topic"}),
    Action.CLIENT_CREATE: frozenset({"name"}),
    Action.CLIENT_REVOKE: frozenset({"name"}),
    Action.CLIENT_DELETE: frozenset({"name"}),
    Action.RECIPIENT_SAVE: frozenset({"recipient"}),
    Action.RECIPIENT_ERASE: frozenset({"recipient", "receipt"}),
    Action.SUPPRESSION_ADD: frozenset({"recipient", "suppression", "since", "reason"}),
    Action.SUPPRESSION_REMOVE: frozenset({"recipient", "suppression"}),
    Action.SENDING_STOP: frozenset({"scope"}),
    Action.SENDING_GO: frozenset({"scope"}),
    Action.CIRCUIT_OPEN: frozenset({"channel"}),
    Action.CIRCUIT_CLOSE: frozenset({"channel"}),
    Action.CLOCK_UPDATE: frozenset({"entry"}),
    Action.CLOCK_CREATE: frozenset({"interval"}),
    Action.EXPORT_FILE: frozenset({"file"}),
    **{action: frozenset({"name"}) for action in Action if action.startswith("endpoint.")},
}
_ALWAYS_TOLD = frozenset({"endpoint", "template", "occurrence", "client", "locale", "account"})
_LABELS: Mapping[str, Words] = {
    **FIELDS,
    "status": gettext_lazy("State"),
    "reason": gettext_lazy("Reason"),
    "held_reason": gettext_lazy("Held because"),
    "since": gettext_lazy("Since"),
    "failed": gettext_lazy("Failed so far"),
    "targeted": gettext_lazy("People found"),
    "to_other_address": gettext_lazy("To another address"),
    "names": gettext_lazy("In other languages"),
    "description": gettext_lazy("Description"),
    "default": gettext_lazy("People get it"),
    "default_locale": gettext_lazy("Language where none fits"),
    "kind": gettext_lazy("Kind"),
    "scopes": gettext_lazy("May"),
    "redirect_uris": gettext_lazy("Returns to"),
    "tokens": gettext_lazy("Tokens"),
    "pending": gettext_lazy("Messages still to come"),
    "lines": gettext_lazy("Lines"),
    "people": gettext_lazy("People"),
    "filter": gettext_lazy("Only those with"),
    "templates": gettext_lazy("Templates"),
    "catalogues": gettext_lazy("Catalogues"),
    "topics": gettext_lazy("Topics"),
    "skipped": gettext_lazy("Lines left out"),
    "created": gettext_lazy("New people"),
    "updated": gettext_lazy("People changed"),
    "unchanged": gettext_lazy("People as they were"),
    "devices_added": gettext_lazy("New devices"),
    "devices_moved": gettext_lazy("Devices that went to another person"),
    "devices_renewed": gettext_lazy("Devices in use again"),
    "left_out": gettext_lazy("People left out, since they were erased before"),
    "external_id": gettext_lazy("External id"),
    "email": gettext_lazy("E-mail address"),
    "locale": gettext_lazy("Language"),
    "time_zone": gettext_lazy("Time zone"),
    "attributes": gettext_lazy("Attributes"),
    "tags": gettext_lazy("Tags"),
    "consent": gettext_lazy("Consent"),
    "quiet_hours": gettext_lazy("Quiet hours"),
    "devices": gettext_lazy("Devices"),
    "openings": gettext_lazy("Refusals in a row"),
    "roles": gettext_lazy("Roles"),
    "password": gettext_lazy("Password"),
    "is_active": gettext_lazy("May sign in"),
    "by_code": gettext_lazy("Second factor"),
    "sessions": gettext_lazy("Sessions ended"),
    "interval": gettext_lazy("Interval"),
    "enabled": gettext_lazy("Switched on"),
    "expire_seconds": gettext_lazy("Seconds until it expires"),
    "verb": gettext_lazy("What was done"),
    "schedules": gettext_lazy("Schedules"),
    "done": gettext_lazy("Done for"),
    "url": gettext_lazy("Address"),
    "types": gettext_lazy("It is told when"),
    "off_reason": gettext_lazy("Off because"),
    "event": gettext_lazy("Event"),
    "events": gettext_lazy("Events"),
}
_KINDS: Mapping[str, Words] = {
    "client-credentials": gettext_lazy("a service with a secret of its own"),
    "authorization-code": gettext_lazy("an app through which people sign in"),
}
_CODES: Mapping[str, Words] = {
    "app": gettext_lazy("a code of the app"),
    "recovery": gettext_lazy("a recovery code"),
}
# Fields whose values have names.
_NAMED: Mapping[str, Mapping[str, Words]] = {
    "status": STATUSES,
    "kind": _KINDS,
    "by_code": _CODES,
    "held_reason": HELD,
    "default": DEFAULTS,
}
_PARTS_OF_CONTENT: Mapping[str, Words] = {
    "subject": gettext_lazy("subject"),
    "text": gettext_lazy("text"),
    "html": gettext_lazy("HTML"),
}
# Of a longer text so many characters are shown.
_LONGEST = 400


class Change(NamedTuple):
    """A field by its label; ``before`` is None where there is nothing to compare with."""

    label: str
    before: str | None
    after: str


def changes(event: AuditEvent, *, clock: Clock, templates: Mapping[int, str]) -> list[Change]:
    """The fields in their order. ``templates``: the names of those that the event tells of, by id."""
    action = Action(event.action) if event.action in Action.values else None
    told = _ALWAYS_TOLD | (_TOLD.get(action, frozenset()) if action else frozenset())
    words = _in_words(event, clock, templates)
    found: list[Change] = []
    for key, value in sorted(event.payload_diff.items(), key=lambda item: _place(item[0])):
        if key in told and not (key == "locale" and action == Action.RECIPIENT_SAVE):
            continue
        if key == "contents":
            found += _contents(value)
        elif action == Action.RECIPIENT_SAVE:
            found.append(Change(_label(key), None, _("changed")))
        else:
            found += _change(key, value, event, words)
    return found


def _change(key: str, value: Any, event: AuditEvent, words: _Words) -> list[Change]:
    if not (isinstance(value, list) and len(value) == 2):
        return [Change(_label(key), None, words(key, value, 1))] if value not in (None, "") else []
    before, after = value
    if event.action.endswith((".create", ".delete", ".test_send")) or (before is None and event.schedule_id is None):
        one = after if before is None else before
        return [Change(_label(key), None, words(key, one, 1))] if one not in (None, "", [], {}) else []
    return [Change(_label(key), words(key, before, 0), words(key, after, 1))]


def _in_words(event: AuditEvent, clock: Clock, templates: Mapping[int, str]) -> _Words:
    """Words for a value before (0) or after (1) the event."""
    zone_name, mode = clock

    def words(key: str, value: Any, side: int) -> str:
        if key in FIELDS:
            then = {
                name: pair[side]
                for name, pair in event.payload_diff.items()
                if isinstance(pair, list) and len(pair) == 2
            }
            definition = {"timeZone": zone_name, "timeZoneMode": mode, **then}
            return value_in_words(key, value, definition=definition, templates=templates)
        return _plain(key, value)

    return words


def _plain(key: str, value: Any) -> str:
    """A value that no schedule has; never as JSON."""
    match key, value:
        case _, None | "":
            return _("nothing")
        case _, bool():
            return _("yes") if value else _("no")
        case "interval", str():
            return kept_interval(value)
        case _, str() if key in _NAMED:
            return str(_NAMED[key].get(value, value))
        case "scopes", str():
            return ", ".join(str(SCOPES.get(scope, scope)) for scope in value.split())
        case "reason", str() if value.isidentifier():
            return reason(value)
        case _, int():
            return number(value)
        case _, dict():
            return "; ".join(f"{name}: {_plain('', each)}" for name, each in value.items())
        case _, list():
            return ", ".join(_plain("", each) for each in value) or _("nothing")
    return _short(str(value))


def _contents(value: Any) -> list[Change]:
    """What a template says, per channel, language and part, where that has changed."""
    before, after = ({_place_of(each): each for each in side or ()} for side in value)
    found = []
    for channel, locale in dict.fromkeys([*before, *after]):
        for part, name in _PARTS_OF_CONTENT.items():
            was, is_now = ((side.get((channel, locale)) or {}).get(part, "") for side in (before, after))
            if was != is_now:
                label = _("%(channel)s, %(locale)s: %(part)s") % {
                    "channel": CHANNELS.get(channel, channel),
                    "locale": locale,
                    "part": name,
                }
                found.append(Change(label, _short(was) if was else None, _short(is_now) if is_now else _("nothing")))
    return found


def _place_of(content: Mapping[str, str]) -> tuple[str, str]:
    return content.get("channel", ""), content.get("locale", "")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()}…"


def _label(key: str) -> str:
    if key.startswith("messages/"):
        return _("Text “%(key)s”") % {"key": key.removeprefix("messages/")}
    return str(_LABELS.get(key) or capfirst(key.replace("_", " ")))


_ORDER = {key: place for place, key in enumerate(_LABELS)}


def _place(key: str) -> tuple[int, str]:
    return _ORDER.get(key, len(_ORDER)), key
