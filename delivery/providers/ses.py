"""E-mail through Amazon SES v2: up to 50 messages in one SendBulkEmail call, each with its own answer.

Messages arrive rendered, so the template that SES wants is a frame: `{{subject}}`, `{{text}}`, `{{html}}`.
SES does not escape HTML when it fills a template ("Advanced email personalization" in its developer guide),
and inline content knows plain substitution only, so what was rendered arrives unchanged.

The request's JSON is written here: botocore walks through every message three times before it is on the wire, which
costs more processor time than everything else of a call. Signing, sending and reading the answer are botocore's.

SES has no idempotency token. Hence one attempt, and the delivery's key as a tag: events carry it back.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import boto3
import orjson
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from delivery.providers.base import (
    Answer,
    Message,
    NotStarted,
    Permit,
    Provider,
    ProviderError,
    Verdict,
    retry_after_seconds,
    scrub,
)
from delivery.providers.wire import Wire, put_on_wire, wire

TAG = "delivery"  # the message tag that carries the key
MAX_DATA = 262_144  # characters of one message's template data (service model, EmailTemplateData)
MAX_REQUEST = 1_000_000  # bytes of a request with inline content ("Using templates ..." in the developer guide)
_ENVELOPE = 600  # bytes, at most, of a request around its messages

_MISCONFIGURED, _PERMANENT = Verdict.MISCONFIGURED, Verdict.PERMANENT

# Statuses of single messages, and errors of whole calls, that are not what their name alone would say are
# sorted out in `_by_words`. Missing configuration sets, pools and identities are the account's fault: failing
# a million messages for a mistyped setting would be wrong, so their rows are kept.
STATUSES: Mapping[str, tuple[Verdict, str]] = {
    "SUCCESS": (Verdict.SENT, ""),
    "MESSAGE_REJECTED": (_PERMANENT, "message_rejected"),
    "INVALID_PARAMETER": (_PERMANENT, "invalid_parameter"),
    "FAILED": (_PERMANENT, "failed"),
    "TRANSIENT_FAILURE": (Verdict.TRANSIENT, "transient_failure"),
    "ACCOUNT_THROTTLED": (Verdict.THROTTLED, "throttled"),
    "ACCOUNT_DAILY_QUOTA_EXCEEDED": (_MISCONFIGURED, "daily_quota"),
    "ACCOUNT_SUSPENDED": (_MISCONFIGURED, "account_suspended"),
    "ACCOUNT_SENDING_PAUSED": (_MISCONFIGURED, "sending_paused"),
    "CONFIGURATION_SET_SENDING_PAUSED": (_MISCONFIGURED, "sending_paused"),
    "CONFIGURATION_SET_NOT_FOUND": (_MISCONFIGURED, "configuration_set_not_found"),
    "TEMPLATE_NOT_FOUND": (_MISCONFIGURED, "template_not_found"),
    "INVALID_SENDING_POOL_NAME": (_MISCONFIGURED, "invalid_sending_pool"),
    "MAIL_FROM_DOMAIN_NOT_VERIFIED": (_MISCONFIGURED, "identity_not_verified"),
}
ERRORS: Mapping[str, tuple[Verdict, str]] = {
    "TooManyRequestsException": (Verdict.THROTTLED, "throttled"),
    "ThrottlingException": (Verdict.THROTTLED, "throttled"),
    "Throttling": (Verdict.THROTTLED, "throttled"),
    "LimitExceededException": (_PERMANENT, "limit_exceeded"),
    "MessageRejected": (_PERMANENT, "message_rejected"),
    "BadRequestException": (_PERMANENT, "bad_request"),
    "NotFoundException": (_MISCONFIGURED, "configuration_set_not_found"),
    "AccountSuspendedException": (_MISCONFIGURED, "account_suspended"),
    "SendingPausedException": (_MISCONFIGURED, "sending_paused"),
    "MailFromDomainNotVerifiedException": (_MISCONFIGURED, "identity_not_verified"),
    # Common to all AWS services; some come with status 400.
    "ExpiredTokenException": (_MISCONFIGURED, "access_denied"),
    "IncompleteSignature": (_MISCONFIGURED, "access_denied"),
    "UnrecognizedClientException": (_MISCONFIGURED, "access_denied"),
}


class SesProvider(Provider):
    """One client per process, made at the first call; threads share it.

    Times are in seconds. `endpoint_url` is for tests; otherwise AWS_ENDPOINT_URL_SESV2 decides, and without
    it AWS's own address. Credentials are found as boto3 finds them.
    """

    name: ClassVar[str] = "ses"
    channels: ClassVar[frozenset[str]] = frozenset({"email"})
    max_per_call: ClassVar[int] = 50

    def __init__(
        self,
        *,
        sender: str,
        region: str,
        configuration_set: str = "",
        connect_timeout: float = 3,
        read_timeout: float = 10,
        max_request: int = MAX_REQUEST,
        endpoint_url: str | None = None,
    ) -> None:
        _require(sender, "EMAIL_FROM", "the address messages come from, e.g. 'Shop <news@shop.example>'")
        _require(region, "AWS_REGION", "the region of the SES account, e.g. 'eu-central-1'")
        self._frame = {"FromEmailAddress": sender}
        if configuration_set:
            self._frame["ConfigurationSetName"] = configuration_set
        self._max_request = max_request
        self._new_client = partial(
            boto3.session.Session().client,
            "sesv2",
            region_name=region,
            endpoint_url=endpoint_url,
            config=Config(
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                max_pool_connections=32,
                tcp_keepalive=True,
                user_agent="notification-scheduler",  # botocore builds its own anew for every call
                parameter_validation=False,  # the shape is ours, and checking it costs as much as sending it
            ),
        )
        self._client: Any = None
        self._client_lock = threading.Lock()

    @classmethod
    def from_settings(cls) -> Self:
        """From EMAIL_FROM, AWS_REGION and SES_CONFIGURATION_SET; raises ImproperlyConfigured."""
        return cls(
            sender=settings.EMAIL_FROM,
            region=settings.AWS_REGION,
            configuration_set=settings.SES_CONFIGURATION_SET,
        )

    def client(self) -> Any:
        """The process's client: made late, since it takes half a second and a fork must not share it."""
        if self._client is None:
            with self._client_lock:
                if self._client is None:
                    client = self._new_client()
                    put_on_wire(client, "SendBulkEmail")
                    self._client = client
        return self._client

    def _refuse(self, message: Message) -> Answer | None:
        reason = _flaw(message)
        return None if reason is None else Answer(message.key, _PERMANENT, reason)

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        entries, taken, left_out = self._load(messages)
        if not taken:
            return left_out
        results = self._results(self._body(taken[0], entries), permit)
        return [*map(_answer, taken, results), *left_out]

    def _load(self, messages: Sequence[Message]) -> tuple[list[bytes], list[Message], list[Answer]]:
        """What fits in one request: the entries as JSON, their messages, and answers for those left out.

        One call is one set of parts (a message without HTML must not get an empty HTML part) and at most
        `max_request` bytes. The others are handed back, and go with a later call.
        """
        entries: list[bytes] = []
        taken: list[Message] = []
        left_out: list[Answer] = []
        size, parts = _ENVELOPE, _parts(messages[0])
        for message in messages:
            try:
                data = orjson.dumps(_data(message)).decode()
                entry = orjson.dumps(_entry(message, data))
            except (TypeError, UnicodeError) as error:  # half a surrogate pair, which no JSON can carry
                left_out.append(_unasked(message, _PERMANENT, "invalid_parameter", type(error).__name__))
                continue
            if len(data) > MAX_DATA or len(entry) + _ENVELOPE > self._max_request:
                left_out.append(_unasked(message, _PERMANENT, "too_large", f"{len(data)} characters"))
            elif _parts(message) != parts or size + len(entry) > self._max_request:
                left_out.append(_unasked(message, Verdict.NOT_STARTED, "next_call"))
            else:
                taken.append(message)
                entries.append(entry)
                size += len(entry) + 1
        return entries, taken, left_out

    def _body(self, first: Message, entries: Sequence[bytes]) -> bytes:
        content = {part: f"{{{{{part.lower()}}}}}" for part in ("Subject", *_parts(first))}
        frame = {**self._frame, "DefaultContent": {"Template": {"TemplateContent": content, "TemplateData": "{}"}}}
        return orjson.dumps(frame)[:-1] + b',"BulkEmailEntries":[' + b",".join(entries) + b"]}"

    def _results(self, body: bytes, permit: Permit) -> list[dict[str, Any]]:
        client = self.client()
        with wire(permit, body) as used:
            try:
                response = client.send_bulk_email(DefaultContent={}, BulkEmailEntries=[])  # `body` takes their place
            except ClientError as error:
                raise _refusal(error.response) from error
            except Exception as error:
                failure = _failure(error, used)
                if failure is None:
                    raise
                raise failure from error
        results = response.get("BulkEmailEntryResults")
        if not isinstance(results, list):
            raise ProviderError(Verdict.UNKNOWN, "unreadable_answer")
        return results


def _unasked(message: Message, verdict: Verdict, reason: str, detail: str = "") -> Answer:
    return Answer(message.key, verdict, reason, "", detail, asked=False)


def _flaw(message: Message) -> str | None:
    """Why SES would never take this message; a flawed one could cost all the others of its call."""
    local, at, domain = message.to.rpartition("@")
    if "\r" in message.to or "\n" in message.to or "\r" in message.subject or "\n" in message.subject:
        return "line_break_in_header"
    if not (local and at and domain):
        return "no_address"
    if not local.isascii() or _ascii_domain(message.to) == "":
        return "address_not_ascii"
    return None


def _ascii_domain(address: str) -> str:
    """The address as SES takes it, its domain in Punycode (RFC 3492); empty where that can't be."""
    if address.isascii():
        return address
    local, _, domain = address.rpartition("@")
    try:
        return f"{local}@{domain.encode('idna').decode('ascii')}"
    except UnicodeError:
        return ""


def _parts(message: Message) -> tuple[str, ...]:
    if not message.html:
        return ("Text",)
    return ("Text", "Html") if message.text else ("Html",)


def _data(message: Message) -> dict[str, str]:
    filling = {"subject": message.subject}
    if message.text or not message.html:
        filling["text"] = message.text
    if message.html:
        filling["html"] = message.html
    return filling


def _entry(message: Message, data: str) -> dict[str, Any]:
    return {
        "Destination": {"ToAddresses": [_ascii_domain(message.to)]},
        "ReplacementTags": [{"Name": TAG, "Value": message.key}],
        "ReplacementEmailContent": {"ReplacementTemplate": {"ReplacementTemplateData": data}},
    }


def _answer(message: Message, result: Mapping[str, Any]) -> Answer:
    status = result.get("Status", "")
    if status == "SUCCESS":
        return Answer(message.key, Verdict.SENT, "", result.get("MessageId", ""))
    words = result.get("Error") or ""
    verdict, reason = _by_words(words) or STATUSES.get(status) or (Verdict.UNKNOWN, "unreadable_answer")
    return Answer(message.key, verdict, reason, "", scrub(words))


def _by_words(words: str) -> tuple[Verdict, str] | None:
    """Two conditions of the account that SES reports under names that mean something else too.

    An unverified sender comes as "rejected", the daily quota as throttling ("Errors related to the sending
    quotas" in the developer guide).
    """
    if "is not verified" in words:
        return _MISCONFIGURED, "identity_not_verified"
    if "Daily" in words and "quota" in words:
        return _MISCONFIGURED, "daily_quota"
    return None


def _refusal(response: Mapping[str, Any]) -> ProviderError:
    """The error of a call that was answered, so nothing of it was accepted."""
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    words = error.get("Message") or ""
    verdict, reason = (
        _by_words(words) or ERRORS.get(error.get("Code", "")) or _by_status(int(metadata.get("HTTPStatusCode", 0)))
    )
    detail = scrub(f"{metadata.get('HTTPStatusCode')} {error.get('Code')}: {words}")
    wait = retry_after_seconds(metadata.get("HTTPHeaders", {}))
    return ProviderError(verdict, reason, detail=detail, retry_after=wait)


def _by_status(status: int) -> tuple[Verdict, str]:
    if status == 429:
        return Verdict.THROTTLED, "throttled"
    if status in (401, 403):
        return _MISCONFIGURED, "access_denied"
    if status == 413:
        return _PERMANENT, "too_large"
    if status == 400:
        return _PERMANENT, "bad_request"
    if status >= 500 or status == 408:
        # A message may have been accepted before the server failed; that risk is taken, since SES answers so
        # in times of trouble and holding everything back would lose more.
        return Verdict.TRANSIENT, "provider_error"
    return _MISCONFIGURED, "unexpected_status"  # a redirect, a 404 without SES's words: not SES at all


def _failure(error: Exception, used: Wire) -> ProviderError | None:
    """The error of a call without an answer; None for a bug of ours."""
    if used.refused:
        return NotStarted()
    name = type(error).__name__
    if used.begun:
        return ProviderError(Verdict.UNKNOWN, "no_answer", detail=name)
    if isinstance(error, HTTPClientError | UnreachableError):
        return ProviderError(Verdict.TRANSIENT, "unreachable", detail=name)
    if isinstance(error, BotoCoreError):
        return ProviderError(_MISCONFIGURED, "aws_settings", detail=scrub(str(error)))
    return None


def _require(value: str, setting: str, meaning: str) -> None:
    if not value:
        raise ImproperlyConfigured(f"{setting} is empty. The ses provider needs it: {meaning}.")
