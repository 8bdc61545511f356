"""Firebase Cloud Messaging's HTTP v1 API, as far as sending goes, and the token endpoint that guards it.

    python -m stubs.fcm --port 0 --log sent.ndjson --credentials service-account.json

Writes the service account into `--credentials`, and then takes only what that account signs for that project. A message
to a token shows on a device: one with the same collapse id (Android's tag, APNs' apns-collapse-id, the web's tag)
replaces the earlier one, and the log says so. Topics and conditions it takes, but knows no subscribers of.

    DELETE /tokens           no access token given out so far is worth anything any more
"""

from __future__ import annotations

import argparse
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from stubs.faults import Rule
from stubs.fcm_message import TARGETS, Violation, collapse_id_of_apns, payload_violations, violations
from stubs.google_account import GRANT, BadAssertion, Tokens, write_account
from stubs.http import Request, Response
from stubs.log import Accepted, Log
from stubs.server import Refused, Stub, main

REMEMBERED = 200_000  # pairs of device and collapse id
_TOKEN = re.compile(r"[A-Za-z0-9_:=.-]{1,4096}")
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"

# https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode: HTTP status, gRPC status, words.
ERRORS = {
    "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service"),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED", "SenderId mismatch"),
    "UNREGISTERED": (404, "NOT_FOUND", "Requested entity was not found."),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Send requests'."),
    "INTERNAL": (500, "INTERNAL", "Internal error encountered."),
    "UNSPECIFIED_ERROR": (500, "UNKNOWN", "Unknown Error."),
    "UNAVAILABLE": (503, "UNAVAILABLE", "The service is currently unavailable."),
}
# What Google's front answers before FCM is asked: no FcmError among the details.
FRONT = {
    "UNAUTHENTICATED": (401, "Request had invalid authentication credentials."),
    "PERMISSION_DENIED": (403, "Permission 'cloudmessaging.messages.create' denied on resource."),
    "NOT_FOUND": (404, "Requested entity was not found."),
    "RESOURCE_EXHAUSTED": (429, "Resource has been exhausted (e.g. check quota)."),
}
_BY_STATUS = {status: code for code, (status, _, _) in reversed(ERRORS.items())}


class SendMessage:
    name = "SendMessage"
    path = "/v1/projects/{project}/messages:send"
    sends = True

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._prefix = uuid.uuid4().hex[:12]
        self._numbers = count(1)
        self._shown: dict[tuple[str, str], str] = {}

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if not self._tokens.is_valid(headers.get("authorization", "")):
            raise _front("UNAUTHENTICATED", details=[{"@type": _ERROR_INFO, "reason": "ACCESS_TOKEN_INVALID"}])
        project = path.split("/")[3]
        if self._tokens.project not in ("", project):
            raise _front("PERMISSION_DENIED")
        try:
            call = json.loads(body)
        except ValueError as error:
            raise _invalid([Violation("", f"Invalid JSON payload received. {error}")]) from error
        if found := violations(call):
            raise _invalid(found)
        message = call.get("message") or {}
        _check_target(message)
        if found := [*payload_violations(message, body_bytes=len(body))]:
            raise _invalid(found, fcm=True)
        call["project"] = project
        return call

    def addresses(self, call: Any) -> list[str]:
        message = call["message"]
        return [next(message[name] for name in TARGETS if message.get(name))]

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        message = call["message"]
        if call.get("validate_only") or call.get("validateOnly"):
            return [], {"name": f"projects/{call['project']}/messages/fake_message_id"}
        name = f"projects/{call['project']}/messages/0:{self._prefix}-{next(self._numbers):012d}"
        (to,) = self.addresses(call)
        android = (message.get("android") or {}).get("notification") or {}
        web = (message.get("webpush") or {}).get("notification") or {}
        shown = message.get("notification") or android or web
        collapse_id = android.get("tag") or collapse_id_of_apns(message) or str(web.get("tag") or "")
        delivery = (message.get("data") or {}).get("delivery") or collapse_id
        replaces = self._replaced(to, collapse_id, name) if collapse_id else ""
        title, body = str(shown.get("title") or ""), str(shown.get("body") or "")  # the web's may be anything
        accepted = Accepted(at, name, to, title, delivery, body, "", "", collapse_id, replaces)
        return [accepted], {"name": name}

    def fault(self, rule: Rule) -> Refused:
        error = rule.error or _BY_STATUS.get(rule.status or 503, "UNSPECIFIED_ERROR")
        if error in FRONT:
            return _front(error, message=rule.message, status=rule.status, retry_after=rule.retry_after)
        return _refused(error, message=rule.message, status=rule.status, retry_after=rule.retry_after)

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {}

    def refusal(self, refused: Refused) -> tuple[dict[str, str], dict[str, Any]]:
        error: dict[str, Any] = {"code": refused.status, "message": refused.message, "status": refused.error}
        return {}, {"error": {**error, "details": refused.details} if refused.details else error}

    def _replaced(self, to: str, collapse_id: str, name: str) -> str:
        """The message in whose place this one shows; empty where there is none."""
        device = (to, collapse_id)
        replaces = self._shown.pop(device, "")
        self._shown[device] = name
        if len(self._shown) > REMEMBERED:
            del self._shown[next(iter(self._shown))]
        return replaces


class Token:
    """The OAuth endpoint of the service account's `token_uri`."""

    name = "Token"
    path = "/token"
    sends = False

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        if form.get("grant_type") != GRANT:
            raise Refused(400, "unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")
        try:
            return self._tokens.grant(form.get("assertion", ""))
        except BadAssertion as error:
            raise Refused(400, "invalid_grant", str(error)) from error

    def addresses(self, call: Any) -> list[str]:
        return [""]

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        return [], call

    def fault(self, rule: Rule) -> Refused:
        return Refused(
            rule.status or 503,
            rule.error or "server_error",
            rule.message or "injected fault",
            retry_after=rule.retry_after,
        )

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {}

    def refusal(self, refused: Refused) -> tuple[dict[str, str], dict[str, Any]]:
        return {}, {"error": refused.error, "error_description": refused.message}


class FcmStub(Stub):
    title = "FCM"
    addressee = "token"

    def __init__(self, log: Log) -> None:
        self.tokens = Tokens()
        super().__init__(log, [SendMessage(self.tokens), Token(self.tokens)])
        self.doors["DELETE", "/tokens"] = self._revoke

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--credentials", type=Path, help="file that gets the service account")
        parser.add_argument("--project", default="demo-project", help="of the service account")

    def opened(self, url: str, options: argparse.Namespace) -> None:
        if options.credentials:
            write_account(options.credentials, url=url, project=options.project)
            self.tokens.guard(options.credentials)

    def _revoke(self, _: Request) -> Response:
        self.tokens.revoke()
        return Response(204)


def _check_target(message: Mapping[str, Any]) -> None:
    named = [name for name in TARGETS if message.get(name)]
    if not named:
        raise _invalid([Violation("message", "Recipient of the message is not set.")], fcm=True)
    if len(named) > 1:
        words = f"Invalid value at 'message' (oneof), oneof field 'target' is already set. Cannot set '{named[1]}'"
        raise _invalid([Violation("message", words)])
    if named[0] == "token" and not _TOKEN.fullmatch(message["token"]):
        raise _refused("INVALID_ARGUMENT", message="The registration token is not a valid FCM registration token")


def _invalid(found: Sequence[Violation], *, fcm: bool = False) -> Refused:
    details: list[Mapping[str, Any]] = [{"@type": _BAD_REQUEST, "fieldViolations": [each._asdict() for each in found]}]
    if fcm:
        details.append({"@type": _FCM_ERROR, "errorCode": "INVALID_ARGUMENT"})
    return Refused(400, "INVALID_ARGUMENT", "\n".join(each.description for each in found), details=details)


def _refused(error: str, *, message: str = "", status: int | None = None, retry_after: float | None = None) -> Refused:
    usual, grpc, words = ERRORS.get(error, (500, "UNKNOWN", error))
    details = [{"@type": _FCM_ERROR, "errorCode": error}]
    return Refused(status or usual, grpc, message or words, retry_after=retry_after, details=details)


def _front(
    error: str,
    *,
    message: str = "",
    status: int | None = None,
    retry_after: float | None = None,
    details: Sequence[Mapping[str, Any]] = (),
) -> Refused:
    usual, words = FRONT[error]
    return Refused(status or usual, error, message or words, retry_after=retry_after, details=details)


if __name__ == "__main__":
    main(FcmStub)
