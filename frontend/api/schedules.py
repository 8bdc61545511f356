"""``/schedules``: keep, read, change and end them; each method is one operation of ``schedules.operations``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import touches
from delivery.touches import Touch
from frontend.api.base import ApiView, etag, expected_version
from frontend.api.documents import problems
from frontend.api.fields import (
    InstantField,
    ObjectField,
    QuerySerializer,
    SendWindowField,
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictIntegerField,
    StrictSerializer,
)
from frontend.api.idempotency import idempotent
from frontend.api.merging import is_merge_patch, merged
from frontend.api.paging import Order, PageQuery, by_instant, page_of
from frontend.api.problems import NOT_FOUND, Refused, invalid
from frontend.instants import instant
from schedules import clock, operations
from schedules import definition as definitions
from schedules.definition import Definition
from schedules.models import (
    LONGEST_KEY,
    LONGEST_SCHEDULE_KEY,
    Channel,
    OnPast,
    Purpose,
    Schedule,
    ScheduleStatus,
    ScheduleType,
    TimeZoneMode,
)
from schedules.occurrences import ApplyTo, Effect
from schedules.operations import Deleted
from schedules.permissions import Ability
from schedules.problems import Problem

# How each order of the list is asked for.
ORDERS: Mapping[str, Order] = {
    "-id": Order(),
    "id": Order(descending=False),
    "nextRunAt": by_instant("next_run_at", descending=False, nullable=True),
    "-nextRunAt": by_instant("next_run_at", descending=True, nullable=True),
    "updatedAt": by_instant("updated_at", descending=False),
    "-updatedAt": by_instant("updated_at", descending=True),
    "name": Order("name", descending=False, parse=str),
    "-name": Order("name", descending=True, parse=str),
}
# What a change of status does to the occurrences that are open, beside the effects of an edit.
PAUSED, RESUMED, CANCELLED = "paused", "resumed", "cancelled"


class ScheduleDefinition(StrictSerializer):
    """What a schedule is asked to be. Absent means the default."""

    read_only_names = frozenset(
        {
            "id",
            "key",
            "status",
            "statusReason",
            "nextRunAt",
            "runs",
            "version",
            "createdBy",
            "createdAt",
            "updatedAt",
            "touched",
        }
    )

    name = StrictCharField(max_length=200, help_text="For people; need not be unique.")
    channel = StrictChoiceField(choices=Channel.values)
    audienceQuery = ObjectField(
        source="audience_query", help_text='Who gets it; everybody is `{"all": []}`. See the guide for its language.'
    )
    templateId = StrictIntegerField(source="template_id")
    topic = StrictCharField(
        max_length=LONGEST_KEY,
        required=False,
        allow_null=True,
        help_text="The key of what it is about: whoever has opted out of the topic gets none of it. Without one only"
        " consent to the channel is asked for.",
    )
    purpose = StrictChoiceField(
        choices=Purpose.values,
        required=False,
        help_text="`transactional`, such as a receipt or a password: it is sent without consent, by topic or channel,"
        " and nobody can unsubscribe from it. An address that is suppressed (bounced, complained, blocked) is not"
        " written to all the same. `marketing` is all else, and the default.",
    )
    scheduleType = StrictChoiceField(choices=ScheduleType.values, source="schedule_type")
    runAt = InstantField(
        source="run_at",
        required=False,
        allow_null=True,
        help_text="When a one-off runs. With `timeZoneMode: user_local` it ends in Z, and its clock reading is the time"
        " of day at which each recipient gets it.",
    )
    cron = StrictCharField(required=False, allow_blank=True, help_text="Five fields, as in `0 9 * * 1-5`.")
    timeZone = StrictCharField(
        source="time_zone",
        required=False,
        help_text="IANA zone of a cron's clock, and of recipients whose own zone is missing or invalid.",
    )
    timeZoneMode = StrictChoiceField(choices=TimeZoneMode.values, source="time_zone_mode", required=False)
    startAt = InstantField(source="start_at", required=False, allow_null=True)
    endAt = InstantField(source="end_at", required=False, allow_null=True)
    maxRuns = StrictIntegerField(source="max_runs", required=False, allow_null=True, min_value=1)
    maxPerUserPerDay = StrictIntegerField(source="max_per_user_per_day", required=False, allow_null=True, min_value=1)
    maxPerUserPerWeek = StrictIntegerField(source="max_per_user_per_week", required=False, allow_null=True, min_value=1)
    countsTowardCaps = StrictBooleanField(source="counts_toward_caps", required=False)
    maxPerMinute = StrictIntegerField(
        source="max_per_minute",
        required=False,
        allow_null=True,
        min_value=1,
        help_text="How many people a minute the schedule sends to at the most, evenly, whatever runs beside it; a"
        " change counts at once. Null: as many as the provider takes.",
    )
    sendWindow = SendWindowField(
        source="send_window",
        required=False,
        allow_null=True,
        help_text="The days and hours, on each recipient's own clock, in which messages may reach them; what does not"
        " fit waits for the next. `days` are those on which the window opens; with `to` at or before `from` it lasts"
        " over midnight. Null: at any hour.",
    )
    expiresAfterMinutes = StrictIntegerField(
        source="expires_after_minutes",
        required=False,
        allow_null=True,
        min_value=1,
        help_text="Who could not be sent to so long after their instant, for whatever reason, gets nothing: they expire"
        " with the reason `waited_too_long`. Null: they wait until the run ends, after seven days.",
    )
    misfireGraceMinutes = StrictIntegerField(source="misfire_grace_minutes", required=False, min_value=0)
    onPast = StrictChoiceField(choices=OnPast.values, source="on_past", required=False)
    recheckAudience = StrictBooleanField(source="recheck_audience", required=False, allow_null=True)


class NewSchedule(ScheduleDefinition):
    """A definition, and whether it runs: a `draft` may still be incomplete and is run by `activate`."""

    status = StrictChoiceField(choices=["active", "draft"], required=False, default="active")


class TouchAnswer(serializers.Serializer[Any]):
    """An occurrence that was open at the change. Nobody is both in `done` and in `left`."""

    occurrenceId = serializers.IntegerField()
    occurrenceAt = serializers.DateTimeField()
    effect = serializers.ChoiceField(choices=sorted({*map(str, Effect), PAUSED, RESUMED, CANCELLED}))
    done = serializers.DictField(child=serializers.IntegerField(), help_text="People already served, by version.")
    left = serializers.IntegerField(help_text="People without an outcome yet.")
    leftVersion = serializers.IntegerField(help_text="The version that those get who still get it.")


class ScheduleAnswer(ScheduleDefinition):
    """A schedule as it is."""

    id = serializers.IntegerField()
    key = serializers.CharField(help_text="How files know it, here and elsewhere: see `exportSchedules`.")
    templateId = serializers.IntegerField(allow_null=True)  # type: ignore[assignment]
    status = serializers.ChoiceField(choices=ScheduleStatus.values)
    statusReason = serializers.CharField(allow_blank=True)
    nextRunAt = serializers.DateTimeField(allow_null=True, help_text="When the first person of the next run is due.")
    runs = serializers.IntegerField(help_text="Occurrences opened so far.")
    version = serializers.IntegerField(help_text="Rises with each change of the definition; the ETag is made of it.")
    createdBy = serializers.CharField(help_text="`user:ID` or `client:ID`.")
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()


class ChangedSchedule(ScheduleAnswer):
    """A schedule after a change, and whom the change touches."""

    touched = TouchAnswer(many=True)


class SchedulePage(serializers.Serializer[Any]):
    items = ScheduleAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class ScheduleQuery(PageQuery):
    status = StrictChoiceField(choices=[s for s in ScheduleStatus.values if s != "deleted"], required=False)
    channel = StrictChoiceField(choices=Channel.values, required=False)
    scheduleType = StrictChoiceField(choices=ScheduleType.values, source="schedule_type", required=False)
    createdBy = StrictCharField(source="created_by", max_length=100, required=False)
    key = StrictCharField(max_length=LONGEST_SCHEDULE_KEY, required=False, help_text="How files know it.")
    text = StrictCharField(max_length=200, required=False, help_text="In the name, whatever the case.")
    nextRunFrom = InstantField(source="next_run_at__gte", required=False)
    nextRunBefore = InstantField(source="next_run_at__lt", required=False)
    order = StrictChoiceField(choices=list(ORDERS), required=False, default="-id")


class EditQuery(QuerySerializer):
    applyTo = StrictChoiceField(
        choices=[each.value for each in ApplyTo],
        source="apply_to",
        required=False,
        default=ApplyTo.NEXT.value,
        help_text="Occurrences already begun: `next` lets them end as they began, `unsent` changes them for whoever"
        " has not got it. Those not begun always follow.",
    )


def representation(schedule: Schedule, touched: list[Touch] | None = None) -> dict[str, Any]:
    """As ``ScheduleAnswer``; with ``touched`` as ``ChangedSchedule``."""
    answer = {
        "id": schedule.pk,
        "key": schedule.key,
        **Definition.of(schedule).to_json(),
        "status": schedule.status,
        "statusReason": schedule.status_reason,
        "nextRunAt": instant(schedule.next_run_at),
        "runs": schedule.runs,
        "version": schedule.version,
        "createdBy": schedule.created_by,
        "createdAt": instant(schedule.created_at),
        "updatedAt": instant(schedule.updated_at),
    }
    return answer if touched is None else {**answer, "touched": [_touch(each) for each in touched]}


def _touch(touch: Touch) -> dict[str, Any]:
    return {
        "occurrenceId": touch.occurrence_id,
        "occurrenceAt": instant(touch.occurrence_at),
        "effect": touch.effect,
        "done": {str(version): people for version, people in touch.done.items()},
        "left": touch.left,
        "leftVersion": touch.version,
    }


def read_definition(data: Any, serializer: type[StrictSerializer]) -> tuple[Definition, dict[str, Any], list[Problem]]:
    """A whole definition from a body, what else the body says, and everything wrong with both as far as one can tell.

    What can't be read stands at its default, so that the rest can be checked all the same.
    """
    found = serializer.read(data)
    names = {item.name for item in fields(Definition)}
    rest = {name: value for name, value in found.values.items() if name not in names}
    given = {name: value for name, value in found.values.items() if name in names}
    blank = {"name": "", "channel": "", "template_id": None, "schedule_type": ""}
    return Definition(**{**blank, **given}), rest, found.problems


def all_problems(definition: Definition, unread: list[Problem], *, draft: bool = False) -> list[Problem]:
    """``unread`` and what is wrong with the rest; of one field only the first thing said."""
    told = {problem.field.strip("/").split("/")[0] for problem in unread}
    checked = definitions.check_draft(definition) if draft else definitions.check(definition, now=clock.now())
    return unread + [problem for problem in checked if problem.field.split("/")[0] not in told]


def find(schedule_id: int) -> Schedule:
    """A schedule that is not deleted. Raises ``Refused`` (404)."""
    with known(schedule_id):
        schedule = Schedule.objects.read(schedule_id)
        if schedule.status == ScheduleStatus.DELETED:
            raise Schedule.DoesNotExist
        return schedule


@contextmanager
def known(schedule_id: int) -> Iterator[None]:
    """Turn a schedule that is not there into ``Refused`` (404)."""
    try:
        yield
    except (Schedule.DoesNotExist, Deleted):
        raise Refused(NOT_FOUND, f"There is no schedule {schedule_id}.") from None


def _answer(schedule: Schedule, *, status: int = 200, touched: list[Touch] | None = None) -> Response:
    headers = {"ETag": etag(schedule.version)}
    if status == 201:
        headers["Location"] = f"/api/v1/schedules/{schedule.pk}"
    return Response(representation(schedule, touched), status=status, headers=headers)


class Schedules(ApiView):
    abilities: ClassVar = {"GET": Ability.READ, "POST": Ability.EDIT_SCHEDULES}

    @extend_schema(
        operation_id="listSchedules", parameters=[ScheduleQuery], responses={200: SchedulePage, **problems(400)}
    )
    def get(self, request: Request) -> Response:
        """The schedules that are not deleted, a page at a time."""
        query = ScheduleQuery.of(request)
        page, cursor = page_of(_filtered(query), ORDERS[query["order"]], query)
        return Response({"items": [representation(schedule) for schedule in page], "nextCursor": cursor})

    @extend_schema(
        operation_id="createSchedule", request=NewSchedule, responses={201: ScheduleAnswer, **problems(400, 409, 422)}
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Keep a new schedule. It runs at its time, unless it is a draft."""
        definition, rest, unread = read_definition(request.data, NewSchedule)
        draft = rest.get("status") == "draft"
        if unread:
            raise invalid(all_problems(definition, unread, draft=draft))
        return _answer(operations.create(definition=definition, by=self.by, now=clock.now(), draft=draft), status=201)


def _filtered(query: dict[str, Any]) -> QuerySet[Schedule]:
    names = ("status", "channel", "schedule_type", "created_by", "key", "next_run_at__gte", "next_run_at__lt")
    rows = Schedule.objects.live().filter(**{name: query[name] for name in names if name in query})
    return rows.filter(name__icontains=query["text"]) if query.get("text") else rows


class OneSchedule(ApiView):
    abilities: ClassVar = {
        "GET": Ability.READ,
        "PUT": Ability.EDIT_SCHEDULES,
        "PATCH": Ability.EDIT_SCHEDULES,
        "DELETE": Ability.EDIT_SCHEDULES,
    }

    @extend_schema(operation_id="getSchedule", responses={200: ScheduleAnswer, **problems(404)})
    def get(self, request: Request, schedule_id: int) -> Response:
        """One schedule, with its ETag."""
        return _answer(find(schedule_id))

    @extend_schema(
        operation_id="replaceSchedule",
        request=ScheduleDefinition,
        parameters=[EditQuery],
        responses={200: ChangedSchedule, **problems(400, 404, 409, 412, 428)},
    )
    def put(self, request: Request, schedule_id: int) -> Response:
        """Replace the definition: what the body leaves out gets its default again."""
        apply_to = EditQuery.of(request)["apply_to"]
        definition, _, unread = read_definition(request.data, ScheduleDefinition)
        schedule = find(schedule_id)
        version = expected_version(request, standing=lambda: schedule.version)
        if unread:
            raise invalid(all_problems(definition, unread, draft=schedule.status == ScheduleStatus.DRAFT))
        changes = {item.name: getattr(definition, item.name) for item in fields(definition)}
        return self._update(schedule_id, changes, apply_to, version)

    @extend_schema(
        operation_id="changeSchedule",
        request=ScheduleDefinition,
        parameters=[EditQuery],
        responses={200: ChangedSchedule, **problems(400, 404, 409, 412, 428)},
    )
    def patch(self, request: Request, schedule_id: int) -> Response:
        """Change the fields that the body has.

        As `application/json` it replaces `audienceQuery` whole; as `application/merge-patch+json` it merges it member
        by member (RFC 7396).
        """
        apply_to = EditQuery.of(request)["apply_to"]
        schedule = find(schedule_id)
        version = expected_version(request, standing=lambda: schedule.version)
        body = request.data
        if is_merge_patch(request) and isinstance(body, Mapping) and isinstance(body.get("audienceQuery"), Mapping):
            body = {**body, "audienceQuery": merged(schedule.audience_query, body["audienceQuery"])}
            version = version or schedule.version  # what it was merged into
        changes = ScheduleDefinition.read(body, partial=True).checked()
        return self._update(schedule_id, changes, apply_to, version)

    @extend_schema(operation_id="deleteSchedule", responses={200: ChangedSchedule, **problems(400, 404, 412, 428)})
    def delete(self, request: Request, schedule_id: int) -> Response:
        """End the schedule and what of it is open, and take it out of every list. What was sent stays sent."""
        standing = find(schedule_id)
        version = expected_version(request, standing=lambda: standing.version)
        schedule = operations.delete(schedule_id=schedule_id, by=self.by, now=clock.now(), expected_version=version)
        return _answer(schedule, touched=touches.of(schedule_id=schedule_id, effects={}, otherwise=CANCELLED))

    def _update(self, schedule_id: int, changes: Mapping[str, Any], apply_to: str, version: int | None) -> Response:
        with known(schedule_id):
            edit = operations.update(
                schedule_id=schedule_id,
                changes=changes,
                by=self.by,
                now=clock.now(),
                apply_to=ApplyTo(apply_to),
                expected_version=version,
            )
        return _answer(edit.schedule, touched=touches.of_edit(edit))
