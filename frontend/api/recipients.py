"""``/recipients``: people and their devices, by the id that other programs know them by."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import holdings
from frontend import erasing
from frontend.api.access import address_for
from frontend.api.base import ApiView, etag, expected_version, wants_new
from frontend.api.devices import EXTERNAL_ID, DeviceAnswer, NewDevice, devices_of
from frontend.api.documents import problems
from frontend.api.fields import (
    ObjectField,
    QuerySerializer,
    QuietHoursField,
    Read,
    StrictBooleanField,
    StrictCharField,
    StrictChoiceField,
    StrictSerializer,
)
from frontend.api.merging import is_merge_patch, merged
from frontend.api.paging import Order, PageQuery, page_of
from frontend.api.problems import INVALID, PRECONDITION, STALE, STATE, InHeader, InParameter, Refused, invalid
from frontend.instants import instant
from schedules import clock, recipients
from schedules.consents import parted
from schedules.imports.values import MAX_DEVICES, MAX_TAG, MAX_TAGS
from schedules.models import MirroredPerson, Recipient
from schedules.permissions import Ability
from schedules.problems import Problem
from schedules.recipients import AlreadyThere, ErasedBefore, NoSuchRecipient

_IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="`*`: create the person and never replace anybody; 412 if there is somebody.",
)
_EXAMPLE = OpenApiExample(
    "A person",
    request_only=True,
    value={
        "email": "eva@example.com",
        "locale": "de-AT",
        "timeZone": "Europe/Vienna",
        "attributes": {"plan": "pro", "age": 31},
        "tags": ["beta"],
        "consent": {"email": True, "push": False},
        "quietHours": {"from": "22:00", "to": "07:00"},
        "devices": [{"platform": "ios", "token": "f8Kq2vXw-1"}],
    },
)


# Members of an answer that nobody can set.
READ_ONLY = frozenset(
    {"consentSource", "quietHoursSource", "version", "createdAt", "updatedAt", "mirroredAt", "sourceUpdatedAt"}
)


class Consent(StrictSerializer):
    """By channel, and by topic and channel as in `news:email`: `false` means opted out; absent means no objection, or
    what the topic's `default` says. No to a channel outweighs yes to a topic in it. `null` says nothing.
    """

    email = StrictBooleanField(required=False, allow_null=True)
    push = StrictBooleanField(required=False, allow_null=True)
    in_app = StrictBooleanField(required=False, allow_null=True)

    @classmethod
    def read(cls, data: Any, *, partial: bool = False, at: str = "") -> Read:
        """Whether there is such a topic, the operation says."""
        said = data if isinstance(data, Mapping) else {}
        of_topics = {key: agreed for key, agreed in said.items() if parted(key)[0]}
        found = super().read({key: said[key] for key in said if key not in of_topics}, partial=partial, at=at)
        for key, agreed in of_topics.items():
            if agreed is None or isinstance(agreed, bool):
                found.values[key] = agreed
            else:
                found.problems.append(Problem(f"{at}/{key}", "invalid", "Use true or false, without quotes."))
        return found


class Profile(StrictSerializer):
    """What is known of a person."""

    read_only_names = frozenset({"externalId", *READ_ONLY})

    email = StrictCharField(required=False, allow_blank=True, allow_null=True, max_length=320)
    locale = StrictCharField(
        required=False, allow_blank=True, allow_null=True, max_length=35, help_text="Such as `de-AT`."
    )
    timeZone = StrictCharField(
        source="time_zone",
        required=False,
        allow_blank=True,
        allow_null=True,
        max_length=64,
        help_text="IANA zone; one that nobody knows is kept, and the schedule's is used instead.",
    )
    attributes = ObjectField(required=False, help_text="Of your own, by name; a value of `null` removes one.")
    tags = serializers.ListField(child=StrictCharField(max_length=MAX_TAG), max_length=MAX_TAGS, required=False)
    consent = Consent(required=False)
    quietHours = QuietHoursField(
        source="quiet_hours",
        required=False,
        allow_null=True,
        help_text="From when until when no e-mail and no push message comes, but for transactional ones: every day, on"
        " the person's own clock, over midnight where `to` is the earlier. Two times that differ; `null`: at no time."
        " Left out, they stay.",
    )
    devices = NewDevice(  # type: ignore[call-arg]  # the stubs forget what many=True admits
        many=True, required=False, max_length=MAX_DEVICES, help_text="Exactly these. Left out, devices stay."
    )


class ConsentSource(serializers.Serializer[Any]):
    key = serializers.CharField(help_text="As in `consent`.")
    by = serializers.CharField(help_text="`system:person`: the person, by a link; else as in the audit.")
    at = serializers.DateTimeField()


class QuietHoursSource(serializers.Serializer[Any]):
    by = serializers.CharField(help_text="As in `consentSource`.")
    at = serializers.DateTimeField()


class RecipientAnswer(serializers.Serializer[Any]):
    """A person as known here. The ETag is made of `version`."""

    externalId = serializers.CharField()
    email = serializers.CharField(help_text="Masked, such as `e…@example.com`, for who may not see addresses.")
    locale = serializers.CharField()
    timeZone = serializers.CharField()
    attributes = serializers.DictField(child=serializers.JSONField())
    tags = serializers.ListField(child=serializers.CharField())
    consent = serializers.DictField(
        child=serializers.BooleanField(), help_text="By channel (`email`), and by topic and channel (`news:email`)."
    )
    consentSource = ConsentSource(
        many=True, help_text="Of what stands in `consent`, as far as it is known: who said it last, and when."
    )
    quietHours = QuietHoursField(allow_null=True, help_text="Wall times on the person's clock; null: none.")
    quietHoursSource = QuietHoursSource(
        allow_null=True, help_text="Who last set them or took them away, and when; null: nobody ever did."
    )
    devices = DeviceAnswer(many=True)
    version = serializers.IntegerField(help_text="Rises with every change of the profile or its devices.")
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()
    mirroredAt = serializers.DateTimeField(
        allow_null=True, help_text="When the user service last told of the person; null: never."
    )
    sourceUpdatedAt = serializers.DateTimeField(
        allow_null=True, help_text="When the user service had last changed the person, where it has said so."
    )


class RecipientPage(serializers.Serializer[Any]):
    items = RecipientAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class ErasedSchedule(serializers.Serializer[Any]):
    scheduleId = serializers.IntegerField()
    pending = serializers.IntegerField(help_text="Notifications of it that were still to come and are not sent.")


class Remaining(serializers.Serializer[Any]):
    """Something that stays after an erasure."""

    what = serializers.CharField(help_text="`ledger`, `callsInFlight`, `audit`, `backups` and so on.")
    count = serializers.IntegerField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True, help_text="When it goes by itself, at the latest.")
    why = serializers.CharField()


class ErasedAnswer(serializers.Serializer[Any]):
    """The receipt: what of the person is gone, and what stays and why. It names nobody."""

    recipientId = serializers.IntegerField(help_text="The ledger's number, which leads to no profile any more.")
    erasedAt = serializers.DateTimeField()
    noCallStartsAfter = serializers.DateTimeField(help_text="No provider is called for the person later than this.")
    pending = serializers.IntegerField(help_text="Notifications that were still to come and are not sent.")
    schedules = ErasedSchedule(many=True)
    devices = serializers.IntegerField()
    inboxMessages = serializers.IntegerField()
    outboxMessages = serializers.IntegerField()
    testSends = serializers.IntegerField()
    definitions = serializers.IntegerField(help_text="Audiences that named the person and name nobody instead.")
    uploadedFiles = serializers.IntegerField(help_text="Waiting files with the person in them, thrown away.")
    storedAnswers = serializers.IntegerField(help_text="Kept answers to an `Idempotency-Key`, freed of the person.")
    sessions = serializers.IntegerField(help_text="Sessions with half-typed steps that named the person.")
    remains = Remaining(many=True)


class BringBackQuery(QuerySerializer):
    bringBack = StrictChoiceField(
        choices=["true", "false"],
        default="false",
        source="bring_back",
        help_text="`true`: keep somebody too who was erased before, and forget that they were.",
    )

    @classmethod
    def wanted(cls, request: Request) -> bool:
        """Raises ``Refused`` (400)."""
        return bool(cls.of(request)["bring_back"] == "true")


class RecipientQuery(PageQuery):
    prefix = StrictCharField(required=False, max_length=200, help_text="How the `externalId` begins.")
    locale = StrictCharField(required=False, max_length=35)
    timeZone = StrictCharField(required=False, max_length=64, source="time_zone")
    tag = StrictCharField(required=False, max_length=MAX_TAG)


def representations(request: Request, people: Sequence[Recipient]) -> list[dict[str, Any]]:
    """With one statement more, however many they are."""
    mirrored = MirroredPerson.objects.in_bulk([each.pk for each in people])
    return [_representation(request, each, mirrored.get(each.pk)) for each in people]


def _representation(request: Request, recipient: Recipient, mirrored: MirroredPerson | None) -> dict[str, Any]:
    return {
        "externalId": recipient.external_id,
        "email": address_for(request, recipient.email) if recipient.email else "",
        "locale": recipient.locale,
        "timeZone": recipient.time_zone,
        "attributes": recipient.attributes,
        "tags": recipient.tags,
        "consent": recipient.consent,
        "consentSource": [{"key": key, **_source(told)} for key, told in sorted(recipient.consent_source.items())],
        "quietHours": recipient.quiet_hours,
        "quietHoursSource": _source(recipient.quiet_hours_source) if recipient.quiet_hours_source else None,
        "devices": devices_of(recipient),
        "version": recipient.version,
        "createdAt": instant(recipient.created_at),
        "updatedAt": instant(recipient.updated_at),
        "mirroredAt": instant(mirrored.mirrored_at) if mirrored else None,
        "sourceUpdatedAt": instant(mirrored.source_updated_at) if mirrored else None,
    }


def _source(told: Mapping[str, str]) -> dict[str, Any]:
    return {"by": told["by"], "at": instant(datetime.fromisoformat(told["at"]))}


class Recipients(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="listRecipients", parameters=[RecipientQuery], responses={200: RecipientPage, **problems(400)}
    )
    def get(self, request: Request) -> Response:
        """People, the latest first, a page at a time."""
        query = RecipientQuery.of(request)
        rows = recipients.matching(**{name: query.get(name) for name in ("prefix", "locale", "time_zone", "tag")})
        page, cursor = page_of(rows, Order(), query)
        return Response({"items": representations(request, page), "nextCursor": cursor})


class OneRecipient(ApiView):
    abilities: ClassVar = {
        "GET": Ability.READ,
        "PUT": Ability.EDIT_RECIPIENTS,
        "PATCH": Ability.EDIT_RECIPIENTS,
        "DELETE": Ability.EDIT_RECIPIENTS,
    }
    unconditional: ClassVar = ("PUT",)

    @extend_schema(
        operation_id="getRecipient", parameters=[EXTERNAL_ID], responses={200: RecipientAnswer, **problems(404)}
    )
    def get(self, request: Request, external_id: str) -> Response:
        """One person, with the ETag."""
        return self._answer(recipients.find(external_id=external_id))

    @extend_schema(
        operation_id="putRecipient",
        request=Profile,
        parameters=[EXTERNAL_ID, _IF_NONE_MATCH, BringBackQuery],
        examples=[_EXAMPLE],
        responses={200: RecipientAnswer, 201: RecipientAnswer, **problems(400, 409, 412, 428)},
    )
    def put(self, request: Request, external_id: str) -> Response:
        """Create a person, or replace one: what the body leaves out is emptied.

        A new person needs no `If-Match`; with one, nobody is created. Three things stay when they are left out:
        devices, quiet hours, and objections (`consent` of `false`), which only a `true` takes back. Whoever was
        erased is not brought back (409) unless `bringBack` says so.
        """
        bring_back = BringBackQuery.wanted(request)
        if "If-Match" in request.headers:
            return self._replace(external_id)
        only_new = wants_new(request)
        profile = _checked(external_id, request.data, partial=False)
        try:
            made = recipients.create(
                external_id=external_id, profile=profile, by=self.by, now=clock.now(), bring_back=bring_back
            )
        except ErasedBefore as error:
            raise Refused(STATE, f"{error} Send it with bringBack=true.") from None
        except AlreadyThere as there:
            if only_new:
                raise
            words = "There is such a person: send If-Match with the ETag of what you read, or * to replace any."
            raise Refused(PRECONDITION, words, extra={"currentVersion": there.current}) from None
        return self._answer(made, status=201)

    @extend_schema(
        operation_id="changeRecipient",
        request=Profile,
        parameters=[EXTERNAL_ID],
        examples=[OpenApiExample("Another plan", request_only=True, value={"attributes": {"plan": "free"}})],
        responses={200: RecipientAnswer, **problems(400, 404, 412, 428)},
    )
    def patch(self, request: Request, external_id: str) -> Response:
        """Change the fields that the body has: attributes and consent by key.

        As `application/json` it replaces an attribute that is an object whole; as `application/merge-patch+json` it
        merges it member by member (RFC 7396).
        """
        recipient = recipients.find(external_id=external_id)
        version = expected_version(request, standing=lambda: recipient.version)
        body = request.data
        if is_merge_patch(request) and isinstance(body, Mapping):
            body = {**body, **(inner := _merged_into(recipient, body))}
            version = version or (recipient.version if inner else None)  # what it was merged into
        changes = _checked(external_id, body, partial=True)
        changed = recipients.update(
            recipient_id=recipient.pk, changes=changes, by=self.by, now=clock.now(), expected_version=version
        )
        return self._answer(changed)

    @extend_schema(
        operation_id="eraseRecipient",
        parameters=[EXTERNAL_ID],
        responses={200: ErasedAnswer, **problems(404, 412, 428)},
    )
    def delete(self, request: Request, external_id: str) -> Response:
        """Erase the person: profile, devices, inbox, and every notification still to come. There is no way back.

        The answer is a receipt that names nobody: keep it where you have to show what was done.
        """
        recipient = recipients.find(external_id=external_id)
        version = expected_version(request, standing=lambda: recipient.version)
        receipt = erasing.erase(recipient_id=recipient.pk, by=self.by, now=clock.now(), expected_version=version)
        return Response(receipt.to_json())

    def _replace(self, external_id: str) -> Response:
        if "If-None-Match" in self.request.headers:
            problem = InHeader("If-Match", "invalid", "Send either If-Match or If-None-Match.")
            raise Refused(INVALID, "The headers contradict each other.", pointed=[problem])
        try:
            recipient = recipients.find(external_id=external_id)
        except NoSuchRecipient:
            raise Refused(STALE, "There is nobody of that external id: leave If-Match out to create them.") from None
        version = expected_version(self.request, standing=lambda: recipient.version)
        profile = _checked(external_id, self.request.data, partial=False)
        replaced = recipients.replace(
            recipient_id=recipient.pk, profile=profile, by=self.by, now=clock.now(), expected_version=version
        )
        return self._answer(replaced)

    def _answer(self, recipient: Recipient, *, status: int = 200) -> Response:
        headers = {"ETag": etag(recipient.version)}
        if status == 201:
            headers["Location"] = f"/api/v1/recipients/{quote(recipient.external_id, safe='')}"
        (told,) = representations(self.request, [recipient])
        return Response(told, status=status, headers=headers)


class ExportRecipient(ApiView):
    abilities: ClassVar = {"GET": Ability.EDIT_RECIPIENTS}

    @extend_schema(
        operation_id="exportRecipient",
        parameters=[EXTERNAL_ID],
        responses={200: OpenApiTypes.OBJECT, **problems(404)},
    )
    def get(self, request: Request, external_id: str) -> Response:
        """Everything that is held of the person, addresses and tokens in clear: what the person may ask to see.

        Profile, devices, inbox, outbox, deliveries with their failures, tests, and the audit's events.
        """
        recipient = recipients.find(external_id=external_id)
        held = holdings.export(recipient_id=recipient.pk, by=self.by, now=clock.now())
        return Response(held, headers={"Cache-Control": "no-store"})


def _merged_into(recipient: Recipient, body: Mapping[str, Any]) -> dict[str, Any]:
    """The objects of a merge patch that are merged member by member, merged."""
    inner: dict[str, Any] = {}
    if isinstance(said := body.get("attributes"), Mapping):
        kept = recipient.attributes
        inner["attributes"] = {name: merged(kept.get(name), value) for name, value in said.items()}
    if isinstance(said := body.get("quietHours"), Mapping):
        inner["quietHours"] = merged(recipient.quiet_hours, said)
    return inner


def _checked(external_id: str, data: Any, *, partial: bool) -> dict[str, Any]:
    """What the body says. Raises ``Refused`` (400) with every problem of form and of value."""
    profile = Profile.read(data, partial=partial)
    # What has the wrong form is told so, and not judged by its value as well.
    malformed = {each.field.removeprefix("/").partition("/")[0] for each in profile.problems}
    unfit = recipients.check(external_id=external_id, profile=profile.values)
    if found := profile.problems + [each for each in unfit if each.field.partition("/")[0] not in malformed]:
        raise invalid(_placed(each) for each in found)
    return profile.values


def _placed(problem: Problem) -> Problem:
    is_of_address = problem.field == "externalId"
    return InParameter("external_id", problem.code, problem.message) if is_of_address else problem
