"""Every error of the API as problem details (RFC 9457): one closed list of types, one place that writes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig, TooManyFieldsSent
from django.db import OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.http.request import UnreadablePostError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from audit import trail
from delivery.inbox import NoInbox, NoSuchMessage
from delivery.reopening import NotReopened
from delivery.test_sends import InvalidTestSend
from frontend.instants import instant
from schedules.audience.sources import AudienceTooSlow
from schedules.definition import InvalidDefinition
from schedules.operations import NotAllowed, VersionConflict
from schedules.problems import Problem
from schedules.recipients import InvalidRecipient, NoSuchDevice, NoSuchRecipient, RecipientChanged
from schedules.templates import InvalidTemplate, KeptElsewhere, Superseded, TemplateInUse
from schedules.topics import InvalidTopic, NoSuchTopic, TopicChanged, TopicInUse

MEDIA_TYPE: Final = "application/problem+json"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Kind:
    """A type of problem. ``slug`` ends its address, which leads to its line on a page; ``remedy``: what to do."""

    slug: str
    status: int
    title: str
    remedy: str


INVALID = Kind(
    "invalid",
    400,
    "Something in the request can't be accepted",
    "Mend what `errors` names, all of it at once, and send it again; an Idempotency-Key may stay the same.",
)
UNREADABLE = Kind(
    "unreadable",
    400,
    "The body is no JSON that can be kept",
    "Send UTF-8 JSON without NaN, doubled keys, NUL or half surrogate pairs.",
)
UNAUTHENTICATED = Kind(
    "unauthenticated",
    401,
    "A valid access token is needed",
    "Get a token at /oauth/token; it lasts a quarter of an hour.",
)
FORBIDDEN = Kind(
    "forbidden",
    403,
    "The token may not do this",
    "Ask for a token with the scope that the detail names; a person needs the role too.",
)
NOT_FOUND = Kind(
    "not-found",
    404,
    "There is no such thing",
    "Look the address or the id up; what is deleted is not found either.",
)
METHOD = Kind(
    "method-not-allowed",
    405,
    "The method does not work here",
    "Use one of the methods that the header Allow names.",
)
STATE = Kind(
    "wrong-state",
    409,
    "Its state does not admit this",
    "Read it again: what it is now says what can be done with it.",
)
IN_FLIGHT = Kind(
    "in-flight",
    409,
    "The first request with this Idempotency-Key is still at work",
    "Wait a moment and send the same request again.",
)
IN_USE = Kind(
    "in-use",
    409,
    "Something still uses it",
    "Take it out of what the detail names first.",
)
STALE = Kind(
    "stale",
    412,
    "Somebody changed it meanwhile",
    "Read it again, and repeat the change on what it is now.",
)
TOO_LARGE = Kind(
    "too-large",
    413,
    "The body is too large",
    "Send less at once.",
)
MEDIA = Kind(
    "unsupported-media-type",
    415,
    "The body must be JSON",
    "Name the type in the header Content-Type.",
)
MISDIRECTED = Kind(
    "misdirected",
    421,
    "This server does not answer here",
    "Ask the server that streams: the proxy in front has to lead this address there.",
)
KEY_REUSED = Kind(
    "key-reused",
    422,
    "The Idempotency-Key belongs to another request",
    "Use a new key for each request.",
)
PRECONDITION = Kind(
    "precondition-required",
    428,
    "Say which version you change",
    "Send the ETag of what you read as If-Match, or * for whatever it is.",
)
TOO_MANY = Kind(
    "too-many-requests",
    429,
    "Too many requests",
    "Wait as many seconds as Retry-After says.",
)
INTERNAL = Kind(
    "internal",
    500,
    "The service failed",
    "Send it again later, with its Idempotency-Key; tell the operators the request id.",
)
AWAY = Kind(
    "away",
    503,
    "Something that the service needs does not answer",
    "Send it again after Retry-After seconds, with its Idempotency-Key.",
)

KINDS: Final[tuple[Kind, ...]] = (
    INVALID, UNREADABLE, UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, METHOD, STATE, IN_FLIGHT, IN_USE, STALE, TOO_LARGE,
    MEDIA, MISDIRECTED, KEY_REUSED, PRECONDITION, TOO_MANY, INTERNAL, AWAY,
)  # fmt: skip


@dataclass(frozen=True)
class InParameter(Problem):
    """Wrong in a parameter of the address, be it of its query or its path; ``field`` is the parameter's name."""


@dataclass(frozen=True)
class InHeader(Problem):
    """Wrong in a header; ``field`` is the header's name."""


@dataclass(frozen=True)
class InFile(Problem):
    """Wrong in a part of what was sent, its ``line`` or its ``file``; ``field`` is a JSON pointer into that."""

    line: int = 0
    file: str = ""


class Refused(Exception):
    """What a view raises to answer with a problem.

    ``pointed``: what is wrong where, in the body unless it is an ``InParameter`` or an ``InHeader``.

    ``extra`` are further members of the answer, ``headers`` of its headers.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        pointed: Iterable[Problem] = (),
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.pointed = list(pointed)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


def invalid(problems: Iterable[Problem]) -> Refused:
    """400 with every one of ``problems``, whose fields are JSON pointers without the first slash."""
    found = list(problems)
    words = "One thing is wrong." if len(found) == 1 else f"{len(found)} things are wrong."
    return Refused(INVALID, f"{words} See errors.", pointed=found)


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's hook: whatever a view raised, as an answer. What nobody foresaw is logged and is a 500."""
    set_rollback()
    refused = error if isinstance(error, Refused) else _translated(error)
    request = context["request"]
    if refused.kind is INTERNAL:
        _log.exception("api_failed", route=request.resolver_match.route, method=request.method)
    headers = dict(refused.headers)
    if refused.kind is UNAUTHENTICATED:
        headers["WWW-Authenticate"] = getattr(error, "auth_header", "Bearer")
    if refused.kind is MEDIA and request.method == "PATCH":
        headers["Accept-Patch"] = "application/json, application/merge-patch+json"  # RFC 5789, 2.2
    body = _body(refused, request)
    return Response(body, status=refused.kind.status, headers=headers, content_type=MEDIA_TYPE)


def plain_response(refused: Refused, request: HttpRequest) -> JsonResponse:
    """The same outside DRF: for addresses that no view has, and faults before one is reached."""
    return JsonResponse(
        _body(refused, request), status=refused.kind.status, headers=refused.headers, content_type=MEDIA_TYPE
    )


def _body(refused: Refused, request: Any) -> dict[str, Any]:
    return {
        "type": request.build_absolute_uri(f"/api/problems#{refused.kind.slug}"),
        "title": refused.kind.title,
        "status": refused.kind.status,
        "detail": refused.detail,
        "requestId": trail.request_id(),
        **({"errors": [as_error(problem) for problem in refused.pointed]} if refused.pointed else {}),
        **refused.extra,
    }


def as_error(problem: Problem) -> dict[str, Any]:
    """Where it is wrong: a parameter, a header, or a JSON pointer (RFC 6901), which is empty for the whole body, or for
    the whole of a line or file in it."""
    return {**_place(problem), "code": problem.code, "detail": problem.message}


def _place(problem: Problem) -> dict[str, Any]:
    match problem:
        case InFile(field=path, line=line, file=file):
            return ({"line": line} if line else {"file": file}) | {"pointer": path}
        case InParameter(field=name):
            return {"parameter": name}
        case InHeader(field=name):
            return {"header": name}
        case Problem(field=path):
            return {"pointer": path if not path or path.startswith("/") else f"/{path}"}


def _translated(error: Exception) -> Refused:
    match error:
        case KeptElsewhere():
            return Refused(STATE, error.problems[0].message)
        case InvalidTemplate() if error.problems[0].code.startswith("template_service_"):
            return Refused(AWAY, error.problems[0].message, headers={"Retry-After": "5"})
        case InvalidDefinition() | InvalidTemplate() | InvalidTestSend() | InvalidRecipient() | InvalidTopic():
            return invalid(error.problems)
        case VersionConflict() | Superseded() | RecipientChanged() | TopicChanged():
            changed = {"currentVersion": error.current, "changedBy": error.by, "changedAt": instant(error.at)}
            return Refused(STALE, str(error), extra=changed)
        case TemplateInUse() | TopicInUse():
            using = [{"id": schedule_id, "name": name} for schedule_id, name in error.schedules]
            return Refused(IN_USE, str(error), extra={"schedules": using, "scheduleCount": error.count})
        case NotAllowed() | NotReopened():
            return Refused(STATE, str(error))
        case NoSuchRecipient() | NoSuchDevice() | NoInbox() | NoSuchMessage() | NoSuchTopic():
            return Refused(NOT_FOUND, str(error))
        case AudienceTooSlow():
            return Refused(INVALID, str(error), pointed=[Problem("audienceQuery", "too_slow", str(error))])
    return _of_framework(error)


def _of_framework(error: Exception) -> Refused:
    match error:
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return Refused(UNAUTHENTICATED, "Send “Authorization: Bearer TOKEN” with a token that is valid still.")
        case exceptions.PermissionDenied() | PermissionDenied():
            return Refused(FORBIDDEN, str(error) or "The token may not do this.")
        case exceptions.NotFound() | Http404():
            return Refused(NOT_FOUND, str(error) or "There is nothing at this address.")
        case exceptions.MethodNotAllowed():
            return Refused(METHOD, f"{error.args[0] if error.args else 'This method'} does not work here; see Allow.")
        case exceptions.UnsupportedMediaType():
            return Refused(MEDIA, "Send “Content-Type: application/json”.")
        case TooManyFieldsSent():
            return Refused(INVALID, "The query has too many parameters.")
        case RequestDataTooBig():
            return Refused(TOO_LARGE, "The body is too large: send less at once.")
        case UnreadablePostError():
            return Refused(UNREADABLE, "The body did not come to its end: send it again.")
        case exceptions.ParseError():
            return Refused(UNREADABLE, str(error.detail))
        case OperationalError():
            _log.warning("api_database_away", error=error)
            return Refused(AWAY, "The database does not answer: try again in a moment.", headers={"Retry-After": "5"})
    return Refused(INTERNAL, "The service failed, and its operators can find out why by the request id.")
