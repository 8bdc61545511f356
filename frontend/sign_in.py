"""Signing in by program: what django-oauth-toolkit leaves open. Its settings are under ``OAUTH2_PROVIDER``."""

from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauth2_provider.settings import oauth2_settings
from oauth2_provider.views import RevokeTokenView, TokenView

_UNREADABLE = (RequestDataTooBig, TooManyFieldsSent, MultiPartParserError, UnreadablePostError)
_log = structlog.get_logger(__name__)


class Validator(OAuth2Validator):  # type: ignore[misc]
    """Nobody gets a token for a person who has been deactivated since."""

    def validate_code(self, client_id: str, code: str, client: Any, request: Any, *args: Any, **kwargs: Any) -> bool:
        valid = super().validate_code(client_id, code, client, request, *args, **kwargs)
        return bool(valid and request.user.is_active)

    def validate_refresh_token(self, refresh_token: str, client: Any, request: Any, *args: Any, **kwargs: Any) -> bool:
        valid = super().validate_refresh_token(refresh_token, client, request, *args, **kwargs)
        return bool(valid and request.user.is_active)


class _SaysWhy:
    """Every error is JSON as RFC 6749, 5.2, has it, whatever was sent."""

    http_method_names = ("post",)

    @method_decorator(csrf_exempt)  # a program has no cookie to be forged with
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            fault = _fault(request) if request.method == "POST" else ""
        except _UNREADABLE:
            fault = "The form can't be read."
        if fault:
            return _refused("invalid_request", fault)
        try:
            response: HttpResponseBase = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        except OperationalError as error:
            _log.warning("sign_in_database_away", error=error)
            response = _refused("temporarily_unavailable", "The database does not answer: try again.", status=503)
            response.headers["Retry-After"] = "5"
        response.headers["Cache-Control"] = "no-store"
        return response

    def http_method_not_allowed(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = _refused("invalid_request", "Send a form by POST.", status=405)
        response["Allow"] = "POST"
        return response


class Token(_SaysWhy, TokenView):  # type: ignore[misc]
    """``POST /oauth/token``."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.POST.get("grant_type", "") not in ["", *oauth2_settings.OAUTH2_GRANT_TYPES_SUPPORTED]:
            return _refused("unsupported_grant_type", "There is no such grant here; see the server's metadata.")
        response: HttpResponse = super().post(request, *args, **kwargs)
        if response.status_code != 200:
            _log.info("token_refused", status=response.status_code)
        return response


class Revoke(_SaysWhy, RevokeTokenView):  # type: ignore[misc]
    """``POST /oauth/revoke`` (RFC 7009)."""


def _fault(request: HttpRequest) -> str:
    """What would be too strange for the database; empty if nothing is."""
    for name, values in request.POST.lists():
        if len(values) > 1:
            return "A parameter stands twice."  # RFC 6749, 3.2
        if "\0" in name or "\0" in values[0]:
            return "A parameter holds a NUL."
    return ""


def _refused(error: str, description: str, *, status: int = 400) -> JsonResponse:
    said = {"error": error, "error_description": description}
    return JsonResponse(said, status=status, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})
