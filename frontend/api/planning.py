"""Before a schedule is kept: is it valid, and what would it do.

These are POSTs because they have bodies; they change nothing.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.forecast import Forecast, forecast
from delivery.placing import ZoneShare
from frontend.api.base import ApiView
from frontend.api.documents import ProblemErrorAnswer, problems
from frontend.api.fields import (
    InstantField,
    StrictIntegerField,
)
from frontend.api.previews import ServedAnswer, ShareAnswer, served_answer
from frontend.api.problems import as_error, invalid
from frontend.api.schedules import NewSchedule, all_problems, read_definition
from frontend.instants import instant
from schedules import clock
from schedules.models import OnPast
from schedules.permissions import Ability
from schedules.problems import Problem
from schedules.recurrence import zone
from schedules.user_service import counting
from schedules.user_service.counting import Served

_SCHEDULE = {
    "name": "Winter sale",
    "channel": "email",
    "audienceQuery": {"all": [{"field": "attributes.plan", "op": "eq", "value": "pro"}]},
    "templateId": 1,
    "scheduleType": "cron",
    "cron": "0 9 * * 1",
    "timeZone": "Europe/Berlin",
    "timeZoneMode": "user_local",
    "maxPerUserPerDay": 2,
}
_DEFINITION = OpenApiExample("Mondays at nine", request_only=True, value=_SCHEDULE)


class _Planning(ApiView):
    abilities: ClassVar = {"POST": Ability.READ}


# Is it valid?


class ValidityAnswer(serializers.Serializer[Any]):
    valid = serializers.BooleanField()
    errors = ProblemErrorAnswer(many=True, help_text="All at once; as a problem's `errors`.")  # type: ignore[assignment]


class Validate(_Planning):
    @extend_schema(
        operation_id="validateSchedule",
        request={"application/json": OpenApiTypes.OBJECT},
        examples=[_DEFINITION],
        responses={200: ValidityAnswer, **problems(400)},
    )
    def post(self, request: Request) -> Response:
        """Everything that is wrong with a schedule, as `POST /schedules` takes it; nothing is kept.

        The answer is 200 for an object of any kind: a definition that is wrong is what one asks for here.
        """
        if not isinstance(request.data, dict):
            raise invalid([Problem("", "wrong_type", "Send an object.")])
        definition, rest, unread = read_definition(request.data, NewSchedule)
        found = all_problems(definition, unread, draft=rest.get("status") == "draft")
        return Response({"valid": not found, "errors": [as_error(problem) for problem in found]})


# What would it do?


class ForecastRequest(NewSchedule):
    """A schedule as `POST /schedules` takes it, and which of its runs is asked for."""

    occurrenceAt = InstantField(
        source="occurrence_at",
        required=False,
        help_text="Of a cron, the run to forecast, as its next runs name it; absent: the next one.",
    )
    scheduleId = StrictIntegerField(
        source="schedule_id",
        required=False,
        min_value=1,
        help_text="The schedule that this definition is to replace: its own plans use up nobody's caps beside it.",
    )


class ZoneAnswer(serializers.Serializer[Any]):
    timeZone = serializers.CharField()
    people = serializers.IntegerField()
    at = serializers.DateTimeField(help_text="When its clock shows the schedule's time.")
    localTime = serializers.CharField(help_text="The same with the zone's own offset.")


class WaveAnswer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    people = serializers.IntegerField()
    zones = ZoneAnswer(many=True, help_text="Whoever has no valid zone stands under the schedule's.")


class PastAnswer(serializers.Serializer[Any]):
    """People whose hour has passed already."""

    people = serializers.IntegerField()
    onPast = serializers.ChoiceField(
        choices=OnPast.values,
        help_text="`skip`: they expire with the reason `past_zone`; `send_now`: they are in the wave at `asOf`.",
    )
    zones = ZoneAnswer(many=True)


class FallbackAnswer(serializers.Serializer[Any]):
    """People for whom the schedule's zone stands in."""

    timeZone = serializers.CharField()
    missing = serializers.IntegerField(help_text="Their profile has no zone.")
    invalid = serializers.IntegerField(help_text="Their profile has one that does not exist.")
    invalidNames = ShareAnswer(many=True, help_text="The most frequent of those.")


class CappedAnswer(serializers.Serializer[Any]):
    """People whom a cap would turn away, by what they got, what waits for them and what other schedules will send."""

    people = serializers.IntegerField()
    isEstimate = serializers.BooleanField()
    sampleSize = serializers.IntegerField(allow_null=True, help_text="How many people an estimate was made from.")


class DurationAnswer(serializers.Serializer[Any]):
    peoplePerSecond = serializers.FloatField(help_text="The service's send rate, or `maxPerMinute` if that is less.")
    seconds = serializers.FloatField(help_text="Of sending, all waves together.")
    endsAt = serializers.DateTimeField(allow_null=True, help_text="When the last wave would be through.")


class NoteAnswer(serializers.Serializer[Any]):
    """What a change of the clock does to a run."""

    occurrenceAt = serializers.DateTimeField()
    kind = serializers.ChoiceField(choices=["moved", "merged", "first_of_two", "second_of_two", "skipped"])
    zones = serializers.ListField(child=serializers.CharField())
    message = serializers.CharField()


class ForecastAnswer(serializers.Serializer[Any]):
    """`targeted` = all waves' people, those who are `expiring`, and with `onPast: skip` those of `past`.

    Of the waves' people `suppressed`, `unaddressable` and `capped` get nothing; `attempted` are the rest.
    """

    asOf = serializers.DateTimeField()
    sentence = serializers.CharField(help_text="The timing in words.")
    occurrenceAt = serializers.DateTimeField()
    opensAt = serializers.DateTimeField(help_text="When the first person can be due.")
    closesAt = serializers.DateTimeField(help_text="When the last person can be due.")
    targeted = serializers.IntegerField()
    userService = ServedAnswer(allow_null=True, help_text="Null where no user service is asked for people.")
    waves = WaveAnswer(many=True)
    past = PastAnswer()
    expiring = serializers.IntegerField(
        help_text="Their send window opens later than `expiresAfterMinutes`, or the run's seven days, let them wait."
    )
    fallback = FallbackAnswer()
    suppressed = serializers.IntegerField(
        help_text="They may not be written to: they have opted out of the channel or the topic, or not opted in, or"
        " their address is suppressed."
    )
    unaddressable = serializers.IntegerField(help_text="They have no address or device for the channel.")
    capped = CappedAnswer()
    attempted = serializers.IntegerField()
    duration = DurationAnswer()
    notes = NoteAnswer(many=True, help_text="Of the next ten runs.")
    isScan = serializers.BooleanField(help_text="No index narrows the audience down: finding it reads every profile.")


class ForecastSchedule(_Planning):
    @extend_schema(
        operation_id="forecastSchedule",
        request=ForecastRequest,
        examples=[_DEFINITION],
        responses={200: ForecastAnswer, **problems(400)},
    )
    def post(self, request: Request) -> Response:
        """What the schedule would do at its next run, were it kept now: to whom, when, and who would get nothing."""
        definition, rest, unread = read_definition(request.data, ForecastRequest)
        if found := all_problems(definition, unread):
            raise invalid(found)
        now = clock.now()
        told = forecast(
            definition=definition,
            now=now,
            occurrence_at=rest.get("occurrence_at"),
            editing=rest.get("schedule_id"),
        )
        return Response(_forecast(told, counting.served(definition.audience_query, now=now), definition.time_zone))


def _forecast(told: Forecast, served: Served | None, time_zone: str) -> dict[str, Any]:
    return {
        "asOf": instant(told.as_of),
        "sentence": told.sentence,
        "occurrenceAt": instant(told.firing.occurrence_at),
        "opensAt": instant(told.firing.opens_at),
        "closesAt": instant(max([told.firing.closes_at, *(wave.at for wave in told.waves)])),
        "targeted": told.targeted,
        "userService": served_answer(served),
        "waves": [{"at": instant(wave.at), "people": wave.people, "zones": _zones(wave.zones)} for wave in told.waves],
        "expiring": told.expiring,
        "past": {
            "people": sum(share.people for share in told.past),
            "onPast": told.on_past,
            "zones": _zones(told.past),
        },
        "fallback": {
            "timeZone": time_zone,
            "missing": told.missing,
            "invalid": told.invalid,
            "invalidNames": [{"name": name, "people": people} for name, people in told.invalid_names],
        },
        "suppressed": told.suppressed,
        "unaddressable": told.unaddressable,
        "capped": {
            "people": told.capped.people,
            "isEstimate": told.capped.is_estimate,
            "sampleSize": told.capped.sample,
        },
        "attempted": told.attempted,
        "duration": {
            "peoplePerSecond": told.duration.rate,
            "seconds": round(told.duration.seconds, 3),
            "endsAt": instant(told.duration.ends_at),
        },
        "notes": [
            {
                "occurrenceAt": instant(note.occurrence_at),
                "kind": note.kind,
                "zones": list(note.zones),
                "message": note.message,
            }
            for note in told.notes
        ],
        "isScan": told.is_scan,
    }


def _zones(shares: Iterable[ZoneShare]) -> list[dict[str, Any]]:
    return [
        {
            "timeZone": share.zone,
            "people": share.people,
            "at": instant(share.at),
            "localTime": share.at.astimezone(zone(share.zone)).isoformat(),
        }
        for share in shares
    ]
