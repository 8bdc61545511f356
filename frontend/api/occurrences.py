"""What a run did: its books, waves, progress and punctuality; and what people may decide about it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import books, feedback, progress, punctuality, reopening
from delivery.books import Books
from delivery.models import State
from delivery.progress import Progress
from delivery.punctuality import Overall, Start
from frontend.api.base import ApiView
from frontend.api.documents import problems
from frontend.api.fields import NoBody, QuerySerializer, StrictCharField, StrictChoiceField, StrictSerializer
from frontend.api.idempotency import idempotent
from frontend.api.paging import PageQuery, by_instant, page_of
from frontend.api.problems import NOT_FOUND, Refused, invalid
from frontend.api.schedules import find
from frontend.instants import instant
from schedules import clock, operations
from schedules.models import Occurrence, OccurrenceState, Recipient, ResolutionUse
from schedules.permissions import Ability
from schedules.problems import Problem

_NEWEST = by_instant("occurrence_at", descending=True)


class CountsAnswer(serializers.Serializer[Any]):
    """People by state; the first three have no outcome yet."""

    pending = serializers.IntegerField()
    sending = serializers.IntegerField()
    unknown = serializers.IntegerField(help_text="The provider had the message and has not answered.")
    sent = serializers.IntegerField()
    failed = serializers.IntegerField()
    rate_limited = serializers.IntegerField()
    suppressed = serializers.IntegerField()
    unaddressable = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    erased = serializers.IntegerField()
    expired = serializers.IntegerField()


class BooksAnswer(serializers.Serializer[Any]):
    """Records kept apart that must agree at any moment."""

    targeted = serializers.IntegerField(help_text="Raised when the rows were written.")
    counted = CountsAnswer(help_text="By the counters that move with every outcome.")
    rows = CountsAnswer(
        allow_null=True, help_text="By the rows themselves; null where they are many and `rows` was not asked for."
    )
    closes = serializers.BooleanField(help_text="All that was read agrees.")
    differences = serializers.ListField(child=serializers.CharField(), help_text="What does not agree.")
    isOpen = serializers.BooleanField(help_text="Rows may still be added or change.")
    isArchived = serializers.BooleanField(help_text="The rows are past their retention: these are the final counts.")


class ProgressAnswer(serializers.Serializer[Any]):
    done = serializers.IntegerField(help_text="People who have their outcome.")
    targeted = serializers.IntegerField()
    perSecond = serializers.FloatField(help_text="People settled by sending, over the last minute.")
    eta = serializers.DateTimeField(
        allow_null=True, help_text="When the last one will be; null where nothing moves or everybody is done."
    )


class PunctualityAnswer(serializers.Serializer[Any]):
    """Seconds from the promised instant to the start of the first call."""

    p50 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)
    people = serializers.IntegerField(help_text="On how many first calls the figures stand.")
    isSample = serializers.BooleanField()


class StartedWave(serializers.Serializer[Any]):
    """The people due at one instant."""

    dueAt = serializers.DateTimeField()
    people = serializers.IntegerField()
    open = serializers.IntegerField(help_text="People without an outcome yet.")
    sent = serializers.IntegerField()
    startedAt = serializers.DateTimeField(allow_null=True)
    lateSeconds = serializers.FloatField(allow_null=True, help_text="From `dueAt` to `startedAt`.")


class OccurrenceSummary(serializers.Serializer[Any]):
    """A run as lists show it."""

    id = serializers.IntegerField()
    scheduleId = serializers.IntegerField()
    occurrenceAt = serializers.DateTimeField(help_text="Its identity, which never moves.")
    state = serializers.ChoiceField(choices=OccurrenceState.values)
    reason = serializers.CharField(allow_blank=True)
    heldReason = serializers.CharField(allow_blank=True, help_text="While not empty, it waits for `:release`.")
    heldAt = serializers.DateTimeField(allow_null=True)
    atOnce = serializers.BooleanField(help_text="Somebody ran it besides the schedule's own times.")
    version = serializers.IntegerField(help_text="Of the schedule.")
    templateVersion = serializers.IntegerField()
    opensAt = serializers.DateTimeField(help_text="The first instant at which anyone can be due.")
    endsAt = serializers.DateTimeField(help_text="Whatever is open then expires.")
    openedAt = serializers.DateTimeField()
    materialisedAt = serializers.DateTimeField(allow_null=True, help_text="When its people were found.")
    begunAt = serializers.DateTimeField(allow_null=True)
    closedAt = serializers.DateTimeField(allow_null=True)
    targeted = serializers.IntegerField()
    counted = CountsAnswer()


class OccurrencePage(serializers.Serializer[Any]):
    items = OccurrenceSummary(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class ResolutionAnswer(serializers.Serializer[Any]):
    """How the user service told the people, page by page. Nobody is sent to before all of them have come."""

    asOf = serializers.DateTimeField(help_text="One instant for all pages.")
    pages = serializers.IntegerField()
    people = serializers.IntegerField(help_text="Named so far, each counted once.")
    total = serializers.IntegerField(allow_null=True, help_text="People in all, where the service has said so.")
    repeated = serializers.IntegerField(help_text="Times that it named somebody anew who had come before.")
    flawed = serializers.IntegerField(help_text="Profiles with something in them that could not be kept.")
    unreadable = serializers.IntegerField(help_text="Profiles left out, since no external id could be read.")
    leftOut = serializers.IntegerField(help_text="People left out, since they were erased here.")
    lastPageAt = serializers.DateTimeField()
    completedAt = serializers.DateTimeField(allow_null=True, help_text="When the last page had come.")


class FeedbackCounts(serializers.Serializer[Any]):
    """People by what the provider told of their message since: each once, at the gravest of it."""

    accepted = serializers.IntegerField(help_text="Taken by the provider, and nothing more was told yet.")
    delayed = serializers.IntegerField()
    bounced_soft = serializers.IntegerField()
    delivered = serializers.IntegerField()
    rejected = serializers.IntegerField()
    not_rendered = serializers.IntegerField()
    bounced_hard = serializers.IntegerField()
    complained = serializers.IntegerField(help_text="Delivered, and called spam.")
    awaited = serializers.IntegerField(help_text="Of those sent, people of whom nothing final was told yet.")


class OccurrenceAnswer(OccurrenceSummary):
    feedback = FeedbackCounts(help_text="What the provider told since; all zero where it tells nothing.")
    resolution = ResolutionAnswer(allow_null=True, help_text="Null where no user service was asked.")
    books = BooksAnswer()
    progress = ProgressAnswer()
    punctuality = PunctualityAnswer()
    waves = StartedWave(many=True)


class OccurrencesQuery(PageQuery):
    state = StrictChoiceField(choices=OccurrenceState.values, required=False)


class OccurrenceQuery(QuerySerializer):
    rows = StrictChoiceField(
        choices=["true", "false"],
        required=False,
        default="false",
        help_text=f"Count the rows too, also of more than {books.AT_ONCE:,} people, which takes a second per million.",
    )


class RetryRequest(StrictSerializer):
    reason = StrictCharField(max_length=60, required=False, help_text="Those alone who failed by this reason.")
    recipient = StrictCharField(
        source="external_id", max_length=200, required=False, help_text="externalId of the one person meant."
    )


class ReopenedAnswer(serializers.Serializer[Any]):
    occurrenceId = serializers.IntegerField()
    reopened = serializers.IntegerField(help_text="People who are tried again.")


class ReleasedAnswer(serializers.Serializer[Any]):
    occurrenceId = serializers.IntegerField()
    released = serializers.BooleanField(help_text="False where it was not held, so that nothing changed.")


def find_occurrence(occurrence_id: int) -> Occurrence:
    """With its schedule. Raises ``Refused`` (404)."""
    found = Occurrence.objects.select_related("schedule").filter(pk=occurrence_id).first()
    if found is None:
        raise Refused(NOT_FOUND, f"There is no occurrence {occurrence_id}.")
    return found


def _summary(each: Occurrence, counted: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": each.pk,
        "scheduleId": each.schedule_id,
        "occurrenceAt": instant(each.occurrence_at),
        "state": each.state,
        "reason": each.reason,
        "heldReason": each.held_reason,
        "heldAt": instant(each.held_at),
        "atOnce": each.at_once,
        "version": each.version,
        "templateVersion": each.template_version,
        "opensAt": instant(each.opens_at),
        "endsAt": instant(each.ends_at),
        "openedAt": instant(each.opened_at),
        "materialisedAt": instant(each.materialised_at),
        "begunAt": instant(each.begun_at),
        "closedAt": instant(each.closed_at),
        "targeted": each.targeted,
        "counted": _by_state(counted),
    }


def _by_state(counted: Mapping[str, int]) -> dict[str, int]:
    return {state.label: counted[state.label] for state in State}


def _books(found: Occurrence, counted: Mapping[str, int], read: Books | None) -> dict[str, Any]:
    total = sum(counted.values())
    differences = [] if total == found.targeted else [f"targeted {found.targeted}, counted {total}"]
    if read:
        differences = read.differences
    return {
        "targeted": found.targeted,
        "counted": _by_state(counted),
        "rows": _by_state(read.rows) if read else None,
        "closes": not differences,
        "differences": differences,
        "isOpen": found.closed_at is None,
        "isArchived": found.outcomes is not None,
    }


def _progress(made: Progress) -> dict[str, Any]:
    return {
        "done": made.done,
        "targeted": made.targeted,
        "perSecond": round(made.per_second, 2),
        "eta": instant(made.eta),
    }


def _punctuality(overall: Overall) -> dict[str, Any]:
    return {"p50": overall.p50, "p99": overall.p99, "people": overall.people, "isSample": overall.is_sample}


def _feedback(occurrence_id: int, counted: Mapping[str, int]) -> dict[str, int]:
    heard = feedback.of_occurrences([occurrence_id])[occurrence_id]
    told = {news.label: people for news, people in heard.people.items()}
    return {**told, "awaited": heard.awaited(counted["sent"]) if heard.is_any else 0}


def _resolution(occurrence_id: int) -> dict[str, Any] | None:
    use = ResolutionUse.objects.select_related("resolution").filter(pk=occurrence_id).first()
    if use is None:
        return None
    told = use.resolution
    return {
        "asOf": instant(told.as_of),
        "pages": told.pages,
        "people": told.people,
        "total": told.total,
        "repeated": told.repeated,
        "flawed": told.flawed,
        "unreadable": told.unreadable,
        "leftOut": told.left_out,
        "lastPageAt": instant(told.last_page_at),
        "completedAt": instant(told.completed_at),
    }


def _wave(start: Start) -> dict[str, Any]:
    return {
        "dueAt": instant(start.wave_at),
        "people": start.people,
        "open": start.open,
        "sent": start.sent,
        "startedAt": instant(start.started_at),
        "lateSeconds": start.late_s,
    }


class ScheduleOccurrences(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="listOccurrences",
        parameters=[OccurrencesQuery],
        responses={200: OccurrencePage, **problems(400, 404)},
    )
    def get(self, request: Request, schedule_id: int) -> Response:
        """The runs of a schedule, the newest first, with what became of their people."""
        query = OccurrencesQuery.of(request)
        find(schedule_id)
        rows = Occurrence.objects.filter(schedule=schedule_id)
        if "state" in query:
            rows = rows.filter(state=query["state"])
        page, cursor = page_of(rows, _NEWEST, query)
        counted = books.counted(page)
        return Response({"items": [_summary(each, counted[each.pk]) for each in page], "nextCursor": cursor})


class OneOccurrence(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="getOccurrence",
        parameters=[OccurrenceQuery],
        responses={200: OccurrenceAnswer, **problems(400, 404)},
    )
    def get(self, request: Request, occurrence_id: int) -> Response:
        """One run: whether its books close, its waves, how far it is and when it will be through, how late it was."""
        reads_rows = OccurrenceQuery.of(request)["rows"] == "true"
        found = find_occurrence(occurrence_id)
        read = None
        if reads_rows or found.targeted <= books.AT_ONCE:
            read = books.of(occurrence_id)
            found.targeted = read.targeted  # of the same snapshot as the rows
        counted = read.counted if read else books.counted([found])[found.pk]
        made = progress.of(found, counted=counted, now=clock.now())
        return Response(
            {
                **_summary(found, counted),
                "feedback": _feedback(found.pk, counted),
                "resolution": _resolution(found.pk),
                "books": _books(found, counted, read),
                "progress": _progress(made),
                "punctuality": _punctuality(punctuality.overall(found)),
                "waves": [_wave(start) for start in punctuality.starts(found)],
            }
        )


class RetryFailed(ApiView):
    abilities: ClassVar = {"POST": Ability.EDIT_SCHEDULES}

    @extend_schema(
        operation_id="retryFailed",
        request=RetryRequest,
        responses={200: ReopenedAnswer, **problems(400, 404, 409, 422)},
        examples=[OpenApiExample("The rejected ones", {"reason": "message_rejected"}, request_only=True)],
    )
    @idempotent
    def post(self, request: Request, occurrence_id: int) -> Response:
        """Try again at once who has failed: all, those of one reason, or one person. Nobody else is touched.

        Of `outcome_unknown` nobody knows whether the first message arrived: trying these again may send it twice.
        """
        asked = RetryRequest.read(request.data).checked()
        find_occurrence(occurrence_id)
        done = reopening.retry_failed(
            occurrence_id=occurrence_id,
            recipient_ids=[_recipient(asked["external_id"])] if "external_id" in asked else None,
            reason=asked.get("reason", ""),
            by=self.by,
            now=clock.now(),
        )
        return Response({"occurrenceId": occurrence_id, "reopened": done.people})


def _recipient(external_id: str) -> int:
    found = Recipient.objects.filter(external_id=external_id).values_list("pk", flat=True).first()
    if found is None:
        raise invalid([Problem("recipient", "not_found", "Nobody has this externalId.")])
    return found


class Release(ApiView):
    abilities: ClassVar = {"POST": Ability.EDIT_SCHEDULES}

    @extend_schema(
        operation_id="releaseOccurrence",
        request=NoBody,
        responses={200: ReleasedAnswer, **problems(400, 404, 409, 422)},
    )
    @idempotent
    def post(self, request: Request, occurrence_id: int) -> Response:
        """Let a held run go on where it stopped. Repeating it changes nothing more."""
        NoBody.read(request.data).checked()
        find_occurrence(occurrence_id)
        released = operations.release_occurrence(occurrence_id=occurrence_id, by=self.by, now=clock.now())
        return Response({"occurrenceId": occurrence_id, "released": released})
