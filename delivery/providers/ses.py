"""E-mail through Amazon SES v2: up to 50 messages in one SendBulkEmail call, each with its own answer.

Messages arrive rendered, so the template that SES wants is a frame: `{{subject}}`, `{{text}}`, `{{html}}`.
SES does not escape HTML when it fills a template ("Advanced email personalization" in its developer guide),
and inline content knows plain substitution only, so what was rendered arrives unchanged.

The request's JSON is written here: botocore walks through every message three times before it is on the wire, which
costs more processor time than everything else of a call. Signing, sending and reading the answer are botocore's.

SES has no idempotency token. Hence one attempt. The delivery's key goes along as a tag, which SES's events bring back
(`delivery.events`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from functools import partial
from typing import Any, ClassVar, Self

import boto3
import orjson
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, InvalidRegionError
from botocore.exceptions import ConnectionError as UnreachableError
from botocore.utils import validate_region_name
from django.conf import settings

from delivery.providers.base import (
    CONNECT_S,
    READ_S,
    Answer,
    Message,
    NotStarted,
    Permit,
    Provider,
    ProviderError,
    Quota,
    Verdict,
    by_status,
    retry_after_seconds,
)
from delivery.providers.mail import ascii_domain, by_amazons_words, flaw, headers
from delivery.providers.wire import Wire, put_on_wire, wire

log = structlog.get_logger(__name__)

TAG, RUN_TAG = "delivery", "run"  # the message tags that carry the key, and what the occurrence is known by
MAX_DATA = 262_144  # characters of one message's template data (service model, EmailTemplateData)
MAX_REQUEST = 1_000_000  # bytes of a request with inline content ("Using templates ..." in the developer guide)
_ENVELOPE = 600  # bytes, at most, of a request around its messages

_MISCONFIGURED, _PERMANENT = Verdict.MISCONFIGURED, Verdict.PERMANENT

# Statuses of single messages, and errors of whole calls, that are not what their name alone would say are
# sorted out in `by_amazons_words`. Missing configuration sets, pools and identities are the account's fault: failing
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
    "LimitExceededException": (_MISCONFIGURED, "limit_exceeded"),
    "MessageRejected": (_PERMANENT, "message_rejected"),
    "BadRequestException": (_PERMANENT, "bad_request"),
    "NotFoundException": (_MISCONFIGURED, "configuration_set_not_found"),
    "AccountSuspendedException": (_MISCONFIGURED, "account_suspended"),
    "SendingPausedException": (_MISCONFIGURED, "sending_paused"),
    "MailFromDomainNotVerifiedException": (_MISCONFIGURED, "identity_not_verified"),
    # "Common Errors" of AWS's API references: about the account, this host or the service, yet some come with status
    # 400, as a message's fault does.
    "AccessDenied": (_MISCONFIGURED, "access_denied"),
    "AccessDeniedException": (_MISCONFIGURED, "access_denied"),
    "ExpiredToken": (_MISCONFIGURED, "access_denied"),
    "ExpiredTokenException": (_MISCONFIGURED, "access_denied"),
    "IncompleteSignature": (_MISCONFIGURED, "access_denied"),
    "InvalidClientTokenId": (_MISCONFIGURED, "access_denied"),
    "InvalidSignatureException": (_MISCONFIGURED, "access_denied"),
    "MissingAuthenticationToken": (_MISCONFIGURED, "access_denied"),
    "MissingAuthenticationTokenException": (_MISCONFIGURED, "access_denied"),
    "NotAuthorized": (_MISCONFIGURED, "access_denied"),
    "OptInRequired": (_MISCONFIGURED, "access_denied"),
    "SignatureDoesNotMatch": (_MISCONFIGURED, "access_denied"),
    "UnrecognizedClientException": (_MISCONFIGURED, "access_denied"),
    "RequestExpired": (_MISCONFIGURED, "clock_skew"),
    "InvalidAction": (_MISCONFIGURED, "unexpected_status"),
    "UnknownOperationException": (_MISCONFIGURED, "unexpected_status"),
    "RequestAbortedException": (Verdict.TRANSIENT, "provider_error"),
    "RequestTimeout": (Verdict.TRANSIENT, "provider_error"),
    "RequestTimeoutException": (Verdict.TRANSIENT, "provider_error"),
}


class SesProvider(Provider):
    """One client per process, made at the first call; threads share it.

    Times are in seconds. `endpoint_url` is for tests; otherwise AWS_ENDPOINT_URL_SESV2 decides, and without
    it AWS's own address. Credentials are found as boto3 finds them.
    """

    name: ClassVar[str] = "ses"
    channels: ClassVar[frozenset[str]] = frozenset({"email"})
    max_per_call: ClassVar[int] = 50
    has_quota: ClassVar[bool] = True

    def __init__(
        self,
        *,
        sender: str,
        region: str,
        configuration_set: str = "",
        connect_timeout: float = CONNECT_S,
        read_timeout: float = READ_S,
        max_request: int = MAX_REQUEST,
        endpoint_url: str | None = None,
    ) -> None:
        sender_means = "the address messages come from, e.g. 'Shop <news@shop.example>'"
        region_means = "the region of the SES account, e.g. 'eu-central-1'"
        self._require(bool(sender), "EMAIL_FROM is empty", sender_means)
        self._require("@" in parseaddr(sender)[1], f"EMAIL_FROM is {sender!r}", sender_means)
        self._require(bool(region), "AWS_REGION is empty", region_means)
        self._require(_is_region(region), f"AWS_REGION is {region!r}", region_means)
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

    def kind(self, message: Message) -> str:
        return " ".join(_parts(message))

    def quota(self) -> Quota:
        """As GetAccount has it; the account needs the right ``ses:GetAccount``. Raises ProviderError."""
        try:
            found = self._new_client().get_account()["SendQuota"]
            per_s, per_day, used = (found[name] for name in ("MaxSendRate", "Max24HourSend", "SentLast24Hours"))
        except ClientError as error:
            raise _refusal(error.response) from error
        except (BotoCoreError, ValueError) as error:
            raise ProviderError(Verdict.TRANSIENT, "unreachable", detail=type(error).__name__) from error
        except (LookupError, TypeError) as error:
            raise ProviderError(Verdict.UNKNOWN, "unreadable_answer") from error
        # "A value of -1 signifies an unlimited quota" (API reference, SendQuota).
        return Quota(per_s or None, None if per_day < 0 else int(per_day), int(used))

    def _refuse(self, message: Message) -> Answer | None:
        reason = flaw(message)
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
        with wire(permit, body) as used:
            try:
                # `body` takes the place of these arguments.
                response = self.client().send_bulk_email(DefaultContent={}, BulkEmailEntries=[])
            except Exception as error:
                raise _failure(error, used) from error
        results = response.get("BulkEmailEntryResults")
        if not isinstance(results, list):
            raise ProviderError(Verdict.UNKNOWN, "unreadable_answer")
        return results


def _unasked(message: Message, verdict: Verdict, reason: str, detail: str = "") -> Answer:
    return Answer(message.key, verdict, reason, "", detail, asked=False)


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
    entry: dict[str, Any] = {
        "Destination": {"ToAddresses": [ascii_domain(message.to)]},
        "ReplacementTags": [{"Name": TAG, "Value": message.key}, *_run_tag(message)],
        "ReplacementEmailContent": {"ReplacementTemplate": {"ReplacementTemplateData": data}},
    }
    if own := headers(message):
        entry["ReplacementHeaders"] = [{"Name": name, "Value": value} for name, value in own.items()]
    return entry


def _run_tag(message: Message) -> list[dict[str, str]]:
    return [{"Name": RUN_TAG, "Value": message.run}] if message.run else []


def _answer(message: Message, result: Mapping[str, Any]) -> Answer:
    status = result.get("Status", "")
    if status == "SUCCESS":
        return Answer(message.key, Verdict.SENT, "", result.get("MessageId", ""))
    words = result.get("Error") or ""
    verdict, reason = by_amazons_words(words) or STATUSES.get(status) or (Verdict.UNKNOWN, "unreadable_answer")
    return Answer(message.key, verdict, reason, "", words)


def _refusal(response: Mapping[str, Any]) -> ProviderError:
    """The error of a call that was answered, so nothing of it was accepted.

    A server that fails may have accepted it before. That risk is taken: SES answers so in times of trouble, and holding
    everything back would lose more.
    """
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    words = error.get("Message") or ""
    verdict, reason = (
        by_amazons_words(words)
        or ERRORS.get(error.get("Code", ""))
        or by_status(int(metadata.get("HTTPStatusCode", 0)))
    )
    detail = f"{metadata.get('HTTPStatusCode')} {error.get('Code')}: {words}"
    wait = retry_after_seconds(metadata.get("HTTPHeaders", {}))
    return ProviderError(verdict, reason, detail=detail, retry_after=wait)


def _failure(error: Exception, used: Wire) -> ProviderError:
    """What an error means. Up to the first byte nothing depends on the messages, so it is none of theirs."""
    name = type(error).__name__
    if used.refused:
        return NotStarted()
    if used.begun and isinstance(error, ClientError):
        return _refusal(error.response)
    if used.begun:
        return ProviderError(Verdict.UNKNOWN, "no_answer", detail=name)
    if isinstance(error, HTTPClientError | UnreachableError):
        return ProviderError(Verdict.TRANSIENT, "unreachable", detail=name)
    # A ClientError is one of whoever was asked for credentials.
    is_known = isinstance(error, BotoCoreError | ClientError | ValueError)
    if not is_known:
        log.exception("provider_raised", provider=SesProvider.name)
    reason = "aws_settings" if is_known else "provider_raised"
    return ProviderError(_MISCONFIGURED, reason, detail=f"{name}: {error}", asked=False)


def _is_region(name: str) -> bool:
    try:
        validate_region_name(name)
    except InvalidRegionError:
        return False
    return True
