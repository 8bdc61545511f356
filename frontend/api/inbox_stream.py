"""``/me/inbox/stream``: word of each new message while a page is open, as server-sent events.

Who may, and how often, is asked here as of every address. What follows takes minutes, and so a server of its own
(``frontend.streams``), which brings a door to this view. Other servers have none, and say so.
"""

from datetime import datetime
from typing import ClassVar, Final, NamedTuple, Protocol, cast

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from frontend.api.access import Token
from frontend.api.documents import problems
from frontend.api.inbox import InboxView
from frontend.api.problems import MISDIRECTED, Refused

DOOR: Final = "notification_scheduler.streams"
"""Where the environment of a request has its ``Door``. No header can: their names begin with ``HTTP_``."""

MEDIA_TYPE: Final = "text/event-stream"

_LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The `id` of the last event that was read: what has come since follows, nothing left out or twice.",
)
_EXAMPLE = OpenApiExample(
    "A message arrives",
    response_only=True,
    media_type=MEDIA_TYPE,
    value='id: 815:815:\nevent: unread\ndata: {"unread":1}\n\n',
)


class Admission(NamedTuple):
    """Whose stream it is, for how long at most, and after which event it goes on."""

    recipient_id: int
    token_id: int
    until: datetime
    last_event_id: str


class Door(Protocol):
    def admit(self, admission: Admission) -> None:
        """Raises ``Refused`` where there is no room."""


class InboxStream(InboxView):
    abilities: ClassVar = {"GET": None}

    @extend_schema(
        operation_id="streamInbox",
        parameters=[_LAST_EVENT_ID],
        examples=[_EXAMPLE],
        responses={(200, MEDIA_TYPE): OpenApiTypes.STR, **problems(404, 421)},
    )
    def get(self, request: Request) -> Response:
        """One's own messages as they come, until the token's time is over. See docs/in-app.md.

        `unread` (`{"unread": 3}`) at first and whenever the count changes; `message`, as `GET /inbox` has it; `reset`:
        more has been missed than is told one by one, read the list; `end` with its `reason`, `token_expired`,
        `token_revoked`, `restart`, `slow` or `failed`: come again, with a good token and `Last-Event-ID`.
        """
        door = cast(Door | None, request.META.get(DOOR))
        if door is None:
            raise Refused(MISDIRECTED, "The inbox's stream is served by a process of its own: manage.py serve_streams.")
        token = cast(Token, request.auth)
        door.admit(Admission(self.of, token.pk, token.expires, request.headers.get("Last-Event-ID", "")))
        return Response(headers={"X-Accel-Buffering": "no"}, content_type=MEDIA_TYPE)
