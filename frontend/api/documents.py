"""The OpenAPI 3.1 document: what drf-spectacular can't see by itself."""

from typing import Any, cast

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from frontend.api.merging import MERGE_PATCH
from frontend.api.problems import KINDS, MEDIA_TYPE
from schedules.consents import TOPIC_KEY
from schedules.models import Channel
from schedules.permissions import Scope, scope_for

_IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    pattern=r"^[ -~]{1,255}$",
    description="Send the same request again with the same key, and it is done once and answered alike, for 24 hours.",
)
# One strong entity tag or several, or any.
_TAGS = r'^("[0-9]{1,9}"(, "[0-9]{1,9}")*|\*)$'
_IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    required=True,
    pattern=_TAGS,
    description="The ETag of what you read; 412 if somebody changed it since, 428 without.",
)
_IF_MATCH_MAYBE = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    pattern=_TAGS,
    description="The ETag of what you read. Where there is something already a PUT needs it; where not, it is 412.",
)
# What any call may be answered with.
_ALWAYS = (400, 401, 403, 429, 500, 503)
_WITH_BODY = (413, 415)


class ProblemErrorAnswer(serializers.Serializer[Any]):
    pointer = serializers.CharField(required=False, help_text="JSON pointer into the body; empty for the whole body.")
    line = serializers.IntegerField(required=False, help_text="Of a file of lines; the pointer leads into it.")
    file = serializers.CharField(required=False, help_text="Of an archive; the pointer leads into it.")
    parameter = serializers.CharField(required=False, help_text="Parameter of the query.")
    header = serializers.CharField(required=False)
    code = serializers.CharField(help_text="Stable, for programs.")
    detail = serializers.CharField(help_text="What is wrong and what to do.")


class ProblemAnswer(serializers.Serializer[Any]):
    """Problem details (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    requestId = serializers.CharField(help_text="Also in the header X-Request-ID and in the logs.")
    errors = ProblemErrorAnswer(many=True, required=False)  # type: ignore[assignment]


class StaleAnswer(ProblemAnswer):
    """Somebody changed it meanwhile: who, and when."""

    currentVersion = serializers.IntegerField(required=False)
    changedBy = serializers.CharField(required=False)
    changedAt = serializers.DateTimeField(required=False)


def problems(*statuses: int) -> dict[Any, OpenApiResponse]:
    """Responses of ``extend_schema``: ``statuses``, and what any call may be answered with."""
    every = {*statuses, *_ALWAYS, *(_WITH_BODY if 400 in statuses else ())}
    return {
        (status, MEDIA_TYPE): OpenApiResponse(StaleAnswer if status == 412 else ProblemAnswer, _words(status))
        for status in sorted(every)
    }


def _words(status: int) -> str:
    return "; ".join(kind.title for kind in KINDS if kind.status == status)


class Document(AutoSchema):
    """Headers that belong to a method, and tags by resource."""

    def get_override_parameters(self) -> list[Any]:
        found = []
        if self.method in ("PUT", "PATCH", "DELETE"):
            found.append(_IF_MATCH_MAYBE if self.method in getattr(self.view, "unconditional", ()) else _IF_MATCH)
        if getattr(getattr(self.view, self.method.lower(), None), "is_idempotent", False):
            found.append(_IDEMPOTENCY_KEY)
        return found

    def get_tags(self) -> list[str]:
        return [self.path.removeprefix("/api/v1/").partition("/")[0].partition(":")[0]]


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """OAuth2, with the scope that the method's ability needs."""

    target_class = "frontend.api.access.TokenAuthentication"
    name = "oauth2"

    def get_security_requirement(self, auto_schema: AutoSchema) -> dict[str, list[str]]:
        ability = cast(Any, auto_schema.view).abilities[auto_schema.method]
        return {self.name: [str((scope_for(ability) if ability else None) or Scope.INBOX)]}

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        scopes = {
            Scope.READ.value: "Read everything but inboxes",
            Scope.WRITE.value: "Change and send",
        }
        own = {Scope.INBOX.value: "Read the inbox of the person who signs in"}
        token = {"tokenUrl": "/oauth/token"}
        return {
            "type": "oauth2",
            "flows": {
                "clientCredentials": {**token, "scopes": scopes},
                "authorizationCode": {
                    **token,
                    "refreshUrl": "/oauth/token",
                    "authorizationUrl": "/oauth/authorize",
                    "scopes": {**scopes, **own},
                },
            },
        }


# A topic in a channel, as a profile's consent names it.
_OF_TOPIC = f"^{TOPIC_KEY.pattern}:({'|'.join(Channel.values)})$"


def strict_requests(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Say of every object that a request may send that it has no other fields."""
    sent = _sent(result)
    for name, schema in result.get("components", {}).get("schemas", {}).items():
        if name in sent and schema.get("type") == "object" and "properties" in schema:
            schema["additionalProperties"] = False
            if name.startswith("Consent"):
                schema["patternProperties"] = {_OF_TOPIC: {"type": ["boolean", "null"]}}
    return result


# What answers say in their headers, beside what all of them do: the request's id, and what is left to the client.
_HEADERS = {
    "ETag": "The version, to be named by `If-Match`.",
    "Location": "Where it is, or where to ask for it.",
    "Idempotency-Replayed": "`true`: the answer was given before.",
    "Retry-After": "Seconds.",
    "Accept-Patch": "What a change may be sent as (RFC 5789).",
    "WWW-Authenticate": "What is wrong with the token (RFC 6750, 3). Not where the person's role is.",
}
_OF_STATUS = {
    "401": ("WWW-Authenticate",),
    "403": ("WWW-Authenticate",),
    "409": ("Retry-After",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}
# Of what has a version that may be named.
_TAGGED = frozenset(
    {"ScheduleAnswer", "ChangedSchedule", "TemplateAnswer", "RecipientAnswer", "CatalogueAnswer", "TopicAnswer"}
    | {"EndpointAnswer", "SecretAnswer"}
)


# Of what has an address of its own once it is made.
_PLACED = _TAGGED | {"SuppressionAnswer"}


def answers_as_they_are(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Say the headers of answers, and of no body that it is wrong where none is read."""
    result["components"]["headers"] = {
        name: {"schema": {"type": "string"}, "description": words} for name, words in _HEADERS.items()
    }
    for operation in (each for methods in result["paths"].values() for each in methods.values()):
        if "requestBody" not in operation:
            for status in _WITH_BODY:
                operation["responses"].pop(str(status), None)
        for status, response in operation["responses"].items():
            if said := _headers(operation, status, response):
                response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in said}
    return result


def _headers(operation: dict[str, Any], status: str, response: dict[str, Any]) -> tuple[str, ...]:
    if status == "415" and MERGE_PATCH in operation["requestBody"]["content"]:
        return ("Accept-Patch",)
    if not status.startswith("2"):
        return _OF_STATUS.get(status, ())
    is_tagged, is_placed = (not each.isdisjoint(_references(response)) for each in (_TAGGED, _PLACED))
    is_keyed = any(each["name"] == _IDEMPOTENCY_KEY.name for each in operation.get("parameters", ()))
    holds = {
        "ETag": is_tagged,
        "Location": status == "202" or (status == "201" and is_placed),
        "Idempotency-Replayed": is_keyed,
    }
    return tuple(name for name, is_said in holds.items() if is_said)


def _sent(document: dict[str, Any]) -> set[str]:
    """Names of the components that request bodies refer to, directly or through others."""
    schemas = document.get("components", {}).get("schemas", {})
    bodies = [
        operation.get("requestBody", {})
        for path in document.get("paths", {}).values()
        for operation in path.values()
        if isinstance(operation, dict)
    ]
    waiting, found = list(_references(bodies)), set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(schemas.get(name, {}))
    return found


def _references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [name for each in part for name in _references(each)]
    if isinstance(part, dict):
        own = [part["$ref"].rpartition("/")[2]] if isinstance(part.get("$ref"), str) else []
        return own + [name for each in part.values() for name in _references(each)]
    return []
