"""``/deliveries``: the ledger, row by row."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import explain, feedback, listing
from delivery.listing import Filters, Key, Page
from delivery.models import Delivery, Feedback, News, State, ZoneSource
from frontend import wording
from frontend.api.base import ApiView
from frontend.api.documents import problems
from frontend.api.fields import QueryNumberField, StrictCharField, StrictChoiceField
from frontend.api.paging import PageQuery, decode, encode
from frontend.api.problems import InParameter, invalid
from frontend.instants import instant
from schedules import clock, storable
from schedules.models import Occurrence, Recipient
from schedules.permissions import Ability

_BY_NAME = {state.label: state for state in State}
_CURSOR = "deliveries"


class FeedbackAnswer(serializers.Serializer[Any]):
    """The gravest that the provider told of the message since."""

    news = serializers.ChoiceField(choices=[news.label for news in News])
    at = serializers.DateTimeField(help_text="When it was first told, by the provider's clock.")
    detail = serializers.CharField(allow_blank=True, help_text="The provider's codes.")


class DeliveryAnswer(serializers.Serializer[Any]):
    """What became of one person's message in one run."""

    scheduleId = serializers.IntegerField(allow_null=True)
    occurrenceId = serializers.IntegerField()
    recipient = serializers.CharField(allow_null=True, help_text="externalId; null for somebody erased.")
    recipientId = serializers.IntegerField(help_text="The ledger's own number, which outlives an erasure.")
    state = serializers.ChoiceField(choices=list(_BY_NAME))
    reason = serializers.CharField(allow_blank=True, help_text="Stable, for programs.")
    reasonWords = serializers.CharField(allow_blank=True, help_text="The reason for people.")
    waveAt = serializers.DateTimeField(help_text="The instant promised to the person.")
    timeZone = serializers.CharField(help_text="On whose clock it was promised.")
    zoneSource = serializers.ChoiceField(choices=[source.name.lower() for source in ZoneSource])
    dueAt = serializers.DateTimeField(help_text="`waveAt`, or when it is tried again.")
    attempt = serializers.IntegerField()
    version = serializers.IntegerField(help_text="Of the schedule.")
    calledAt = serializers.DateTimeField(allow_null=True, help_text="When the provider call began.")
    settledAt = serializers.DateTimeField(allow_null=True)
    providerId = serializers.CharField(allow_blank=True)
    detail = serializers.CharField(allow_blank=True, help_text="The provider's own words, addresses masked.")
    feedback = FeedbackAnswer(allow_null=True, help_text="What the provider told since; null: nothing.")


class DeliveryPage(serializers.Serializer[Any]):
    items = DeliveryAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class WholeNumber(QueryNumberField):
    """An id in a query: never larger than one there can be."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=1, max_value=storable.MAX_INTEGER, **options)


class DeliveryQuery(PageQuery):
    recipient = StrictCharField(
        max_length=200, required=False, help_text="externalId; of somebody unknown or erased there is nothing."
    )
    recipientId = WholeNumber(
        source="recipient_id", required=False, help_text="In its place the ledger's number, as of somebody erased."
    )
    schedule = WholeNumber(required=False)
    occurrence = WholeNumber(required=False)
    outcome = StrictChoiceField(
        choices=list(_BY_NAME), required=False, help_text="An outcome, or the state of who has none yet."
    )
    reason = StrictCharField(max_length=60, required=False)


def representation(
    row: Delivery, *, person: Recipient | None, occurrence: Occurrence | None, told: Feedback | None
) -> dict[str, Any]:
    """As ``DeliveryAnswer``; ``occurrence`` with its schedule."""
    is_json = row.detail.startswith("{")
    return {
        "scheduleId": occurrence.schedule_id if occurrence else None,
        "occurrenceId": row.occurrence_id,
        "recipient": person.external_id if person else None,
        "recipientId": row.recipient_id,
        "state": State(row.state).label,
        "reason": row.reason,
        "reasonWords": wording.reason(row.reason, row.state) if row.reason else "",
        "waveAt": instant(row.wave_at),
        "timeZone": explain.zone_name(row, person=person, occurrence=occurrence),
        "zoneSource": ZoneSource(row.zone_source).name.lower(),
        "dueAt": instant(row.due_at),
        "attempt": row.attempt,
        "version": row.version,
        "calledAt": instant(row.called_at),
        "settledAt": instant(row.settled_at),
        "providerId": row.provider_id,
        "detail": "" if is_json else row.detail,
        "feedback": _feedback(told) if told else None,
    }


def _feedback(told: Feedback) -> dict[str, Any]:
    news = News(told.news)
    return {"news": news.label, "at": instant(getattr(told, f"{news.label}_at")), "detail": told.detail}


class Deliveries(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="listDeliveries", parameters=[DeliveryQuery], responses={200: DeliveryPage, **problems(400)}
    )
    def get(self, request: Request) -> Response:
        """Who got what, when, and why not: the newest run first.

        Without a recipient, a schedule or an occurrence only the last 7 days are looked through. A page may have fewer
        items than asked for, or none, and still a `nextCursor`: the search goes on there.
        """
        query = DeliveryQuery.of(request)
        filters = _filters(query)
        after = _read(query["cursor"]) if "cursor" in query else None
        page = listing.page(filters, now=clock.now(), limit=query["limit"], after=after) if filters else Page([], None)
        people = Recipient.objects.in_bulk({row.recipient_id for row in page.rows})
        runs = Occurrence.objects.select_related("schedule").in_bulk({row.occurrence_id for row in page.rows})
        told = feedback.of_deliveries((row.day, row.occurrence_id, row.recipient_id) for row in page.rows)
        items = [
            representation(
                row,
                person=people.get(row.recipient_id),
                occurrence=runs.get(row.occurrence_id),
                told=told.get((row.day, row.occurrence_id, row.recipient_id)),
            )
            for row in page.rows
        ]
        following = encode([_CURSOR, str(page.following)]) if page.following else None
        return Response({"items": items, "nextCursor": following})


def _filters(query: dict[str, Any]) -> Filters | None:
    """None where nobody has the externalId that is asked for: nothing fits then, as with any other filter."""
    if "recipient" in query and "recipient_id" in query:
        words = "Name the person by recipient or by recipientId, not by both."
        raise invalid([InParameter("recipient", "one_of", words)])
    recipient_id = query.get("recipient_id")
    if "recipient" in query:
        people = Recipient.objects.filter(external_id=query["recipient"])
        recipient_id = people.values_list("pk", flat=True).first()
        if recipient_id is None:
            return None
    return Filters(
        query.get("occurrence"),
        query.get("schedule"),
        recipient_id,
        _BY_NAME.get(query.get("outcome", "")),
        query.get("reason", ""),
    )


def _read(cursor: str) -> Key:
    match decode(cursor):
        case [name, str(text)] if name == _CURSOR and (key := Key.read(text)):
            return key
    raise invalid([InParameter("cursor", "invalid", "Use a nextCursor as it came, or leave it out.")])
