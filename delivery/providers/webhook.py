"""E-mail and push through a program of the organisation's own: one signed POST for each message.

Signed as Standard Webhooks has it (`schedules.standard_webhooks`). ``webhook-id`` is the delivery's key, by which the
receiver knows what it has already: a repeat after an unclear outcome, a retry and a resend carry the same. So unclear
calls are repeated.

Any 2xx is an acceptance. Its body may name the message, ``{"id": …}``, and devices that exist no more:
``{"gone": [7]}``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from django.conf import settings

from delivery.providers.base import (
    CONNECT_S,
    READ_S,
    Answer,
    Message,
    Permit,
    Provider,
    ProviderError,
    Verdict,
    by_status,
    retry_after_seconds,
)
from delivery.providers.mail import flaw, headers
from delivery.providers.pool import Pool, Reply
from schedules import standard_webhooks

TYPE = "message.send"
_STATUSES = {
    404: (Verdict.MISCONFIGURED, "unexpected_status"),
    # Standard Webhooks: "the endpoint is gone, stop sending to it".
    410: (Verdict.MISCONFIGURED, "endpoint_gone"),
    422: (Verdict.PERMANENT, "message_rejected"),
}


class WebhookProvider(Provider):
    """One pool of connections per process; threads share it. Times are in seconds."""

    name: ClassVar[str] = "webhook"
    channels: ClassVar[frozenset[str]] = frozenset({"email", "push"})
    max_per_call: ClassVar[int] = 50
    repeats_unknown: ClassVar[bool] = True

    def __init__(
        self,
        *,
        url: str,
        secret: str,
        connections: int = 16,
        connect_timeout: float = CONNECT_S,
        read_timeout: float = READ_S,
    ) -> None:
        self._require(
            bool(url), "WEBHOOK_URL is empty", "the address that takes messages, e.g. https://mail.example/in"
        )
        self._require(
            urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname),
            "WEBHOOK_URL can't be read",
            "an address, e.g. https://mail.example/in",
        )
        means = f"{standard_webhooks.PREFIX} and base64 of {standard_webhooks.LEAST_BYTES} bytes or more"
        self._require(bool(secret), "WEBHOOK_SECRET is empty", means)
        try:
            self._keys = standard_webhooks.secrets(secret)
        except ValueError:
            self._require(False, "WEBHOOK_SECRET can't be read", means)
        is_long = all(len(key) >= standard_webhooks.LEAST_BYTES for key in self._keys)
        self._require(is_long, "WEBHOOK_SECRET can be guessed", means)
        self._require(connections > 0, f"WEBHOOK_CONNECTIONS is {connections}", "a number from 1 upwards")
        self._url = url
        self._pool = Pool(connections=connections, connect_timeout=connect_timeout, read_timeout=read_timeout)

    @classmethod
    def from_settings(cls) -> Self:
        """From WEBHOOK_URL, WEBHOOK_SECRET and WEBHOOK_CONNECTIONS; raises ImproperlyConfigured."""
        return cls(
            url=settings.WEBHOOK_URL,
            secret=settings.WEBHOOK_SECRET,
            connections=settings.WEBHOOK_CONNECTIONS,
        )

    def _refuse(self, message: Message) -> Answer | None:
        if message.targets:
            return None
        reason = flaw(message)
        return None if reason is None else Answer(message.key, Verdict.PERMANENT, reason)

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        bodies = [_body(message) for message in messages]
        signed = [
            standard_webhooks.signed(self._keys, event_id=message.key, body=body)
            for message, body in zip(messages, bodies, strict=True)
        ]
        outcomes = self._pool.post_all(
            self._url, headers={"Content-Type": "application/json"}, own_headers=signed, bodies=bodies, permit=permit
        )
        return list(map(_answer, messages, outcomes))


def _body(message: Message) -> bytes:
    parts = {"subject": message.subject, "text": message.text, "html": message.html}
    data: dict[str, Any] = {"delivery": message.key, **{name: part for name, part in parts.items() if part}}
    if message.targets:
        data |= {"channel": "push", "devices": [target._asdict() for target in message.targets]}
        if message.data:
            data["data"] = message.data
    else:
        data |= {"channel": "email", "to": message.to}
        if own := headers(message):
            data["headers"] = own
    said = {"type": TYPE, "timestamp": datetime.now(UTC).isoformat(), "data": data}
    return json.dumps(said, ensure_ascii=False).encode(errors="replace")


def _answer(message: Message, outcome: Reply | ProviderError) -> Answer:
    if isinstance(outcome, ProviderError):
        return outcome.answer(message)
    if not 200 <= outcome.status < 300:
        verdict, reason = _STATUSES.get(outcome.status) or by_status(outcome.status)
        wait = retry_after_seconds(outcome.headers)
        return Answer(
            message.key, verdict, reason, "", str(outcome.status), wait, may_have_arrived=outcome.status >= 500
        )
    said = _said(outcome.body)
    named = said.get("id")
    devices = [target.device_id for target in message.targets]
    gone_ids = said.get("gone")
    gone = tuple(each for each in devices if isinstance(gone_ids, list) and each in gone_ids)
    if gone and len(gone) == len(devices):
        return Answer(message.key, Verdict.PERMANENT, "unregistered", gone=gone)
    reached = tuple(each for each in devices if each not in gone)
    return Answer(message.key, Verdict.SENT, "", named if isinstance(named, str) else "", reached=reached, gone=gone)


def _said(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
