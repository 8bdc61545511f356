"""The API's document to try and to read."""

from django.utils.decorators import method_decorator
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerView

from frontend import policies


@method_decorator(policies.reference, name="dispatch")
class ApiDocs(SpectacularSwaggerView):
    """Swagger UI, from local files."""


@method_decorator(policies.reference, name="dispatch")
class ApiReference(SpectacularRedocView):
    """ReDoc, from local files."""
