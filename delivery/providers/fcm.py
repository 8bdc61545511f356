"""Push through Firebase Cloud Messaging's HTTP v1 API: one POST for each device of each person.

firebase-admin gives credentials and the encoding of a message; the calls are ours (`delivery.providers.pool`), since
its own repeat what may have been delivered. Every message carries the delivery's key as its collapse id, so that a
repeat takes the place of the first on the device: Android's notification tag, APNs' apns-collapse-id, the web's tag and
Topic. Android's collapse_key is left out on purpose: FCM keeps four of them per device and drops the others.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple, Self

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from firebase_admin import credentials, messaging

from delivery.providers.base import (
    CONNECT_S,
    READ_S,
    Answer,
    Message,
    Permit,
    Provider,
    ProviderError,
    Quota,
    Target,
    Verdict,
    by_status,
    retry_after_seconds,
)
from delivery.providers.google_token import AccessToken
from delivery.providers.pool import Pool, Reply
from schedules.content import MAX_PUSH

QUOTA_WAIT = 60.0  # seconds after a 429 that names none ("Best practices when sending FCM messages at scale")
_TOPIC_LENGTH = 32  # of a web push message's Topic (RFC 8030, 5.4)
# A Firebase installation id, as Firebase's own libraries check it; a registration token is longer and has a colon.
_INSTALLATION_ID = re.compile(r"[cdef][\w-]{21}", re.ASCII)
_OPAQUE = re.compile(r"[\w:-]{20,}")

# https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode; what is not here is told by its HTTP status.
# A token of another sender is not retired: should FCM_PROJECT be wrong, that would retire every device there is.
ERRORS: Mapping[str, tuple[Verdict, str]] = {
    "INVALID_ARGUMENT": (Verdict.PERMANENT, "invalid_parameter"),
    "UNREGISTERED": (Verdict.PERMANENT, "unregistered"),
    "SENDER_ID_MISMATCH": (Verdict.PERMANENT, "sender_mismatch"),
    "QUOTA_EXCEEDED": (Verdict.THROTTLED, "throttled"),
    "UNAVAILABLE": (Verdict.TRANSIENT, "provider_error"),
    "INTERNAL": (Verdict.TRANSIENT, "provider_error"),
    # Of Apple's or the web's devices alone: to call it the account's fault would stop Android's as well.
    "THIRD_PARTY_AUTH_ERROR": (Verdict.TRANSIENT, "third_party_auth"),
    "APNS_AUTH_ERROR": (Verdict.TRANSIENT, "third_party_auth"),
}
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_GONE = frozenset({"unregistered", "invalid_token"})

# What a person's answer is when devices fared differently: the first that any of them had. Where an attempt was made
# one is counted; a wait is longer than none.
_PRECEDENCE = (
    Verdict.UNKNOWN,
    Verdict.TRANSIENT,
    Verdict.THROTTLED,
    Verdict.MISCONFIGURED,
    Verdict.NOT_STARTED,
    Verdict.PERMANENT,
)


class Fate(NamedTuple):
    """What became of the message to one device; `name` is FCM's id of it."""

    verdict: Verdict
    reason: str = ""
    name: str = ""
    detail: str = ""
    retry_after: float | None = None


class FcmProvider(Provider):
    """One pool of connections per process; threads share it.

    Times are in seconds. `service_account` is a path or the JSON itself; without it the environment's default
    credentials are used, and `project` must be given. A call takes at most the permit, plus connecting and reading.
    """

    name: ClassVar[str] = "fcm"
    channels: ClassVar[frozenset[str]] = frozenset({"push"})
    max_per_call: ClassVar[int] = 100
    has_quota: ClassVar[bool] = True
    repeats_unknown: ClassVar[bool] = True

    def __init__(
        self,
        *,
        service_account: str = "",
        project: str = "",
        endpoint: str = "https://fcm.googleapis.com",
        connections: int = 64,
        connect_timeout: float = CONNECT_S,
        read_timeout: float = READ_S,
    ) -> None:
        credential, named = _credential(service_account)
        project = project or named
        self._require(
            bool(project), "FCM_PROJECT is empty", "the id of the Firebase project, unless FCM_CREDENTIALS names it"
        )
        self._require(
            endpoint.startswith("http"), f"FCM_ENDPOINT is {endpoint!r}", "an address, e.g. https://fcm.googleapis.com"
        )
        self._require(connections > 0, f"FCM_CONNECTIONS is {connections}", "a number from 1 upwards")
        self._url = f"{endpoint.rstrip('/')}/v1/projects/{project}/messages:send"
        self._access = AccessToken(credential, timeout=connect_timeout)
        self._pool = Pool(connections=connections, connect_timeout=connect_timeout, read_timeout=read_timeout)

    @classmethod
    def from_settings(cls) -> Self:
        """From FCM_CREDENTIALS, FCM_PROJECT, FCM_ENDPOINT and FCM_CONNECTIONS; raises ImproperlyConfigured."""
        return cls(
            service_account=settings.FCM_CREDENTIALS,
            project=settings.FCM_PROJECT,
            endpoint=settings.FCM_ENDPOINT,
            connections=settings.FCM_CONNECTIONS,
        )

    def quota(self) -> Quota:
        """Nobody can be asked: what FCM_PER_MINUTE says, spread evenly."""
        return Quota(per_s=settings.FCM_PER_MINUTE / 60 if settings.FCM_PER_MINUTE else None)

    def _refuse(self, message: Message) -> Answer | None:
        if not message.targets:
            return Answer(message.key, Verdict.PERMANENT, "no_address")
        size = _size(message)
        if size > MAX_PUSH:
            return Answer(message.key, Verdict.PERMANENT, "too_large", "", f"{size} bytes")
        return None

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        token, headers = self._access.headers(permit)
        bodies = [body for message in messages for body in encode(message)]
        outcomes = iter(self._pool.post_all(self._url, headers=headers, bodies=bodies, permit=permit))
        fates = [[fate(next(outcomes), target) for target in message.targets] for message in messages]
        if any(each.reason == "access_denied" for of_person in fates for each in of_person):
            self._access.forget(token)
        return list(map(answer, messages, fates))


def encode(message: Message) -> list[bytes]:
    """The body of each device's request. All but the address is written once."""
    values = {
        "title": message.subject,
        "body": message.text,
        "key": message.key,
        "topic": _topic(message.key),
    }
    written = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    written["data"] = json.dumps(_data(message), ensure_ascii=False)
    head, tail = (
        "".join(written[part] if index % 2 else part for index, part in enumerate(parts)).encode(errors="replace")
        for parts in _frame(bool(message.subject), bool(message.text))
    )
    return [head + _address(target) + tail for target in message.targets]


def _address(target: Target) -> bytes:
    kind = "fid" if _INSTALLATION_ID.fullmatch(target.token) else "token"
    return f'"{kind}":{json.dumps(target.token)}'.encode()


@cache
def _frame(has_title: bool, has_body: bool) -> tuple[list[str], list[str]]:
    """A request's JSON before and after its address, each as text and names of values by turns.

    firebase-admin encodes it once, around marks: encoding every message so would cost a fifth of what sending it does.
    """
    key = _mark("key")
    given = messaging.Message(
        notification=messaging.Notification(
            title=_mark("title") if has_title else None, body=_mark("body") if has_body else None
        ),
        data={_mark("data"): ""},
        fid=_mark("address"),
        android=messaging.AndroidConfig(notification=messaging.AndroidNotification(tag=key)),
        apns=messaging.APNSConfig(headers={"apns-collapse-id": key}),
        webpush=messaging.WebpushConfig(
            headers={"Topic": _mark("topic")}, notification=messaging.WebpushNotification(tag=key)
        ),
    )
    text = json.dumps({"message": json.loads(str(given))}, separators=(",", ":"), ensure_ascii=False)
    text = text.replace(f'{{"{_mark("data")}":""}}', f'"{_mark("data")}"')
    head, tail = text.split(f'"fid":"{_mark("address")}"')
    return _MARK.split(head), _MARK.split(tail)


def _mark(name: str) -> str:
    return f"<<{name}>>"


_MARK = re.compile('"<<(\\w+)>>"')


def _topic(key: str) -> str:
    if len(key) <= _TOPIC_LENGTH:
        return key
    return base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()[: _TOPIC_LENGTH * 3 // 4]).decode()


def _data(message: Message) -> dict[str, str]:
    """What the app gets to read: FCM takes texts only."""
    given = (message.data or {}).items()
    return {
        **{name: each if isinstance(each, str) else json.dumps(each) for name, each in given},
        "delivery": message.key,
    }


def _size(message: Message) -> int:
    """Bytes of the payload, "both the keys and the values" (ErrorCode, "Message too big")."""
    fields = {"title": message.subject, "body": message.text, **_data(message)}
    return sum(len(each.encode(errors="replace")) for field in fields.items() for each in field)


def fate(outcome: Reply | ProviderError, target: Target) -> Fate:
    """What the outcome of a device's request means."""
    if isinstance(outcome, ProviderError):
        return Fate(outcome.verdict, outcome.reason, detail=outcome.detail)
    try:
        said = json.loads(outcome.body)
    except (ValueError, RecursionError):
        said = None
    if outcome.status == 200:
        name = said.get("name") if isinstance(said, dict) else None
        return Fate(Verdict.SENT, name=name) if isinstance(name, str) else Fate(Verdict.UNKNOWN, "unreadable_answer")
    return _refusal(outcome, said.get("error") if isinstance(said, dict) else None, target)


def _refusal(reply: Reply, error: Any, target: Target) -> Fate:
    if not isinstance(error, dict):
        error = {}
    details = _objects(error.get("details"))
    codes = [each.get("errorCode") for each in details if each.get("@type") == _FCM_ERROR]
    code, words = str((codes or [error.get("status")])[0] or ""), str(error.get("message") or "")
    verdict, reason = ERRORS.get(code) or _by_status(reply.status, code)
    if code == "INVALID_ARGUMENT":
        reason = _invalid(words, details)
    wait = retry_after_seconds(reply.headers)
    if wait is None and verdict is Verdict.THROTTLED:
        wait = QUOTA_WAIT
    words = _OPAQUE.sub("<token>", words.replace(target.token, "<token>"))
    return Fate(verdict, reason, "", f"{reply.status} {code}: {words}", wait)


def _invalid(words: str, details: Sequence[Mapping[str, Any]]) -> str:
    """Which argument was invalid: the token, which then never becomes valid, the payload's size, or another."""
    fields = {str(each.get("field")) for detail in details for each in _objects(detail.get("fieldViolations"))}
    if fields & {"message.token", "message.fid"} or "registration token" in words:
        return "invalid_token"
    return "too_large" if "too big" in words else "invalid_parameter"


def _objects(found: Any) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _by_status(status: int, code: str) -> tuple[Verdict, str]:
    if status == 404 and code == "NOT_FOUND":
        return Verdict.MISCONFIGURED, "project_not_found"
    return ERRORS["INTERNAL"] if status >= 500 else by_status(status)


def answer(message: Message, fates: Sequence[Fate]) -> Answer:
    """A person's answer from those of the devices, which are in the order of the message's targets."""
    by_device = list(zip(message.targets, fates, strict=True))
    reached = tuple(target.device_id for target, each in by_device if each.verdict is Verdict.SENT)
    gone = tuple(target.device_id for target, each in by_device if each.reason in _GONE)
    left = [each for each in fates if each.verdict not in (Verdict.SENT, Verdict.PERMANENT)]
    if reached and not left:
        name = next(each.name for each in fates if each.verdict is Verdict.SENT)
        return Answer(message.key, Verdict.SENT, "", name, reached=reached, gone=gone)
    if len(gone) == len(fates):
        return Answer(message.key, Verdict.PERMANENT, "unregistered", "", fates[0].detail, gone=gone)
    judged = left or [each for each in fates if each.reason not in _GONE]
    first = min(judged, key=lambda each: _PRECEDENCE.index(each.verdict))
    wait = max((each.retry_after for each in judged if each.retry_after is not None), default=None)
    # FCM's own errors: the message may have been delivered all the same, and a repeat would replace it.
    maybe = any(each.reason == ERRORS["INTERNAL"][1] for each in left)
    return Answer(
        message.key, first.verdict, first.reason, "", first.detail, wait, reached, gone, may_have_arrived=maybe
    )


def _credential(service_account: str) -> tuple[credentials.Base, str]:
    """The credential and the project that it names, if any. Raises ImproperlyConfigured."""
    if not service_account:
        return credentials.ApplicationDefault(), ""
    try:
        given = json.loads(service_account) if service_account.lstrip().startswith("{") else service_account
        found = credentials.Certificate(given)
    except (OSError, ValueError, TypeError, AttributeError) as error:  # firebase-admin takes any JSON for an account
        # Not the error's words: they may quote the key.
        raise ImproperlyConfigured(
            f"FCM_CREDENTIALS can't be read ({type(error).__name__}): it is the path of a service account's JSON file,"
            " or that JSON itself."
        ) from error
    return found, found.project_id or ""
