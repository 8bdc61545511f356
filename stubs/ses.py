"""Amazon SES v2, as far as sending goes: SendBulkEmail and SendEmail, shaped by botocore's service model.

    python -m stubs.ses --port 0 --log sent.ndjson --events '[{"event": "bounce", "match": {"to": "*@gone.example"}}]'

Fills inline templates as SES does (plain substitution, nothing escaped). Beyond the model it knows the rules
that its text states: at most 50 entries, the characters of tags, a megabyte of inline content. Stored
templates, identities and quotas it doesn't have.

With `--events` it tells what becomes of messages (`stubs.ses_events`): as a queue of Amazon SQS at its own address, or
with `--sns-to` by calling an address as Amazon SNS does (`stubs.event_feed`).
"""

from __future__ import annotations

import argparse
import json
import re
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from email import message_from_bytes, policy
from functools import lru_cache
from itertools import count
from typing import Any

from stubs.event_feed import Feed, SnsCaller, SqsQueue
from stubs.faults import Rule
from stubs.http import Request, Response, json_response
from stubs.log import Accepted, Log
from stubs.server import Refused, Stub, main
from stubs.ses_events import Fates
from stubs.shapes import Malformed, check_of, service
from stubs.sns import Sns

MAX_ENTRIES = 50
MAX_BODY = 1 << 20  # "Using templates to send personalized email": each input JSON with an inline template
MAX_HEADERS = 15
TAG, RUN_TAG = "delivery", "run"
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_ADDRESS = re.compile(r"(?:[^<>\r\n]*<)?[^\s@<>]+@[^\s@<>]+>?")
_HEADER_NAME, _HEADER_VALUE = re.compile(r"[!-9;-@A-~]{1,126}"), re.compile(r"[ -~]{1,995}")
_VARIABLE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")
_OPERATION = re.compile(r"\{\{\s*[#/^>!&{]")

# What SES says of some entries that a fault refuses, since it is read by people.
_WORDS = {
    "MESSAGE_REJECTED": "Message rejected: the address is on the account's suppression list",
    "TRANSIENT_FAILURE": "The service is temporarily unavailable",
}


class Ids:
    """Message ids: unique among stubs, in the order of acceptance."""

    def __init__(self) -> None:
        self._prefix = f"0100{uuid.uuid4().hex[:12]}"
        self._numbers = count(1)

    def next(self) -> str:
        return f"{self._prefix}-{next(self._numbers):012d}-000000"


class SesOperation:
    """What the operations share: the model, the signature, the form of errors."""

    name: str
    sends = True

    def __init__(self, ids: Ids) -> None:
        model = service("sesv2").operation_model(self.name)
        self.path: str = model.http["requestUri"]
        self._check: Callable[[Any, str], None] = check_of(model.input_shape)
        self._ids = ids

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        signature = headers.get("authorization", "")
        if not (signature.startswith("AWS4-HMAC-SHA256 Credential=") and "Signature=" in signature):
            raise Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        try:
            call = json.loads(body)
            self._check(call, "")
        except Malformed as error:
            raise _bad(str(error)) from error
        except ValueError as error:
            raise _bad("the body is not JSON") from error
        if not call.get("FromEmailAddress"):
            raise _bad("/FromEmailAddress: is missing")
        return call

    def refusal(self, refused: Refused) -> tuple[dict[str, str], dict[str, Any]]:
        return {"x-amzn-ErrorType": refused.error}, {"message": refused.message}

    def fault(self, rule: Rule) -> Refused:
        error = rule.error or "ServiceUnavailable"
        return Refused(rule.status or 503, error, rule.message or "injected fault", retry_after=rule.retry_after)

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {}


class SendBulkEmail(SesOperation):
    name = "SendBulkEmail"

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if len(body) > MAX_BODY:
            raise Refused(413, "RequestEntityTooLargeException", f"at most {MAX_BODY} bytes, not {len(body)}")
        call = super().parse(path, headers, body)
        entries = call["BulkEmailEntries"]
        if not 1 <= len(entries) <= MAX_ENTRIES:
            raise _bad(f"/BulkEmailEntries: 1 to {MAX_ENTRIES} entries are allowed, not {len(entries)}")
        _check_tags(call.get("DefaultEmailTags", ()))
        for entry in entries:
            _check_tags(entry.get("ReplacementTags", ()))
            _check_headers(entry.get("ReplacementHeaders", ()))
        template = call["DefaultContent"].get("Template", {})
        if "TemplateContent" in template:
            _check_content(template["TemplateContent"])
        elif not (template.get("TemplateName") or template.get("TemplateArn")):
            raise _bad("/DefaultContent/Template: a template is needed")
        return call

    def addresses(self, call: Any) -> list[str]:
        return [_recipients(entry["Destination"]) for entry in call["BulkEmailEntries"]]

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        template = call["DefaultContent"]["Template"]
        default_tags = call.get("DefaultEmailTags", ())
        accepted: list[Accepted] = []
        results: list[dict[str, str]] = []
        for position, entry in enumerate(call["BulkEmailEntries"]):
            status, why = self._status(entry, template, statuses.get(position))
            if status != "SUCCESS":
                results.append({"Status": status, "Error": why})
                continue
            message_id = self._ids.next()
            replacement = entry.get("ReplacementEmailContent", {}).get("ReplacementTemplate", {})
            subject, text, html, failure = _fill(
                template["TemplateContent"],
                template.get("TemplateData"),
                replacement.get("ReplacementTemplateData"),
            )
            tags = entry.get("ReplacementTags") or default_tags
            to = _recipients(entry["Destination"])
            unsubscribe = _list_unsubscribe(entry.get("ReplacementHeaders", ()))
            accepted.append(
                Accepted(
                    *(at, message_id, to, subject, _tag(tags), text, html),
                    failure=failure,
                    list_unsubscribe=unsubscribe,
                    run=_tag(tags, RUN_TAG),
                )
            )
            results.append({"Status": "SUCCESS", "MessageId": message_id})
        return accepted, {"BulkEmailEntryResults": results}

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        results = answer.get("BulkEmailEntryResults", [])
        return {"BulkEmailEntryResults": results[: len(results) // 2]}

    def _status(self, entry: Any, template: Any, fault: str | None) -> tuple[str, str]:
        if fault is not None:
            return fault, _WORDS.get(fault, "injected fault")
        if "TemplateContent" not in template:
            return "TEMPLATE_NOT_FOUND", "this stub has no stored templates"
        if not all(map(_ADDRESS.fullmatch, _all_addresses(entry["Destination"]))):
            return "INVALID_PARAMETER", "Illegal address"
        replacement = entry.get("ReplacementEmailContent", {}).get("ReplacementTemplate", {})
        try:
            _variables(template.get("TemplateData"), replacement.get("ReplacementTemplateData"))
        except ValueError:
            return "INVALID_PARAMETER", "The template data is invalid"
        return "SUCCESS", ""


class SendEmail(SesOperation):
    name = "SendEmail"

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        call = super().parse(path, headers, body)
        _check_tags(call.get("EmailTags", ()))
        content = call["Content"]
        if "Template" in content and "TemplateContent" not in content["Template"]:
            raise Refused(404, "NotFoundException", "this stub has no stored templates")
        if "Template" in content:
            _check_content(content["Template"]["TemplateContent"])
        addresses = _all_addresses(call.get("Destination", {}))
        if "Raw" not in content and not (addresses and all(map(_ADDRESS.fullmatch, addresses))):
            raise _bad("/Destination: illegal or missing address")
        return call

    def addresses(self, call: Any) -> list[str]:
        return [_recipients(call.get("Destination", {}))]

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        message_id = self._ids.next()
        subject, text, html, failure = _content(call["Content"])
        to, delivery = _recipients(call.get("Destination", {})), _tag(call.get("EmailTags", ()))
        message = Accepted(at, message_id, to, subject, delivery, text, html, failure)
        return [message], {"MessageId": message_id}


class SesStub(Stub):
    title = "SES"

    def __init__(self, log: Log) -> None:
        ids = Ids()
        super().__init__(log, [SendBulkEmail(ids), SendEmail(ids)])
        self.feed = Feed()
        self._fates: Fates | None = None
        self._caller: SnsCaller | None = None

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--max-send-rate", type=float, default=100_000.0, help="e-mails a second, of the account")
        parser.add_argument("--max-24-hours", type=float, default=-1.0, help="e-mails a day; -1: no such limit")
        parser.add_argument("--events", type=json.loads, help="tell what becomes of messages, by a JSON list of rules")
        parser.add_argument("--events-pace", type=float, default=1.0, help="stretches the time until it is told")
        parser.add_argument("--no-send-events", action="store_true", help="nothing is told of the sending itself")
        parser.add_argument("--sns-to", default="", help="address that is called as by SNS, instead of a queue")
        parser.add_argument("--sns-topic", default="arn:aws:sns:eu-central-1:123456789012:ses-events")

    def opened(self, url: str, options: argparse.Namespace) -> None:
        self._max_send_rate, self._max_24_hours = options.max_send_rate, options.max_24_hours
        self.doors["GET", "/v2/email/account"] = self._account
        if options.events is None:
            return
        self._fates = Fates(options.events, pace=options.events_pace, with_send=not options.no_send_events)
        if not options.sns_to:
            self.doors["POST", "/"] = SqsQueue(self.feed).answer
            return
        sns = Sns(url, options.sns_topic)
        self._caller = SnsCaller(self.feed, sns, options.sns_to)
        self.doors["GET", sns.path] = lambda _: Response(200, sns.certified.pem, "application/x-pem-file")
        self.doors["GET", "/"] = self._confirm_or_show
        self._caller.start()

    def close(self) -> None:
        if self._caller is not None:
            self._caller.end()
        super().close()

    def took(self, messages: Sequence[Accepted]) -> None:
        if self._fates is not None:
            self.feed.put([each for message in messages for each in self._fates.of(message)])

    def _account(self, _: Request) -> Response:
        """GetAccount, as far as quotas go; whatever was accepted since the start counts."""
        quota = {
            "Max24HourSend": self._max_24_hours,
            "MaxSendRate": self._max_send_rate,
            "SentLast24Hours": self.accepted,
        }
        said = {"SendQuota": quota, "SendingEnabled": True, "ProductionAccessEnabled": True}
        return json_response(said)

    def _confirm_or_show(self, request: Request) -> Response:
        if self._caller is not None and request.query.get("Action") == "ConfirmSubscription":
            return self._caller.confirm(request)
        return self._index(request)


def _bad(message: str) -> Refused:
    return Refused(400, "BadRequestException", message)


def _check_tags(tags: Sequence[Mapping[str, str]]) -> None:
    for tag in tags:
        if not (_TAG.fullmatch(tag["Name"]) and _TAG.fullmatch(tag["Value"])):
            raise _bad(f"tag {tag['Name']!r}: 1 to 256 of A-Z a-z 0-9 _ - in name and value")


def _check_headers(headers: Sequence[Mapping[str, str]]) -> None:
    """By the service model's words on MessageHeaderList and MessageHeader."""
    if len(headers) > MAX_HEADERS:
        raise _bad(f"at most {MAX_HEADERS} headers, not {len(headers)}")
    for header in headers:
        name, value = header["Name"], header["Value"]
        if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)) or len(name) + len(value) > 996:
            raise _bad(f"header {name!r}: printable ASCII, at most 996 characters with its value")


def _list_unsubscribe(headers: Sequence[Mapping[str, str]]) -> str:
    """Of a message that mailboxes would offer one click for (RFC 8058, 3.1)."""
    said = {header["Name"].lower(): header["Value"] for header in headers}
    is_one_click = said.get("list-unsubscribe-post") == "List-Unsubscribe=One-Click"
    return said.get("list-unsubscribe", "") if is_one_click else ""


def _check_content(content: Mapping[str, str]) -> None:
    if not (content.get("Text") or content.get("Html")):
        raise _bad("TemplateContent: Text or Html is needed")
    if any(map(_OPERATION.search, content.values())):
        raise _bad("Template contains unsupported operations.")


def _tag(tags: Sequence[Mapping[str, str]], name: str = TAG) -> str:
    return next((tag["Value"] for tag in tags if tag["Name"] == name), "")


def _all_addresses(destination: Mapping[str, list[str]]) -> list[str]:
    return [address for kind in ("To", "Cc", "Bcc") for address in destination.get(f"{kind}Addresses", ())]


def _recipients(destination: Mapping[str, list[str]]) -> str:
    return ", ".join(_all_addresses(destination))


def _variables(*documents: str | None) -> dict[str, Any]:
    """The data of a template, later documents over earlier ones; raises ValueError."""
    found: dict[str, Any] = {}
    for document in documents:
        if document:
            found.update(json.loads(document))
    return found


@lru_cache(maxsize=256)
def _pieces(template: str) -> tuple[tuple[str, str | None], ...]:
    """A template as texts, each with the variable that follows it."""
    *texts, last = _pairs(template)
    return (*texts, last)


def _pairs(template: str) -> Iterator[tuple[str, str | None]]:
    end = 0
    for variable in _VARIABLE.finditer(template):
        yield template[end : variable.start()], variable[1]
        end = variable.end()
    yield template[end:], None


def _fill(content: Mapping[str, str], *documents: str | None) -> tuple[str, str, str, str]:
    """Subject, text, HTML and, where a variable has no value, what SES would report in a failure event."""
    variables = _variables(*documents)
    missing: list[str] = []

    def filled(part: str) -> str:
        pieces: list[str] = []
        for text, name in _pieces(content.get(part, "")):
            pieces.append(text)
            if name is not None:
                if name not in variables:
                    missing.append(name)
                pieces.append(str(variables.get(name, "")))
        return "".join(pieces)

    parts = filled("Subject"), filled("Text"), filled("Html")
    return (*parts, f"Attribute '{missing[0]}' is not present in the rendering data." if missing else "")


def _content(content: Mapping[str, Any]) -> tuple[str, str, str, str]:
    if "Template" in content:
        return _fill(content["Template"]["TemplateContent"], content["Template"].get("TemplateData"))
    if "Raw" in content:
        mail = message_from_bytes(b64decode(content["Raw"]["Data"]), policy=policy.default)
        text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
        return (
            str(mail["Subject"] or ""),
            text.get_content() if text else "",
            html.get_content() if html else "",
            "",
        )
    body = content.get("Simple", {}).get("Body", {})
    subject = content.get("Simple", {}).get("Subject", {}).get("Data", "")
    return subject, body.get("Text", {}).get("Data", ""), body.get("Html", {}).get("Data", ""), ""


if __name__ == "__main__":
    main(SesStub)
