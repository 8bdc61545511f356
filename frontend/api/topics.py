"""``/topics``: what schedules write about, and people subscribe to by channel."""

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from frontend.api.base import ApiView, etag, expected_version
from frontend.api.documents import problems
from frontend.api.fields import NoBody, ObjectField, StrictCharField, StrictChoiceField, StrictSerializer
from frontend.api.idempotency import idempotent
from frontend.api.paging import Order, PageQuery, page_of
from frontend.api.problems import MEDIA_TYPE
from frontend.api.templates import InUseAnswer
from frontend.instants import instant
from schedules import clock, topics
from schedules.models import LONGEST_KEY, Default, Topic
from schedules.permissions import Ability
from schedules.topics import LONGEST_DESCRIPTION, LONGEST_NAME, Told

_EXAMPLE = OpenApiExample(
    "News",
    request_only=True,
    value={
        "key": "news",
        "name": "News",
        "names": {"de": "Neuigkeiten"},
        "description": "What is new in the shop, about once a week",
        "default": "opted_in",
    },
)


class TopicChange(StrictSerializer):
    """What can be changed of a topic."""

    read_only_names = frozenset({"key", "default", "version", "archivedAt", "createdAt", "updatedAt"})

    name = StrictCharField(max_length=LONGEST_NAME, help_text="People see it.")
    names = ObjectField(required=False, help_text="In other languages, by locale, such as `de`.")
    description = StrictCharField(
        max_length=LONGEST_DESCRIPTION, required=False, allow_blank=True, help_text="People see it below the name."
    )


class NewTopic(TopicChange):
    read_only_names = frozenset({"version", "archivedAt", "createdAt", "updatedAt"})

    key = StrictCharField(
        max_length=LONGEST_KEY, help_text="Small letters, digits, `-` and `_`; never changes. Profiles name it."
    )
    default = StrictChoiceField(
        choices=Default.values,
        required=False,
        default=Default.OPTED_IN.value,
        help_text="What holds for whoever has said nothing: `opted_in`, until they object; `opted_out`, until they"
        " agree. It never changes: silence would become consent.",
    )


class TopicAnswer(serializers.Serializer[Any]):
    """A topic. The ETag is made of `version`."""

    key = serializers.CharField()
    name = serializers.CharField()
    names = serializers.DictField(child=serializers.CharField())
    description = serializers.CharField()
    default = serializers.ChoiceField(choices=Default.values)
    version = serializers.IntegerField()
    archivedAt = serializers.DateTimeField(allow_null=True, help_text="Since when it is offered no more.")
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()


class TopicPage(serializers.Serializer[Any]):
    items = TopicAnswer(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class Topics(ApiView):
    abilities: ClassVar = {"GET": Ability.READ, "POST": Ability.EDIT_TEMPLATES}

    @extend_schema(operation_id="listTopics", parameters=[PageQuery], responses={200: TopicPage, **problems(400)})
    def get(self, request: Request) -> Response:
        """All topics, archived ones too, the latest first."""
        page, cursor = page_of(Topic.objects.all(), Order(), PageQuery.of(request))
        return Response({"items": [_representation(each) for each in page], "nextCursor": cursor})

    @extend_schema(
        operation_id="createTopic",
        request=NewTopic,
        examples=[_EXAMPLE],
        responses={201: TopicAnswer, **problems(400, 409, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Keep a new topic, which schedules may name from now on."""
        said = NewTopic.read(request.data).checked()
        key, default = said.pop("key"), said.pop("default")
        made = topics.create(key=key, default=default, told=_told(said), by=self.by, now=clock.now())
        return _answer(made, status=201)


class OneTopic(ApiView):
    abilities: ClassVar = {"GET": Ability.READ, "PATCH": Ability.EDIT_TEMPLATES}

    @extend_schema(operation_id="getTopic", responses={200: TopicAnswer, **problems(404)})
    def get(self, request: Request, key: str) -> Response:
        """One topic, with its ETag."""
        return _answer(topics.find(key))

    @extend_schema(
        operation_id="changeTopic",
        request=TopicChange,
        responses={200: TopicAnswer, **problems(400, 404, 412, 428)},
    )
    def patch(self, request: Request, key: str) -> Response:
        """Say it otherwise: what the body has, `names` as a whole. Key and default stay."""
        standing = topics.find(key)
        version = expected_version(request, standing=lambda: standing.version)
        said = TopicChange.read(request.data, partial=True).checked()
        before = {"name": standing.name, "names": standing.names, "description": standing.description}
        told = _told({**before, **said})
        changed = topics.change(
            key=key, told=told, by=self.by, now=clock.now(), expected_version=version or standing.version
        )
        return _answer(changed)


class ArchiveTopic(ApiView):
    abilities: ClassVar = {"POST": Ability.EDIT_TEMPLATES}

    @extend_schema(
        operation_id="archiveTopic",
        request=NoBody,
        responses={
            200: TopicAnswer,
            **problems(400, 404, 422),
            (409, MEDIA_TYPE): OpenApiResponse(InUseAnswer, "Schedules that are not over write about it"),
        },
    )
    @idempotent
    def post(self, request: Request, key: str) -> Response:
        """Offer it no more, to schedules and to people. What people have said of it stays."""
        NoBody.read(request.data).checked()
        return _answer(topics.archive(key=key, by=self.by, now=clock.now()))


class RestoreTopic(ApiView):
    abilities: ClassVar = {"POST": Ability.EDIT_TEMPLATES}

    @extend_schema(
        operation_id="restoreTopic", request=NoBody, responses={200: TopicAnswer, **problems(400, 404, 409, 422)}
    )
    @idempotent
    def post(self, request: Request, key: str) -> Response:
        """Offer an archived topic again."""
        NoBody.read(request.data).checked()
        return _answer(topics.restore(key=key, by=self.by, now=clock.now()))


def _told(said: dict[str, Any]) -> Told:
    """``names`` may hold anything yet, of which the operation takes texts."""
    names = {locale: name if isinstance(name, str) else "\n" for locale, name in said.get("names", {}).items()}
    return Told(said["name"], names, said.get("description", ""))


def _answer(topic: Topic, *, status: int = 200) -> Response:
    headers = {"ETag": etag(topic.version)}
    if status == 201:
        headers["Location"] = f"/api/v1/topics/{topic.key}"
    return Response(_representation(topic), status=status, headers=headers)


def _representation(topic: Topic) -> dict[str, Any]:
    return {
        "key": topic.key,
        "name": topic.name,
        "names": topic.names,
        "description": topic.description,
        "default": topic.default,
        "version": topic.version,
        "archivedAt": instant(topic.archived_at),
        "createdAt": instant(topic.created_at),
        "updatedAt": instant(topic.updated_at),
    }
