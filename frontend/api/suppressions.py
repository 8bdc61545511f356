"""``/suppressions``: addresses that are not written to any more, kept as fingerprints that nobody can read."""

from collections.abc import Sequence
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from frontend import wording
from frontend.api.access import may
from frontend.api.base import ApiView
from frontend.api.documents import problems
from frontend.api.fields import StrictCharField, StrictChoiceField, StrictSerializer
from frontend.api.idempotency import idempotent
from frontend.api.paging import Order, PageQuery, page_of
from frontend.api.problems import FORBIDDEN, NOT_FOUND, Refused, invalid
from frontend.instants import instant
from schedules import clock, encryption, recipients, suppressions
from schedules.models import Recipient, Suppression
from schedules.permissions import Ability
from schedules.problems import Problem


class SuppressionAnswer(serializers.Serializer[Any]):
    """An address that is not written to. The address itself is not kept."""

    id = serializers.IntegerField()
    channel = serializers.CharField(help_text="`email`.")
    reason = serializers.ChoiceField(choices=Suppression.Reason.values, help_text="As the ledger's rows have it.")
    reasonWords = serializers.CharField()
    since = serializers.DateTimeField()
    by = serializers.CharField(help_text="`user:ID`, `client:ID` or `system:events`, the provider's events.")
    occurrenceId = serializers.IntegerField(allow_null=True, help_text="The run whose message brought it about.")
    detail = serializers.CharField(allow_blank=True, help_text="The provider's codes.")
    recipients = serializers.ListField(
        child=serializers.CharField(), help_text="externalId of whoever has the address today; empty: nobody."
    )


class SuppressionPage(serializers.Serializer[Any]):
    items = SuppressionAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class SuppressionQuery(PageQuery):
    reason = StrictChoiceField(choices=Suppression.Reason.values, required=False)
    recipient = StrictCharField(max_length=200, required=False, help_text="externalId: the present address's.")


class NewSuppression(StrictSerializer):
    """One of the two."""

    recipient = StrictCharField(max_length=200, required=False, help_text="externalId: the person's present address.")
    address = StrictCharField(max_length=320, required=False, help_text="An address, whoever has it or will have it.")


class Suppressions(ApiView):
    abilities: ClassVar = {"GET": Ability.READ, "POST": Ability.SUPPRESS}

    @extend_schema(
        operation_id="listSuppressions",
        parameters=[SuppressionQuery],
        responses={200: SuppressionPage, **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """Addresses that are not written to, the latest first."""
        query = SuppressionQuery.of(request)
        rows = suppressions.listed(reason=query.get("reason"))
        if "recipient" in query:
            person = Recipient.objects.filter(external_id=query["recipient"]).first()
            held = suppressions.of_person(person) if person else None
            rows = rows.filter(pk=held.pk) if held else rows.none()
        page, cursor = page_of(rows, Order(), query)
        return Response({"items": _representations(page), "nextCursor": cursor})

    @extend_schema(
        operation_id="addSuppression",
        request=NewSuppression,
        examples=[
            OpenApiExample("A person", request_only=True, value={"recipient": "user-4711"}),
            OpenApiExample("An address", request_only=True, value={"address": "anna@example.com"}),
        ],
        responses={200: SuppressionAnswer, 201: SuppressionAnswer, **problems(400, 404, 409, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Write to an address no more, whoever has it. 200: it was suppressed before, and stays as it was."""
        asked = NewSuppression.read(request.data).checked()
        if ("recipient" in asked) == ("address" in asked):
            words = "Name the person by recipient or the address by address, not both."
            raise invalid([Problem("", "one_of", words)])
        person = recipients.find(external_id=asked["recipient"]) if "recipient" in asked else None
        kept, is_new = suppressions.block(
            fingerprint=_of(person) if person else _named(asked["address"]),
            recipient_id=person.pk if person else None,
            by=self.by,
            now=clock.now(),
        )
        headers = {"Location": f"/api/v1/suppressions/{kept.pk}"} if is_new else {}
        (answer,) = _representations([kept])
        return Response(answer, status=201 if is_new else 200, headers=headers)


class OneSuppression(ApiView):
    abilities: ClassVar = {"GET": Ability.READ, "DELETE": Ability.SUPPRESS}
    unconditional: ClassVar = ("DELETE",)

    @extend_schema(operation_id="getSuppression", responses={200: SuppressionAnswer, **problems(404)})
    def get(self, request: Request, suppression_id: int) -> Response:
        """One of them."""
        found = Suppression.objects.filter(pk=suppression_id).first()
        if found is None:
            raise _gone()
        (answer,) = _representations([found])
        return Response(answer)

    @extend_schema(operation_id="removeSuppression", responses={204: None, **problems(404, 412, 428)})
    def delete(self, request: Request, suppression_id: int) -> Response:
        """Let the address be written to again. Needs no `If-Match`.

        Who has complained is let go by those alone who may change people.
        """
        may_forgive = may(request, Ability.EDIT_RECIPIENTS)
        try:
            suppressions.lift(suppression_id=suppression_id, may_forgive=may_forgive, by=self.by, now=clock.now())
        except suppressions.NoSuchSuppression:
            raise _gone() from None
        except suppressions.NotYours:
            raise Refused(FORBIDDEN, "The person has complained: only an admin can take that back.") from None
        return Response(status=204)


def _gone() -> Refused:
    return Refused(NOT_FOUND, "There is no such suppression: the address is written to.")


def _of(person: Recipient) -> bytes:
    if person.email_index is None:
        raise invalid([Problem("recipient", "no_address", "The person has no e-mail address.")])
    return encryption.fingerprint_of(person.email_index)


def _named(address: str) -> bytes:
    try:
        return suppressions.fingerprint_to_block(address)
    except suppressions.InvalidSuppression as error:
        raise invalid(error.problems) from None


def _representations(rows: Sequence[Suppression]) -> list[dict[str, Any]]:
    people = suppressions.people_of(rows)
    return [
        {
            "id": row.pk,
            "channel": row.channel,
            "reason": row.reason,
            "reasonWords": wording.reason(row.reason),
            "since": instant(row.created_at),
            "by": row.source,
            "occurrenceId": row.occurrence_id,
            "detail": row.detail,
            "recipients": [person.external_id for person in people[row.pk]],
        }
        for row in rows
    ]
