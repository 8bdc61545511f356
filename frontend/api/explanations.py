"""``/explain``: why somebody got a message or did not, as code, sentence and facts."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import explain
from delivery.explain import (
    Attempt,
    Audience,
    Code,
    DeviceFact,
    Explanation,
    Limit,
    NotKnown,
    Promise,
    Quieted,
    Reach,
    Reachable,
)
from delivery.models import State, ZoneSource
from frontend import wording
from frontend.api.access import address_for
from frontend.api.base import ApiView
from frontend.api.deliveries import DeliveryAnswer, WholeNumber, representation
from frontend.api.documents import problems
from frontend.api.fields import QuerySerializer, StrictCharField
from frontend.api.problems import NOT_FOUND, InParameter, Refused, invalid
from frontend.instants import instant
from schedules import clock
from schedules.audience.tree import AllOf, AnyOf, Clause, Node, to_json
from schedules.models import Channel, OccurrenceState, ScheduleStatus
from schedules.permissions import Ability, masked


class PromiseAnswer(serializers.Serializer[Any]):
    dueAt = serializers.DateTimeField()
    timeZone = serializers.CharField(help_text="On whose clock.")
    zoneSource = serializers.ChoiceField(choices=[source.name.lower() for source in ZoneSource])


class QuietedAnswer(serializers.Serializer[Any]):
    """The person's quiet hours, where they keep the message back or did."""

    hours = serializers.JSONField(help_text='`{"from": "22:00", "to": "07:00"}`, as the profile has them today.')
    timeZone = serializers.CharField(help_text="On whose clock.")
    meantAt = serializers.DateTimeField(help_text="When it would have been due without them.")


class AttemptAnswer(serializers.Serializer[Any]):
    """A provider call. Calls that were only put off are not kept."""

    number = serializers.IntegerField()
    at = serializers.DateTimeField(allow_null=True)
    verdict = serializers.CharField(
        help_text="`sent`, `transient`, `permanent`, `unknown` and their like; `confirmed`: told afterwards."
    )
    reason = serializers.CharField(allow_blank=True)
    reasonWords = serializers.CharField(allow_blank=True)
    detail = serializers.CharField(allow_blank=True, help_text="The provider's own words, addresses masked.")
    providerId = serializers.CharField(allow_blank=True)
    askedAgain = serializers.BooleanField(help_text="The first one after somebody had it tried again.")


class UsedAnswer(serializers.Serializer[Any]):
    """A message that uses up the cap."""

    occurrenceId = serializers.IntegerField()
    scheduleId = serializers.IntegerField(allow_null=True)
    scheduleName = serializers.CharField(allow_null=True, help_text="Null where the ledger no longer has it.")
    at = serializers.DateTimeField(allow_null=True)
    state = serializers.ChoiceField(choices=[state.label for state in State], allow_null=True)


class CapAnswer(serializers.Serializer[Any]):
    hours = serializers.IntegerField(help_text="The window: 24 or 168.")
    limit = serializers.IntegerField(allow_null=True)
    used = UsedAnswer(many=True)
    freeAt = serializers.DateTimeField(allow_null=True, help_text="When there is room again.")


class ClauseAnswer(serializers.Serializer[Any]):
    """A node of the audience query, and whether it is true of the profile."""

    pointer = serializers.CharField(allow_blank=True, help_text="JSON pointer into the audience query.")
    kind = serializers.ChoiceField(choices=["all", "any", "not", "clause"])
    holds = serializers.BooleanField()
    decides = serializers.BooleanField(help_text="The answer of the whole query hangs on it.")
    clause = serializers.JSONField(allow_null=True, help_text="The clause itself; null for groups.")
    held = serializers.JSONField(allow_null=True, help_text="What the profile has there; null for groups and nothing.")


class AudienceVerdict(serializers.Serializer[Any]):
    """The query judged on the profile as it is today."""

    matches = serializers.BooleanField()
    version = serializers.IntegerField(help_text="Of the schedule.")
    asOf = serializers.DateTimeField(help_text="When the run found its people; without a run, now.")
    changedAt = serializers.DateTimeField(
        allow_null=True, help_text="The profile's last change, where that is later than `asOf`."
    )
    mirroredAt = serializers.DateTimeField(
        allow_null=True, help_text="When the user service last told of the profile; null: never."
    )
    nodes = ClauseAnswer(many=True, help_text="The whole query first.")


class ReachableAnswer(serializers.Serializer[Any]):
    """Whether the channel reaches the person today."""

    channel = serializers.ChoiceField(choices=Channel.values)
    hasAddress = serializers.BooleanField()
    address = serializers.CharField(allow_blank=True, help_text="Masked for callers who may not see addresses.")
    devices = serializers.IntegerField(help_text="Active ones.")
    optedOut = serializers.BooleanField(help_text="Of the channel as a whole.")
    objection = serializers.CharField(
        allow_blank=True,
        help_text="Why consent keeps this schedule's messages back: `opted_out`, `opted_out_of_topic`, `not_opted_in`;"
        " empty: it does not.",
    )
    suppressed = serializers.CharField(
        allow_blank=True, help_text="Why the address is not written to, as `/suppressions` has it; empty: it is."
    )


class DeviceReachAnswer(serializers.Serializer[Any]):
    platform = serializers.CharField(allow_null=True, help_text="Null where the device is gone since.")
    token = serializers.CharField(allow_null=True, help_text="Its end.")
    reach = serializers.ChoiceField(choices=[reach.value for reach in Reach])


class ExplainedSchedule(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    status = serializers.ChoiceField(choices=ScheduleStatus.values)
    statusReason = serializers.CharField(allow_blank=True)
    nextRunAt = serializers.DateTimeField(allow_null=True)


class ExplainedOccurrence(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    occurrenceAt = serializers.DateTimeField()
    state = serializers.ChoiceField(choices=OccurrenceState.values)
    reason = serializers.CharField(allow_blank=True)
    heldReason = serializers.CharField(allow_blank=True)
    version = serializers.IntegerField()
    materialisedAt = serializers.DateTimeField(allow_null=True, help_text="When its people were found.")


class ExplanationAnswer(serializers.Serializer[Any]):
    """What is not known, or does not concern the case, is null."""

    code = serializers.ChoiceField(choices=[code.value for code in Code], help_text="Stable, for programs.")
    sentence = serializers.CharField(help_text="The same for people; may change.")
    recipient = serializers.CharField(allow_null=True, help_text="externalId; null for somebody erased.")
    recipientId = serializers.IntegerField()
    schedule = ExplainedSchedule()
    occurrence = ExplainedOccurrence(allow_null=True)
    delivery = DeliveryAnswer(allow_null=True, help_text="The ledger's row.")
    promise = PromiseAnswer(allow_null=True)
    quietHours = QuietedAnswer(allow_null=True)
    attempts = AttemptAnswer(many=True)
    cap = CapAnswer(allow_null=True)
    audience = AudienceVerdict(allow_null=True)
    reachable = ReachableAnswer(allow_null=True)
    devices = DeviceReachAnswer(many=True, help_text="Of a push: which of the person's devices has it.")


class ExplainQuery(QuerySerializer):
    recipient = StrictCharField(max_length=200, required=False, help_text="externalId.")
    recipientId = WholeNumber(
        source="recipient_id", required=False, help_text="In its place the ledger's number, as of somebody erased."
    )
    schedule = WholeNumber()
    occurrence = WholeNumber(required=False, help_text="Without it the latest that has opened.")


class Explain(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="explain", parameters=[ExplainQuery], responses={200: ExplanationAnswer, **problems(400, 404)}
    )
    def get(self, request: Request) -> Response:
        """Why somebody got a schedule's message, or did not: a stable code, a sentence and the facts."""
        asked = ExplainQuery.of(request)
        if ("recipient" in asked) == ("recipient_id" in asked):
            words = "Name the person by recipient or by recipientId, not by both."
            raise invalid([InParameter("recipient", "one_of", words)])
        try:
            found = explain.explain(
                schedule_id=asked["schedule"],
                external_id=asked.get("recipient"),
                recipient_id=asked.get("recipient_id"),
                occurrence_id=asked.get("occurrence"),
                now=clock.now(),
            )
        except NotKnown as error:
            raise Refused(NOT_FOUND, str(error)) from None
        return Response(_answer(found, request))


def _answer(found: Explanation, request: Request) -> dict[str, Any]:
    story, run, schedule = found.story, found.occurrence, found.schedule
    return {
        "code": found.code.value,
        "sentence": wording.explanation(found),
        "recipient": found.person.external_id if found.person else None,
        "recipientId": found.recipient_id,
        "schedule": {
            "id": schedule.pk,
            "name": schedule.name,
            "status": schedule.status,
            "statusReason": schedule.status_reason,
            "nextRunAt": instant(schedule.next_run_at),
        },
        "occurrence": {
            "id": run.pk,
            "occurrenceAt": instant(run.occurrence_at),
            "state": run.state,
            "reason": run.reason,
            "heldReason": run.held_reason,
            "version": run.version,
            "materialisedAt": instant(run.materialised_at),
        }
        if run
        else None,
        "delivery": representation(story.delivery, person=found.person, occurrence=run, told=story.feedback)
        if story
        else None,
        "promise": _promise(found.promise) if found.promise else None,
        "quietHours": _quieted(found.quieted) if found.quieted else None,
        "attempts": [_attempt(each) for each in story.attempts] if story else [],
        "cap": _cap(story.limit) if story and story.limit else None,
        "audience": _audience(found.audience, request) if found.audience else None,
        "reachable": _reachable(found.reachable, request) if found.reachable else None,
        "devices": [_device(each) for each in found.devices],
    }


def _promise(promise: Promise) -> dict[str, Any]:
    return {
        "dueAt": instant(promise.due_at),
        "timeZone": promise.zone_name,
        "zoneSource": promise.zone_source.name.lower(),
    }


def _quieted(found: Quieted) -> dict[str, Any]:
    return {"hours": dict(found.hours), "timeZone": found.zone_name, "meantAt": instant(found.meant_at)}


def _attempt(made: Attempt) -> dict[str, Any]:
    return {
        "number": made.number,
        "at": instant(made.at),
        "verdict": made.verdict,
        "reason": made.reason,
        "reasonWords": wording.reason(made.reason) if made.reason else "",
        "detail": made.detail,
        "providerId": made.provider_id,
        "askedAgain": made.asked_again,
    }


def _cap(limit: Limit) -> dict[str, Any]:
    return {
        "hours": limit.hours,
        "limit": limit.most,
        "used": [
            {
                "occurrenceId": each.occurrence_id,
                "scheduleId": each.occurrence.schedule_id if each.occurrence else None,
                "scheduleName": each.occurrence.schedule.name if each.occurrence else None,
                "at": instant(each.at),
                "state": State(each.row.state).label if each.row else None,
            }
            for each in limit.used
        ],
        "freeAt": instant(limit.free_at),
    }


def _audience(audience: Audience, request: Request) -> dict[str, Any]:
    return {
        "matches": audience.matches,
        "version": audience.version,
        "asOf": instant(audience.as_of),
        "changedAt": instant(audience.changed_at),
        "mirroredAt": instant(audience.mirrored_at),
        "nodes": [
            {
                "pointer": each.pointer,
                "kind": _kind(each.node),
                "holds": each.holds,
                "decides": each.decides,
                "clause": to_json(each.node) if isinstance(each.node, Clause) else None,
                "held": _held(each.held, request),
            }
            for each in audience.verdicts
        ],
    }


def _kind(node: Node) -> str:
    match node:
        case AllOf():
            return "all"
        case AnyOf():
            return "any"
        case Clause():
            return "clause"
    return "not"


def _held(value: Any, request: Request) -> Any:
    """What an attribute holds may be an address, whatever it is called."""
    if isinstance(value, str) and "@" in value:
        return address_for(request, value)
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        shown = {key: _held(item, request) for key, item in items}
        return shown if isinstance(value, dict) else list(shown.values())
    return instant(value) if hasattr(value, "tzinfo") else value


def _reachable(reachable: Reachable, request: Request) -> dict[str, Any]:
    return {
        "channel": reachable.channel,
        "hasAddress": reachable.has_address,
        "address": address_for(request, reachable.address) if reachable.address else "",
        "devices": reachable.devices,
        "optedOut": reachable.is_opted_out,
        "objection": reachable.objection,
        "suppressed": reachable.suppression.reason if reachable.suppression else "",
    }


def _device(fact: DeviceFact) -> dict[str, Any]:
    return {
        "platform": fact.device.platform if fact.device else None,
        "token": masked(fact.device.token) if fact.device else None,
        "reach": fact.reach.value,
    }
