"""``/templates``: what is said, in which channel and locale; kept by ``schedules.templates``."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from django.db.models import Prefetch
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from frontend.api.base import ApiView, etag, expected_version
from frontend.api.documents import ProblemAnswer, problems
from frontend.api.fields import Read, StrictCharField, StrictChoiceField, StrictSerializer
from frontend.api.idempotency import idempotent
from frontend.api.paging import Order, PageQuery, by_instant, page_of
from frontend.api.problems import MEDIA_TYPE, NOT_FOUND, Refused, invalid
from frontend.instants import instant
from schedules import clock, templates
from schedules.content import MAX_SOURCE
from schedules.listing import spoken
from schedules.models import Channel, MessageTemplate, TemplateContent, TemplateVersion
from schedules.permissions import Ability
from schedules.templates import PARTS

ORDERS: Mapping[str, Order] = {
    "-id": Order(),
    "id": Order(descending=False),
    "name": Order("name", descending=False, parse=str),
    "-name": Order("name", descending=True, parse=str),
    "updatedAt": by_instant("updated_at", descending=False),
    "-updatedAt": by_instant("updated_at", descending=True),
}
MOST_CONTENTS = 300
_EDITS: Mapping[str, Ability | None] = {
    "GET": Ability.READ,
    "PUT": Ability.EDIT_TEMPLATES,
    "PATCH": Ability.EDIT_TEMPLATES,
    "DELETE": Ability.EDIT_TEMPLATES,
}
_TEMPLATE_EXAMPLE = OpenApiExample(
    "A greeting",
    request_only=True,
    value={
        "name": "Welcome",
        "defaultLocale": "en",
        "contents": [
            {
                "channel": "email",
                "locale": "en",
                "subject": "Welcome, {{ first_name }}",
                "text": "Hello {{ first_name }}, good to have you.",
                "html": "<p>Hello {{ first_name }}, good to have you.</p>",
            },
            {"channel": "push", "locale": "en", "subject": "Welcome", "text": "Good to have you."},
        ],
    },
)
_CHANGE_EXAMPLE = OpenApiExample("Another default", request_only=True, value={"defaultLocale": "en"})


_SERVICE_ID = "Under which the template service keeps it; null for one that is kept here."
_SERVICE_VERSION = "What the template service calls this version; null for a template that is kept here."
_TOKENS = "What the template service reads of a recipient, schedule and run; null for a template that is kept here."


class ContentBody(StrictSerializer):
    """What is said in one channel and locale."""

    channel = StrictChoiceField(choices=Channel.values)
    locale = StrictCharField(
        max_length=templates.LONGEST_LOCALE, help_text="Such as `de` or `de-AT`; `default` serves everyone else."
    )
    subject = StrictCharField(
        max_length=MAX_SOURCE["subject"], required=False, allow_blank=True, help_text="The title in push and in-app."
    )
    text = StrictCharField(max_length=MAX_SOURCE["text"], required=False, allow_blank=True)
    html = StrictCharField(max_length=MAX_SOURCE["html"], required=False, allow_blank=True)


class TemplateBody(StrictSerializer):
    """A message in its channels and locales."""

    read_only_names = frozenset({"id", "version", "createdAt", "updatedAt", "serviceId", "serviceVersion", "tokens"})

    name = StrictCharField(max_length=200, help_text="Unique, and chosen once: imports know the template by it.")
    defaultLocale = StrictCharField(
        max_length=templates.LONGEST_LOCALE,
        source="default_locale",
        required=False,
        default="en",
        help_text="Serves everyone whose locale has no content.",
    )
    contents = ContentBody(many=True, max_length=MOST_CONTENTS)  # type: ignore[call-arg]


class TemplateAnswer(TemplateBody):
    """A template as it is. One that the template service keeps has its words there, and can't be changed here."""

    id = serializers.IntegerField()
    serviceId = serializers.CharField(allow_null=True, help_text=_SERVICE_ID)
    serviceVersion = serializers.CharField(allow_null=True, help_text=_SERVICE_VERSION)
    tokens = serializers.ListField(child=serializers.CharField(), allow_null=True, help_text=_TOKENS)
    version = serializers.IntegerField(help_text="Rises with each publication; the ETag is made of it.")
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()


class ContentHead(serializers.Serializer[Any]):
    channel = serializers.ChoiceField(choices=Channel.values)
    locale = serializers.CharField(allow_blank=True)
    subject = serializers.CharField(allow_blank=True)


class TemplateHead(serializers.Serializer[Any]):
    """A template without its texts."""

    id = serializers.IntegerField()
    serviceId = serializers.CharField(allow_null=True, help_text=_SERVICE_ID)
    name = serializers.CharField()
    defaultLocale = serializers.CharField()
    contents = ContentHead(many=True)
    version = serializers.IntegerField()
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()


class TemplatePage(serializers.Serializer[Any]):
    items = TemplateHead(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class TemplateQuery(PageQuery):
    text = StrictCharField(max_length=200, required=False, help_text="In the name, whatever the case.")
    order = StrictChoiceField(choices=list(ORDERS), required=False, default="-id")


class TemplateVersionHead(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    serviceVersion = serializers.CharField(allow_null=True, help_text=_SERVICE_VERSION)
    createdBy = serializers.CharField()
    createdAt = serializers.DateTimeField()
    defaultLocale = serializers.CharField()


class TemplateVersionAnswer(TemplateVersionHead):
    contents = ContentBody(many=True)
    tokens = serializers.ListField(child=serializers.CharField(), allow_null=True, help_text=_TOKENS)


class TemplateVersionPage(serializers.Serializer[Any]):
    items = TemplateVersionHead(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class UsingSchedule(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()


class InUseAnswer(ProblemAnswer):
    """Schedules that are not over use the template."""

    schedules = UsingSchedule(many=True, required=False, help_text="The first few of them.")
    scheduleCount = serializers.IntegerField(required=False)


def find_template(template_id: int) -> MessageTemplate:
    """A template that is not deleted. Raises ``Refused`` (404)."""
    found = MessageTemplate.objects.live().filter(pk=template_id).first()
    return found or _no_template(template_id)


def _no_template(template_id: int) -> Any:
    raise Refused(NOT_FOUND, f"There is no template {template_id}.")


def _template(template: MessageTemplate, *, contents: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """As ``TemplateHead``."""
    return {
        "id": template.pk,
        "serviceId": template.service_id or None,
        "name": template.name,
        "defaultLocale": template.default_locale,
        "contents": list(contents),
        "version": template.version,
        "createdAt": instant(template.created_at),
        "updatedAt": instant(template.updated_at),
    }


def _heads(template: MessageTemplate, says: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Contents with their subjects; ``says``: of a template without contents here."""
    if template.is_remote:
        return [{"channel": channel, "locale": locale, "subject": ""} for channel, locale in says]
    parts = ("channel", "locale", "subject")
    return [{name: getattr(content, name) for name in parts} for content in template.contents.all()]


def _whole(template: MessageTemplate) -> dict[str, Any]:
    """As ``TemplateAnswer``."""
    if not template.is_remote:
        contents = [{name: getattr(content, name) for name in PARTS} for content in template.contents.all()]
        return {**_template(template, contents=contents), "serviceVersion": None, "tokens": None}
    last = template.versions.get(version=template.version)
    of_service = {"serviceVersion": last.service_version, "tokens": last.tokens}
    return {**_template(template, contents=last.contents), **of_service}


def _answer(template: MessageTemplate, *, status: int = 200) -> Response:
    headers = {"ETag": etag(template.version)}
    if status == 201:
        headers["Location"] = f"/api/v1/templates/{template.pk}"
    return Response(_whole(template), status=status, headers=headers)


def _read(data: Any, *, partial: bool = False) -> dict[str, Any]:
    """A body's values. Raises ``Refused`` (400), with what is wrong with the contents that could be read, too."""
    found = TemplateBody.read(data, partial=partial)
    return found.values if not found.problems else _refuse(found)


def _refuse(found: Read) -> Any:
    told = tuple(f"{problem.field}/" for problem in found.problems)
    default = found.values.get("default_locale", "en")
    rest = templates.check(found.values["contents"], default_locale=default) if "contents" in found.values else []
    # What could not be read is missing in the rest, of which nothing more is to be said.
    more = [each for each in rest if each.field != "contents" and not f"/{each.field}/".startswith(told)]
    raise invalid([*found.problems, *more])


class Templates(ApiView):
    abilities: ClassVar = {"GET": Ability.READ, "POST": Ability.EDIT_TEMPLATES}

    @extend_schema(
        operation_id="listTemplates", parameters=[TemplateQuery], responses={200: TemplatePage, **problems(400)}
    )
    def get(self, request: Request) -> Response:
        """The templates, without their texts, a page at a time."""
        query = TemplateQuery.of(request)
        rows = MessageTemplate.objects.live()
        if query.get("text"):
            rows = rows.filter(name__icontains=query["text"])
        heads = TemplateContent.objects.only("template_id", "channel", "locale", "subject")
        page, cursor = page_of(rows.prefetch_related(Prefetch("contents", heads)), ORDERS[query["order"]], query)
        says = spoken([each for each in page if each.is_remote])
        items = [_template(each, contents=_heads(each, says.get(each.pk, ()))) for each in page]
        return Response({"items": items, "nextCursor": cursor})

    @extend_schema(
        operation_id="createTemplate",
        request=TemplateBody,
        examples=[_TEMPLATE_EXAMPLE],
        responses={201: TemplateAnswer, **problems(400, 409, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Keep a new template and publish it."""
        return _answer(templates.create(**_read(request.data), by=self.by, now=clock.now()), status=201)


class OneTemplate(ApiView):
    abilities: ClassVar = _EDITS

    @extend_schema(operation_id="getTemplate", responses={200: TemplateAnswer, **problems(404)})
    def get(self, request: Request, template_id: int) -> Response:
        """One template, with its ETag."""
        return _answer(find_template(template_id))

    @extend_schema(
        operation_id="replaceTemplate",
        request=TemplateBody,
        examples=[_TEMPLATE_EXAMPLE],
        responses={200: TemplateAnswer, **problems(400, 404, 409, 412, 428)},
    )
    def put(self, request: Request, template_id: int) -> Response:
        """Replace what it says and publish it: runs that open from now on say the new. The name stays."""
        template = find_template(template_id)
        version = expected_version(request, standing=lambda: template.version)
        return self._change(template_id, _read(request.data), version)

    @extend_schema(
        operation_id="changeTemplate",
        request=TemplateBody,
        examples=[_CHANGE_EXAMPLE],
        responses={200: TemplateAnswer, **problems(400, 404, 409, 412, 428)},
    )
    def patch(self, request: Request, template_id: int) -> Response:
        """Change the fields that the body has; `contents` are replaced as a whole, as lists are (RFC 7396)."""
        template = find_template(template_id)
        version = expected_version(request, standing=lambda: template.version)
        return self._change(template_id, _read(request.data, partial=True), version)

    @extend_schema(
        operation_id="deleteTemplate",
        responses={
            204: None,
            **problems(404, 412, 428),
            (409, MEDIA_TYPE): OpenApiResponse(InUseAnswer, "Schedules still use it, or the template service keeps it"),
        },
    )
    def delete(self, request: Request, template_id: int) -> Response:
        """Take it out of every list. Its versions stay, for the runs that went out with them."""
        version = expected_version(request, standing=lambda: find_template(template_id).version)
        try:
            templates.delete(template_id=template_id, by=self.by, now=clock.now(), expected_version=version)
        except MessageTemplate.DoesNotExist:
            _no_template(template_id)
        return Response(status=204)

    def _change(self, template_id: int, changes: Mapping[str, Any], version: int | None) -> Response:
        try:
            changed = templates.change(
                template_id=template_id, changes=changes, by=self.by, now=clock.now(), expected_version=version
            )
        except MessageTemplate.DoesNotExist:  # deleted since it was looked for
            _no_template(template_id)
        return _answer(changed)


class TemplateVersions(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="listTemplateVersions",
        parameters=[PageQuery],
        responses={200: TemplateVersionPage, **problems(400, 404)},
    )
    def get(self, request: Request, template_id: int) -> Response:
        """What was published, the latest first: by whom and when."""
        query = PageQuery.of(request)
        find_template(template_id)
        rows = TemplateVersion.objects.filter(template=template_id).defer("contents")
        page, cursor = page_of(rows, Order("version", descending=True), query)
        return Response({"items": [_version(each) for each in page], "nextCursor": cursor})


class OneTemplateVersion(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(operation_id="getTemplateVersion", responses={200: TemplateVersionAnswer, **problems(404)})
    def get(self, request: Request, template_id: int, version: int) -> Response:
        """What a version said; of a deleted template too, since runs went out with it."""
        kept = TemplateVersion.objects.filter(template=template_id, version=version).first()
        if kept is None:
            raise Refused(NOT_FOUND, f"There is no version {version} of a template {template_id}.")
        tokens = kept.tokens if kept.service_version else None
        return Response({**_version(kept), "contents": kept.contents, "tokens": tokens})


def _version(kept: TemplateVersion) -> dict[str, Any]:
    return {
        "version": kept.version,
        "serviceVersion": kept.service_version or None,
        "createdBy": kept.created_by,
        "createdAt": instant(kept.created_at),
        "defaultLocale": kept.default_locale,
    }
