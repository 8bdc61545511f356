"""``/endpoints``: programs of others that are told what happens, and what came of telling them."""

from collections.abc import Sequence
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.counts import ENDPOINT_RESULTS
from delivery.endpoint_models import Endpoint, EventType, Posting
from delivery.subscribers import listing, operations
from delivery.subscribers.operations import EndpointChanged, EndpointIsOff, InvalidEndpoint, NoSuchEndpoint
from frontend.api.base import ApiView, etag, expected_version
from frontend.api.documents import problems
from frontend.api.fields import InstantField, NoBody, StrictCharField, StrictChoiceField, StrictSerializer
from frontend.api.idempotency import idempotent
from frontend.api.paging import Order, PageQuery, page_of
from frontend.api.problems import NOT_FOUND, STALE, STATE, Refused, invalid
from frontend.instants import instant
from schedules import clock
from schedules.outgoing.targets import MAX_LENGTH
from schedules.permissions import Ability

_MANAGE = Ability.MANAGE_ENDPOINTS


class EndpointAnswer(serializers.Serializer[Any]):
    """A subscriber's address. The ETag is made of `version`."""

    id = serializers.IntegerField()
    url = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    types = serializers.ListField(child=serializers.CharField(), help_text="What it is told; empty: everything.")
    isOn = serializers.BooleanField()
    offReason = serializers.ChoiceField(
        choices=Endpoint.Off.values,
        allow_null=True,
        help_text="`person`, `gone`: it answered 410, or `failing`: nothing came through for five days.",
    )
    offAt = serializers.DateTimeField(allow_null=True)
    waiting = serializers.IntegerField(help_text="Events on their way.")
    failed = serializers.IntegerField(help_text="Events that were given up.")
    failingSince = serializers.DateTimeField(allow_null=True, help_text="No call has come through since then.")
    answeredAt = serializers.DateTimeField(allow_null=True, help_text="When it last took an event.")
    version = serializers.IntegerField()
    createdAt = serializers.DateTimeField(help_text="It is told what happens from then on.")


class SecretAnswer(EndpointAnswer):
    secret = serializers.CharField(help_text="Signs what is sent. It is told now and never again: keep it.")


class EndpointPage(serializers.Serializer[Any]):
    items = EndpointAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class EndpointAttempt(serializers.Serializer[Any]):
    """One try."""

    at = serializers.DateTimeField(help_text="Real time.")
    durationMs = serializers.IntegerField()
    outcome = serializers.ChoiceField(choices=ENDPOINT_RESULTS)
    status = serializers.IntegerField(allow_null=True, help_text="Of the answer; null without one.")
    answer = serializers.CharField(allow_blank=True, help_text="The first kilobyte of what a refusal said.")


class PostingAnswer(serializers.Serializer[Any]):
    """An event on its way to an endpoint."""

    id = serializers.IntegerField()
    eventId = serializers.CharField(help_text="The `webhook-id`.")
    type = serializers.ChoiceField(choices=EventType.values)
    occurredAt = serializers.DateTimeField()
    state = serializers.ChoiceField(choices=Posting.State.values)
    dueAt = serializers.DateTimeField(allow_null=True, help_text="Of the next try, in real time.")
    attempts = EndpointAttempt(many=True)


class PostingPage(serializers.Serializer[Any]):
    items = PostingAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class EndpointChange(StrictSerializer):
    """What can be changed of an endpoint."""

    read_only_names = frozenset(EndpointAnswer().fields) - {"url", "description", "types"}

    url = StrictCharField(
        max_length=MAX_LENGTH, help_text="https, at a public address. It is looked up now and before each call."
    )
    description = StrictCharField(max_length=operations.LONGEST_DESCRIPTION, required=False, allow_blank=True)
    types = serializers.ListField(
        child=StrictChoiceField(choices=list(operations.TYPES)),
        required=False,
        max_length=len(operations.TYPES),
        help_text="What it is told; empty: everything.",
    )


class ReplayAsked(StrictSerializer):
    since = InstantField(help_text="Events that occurred from then on.")


class Replayed(serializers.Serializer[Any]):
    events = serializers.IntegerField(help_text="That are on their way again.")


class PostingQuery(PageQuery):
    state = StrictChoiceField(choices=Posting.State.values, required=False)


class _EndpointView(ApiView):
    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(_refused(exc))


def _refused(error: Exception) -> Exception:
    match error:
        case InvalidEndpoint():
            return invalid(error.problems)
        case NoSuchEndpoint():
            return Refused(NOT_FOUND, "There is no such endpoint, or no such event of it.")
        case EndpointChanged():
            return Refused(STALE, str(error), extra={"currentVersion": error.current})
        case EndpointIsOff():
            return Refused(STATE, str(error))
    return error


class Endpoints(_EndpointView):
    abilities: ClassVar = {"GET": _MANAGE, "POST": _MANAGE}

    @extend_schema(operation_id="listEndpoints", parameters=[PageQuery], responses={200: EndpointPage, **problems(400)})
    def get(self, request: Request) -> Response:
        """Everybody who is told what happens, the latest first."""
        page, cursor = page_of(Endpoint.objects.all(), Order(), PageQuery.of(request))
        return Response({"items": _representations(page), "nextCursor": cursor})

    @extend_schema(
        operation_id="createEndpoint",
        request=EndpointChange,
        examples=[
            OpenApiExample(
                "A shop",
                request_only=True,
                value={
                    "url": "https://shop.example.com/hooks/notifications",
                    "description": "Shop",
                    "types": ["occurrence.finished", "deliveries.settled"],
                },
            )
        ],
        responses={201: SecretAnswer, **problems(400)},
    )
    def post(self, request: Request) -> Response:
        """Tell a program what happens from now on. The answer alone has its secret, so nothing of it is kept for a
        repetition: send it again, and there are two."""
        asked = EndpointChange.read(request.data).checked()
        made = operations.create(**asked, by=self.by, now=clock.now())
        return _with_secret(made, status=201)


class OneEndpoint(_EndpointView):
    abilities: ClassVar = {"GET": _MANAGE, "PATCH": _MANAGE, "DELETE": _MANAGE}
    unconditional: ClassVar = ("DELETE",)

    @extend_schema(operation_id="getEndpoint", responses={200: EndpointAnswer, **problems(404)})
    def get(self, request: Request, endpoint_id: int) -> Response:
        """One endpoint, with its ETag."""
        return _answer(operations.find(endpoint_id))

    @extend_schema(
        operation_id="changeEndpoint",
        request=EndpointChange,
        responses={200: EndpointAnswer, **problems(400, 404, 412, 428)},
    )
    def patch(self, request: Request, endpoint_id: int) -> Response:
        """Change what the body has. What waits goes to the new address."""
        standing = operations.find(endpoint_id)
        version = expected_version(request, standing=lambda: standing.version)
        changes = EndpointChange.read(request.data, partial=True).checked()
        changed = operations.update(
            endpoint_id=endpoint_id, changes=changes, by=self.by, now=clock.now(), expected_version=version
        )
        return _answer(changed)

    @extend_schema(operation_id="deleteEndpoint", responses={204: None, **problems(404)})
    def delete(self, request: Request, endpoint_id: int) -> Response:
        """Tell it nothing more, and forget what it was told. Needs no `If-Match`."""
        operations.delete(endpoint_id=endpoint_id, by=self.by, now=clock.now())
        return Response(status=204)


class _Act(_EndpointView):
    abilities: ClassVar = {"POST": _MANAGE}


class SwitchOn(_Act):
    @extend_schema(
        operation_id="switchEndpointOn", request=NoBody, responses={200: EndpointAnswer, **problems(400, 404, 409, 422)}
    )
    @idempotent
    def post(self, request: Request, endpoint_id: int) -> Response:
        """Call it again: what waits goes on. What happened meanwhile is sent by `replay`."""
        NoBody.read(request.data).checked()
        return _answer(operations.switch_on(endpoint_id=endpoint_id, by=self.by, now=clock.now()))


class SwitchOff(_Act):
    @extend_schema(
        operation_id="switchEndpointOff",
        request=NoBody,
        responses={200: EndpointAnswer, **problems(400, 404, 409, 422)},
    )
    @idempotent
    def post(self, request: Request, endpoint_id: int) -> Response:
        """Call it no more until it is switched on."""
        NoBody.read(request.data).checked()
        return _answer(operations.switch_off(endpoint_id=endpoint_id, by=self.by, now=clock.now()))


class Rotate(_Act):
    @extend_schema(
        operation_id="rotateEndpointSecret", request=NoBody, responses={200: SecretAnswer, **problems(400, 404)}
    )
    def post(self, request: Request, endpoint_id: int) -> Response:
        """A new secret. The one before signs beside it for 24 hours."""
        NoBody.read(request.data).checked()
        return _with_secret(operations.rotate(endpoint_id=endpoint_id, by=self.by, now=clock.now()), status=200)


class SendTest(_Act):
    @extend_schema(
        operation_id="testEndpoint", request=NoBody, responses={202: PostingAnswer, **problems(400, 404, 409, 422)}
    )
    @idempotent
    def post(self, request: Request, endpoint_id: int) -> Response:
        """Send it an `endpoint.test`."""
        NoBody.read(request.data).checked()
        made = operations.test(endpoint_id=endpoint_id, now=clock.now())
        return _accepted(made)


class Replay(_Act):
    @extend_schema(
        operation_id="replayEvents", request=ReplayAsked, responses={200: Replayed, **problems(400, 404, 409, 422)}
    )
    @idempotent
    def post(self, request: Request, endpoint_id: int) -> Response:
        """Send it what failed, and what happened while it was off."""
        since = ReplayAsked.read(request.data).checked()["since"]
        events = operations.replay_failed(endpoint_id=endpoint_id, since=since, by=self.by, now=clock.now())
        return Response({"events": events})


class Postings(_EndpointView):
    abilities: ClassVar = {"GET": _MANAGE}

    @extend_schema(
        operation_id="listEndpointEvents",
        parameters=[PostingQuery],
        responses={200: PostingPage, **problems(400, 404)},
    )
    def get(self, request: Request, endpoint_id: int) -> Response:
        """What was sent to it, the latest first, with each attempt."""
        operations.find(endpoint_id)
        query = PostingQuery.of(request)
        page, cursor = page_of(listing.postings(endpoint_id, state=query.get("state", "")), Order(), query)
        return Response({"items": [_posting(each) for each in page], "nextCursor": cursor})


class ReplayOne(_Act):
    @extend_schema(
        operation_id="replayEvent", request=NoBody, responses={202: PostingAnswer, **problems(400, 404, 409, 422)}
    )
    @idempotent
    def post(self, request: Request, endpoint_id: int, posting_id: int) -> Response:
        """Send it one event again, under the same `webhook-id`."""
        NoBody.read(request.data).checked()
        made = operations.replay(posting_id=posting_id, endpoint_id=endpoint_id, by=self.by, now=clock.now())
        return _accepted(made)


def _answer(endpoint: Endpoint, *, status: int = 200) -> Response:
    (found,) = _representations([endpoint])
    return Response(found, status=status, headers={"ETag": etag(endpoint.version)})


def _with_secret(endpoint: Endpoint, *, status: int) -> Response:
    answer = _answer(endpoint, status=status)
    answer.data = {**answer.data, "secret": str(endpoint.secret)}
    if status == 201:
        answer.headers["Location"] = _place(endpoint.pk)
    return answer


def _accepted(posting: Posting) -> Response:
    return Response(_posting(posting), status=202, headers={"Location": f"{_place(posting.endpoint_id)}/events"})


def _place(endpoint_id: int) -> str:
    return f"/api/v1/endpoints/{endpoint_id}"


def _representations(endpoints: Sequence[Endpoint]) -> list[dict[str, Any]]:
    health = listing.health(endpoints)
    return [
        {
            "id": each.pk,
            "url": str(each.url),
            "description": each.description,
            "types": each.types,
            "isOn": not each.off_reason,
            "offReason": each.off_reason or None,
            "offAt": instant(each.off_at),
            "waiting": health[each.pk].waiting,
            "failed": health[each.pk].failed,
            "failingSince": instant(each.failing_since),
            "answeredAt": instant(each.answered_at),
            "version": each.version,
            "createdAt": instant(each.created_at),
        }
        for each in endpoints
    ]


def _posting(posting: Posting) -> dict[str, Any]:
    return {
        "id": posting.pk,
        "eventId": posting.event.event_id,
        "type": posting.event.type,
        "occurredAt": instant(posting.event.occurred_at),
        "state": posting.state,
        "dueAt": instant(posting.due_at),
        "attempts": [
            {
                "at": instant(each.at),
                "durationMs": each.duration_ms,
                "outcome": each.outcome,
                "status": each.status,
                "answer": str(each.answer),
            }
            for each in posting.tries.all()
        ],
    }
