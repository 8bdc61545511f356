"""Where push reaches people: their devices, registered by a service or by the app itself with its person's token."""

from typing import Any, ClassVar, cast

from django.contrib.auth.models import AbstractBaseUser
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import inbox
from frontend.api.access import person
from frontend.api.base import ApiView
from frontend.api.documents import problems
from frontend.api.fields import StrictCharField, StrictChoiceField, StrictSerializer
from frontend.api.idempotency import idempotent
from frontend.api.problems import invalid
from frontend.instants import instant
from schedules import clock, recipients
from schedules.imports.values import PLATFORMS
from schedules.models import Device, Recipient
from schedules.permissions import Ability, masked
from schedules.problems import Problem

EXTERNAL_ID = OpenApiParameter(
    "external_id",
    OpenApiTypes.STR,
    OpenApiParameter.PATH,
    description="The person's `externalId`, percent-encoded: `team/7` is `team%2F7`. Any characters but control ones.",
)


class NewDevice(StrictSerializer):
    platform = StrictChoiceField(choices=PLATFORMS)
    token = StrictCharField(help_text="The registration token of Firebase; belongs to one person at a time.")


class DeviceRegistration(StrictSerializer):
    """By `token` or by `fid`, as the app's version of Firebase's library has it."""

    platform = StrictChoiceField(choices=PLATFORMS)
    token = StrictCharField(required=False, help_text="The registration token; belongs to one person at a time.")
    fid = StrictCharField(required=False, help_text="The Firebase installation id, in the place of a token.")
    replaces = StrictCharField(
        required=False, help_text="The token or id by which the same device was reached until now: it stays one device."
    )


class DeviceAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    platform = serializers.ChoiceField(choices=PLATFORMS)
    token = serializers.CharField(help_text="Its last characters; nobody reads one whole.")
    active = serializers.BooleanField(help_text="False once the push provider does not know it any more.")
    createdAt = serializers.DateTimeField()


class DevicePage(serializers.Serializer[Any]):
    items = DeviceAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True, help_text="Always null: a person has few devices.")


_EXAMPLES = [
    OpenApiExample("A phone", request_only=True, value={"platform": "ios", "token": "f8Kq2vXw-1"}),
    OpenApiExample(
        "The same one with another token",
        request_only=True,
        value={"platform": "ios", "token": "c2Lm9aQr-7", "replaces": "f8Kq2vXw-1"},
    ),
]


def devices_of(recipient: Recipient) -> list[dict[str, Any]]:
    return [shown_device(device) for device in sorted(recipient.devices.all(), key=lambda each: each.pk)]


def shown_device(device: Device) -> dict[str, Any]:
    return {
        "id": device.pk,
        "platform": device.platform,
        "token": masked(device.token),
        "active": device.active,
        "createdAt": instant(device.created_at),
    }


class Devices(ApiView):
    abilities: ClassVar = {"GET": Ability.READ, "POST": Ability.EDIT_RECIPIENTS}

    @extend_schema(operation_id="listDevices", parameters=[EXTERNAL_ID], responses={200: DevicePage, **problems(404)})
    def get(self, request: Request, external_id: str) -> Response:
        """A person's devices."""
        return Response({"items": devices_of(recipients.find(external_id=external_id)), "nextCursor": None})

    @extend_schema(
        operation_id="registerDevice",
        request=DeviceRegistration,
        parameters=[EXTERNAL_ID],
        examples=_EXAMPLES,
        responses={200: DeviceAnswer, 201: DeviceAnswer, **problems(400, 404, 409, 422)},
    )
    @idempotent
    def post(self, request: Request, external_id: str) -> Response:
        """The person has this device, switched on. Whoever had the token before has it no more; 200: nothing new.

        With `replaces` a device that the person has gets another token and stays the same device.
        """
        return _registered(request, recipients.find(external_id=external_id).pk, by=self.by)


class OneDevice(ApiView):
    abilities: ClassVar = {"DELETE": Ability.EDIT_RECIPIENTS}
    unconditional: ClassVar = ("DELETE",)

    @extend_schema(
        operation_id="removeDevice", parameters=[EXTERNAL_ID], responses={204: None, **problems(404, 412, 428)}
    )
    def delete(self, request: Request, external_id: str, device_id: int) -> Response:
        """Nothing is pushed to it any more. Needs no `If-Match`."""
        recipient = recipients.find(external_id=external_id)
        recipients.remove_device(recipient_id=recipient.pk, device_id=device_id, by=self.by, now=clock.now())
        return Response(status=204)


class MyDevices(ApiView):
    abilities: ClassVar = {"POST": None}

    @extend_schema(
        operation_id="registerMyDevice",
        request=DeviceRegistration,
        examples=_EXAMPLES,
        responses={200: DeviceAnswer, 201: DeviceAnswer, **problems(400, 404, 409, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """The app tells by what it is reached: at its first start, and whenever Firebase gives it another token.

        With a token of the person and the scope `inbox`. Whose device it is: the recipient's whose `externalId` is the
        username of the account. Whoever had the token before has it no more; 200: nothing new.
        """
        username = cast(AbstractBaseUser, person(request)).get_username()
        return _registered(request, inbox.owner(username=username).pk, by=self.by)


def _registered(request: Request, recipient_id: int, *, by: str) -> Response:
    said = DeviceRegistration.read(request.data).checked()
    made = recipients.register_device(
        recipient_id=recipient_id,
        platform=said["platform"],
        token=_address(said),
        replaces=said.get("replaces", ""),
        by=by,
        now=clock.now(),
    )
    return Response(shown_device(made.device), status=201 if made.is_new else 200)


def _address(said: dict[str, str]) -> str:
    """The token or the id. Both at once would be two devices, and every message there twice. Raises ``Refused``."""
    if ("token" in said) == ("fid" in said):
        raise invalid([Problem("token", "invalid", "Send either token or fid.")])
    if "fid" in said and not recipients.is_installation_id(said["fid"]):
        words = "A Firebase installation id has 22 characters of A-Z a-z 0-9 _ - and begins with c, d, e or f."
        raise invalid([Problem("fid", "invalid", words)])
    return said.get("token") or said["fid"]
