"""What is done with a schedule beside keeping it: its actions, its next runs, its history."""

from collections.abc import Mapping
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from audit import trail
from delivery import test_sends, touches
from delivery.models import TestSend
from frontend.api.base import ApiView, etag
from frontend.api.documents import problems
from frontend.api.fields import NoBody, QueryNumberField, QuerySerializer, StrictCharField, StrictSerializer
from frontend.api.idempotency import idempotent
from frontend.api.paging import Order, PageQuery, page_of
from frontend.api.problems import NOT_FOUND, Refused
from frontend.api.schedules import (
    CANCELLED,
    PAUSED,
    RESUMED,
    ChangedSchedule,
    ScheduleAnswer,
    ScheduleDefinition,
    find,
    representation,
)
from frontend.instants import instant
from schedules import clock, operations
from schedules.definition import Definition
from schedules.models import Schedule, ScheduleStatus, ScheduleVersion, TimeZoneMode
from schedules.occurrences import Effect, upcoming
from schedules.permissions import Ability
from schedules.recurrence import Firing, InvalidTiming, describe, zone

# Those that are over run no more, whatever their cron says.
_RUNS_AGAIN = (ScheduleStatus.DRAFT, ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED, ScheduleStatus.BROKEN)


class PauseRequest(StrictSerializer):
    reason = StrictCharField(max_length=500, required=False, allow_blank=True, default="")


class TestSendRequest(StrictSerializer):
    recipient = StrictCharField(
        source="external_id", max_length=200, help_text="externalId of the person whose tokens are filled in."
    )
    to = StrictCharField(
        max_length=320,
        required=False,
        allow_blank=True,
        default="",
        help_text="An e-mail address that gets it instead.",
    )
    locale = StrictCharField(
        max_length=35, required=False, allow_blank=True, default="", help_text="A language in place of the person's."
    )


class TestSendAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    scheduleId = serializers.IntegerField()
    state = serializers.ChoiceField(choices=TestSend.State.values)
    reason = serializers.CharField(allow_blank=True)
    detail = serializers.CharField(allow_blank=True, help_text="The provider's own words.")
    providerId = serializers.CharField(allow_blank=True)
    subject = serializers.CharField(allow_blank=True)
    createdBy = serializers.CharField()
    createdAt = serializers.DateTimeField()
    settledAt = serializers.DateTimeField(allow_null=True)


class OccurrenceLink(serializers.Serializer[Any]):
    scheduleId = serializers.IntegerField()
    occurrenceId = serializers.IntegerField(allow_null=True, help_text="Empty where the next tick opens it.")


class NextRunsQuery(QuerySerializer):
    count = QueryNumberField(min_value=1, max_value=100, default=5)


class NextRun(serializers.Serializer[Any]):
    """``wallTime`` is what clocks show at it: in the schedule's zone, or on each recipient's own clock."""

    occurrenceAt = serializers.DateTimeField(help_text="The identity of the occurrence.")
    opensAt = serializers.DateTimeField(help_text="When the first person is due.")
    closesAt = serializers.DateTimeField(help_text="When the last person is due.")
    wallTime = serializers.CharField()
    timeZone = serializers.CharField(allow_null=True, help_text="Null with user_local: each recipient's own.")


class NextRunsAnswer(serializers.Serializer[Any]):
    sentence = serializers.CharField(help_text="The timing in words.")
    items = NextRun(many=True)


@extend_schema_field({})
class AnyField(serializers.JSONField):
    """Whatever JSON can say, null included."""


class FieldChange(serializers.Serializer[Any]):
    field = serializers.CharField()
    before = AnyField()
    after = AnyField()


class VersionAnswer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    createdBy = serializers.CharField()
    createdAt = serializers.DateTimeField()
    definition = ScheduleDefinition()
    changes = FieldChange(many=True, help_text="Against the version before; of the first one everything.")


class VersionPage(serializers.Serializer[Any]):
    items = VersionAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


def changed(schedule: Schedule, *, otherwise: str) -> Response:
    """A schedule whose status has changed, with what of it is open."""
    touched = touches.of(schedule_id=schedule.pk, effects={}, otherwise=otherwise)
    return Response(representation(schedule, touched), headers={"ETag": etag(schedule.version)})


class _Action(ApiView):
    """A POST that changes a schedule's status. Repeating it changes nothing more."""

    abilities: ClassVar = {"POST": Ability.EDIT_SCHEDULES}


class Pause(_Action):
    @extend_schema(
        operation_id="pauseSchedule",
        request=PauseRequest,
        responses={200: ChangedSchedule, **problems(400, 404, 409, 422)},
    )
    @idempotent
    def post(self, request: Request, schedule_id: int) -> Response:
        """Stop sending: no provider call starts more than 5 s later. Who is left waits."""
        reason = PauseRequest.read(request.data).checked()["reason"]
        find(schedule_id)
        schedule = operations.pause(schedule_id=schedule_id, by=self.by, now=clock.now(), reason=reason)
        return changed(schedule, otherwise=PAUSED)


class Resume(_Action):
    @extend_schema(
        operation_id="resumeSchedule", request=NoBody, responses={200: ChangedSchedule, **problems(400, 404, 409, 422)}
    )
    @idempotent
    def post(self, request: Request, schedule_id: int) -> Response:
        """Go on where it stopped. Runs that passed meanwhile are not made up for."""
        NoBody.read(request.data).checked()
        find(schedule_id)
        return changed(operations.resume(schedule_id=schedule_id, by=self.by, now=clock.now()), otherwise=RESUMED)


class Activate(_Action):
    @extend_schema(
        operation_id="activateSchedule",
        request=NoBody,
        responses={200: ChangedSchedule, **problems(400, 404, 409, 422)},
    )
    @idempotent
    def post(self, request: Request, schedule_id: int) -> Response:
        """Let a draft run, or a broken schedule that has been mended."""
        NoBody.read(request.data).checked()
        find(schedule_id)
        schedule = operations.activate(schedule_id=schedule_id, by=self.by, now=clock.now())
        return changed(schedule, otherwise=Effect.UNTOUCHED.value)


class Cancel(_Action):
    @extend_schema(
        operation_id="cancelSchedule", request=NoBody, responses={200: ChangedSchedule, **problems(400, 404, 409, 422)}
    )
    @idempotent
    def post(self, request: Request, schedule_id: int) -> Response:
        """End the schedule and what of it is open. What was sent stays sent. There is no way back."""
        NoBody.read(request.data).checked()
        find(schedule_id)
        return changed(operations.cancel(schedule_id=schedule_id, by=self.by, now=clock.now()), otherwise=CANCELLED)


class Duplicate(_Action):
    @extend_schema(
        operation_id="duplicateSchedule",
        request=NoBody,
        responses={201: ScheduleAnswer, **problems(400, 404, 409, 422)},
    )
    @idempotent
    def post(self, request: Request, schedule_id: int) -> Response:
        """A draft of the same definition, without its time where that has passed."""
        NoBody.read(request.data).checked()
        find(schedule_id)
        copy = operations.duplicate(schedule_id=schedule_id, by=self.by, now=clock.now())
        headers = {"ETag": etag(copy.version), "Location": f"/api/v1/schedules/{copy.pk}"}
        return Response(representation(copy), status=201, headers=headers)


class RunNow(_Action):
    @extend_schema(
        operation_id="runScheduleNow", request=NoBody, responses={202: OccurrenceLink, **problems(400, 404, 409, 422)}
    )
    @idempotent
    def post(self, request: Request, schedule_id: int) -> Response:
        """Run an active schedule at once, for everybody at the same instant.

        A cron gets an occurrence besides its own; a one-off that has not run yet runs now instead of later.
        """
        NoBody.read(request.data).checked()
        find(schedule_id)
        occurrence = operations.run_now(schedule_id=schedule_id, by=self.by, now=clock.now())
        link = {"scheduleId": schedule_id, "occurrenceId": occurrence.pk if occurrence else None}
        location = (
            f"/api/v1/occurrences/{occurrence.pk}" if occurrence else f"/api/v1/schedules/{schedule_id}/occurrences"
        )
        return Response(link, status=202, headers={"Location": location})


class SendTest(ApiView):
    abilities: ClassVar = {"POST": Ability.EDIT_SCHEDULES}

    @extend_schema(
        operation_id="sendTest",
        request=TestSendRequest,
        responses={202: TestSendAnswer, **problems(400, 404, 409, 422)},
        examples=[OpenApiExample("To me", {"recipient": "anna", "to": "me@example.com"}, request_only=True)],
    )
    @idempotent
    def post(self, request: Request, schedule_id: int) -> Response:
        """Send its message to one person to be looked at: outside the ledger, caps and metrics, whatever its status."""
        asked = TestSendRequest.read(request.data).checked()
        find(schedule_id)
        wish = test_sends.ask(schedule_id=schedule_id, **asked, by=self.by, now=clock.now())
        return Response(_test_send(wish), status=202, headers={"Location": f"/api/v1/test-sends/{wish.pk}"})


class OneTestSend(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(operation_id="getTestSend", responses={200: TestSendAnswer, **problems(404)})
    def get(self, request: Request, test_send_id: int) -> Response:
        """What became of a test: ask until `state` is neither `waiting` nor `sending`."""
        wish = TestSend.objects.filter(pk=test_send_id).first()
        if wish is None:
            raise Refused(NOT_FOUND, f"There is no test {test_send_id}.")
        return Response(_test_send(wish))


def _test_send(wish: TestSend) -> dict[str, Any]:
    return {
        "id": wish.pk,
        "scheduleId": wish.schedule_id,
        "state": wish.state,
        "reason": wish.reason,
        "detail": wish.detail,
        "providerId": wish.provider_id,
        "subject": wish.subject,
        "createdBy": wish.created_by,
        "createdAt": instant(wish.created_at),
        "settledAt": instant(wish.settled_at),
    }


class NextRuns(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="listNextRuns",
        parameters=[NextRunsQuery],
        responses={200: NextRunsAnswer, **problems(400, 404)},
    )
    def get(self, request: Request, schedule_id: int) -> Response:
        """When it runs next, told by the same code that fires it."""
        count = NextRunsQuery.of(request)["count"]
        schedule = find(schedule_id)
        try:
            firings = upcoming(schedule, now=clock.now(), count=count) if schedule.status in _RUNS_AGAIN else []
            sentence = describe(Definition.of(schedule).timing())
        except (InvalidTiming, ValueError):  # a draft that is not complete yet
            firings, sentence = [], ""
        return Response({"sentence": sentence, "items": [_next_run(firing, schedule) for firing in firings]})


def _next_run(firing: Firing, schedule: Schedule) -> dict[str, Any]:
    own_clock = schedule.time_zone_mode == TimeZoneMode.USER_LOCAL
    wall = firing.occurrence_at if own_clock else firing.occurrence_at.astimezone(zone(schedule.time_zone))
    return {
        "occurrenceAt": instant(firing.occurrence_at),
        "opensAt": instant(firing.opens_at),
        "closesAt": instant(firing.closes_at),
        "wallTime": wall.replace(tzinfo=None).isoformat(),
        "timeZone": None if own_clock else schedule.time_zone,
    }


class History(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="listScheduleVersions",
        parameters=[PageQuery],
        responses={200: VersionPage, **problems(400, 404)},
    )
    def get(self, request: Request, schedule_id: int) -> Response:
        """Its versions, the latest first: what changed, by whom and when."""
        query = PageQuery.of(request)
        find(schedule_id)
        order = Order("version", descending=True)
        page, cursor = page_of(ScheduleVersion.objects.filter(schedule=schedule_id), order, query)
        earlier = ScheduleVersion.objects.filter(schedule=schedule_id, version=page[-1].version - 1) if page else ()
        before = {each.version: each.definition for each in [*page, *earlier]}
        return Response(
            {"items": [_version(each, before.get(each.version - 1, {})) for each in page], "nextCursor": cursor}
        )


def _version(kept: ScheduleVersion, before: Mapping[str, Any]) -> dict[str, Any]:
    changes = trail.diff(before, kept.definition)
    return {
        "version": kept.version,
        "createdBy": kept.created_by,
        "createdAt": instant(kept.created_at),
        "definition": kept.definition,
        "changes": [{"field": name, "before": old, "after": new} for name, (old, new) in changes.items()],
    }
