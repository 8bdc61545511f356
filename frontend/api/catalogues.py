"""``/catalogues``: the translations of a locale, shared by all templates; kept by ``schedules.templates``."""

from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from frontend.api.base import ApiView, etag, expected_version, wants_new
from frontend.api.documents import problems
from frontend.api.fields import ObjectField, StrictSerializer
from frontend.api.paging import Order, PageQuery, page_of
from frontend.api.problems import NOT_FOUND, Refused
from frontend.instants import instant
from schedules import clock, templates
from schedules.content import normalise_locale, validate_catalogue
from schedules.models import Catalogue
from schedules.permissions import Ability

_IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="`*` in the place of If-Match: make a new one, and 412 if there is one already.",
)
_CATALOGUE_EXAMPLE = OpenApiExample(
    "German",
    request_only=True,
    value={"messages": {"greeting": "Hallo", "items": {"one": "{count} Ding", "other": "{count} Dinge"}}},
)


class CatalogueBody(StrictSerializer):
    """Translations of one locale."""

    read_only_names = frozenset({"locale", "version", "updatedBy", "updatedAt"})

    messages = ObjectField(help_text="`{key: text}` or `{key: {plural category: text}}`, used by `t(key)`.")


class CatalogueHead(serializers.Serializer[Any]):
    locale = serializers.CharField()
    version = serializers.IntegerField(help_text="Rises with each change; the ETag is made of it.")
    updatedBy = serializers.CharField()
    updatedAt = serializers.DateTimeField()


class CatalogueAnswer(CatalogueHead):
    messages = serializers.DictField(child=serializers.JSONField())


class CataloguePage(serializers.Serializer[Any]):
    items = CatalogueHead(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class Catalogues(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="listCatalogues", parameters=[PageQuery], responses={200: CataloguePage, **problems(400)}
    )
    def get(self, request: Request) -> Response:
        """The locales that have translations, without these."""
        query = PageQuery.of(request)
        rows = Catalogue.objects.live().defer("messages")
        page, cursor = page_of(rows, Order("locale", descending=False, parse=str), query)
        return Response({"items": [_catalogue_head(each) for each in page], "nextCursor": cursor})


class OneCatalogue(ApiView):
    """``locale`` is taken for what it means: ``de_at`` is ``de-AT``."""

    abilities: ClassVar = {
        "GET": Ability.READ,
        "PUT": Ability.EDIT_TEMPLATES,
        "DELETE": Ability.EDIT_TEMPLATES,
    }
    unconditional: ClassVar = ("PUT",)

    @extend_schema(operation_id="getCatalogue", responses={200: CatalogueAnswer, **problems(404)})
    def get(self, request: Request, locale: str) -> Response:
        """A locale's translations, with their ETag."""
        return _catalogue(_standing(locale))

    @extend_schema(
        operation_id="putCatalogue",
        request=CatalogueBody,
        examples=[_CATALOGUE_EXAMPLE],
        parameters=[_IF_NONE_MATCH],
        responses={200: CatalogueAnswer, 201: CatalogueAnswer, **problems(400, 404, 412, 428)},
    )
    def put(self, request: Request, locale: str) -> Response:
        """Replace a locale's translations, or with `If-None-Match: *` make new ones."""
        is_new = wants_new(request)
        version = None if is_new else expected_version(request, standing=lambda: _standing(locale).version)
        if wrong := validate_catalogue(locale=locale, messages={}):
            raise Refused(NOT_FOUND, f"There can be no such catalogue: {wrong[0].message}.")
        messages = CatalogueBody.read(request.data).checked()["messages"]
        said = {"locale": locale, "messages": messages, "by": self.by, "now": clock.now()}
        if is_new:
            return _catalogue(templates.create_catalogue(**said), status=201)
        try:
            return _catalogue(templates.change_catalogue(**said, expected_version=version))
        except Catalogue.DoesNotExist:
            return _no_catalogue(locale)  # type: ignore[no-any-return]

    @extend_schema(operation_id="deleteCatalogue", responses={204: None, **problems(404, 412, 428)})
    def delete(self, request: Request, locale: str) -> Response:
        """Take a locale's translations away: texts come from the next wider locale then, or the default's."""
        version = expected_version(request, standing=lambda: _standing(locale).version)
        try:
            templates.delete_catalogue(locale=locale, by=self.by, now=clock.now(), expected_version=version)
        except Catalogue.DoesNotExist:
            _no_catalogue(locale)
        return Response(status=204)


def _standing(locale: str) -> Catalogue:
    found = Catalogue.objects.live().filter(locale=normalise_locale(locale)).first()
    return found or _no_catalogue(locale)


def _no_catalogue(locale: str) -> Any:
    shown = normalise_locale(locale) or locale[:40]
    raise Refused(NOT_FOUND, f"There is no catalogue for {shown!r}: make one with If-None-Match: *.")


def _catalogue_head(catalogue: Catalogue) -> dict[str, Any]:
    return {
        "locale": catalogue.locale,
        "version": catalogue.version,
        "updatedBy": catalogue.updated_by,
        "updatedAt": instant(catalogue.updated_at),
    }


def _catalogue(catalogue: Catalogue, *, status: int = 200) -> Response:
    headers = {"ETag": etag(catalogue.version)}
    if status == 201:
        headers["Location"] = f"/api/v1/catalogues/{catalogue.locale}"
    return Response({**_catalogue_head(catalogue), "messages": catalogue.messages}, status=status, headers=headers)
