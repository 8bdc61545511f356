"""The shape of FCM's SendMessageRequest, as its reference states it, and what its text adds about payloads.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages; a member may be spelt in either way that
protobuf's JSON allows, fcm_options or fcmOptions, and null stands for a member that isn't there.
Compiled once, because walking a schema for every request would cost more than the rest of the stub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MAX_PAYLOAD = 4096  # bytes; of a message to a topic half as many
MAX_COLLAPSE_ID = 64  # bytes, Apple's limit for apns-collapse-id
_DURATION = re.compile(r"\d{1,12}(\.\d{1,9})?s")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_RESERVED = re.compile(r"(from|message_type|gcm|google.*|gcm\.notification.*)")


class Violation(NamedTuple):
    """What is wrong with one field, in Google's words."""

    field: str
    description: str


class _Wrong(NamedTuple):
    """A mistake as its check finds it, `at` being the place below; the words come later."""

    at: str
    kind: str  # the expected type; empty for a member that there isn't
    value: Any

    def below(self, name: str) -> _Wrong:
        joint = "." if self.at and not self.at.startswith("[") else ""
        return self._replace(at=f"{name}{joint}{self.at}")

    def violation(self) -> Violation:
        if self.kind:
            shown = json.dumps(self.value, ensure_ascii=False)
            return Violation(self.at, f"Invalid value at '{self.at}' ({self.kind}), {shown}")
        where = f" at '{self.at}'" if self.at else ""
        words = f'Invalid JSON payload received. Unknown name "{self.value}"{where}: Cannot find field.'
        return Violation(self.at, words)


# A value that is as it should be costs one call and no new object.
Check = Callable[[Any], Sequence[_Wrong]]
_FINE: tuple[_Wrong, ...] = ()


def _scalar(kind: str, *types: type) -> Check:
    def check(value: Any) -> Sequence[_Wrong]:
        return _FINE if type(value) in types else [_Wrong("", kind, value)]

    return check


def _pattern(kind: str, pattern: re.Pattern[str]) -> Check:
    def check(value: Any) -> Sequence[_Wrong]:
        return _FINE if type(value) is str and pattern.fullmatch(value) else [_Wrong("", kind, value)]

    return check


def _choice(kind: str, *names: str) -> Check:
    allowed = {*names, *map(str.lower, names)}
    full = f"type.googleapis.com/google.firebase.fcm.v1.{kind}"

    def check(value: Any) -> Sequence[_Wrong]:
        return _FINE if type(value) is str and value in allowed else [_Wrong("", full, value)]

    return check


def _list(member: Check) -> Check:
    def check(value: Any) -> Sequence[_Wrong]:
        if type(value) is not list:
            return [_Wrong("", "TYPE_REPEATED", value)]
        return [wrong.below(f"[{index}]") for index, each in enumerate(value) for wrong in member(each)]

    return check


def _map(value: Any) -> Sequence[_Wrong]:
    """Of strings to strings."""
    if type(value) is not dict:
        return [_Wrong("", "TYPE_MESSAGE", value)]
    return [
        _Wrong(f"[{index}].value", "TYPE_STRING", each)
        for index, each in enumerate(value.values())
        if type(each) is not str
    ]


def _object(members: Mapping[str, Check]) -> Check:
    checks = {**members, **{_camel(name): check for name, check in members.items()}}

    def check(value: Any) -> Sequence[_Wrong]:
        if type(value) is not dict:
            return [_Wrong("", "TYPE_MESSAGE", value)]
        found: list[_Wrong] = []
        for name, each in value.items():
            known = checks.get(name)
            if known is None:
                found.append(_Wrong("", "", name))
            elif each is not None and (wrong := known(each)):
                found += [each.below(name) for each in wrong]
        return found

    return check


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


_TEXT = _scalar("TYPE_STRING", str)
_BOOL = _scalar("TYPE_BOOL", bool)
_INT = _scalar("TYPE_INT32", int)
_FLOAT = _scalar("TYPE_FLOAT", int, float)
_STRUCT = _scalar("TYPE_MESSAGE", dict)
_DURATION_TEXT = _pattern("type.googleapis.com/google.protobuf.Duration", _DURATION)
_LABEL = {"analytics_label": _TEXT}
_COLOR = _object(dict.fromkeys(("red", "green", "blue", "alpha"), _FLOAT))
_WORDS = "title body icon color sound tag click_action body_loc_key title_loc_key channel_id ticker image"
_FLAGS = "sticky local_only default_sound default_vibrate_timings default_light_settings bypass_proxy_notification"
_ANDROID_NOTIFICATION = _object(
    {
        **dict.fromkeys(_WORDS.split(), _TEXT),
        **dict.fromkeys(_FLAGS.split(), _BOOL),
        **dict.fromkeys(("body_loc_args", "title_loc_args"), _list(_TEXT)),
        "event_time": _pattern("type.googleapis.com/google.protobuf.Timestamp", _TIMESTAMP),
        "notification_priority": _choice(
            "AndroidNotification.NotificationPriority",
            *(f"PRIORITY_{name}" for name in ("UNSPECIFIED", "MIN", "LOW", "DEFAULT", "HIGH", "MAX")),
        ),
        "vibrate_timings": _list(_DURATION_TEXT),
        "visibility": _choice(
            "AndroidNotification.Visibility", "VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"
        ),
        "notification_count": _INT,
        "light_settings": _object(
            {"color": _COLOR, "light_on_duration": _DURATION_TEXT, "light_off_duration": _DURATION_TEXT}
        ),
        "proxy": _choice("AndroidNotification.Proxy", "PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
    }
)
_ANDROID = _object(
    {
        "collapse_key": _TEXT,
        "priority": _choice("AndroidMessagePriority", "NORMAL", "HIGH"),
        "ttl": _DURATION_TEXT,
        "restricted_package_name": _TEXT,
        "data": _map,
        "notification": _ANDROID_NOTIFICATION,
        "fcm_options": _object(_LABEL),
        **dict.fromkeys(("direct_boot_ok", "bandwidth_constrained_ok", "restricted_satellite_ok"), _BOOL),
    }
)
_APNS = _object(
    {
        "headers": _map,
        "payload": _STRUCT,
        "fcm_options": _object({**_LABEL, "image": _TEXT}),
        "live_activity_token": _TEXT,
    }
)
_WEBPUSH = _object(
    {"headers": _map, "data": _map, "notification": _STRUCT, "fcm_options": _object({**_LABEL, "link": _TEXT})}
)
TARGETS = ("token", "fid", "topic", "condition")
_MESSAGE = _object(
    {
        **dict.fromkeys(("name", *TARGETS), _TEXT),
        "data": _map,
        "notification": _object({"title": _TEXT, "body": _TEXT, "image": _TEXT}),
        "android": _ANDROID,
        "apns": _APNS,
        "webpush": _WEBPUSH,
        "fcm_options": _object(_LABEL),
    }
)
_REQUEST = _object({"message": _MESSAGE, "validate_only": _BOOL})


def violations(request: Any) -> list[Violation]:
    """What is wrong with a request's shape; nothing where it is as it should be."""
    return [wrong.violation() for wrong in _REQUEST(request)]


def payload_violations(message: Mapping[str, Any], *, body_bytes: int) -> Iterator[Violation]:
    """What the reference's text forbids in a message of the right shape that came in a body of so many bytes."""
    for at, data in _data_blocks(message):
        for key in data:
            if _RESERVED.fullmatch(key):
                yield Violation(at, f"Invalid data payload key: {key}")
    collapse_id = collapse_id_of_apns(message)
    if len(collapse_id) > MAX_COLLAPSE_ID // 4 and len(collapse_id.encode()) > MAX_COLLAPSE_ID:
        yield Violation("message.apns.headers", f"apns-collapse-id: at most {MAX_COLLAPSE_ID} bytes are allowed")
    most = MAX_PAYLOAD if not message.get("topic") else MAX_PAYLOAD // 2
    # The body holds all of the payload, so that few messages need to be measured.
    if body_bytes > most and max(_sizes(message)) > most:
        yield Violation("message", f"Message is too big: at most {most} bytes are allowed")


def collapse_id_of_apns(message: Mapping[str, Any]) -> str:
    headers: Mapping[str, str] = (message.get("apns") or {}).get("headers") or {}
    return headers.get("apns-collapse-id") or ""


def _data_blocks(message: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield "message.data", message.get("data") or {}
    for platform in ("android", "webpush"):
        if block := message.get(platform):
            yield f"message.{platform}.data", block.get("data") or {}


def _sizes(message: Mapping[str, Any]) -> Iterator[int]:
    """Bytes of keys and values that a device of each platform would get; its own members override the common ones."""
    data, notification = message.get("data") or {}, message.get("notification") or {}
    yield _bytes(data) + _bytes(notification)
    for platform in ("android", "webpush"):
        block = message.get(platform) or {}
        shown = {**notification, **(block.get("notification") or {})}
        yield _bytes(block.get("data") or data) + _bytes(shown)
    if payload := (message.get("apns") or {}).get("payload"):
        yield _bytes(data) + len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())


def _bytes(members: Mapping[str, Any]) -> int:
    return sum(len(name.encode()) + len(str(value).encode()) for name, value in members.items())
