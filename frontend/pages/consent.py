"""Asking a person whether an app may act for him: ``/oauth/authorize``."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from oauth2_provider.views import AuthorizationView

from frontend import policies
from frontend.admin_site import site
from frontend.models import Client


@method_decorator([policies.unfold, policies.redirects], name="dispatch")
class Consent(AuthorizationView):  # type: ignore[misc]
    """The toolkit's own view inside our frame. The page may not be framed: a click on it gives access away."""

    http_method_names = ("get", "post")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if any("\0" in value for values in request.GET.lists() for value in values[1]):
            response: HttpResponse = self._broken(_("A parameter holds a NUL."))
        else:
            response = super().dispatch(request, *args, **kwargs)
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Cache-Control"] = "no-store"
        return response

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            response: HttpResponse = super().form_valid(form)
        except Client.DoesNotExist:
            return self._broken(_("There is no such app any more."))
        return response

    def form_invalid(self, form: Any) -> HttpResponse:
        return self._broken(_("The form is incomplete."))

    def _broken(self, words: str) -> HttpResponse:
        return self.render_to_response({"error": {"error": "invalid_request", "description": words}}, status=400)

    def render_to_response(self, context: dict[str, Any], **options: Any) -> HttpResponse:
        framed = {**site.each_context(self.request), "title": _("Sign in to an app"), "site_url": None, **context}
        response: HttpResponse = super().render_to_response(framed, **options)
        return response
