"""The API's document to try and to read."""

from functools import cache
from typing import Any

from django.http import HttpResponse
from django.utils import translation
from django.utils.decorators import method_decorator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView
from rest_framework.request import Request

from frontend import policies


class ApiDocument(SpectacularAPIView):
    """OpenAPI 3.1 as YAML, or as JSON for who accepts that.

    Written once a process: it takes a second of processor time, and anybody may ask for it.
    """

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        renderer = request.accepted_renderer
        kind: Any = type(renderer)
        name = f'inline; filename="notification-scheduler.{renderer.format}"'
        return HttpResponse(_written(kind), content_type=renderer.media_type, headers={"Content-Disposition": name})


@cache
def _written(renderer: Any) -> bytes:
    with translation.override("en"):
        generator: Any = ApiDocument.generator_class()
        document = generator.get_schema(request=None, public=True)
        return bytes(renderer().render(document, renderer_context={}))


@method_decorator(policies.reference, name="dispatch")
class ApiDocs(SpectacularSwaggerView):
    """Swagger UI, from local files."""


@method_decorator(policies.reference, name="dispatch")
class ApiReference(SpectacularRedocView):
    """ReDoc, from local files."""
