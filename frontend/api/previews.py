"""Before anything is kept: who is an audience, and how does a message read.

These are POSTs because they have bodies; they change nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import previews
from delivery.previews import Said
from frontend.api.access import address_for
from frontend.api.base import ApiView
from frontend.api.documents import problems
from frontend.api.fields import ObjectField, StrictCharField, StrictChoiceField, StrictIntegerField, StrictSerializer
from frontend.api.problems import invalid
from frontend.api.templates import MOST_CONTENTS, ContentBody
from frontend.instants import instant
from schedules import clock, templates
from schedules.audience.parser import InvalidAudience, parse
from schedules.audience.preview import Preview, Share
from schedules.audience.preview import preview as preview_audience
from schedules.consents import Asked, asked_by
from schedules.content import read_contents
from schedules.models import LONGEST_KEY, Channel, Purpose
from schedules.permissions import Ability, masked
from schedules.problems import Problem
from schedules.user_service import counting
from schedules.user_service.counting import Served

MOST_SAMPLED = 50
_AUDIENCE_EXAMPLE = OpenApiExample(
    "Professionals",
    request_only=True,
    value={
        "audienceQuery": {"all": [{"field": "attributes.plan", "op": "eq", "value": "pro"}]},
        "channel": "email",
        "sample": 3,
    },
)
_MESSAGE_EXAMPLE = OpenApiExample(
    "In Austria", request_only=True, value={"templateId": 1, "channel": "email", "locale": "de-AT"}
)


class ShareAnswer(serializers.Serializer[Any]):
    name = serializers.CharField(allow_null=True, help_text="Null for all that are too rare to be named.")
    people = serializers.IntegerField()


class ServedAnswer(serializers.Serializer[Any]):
    """What the organisation's user service counts, which a run asks for its people.

    All other figures of the answer are of the copy of its people that is kept here.
    """

    count = serializers.IntegerField(allow_null=True, help_text="Null where it gave none: `reason` says why.")
    asOf = serializers.DateTimeField()
    reason = serializers.ChoiceField(
        choices=[counting.AWAY, counting.REFUSED],
        allow_null=True,
        help_text="Of no count: it does not answer, or refuses to; null beside a count.",
    )


class AudienceRequest(StrictSerializer):
    audienceQuery = ObjectField(
        source="audience_query", help_text='Who is meant; everybody is `{"all": []}`. See the guide for its language.'
    )
    channel = StrictChoiceField(
        choices=Channel.values, required=False, help_text="Then the answer tells who can't be reached there."
    )
    topic = StrictCharField(
        max_length=LONGEST_KEY, required=False, allow_null=True, help_text="As a schedule's; asked beside `channel`."
    )
    purpose = StrictChoiceField(choices=Purpose.values, required=False, default=Purpose.MARKETING.value)
    sample = StrictIntegerField(
        required=False, default=5, min_value=0, max_value=MOST_SAMPLED, help_text="How many people to show."
    )


class SampledAnswer(serializers.Serializer[Any]):
    externalId = serializers.CharField()
    address = serializers.CharField(help_text="The e-mail address, masked; empty where there is none.")
    locale = serializers.CharField()
    timeZone = serializers.CharField()
    devices = serializers.IntegerField(help_text="Active ones.")
    channels = serializers.ListField(
        child=serializers.ChoiceField(choices=Channel.values), help_text="On which the person can be reached."
    )


class AudienceAnswer(serializers.Serializer[Any]):
    asOf = serializers.DateTimeField()
    count = serializers.IntegerField()
    userService = ServedAnswer(allow_null=True, help_text="Null where no user service is asked for people.")
    suppressed = serializers.IntegerField(
        allow_null=True,
        help_text="They may not be written to: they have opted out of the channel or the topic, or not opted in, or"
        " their address is suppressed. Null without `channel`.",
    )
    unaddressable = serializers.IntegerField(
        allow_null=True, help_text="They have no address or device there; null without `channel`."
    )
    timeZones = ShareAnswer(many=True, help_text="As the profiles have them, valid or not; empty: none.")
    locales = ShareAnswer(many=True)
    sample = SampledAnswer(many=True)
    isScan = serializers.BooleanField(help_text="No index narrows the audience down: finding it reads every profile.")


class AudiencePreview(ApiView):
    abilities: ClassVar = {"POST": Ability.READ}

    @extend_schema(
        operation_id="previewAudience",
        request=AudienceRequest,
        examples=[_AUDIENCE_EXAMPLE],
        responses={200: AudienceAnswer, **problems(400)},
    )
    def post(self, request: Request) -> Response:
        """How many people an audience has, where they are, and a few of them by chance."""
        asked = AudienceRequest.read(request.data).checked()
        try:
            node = parse(asked["audience_query"])
        except InvalidAudience as error:
            raise invalid(
                Problem(f"audienceQuery{each.pointer}", each.code, each.message) for each in error.problems
            ) from error
        now = clock.now()
        told = preview_audience(node=node, asked=_consent(asked), sample=asked["sample"], now=now)
        return Response(_audience(told, counting.served(asked["audience_query"], now=now)))


def _consent(asked: Mapping[str, Any]) -> Asked | None:
    if "channel" not in asked:
        return None
    return asked_by(channel=asked["channel"], topic=asked.get("topic"), purpose=asked["purpose"])


def served_answer(told: Served | None) -> dict[str, Any] | None:
    return {"count": told.people, "asOf": instant(told.as_of), "reason": told.reason or None} if told else None


def _audience(told: Preview, served: Served | None) -> dict[str, Any]:
    return {
        "asOf": instant(told.as_of),
        "count": told.count,
        "userService": served_answer(served),
        "suppressed": told.suppressed,
        "unaddressable": told.unaddressable,
        "timeZones": _shares(told.zones),
        "locales": _shares(told.locales),
        "sample": [
            {
                "externalId": person.external_id,
                "address": masked(person.email),
                "locale": person.locale,
                "timeZone": person.time_zone,
                "devices": person.devices,
                "channels": sorted(person.channels),
            }
            for person in told.sample
        ],
        "isScan": told.is_scan,
    }


def _shares(shares: Iterable[Share]) -> list[dict[str, Any]]:
    return [{"name": share.name, "people": share.people} for share in shares]


# How does it read?


class MessageRequest(StrictSerializer):
    """Either a template's id, or contents that are not kept yet."""

    templateId = StrictIntegerField(source="template_id", required=False)
    version = StrictIntegerField(required=False, min_value=1, help_text="Of the template; absent: its last.")
    contents = ContentBody(many=True, required=False, allow_empty=False, max_length=MOST_CONTENTS)  # type: ignore[call-arg]
    defaultLocale = StrictCharField(
        source="default_locale",
        required=False,
        max_length=templates.LONGEST_LOCALE,
        help_text="Of contents; absent: the first one's locale.",
    )
    channel = StrictChoiceField(choices=Channel.values)
    recipient = StrictCharField(
        required=False, max_length=200, help_text="External id of the reader; absent: somebody, always the same."
    )
    locale = StrictCharField(required=False, max_length=35, help_text="In place of the reader's own.")


class MessageAnswer(serializers.Serializer[Any]):
    subject = serializers.CharField(help_text="The title in push and in-app.")
    text = serializers.CharField()
    html = serializers.CharField()
    contentLocale = serializers.CharField(help_text="Of the content that was chosen.")
    locale = serializers.CharField(help_text="By which it was chosen, and numbers and dates are written.")
    recipient = serializers.CharField(allow_null=True, help_text="The reader's external id; null: nobody is kept yet.")
    missingTokens = serializers.ListField(
        child=serializers.CharField(), help_text="Named in the content, and without a value for this reader."
    )
    missingKeys = serializers.ListField(child=serializers.CharField(), help_text="In no catalogue.")


class MessagePreview(ApiView):
    abilities: ClassVar = {"POST": Ability.READ}

    @extend_schema(
        operation_id="previewTemplate",
        request=MessageRequest,
        examples=[_MESSAGE_EXAMPLE],
        responses={200: MessageAnswer, **problems(400)},
    )
    def post(self, request: Request) -> Response:
        """A message as one reader would get it; what can't be rendered is told by part."""
        asked = _read_message(request.data)
        said = _said(asked)
        person = previews.reader(external_id=asked.get("recipient"), locale=asked.get("locale"))
        told = previews.preview(
            said=said,
            channel=asked["channel"],
            person=person,
            locale=asked.get("locale"),
            address=address_for(request, person.email) if person else "",
            now=clock.now(),
        )
        rendered = told.rendered
        return Response(
            {
                "subject": rendered.subject,
                "text": rendered.text,
                "html": rendered.html,
                "contentLocale": rendered.locale,
                "locale": told.locale,
                "recipient": told.recipient,
                "missingTokens": sorted(rendered.missing_tokens),
                "missingKeys": sorted(rendered.missing_keys),
            }
        )


def _read_message(data: Any) -> dict[str, Any]:
    found = MessageRequest.read(data)
    given = found.values.keys() & {"template_id", "contents"}
    if not found.problems and len(given) != 1:
        found.problems.append(Problem("", "one_of", "Give either templateId or contents."))
    if "contents" in given and "version" in found.values:
        found.problems.append(Problem("version", "not_applicable", "Only a template that is kept has versions."))
    if "contents" not in given and "default_locale" in found.values:
        found.problems.append(Problem("defaultLocale", "not_applicable", "A template that is kept has its own."))
    return found.checked()


def _said(asked: dict[str, Any]) -> Said:
    if "template_id" in asked:
        return previews.kept(template_id=asked["template_id"], version=asked.get("version"))
    contents = asked["contents"]
    default = asked.get("default_locale") or (contents[0]["locale"] if contents else "")
    if found := templates.check(contents, default_locale="en" if default == "default" else default):
        raise invalid(found)
    return Said.sent("Preview", read_contents(contents), default, place="contents")
