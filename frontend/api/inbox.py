"""``/inbox``: a person's own messages, with a token of that person and the scope ``inbox``.

The person is the recipient whose ``externalId`` is the account's username; where there is none, everything is 404.
"""

from typing import Any, ClassVar, cast

from django.contrib.auth.models import AbstractBaseUser
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import inbox
from delivery.models import InboxMessage
from frontend.api.access import person
from frontend.api.base import ApiView
from frontend.api.documents import problems
from frontend.api.fields import StrictIntegerField, StrictSerializer
from frontend.api.paging import Order, PageQuery, page_of
from frontend.instants import instant
from schedules import clock


class InboxMessageAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    title = serializers.CharField(allow_blank=True)
    body = serializers.CharField(allow_blank=True)
    occurrenceId = serializers.IntegerField()
    createdAt = serializers.DateTimeField()
    readAt = serializers.DateTimeField(allow_null=True)
    archivedAt = serializers.DateTimeField(allow_null=True)


class InboxPage(serializers.Serializer[Any]):
    items = InboxMessageAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class UnreadAnswer(serializers.Serializer[Any]):
    unread = serializers.IntegerField()


class ReadAnswer(serializers.Serializer[Any]):
    read = serializers.IntegerField(help_text="How many were unread until now.")


class InboxQuery(PageQuery):
    unread = serializers.ChoiceField(
        choices=["true", "false"], required=False, help_text="Only what is, or is not, unread."
    )
    archived = serializers.ChoiceField(
        choices=["true", "false"], required=False, default="false", help_text="What was archived, instead of the rest."
    )


class ReadAll(StrictSerializer):
    upTo = StrictIntegerField(
        source="up_to", required=False, help_text="The newest message that the person has seen; newer ones stay unread."
    )


class InboxView(ApiView):
    """``of`` is the id of the recipient who asks."""

    abilities: ClassVar = {}

    @property
    def of(self) -> int:
        username = cast(AbstractBaseUser, person(self.request)).get_username()
        return inbox.owner(username=username).pk


class Inbox(InboxView):
    abilities: ClassVar = {"GET": None}

    @extend_schema(operation_id="listInbox", parameters=[InboxQuery], responses={200: InboxPage, **problems(400, 404)})
    def get(self, request: Request) -> Response:
        """One's own messages, the latest first, a page at a time.

        Whose they are: the recipient's whose `externalId` is the username of the account that the token is for.
        """
        query = InboxQuery.of(request)
        wanted = {"unread": query["unread"] == "true"} if "unread" in query else {}
        rows = inbox.messages(recipient_id=self.of, archived=query["archived"] == "true", **wanted)
        page, cursor = page_of(rows, Order(), query)
        return Response({"items": [shown(message) for message in page], "nextCursor": cursor})


class UnreadCount(InboxView):
    abilities: ClassVar = {"GET": None}

    @extend_schema(operation_id="countUnread", responses={200: UnreadAnswer, **problems(404)})
    def get(self, request: Request) -> Response:
        """How many messages are unread; archived ones don't count."""
        return Response({"unread": inbox.unread_count(recipient_id=self.of)})


class Read(InboxView):
    abilities: ClassVar = {"POST": None}

    @extend_schema(operation_id="readMessage", request=None, responses={200: InboxMessageAnswer, **problems(404)})
    def post(self, request: Request, message_id: int) -> Response:
        """Mark a message as read. Doing it twice changes nothing."""
        return Response(shown(inbox.read(recipient_id=self.of, message_id=message_id, now=clock.now())))


class Unread(InboxView):
    abilities: ClassVar = {"POST": None}

    @extend_schema(operation_id="unreadMessage", request=None, responses={200: InboxMessageAnswer, **problems(404)})
    def post(self, request: Request, message_id: int) -> Response:
        """Mark a message as unread."""
        return Response(shown(inbox.unread(recipient_id=self.of, message_id=message_id)))


class Archive(InboxView):
    abilities: ClassVar = {"POST": None}

    @extend_schema(operation_id="archiveMessage", request=None, responses={200: InboxMessageAnswer, **problems(404)})
    def post(self, request: Request, message_id: int) -> Response:
        """Take a message out of the list. Doing it twice changes nothing."""
        return Response(shown(inbox.archive(recipient_id=self.of, message_id=message_id, now=clock.now())))


class AllRead(InboxView):
    abilities: ClassVar = {"POST": None}

    @extend_schema(
        operation_id="readAllMessages",
        request=ReadAll,
        examples=[OpenApiExample("What was shown", request_only=True, value={"upTo": 4711})],
        responses={200: ReadAnswer, **problems(400, 404)},
    )
    def post(self, request: Request) -> Response:
        """Mark every message as read that isn't archived. The body may be left out."""
        up_to = ReadAll.read(request.data).checked().get("up_to")
        return Response({"read": inbox.read_all(recipient_id=self.of, now=clock.now(), up_to=up_to)})


def shown(message: InboxMessage) -> dict[str, Any]:
    return {
        "id": message.pk,
        "title": message.title,
        "body": message.body,
        "occurrenceId": message.occurrence_id,
        "createdAt": instant(message.created_at),
        "readAt": instant(message.read_at),
        "archivedAt": instant(message.archived_at),
    }
