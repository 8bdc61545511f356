"""The switches in the header: which zone's clock is shown."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from frontend.zones import TIMES_COOKIE, ZONE_COOKIE, Display
from schedules.recurrence import ZONE_NAMES

_A_YEAR_S = 365 * 24 * 3600


@require_POST
def display(request: HttpRequest) -> HttpResponse:
    """Keep what was chosen in a cookie and go back. An unknown choice changes nothing."""
    response = HttpResponseRedirect(_next(request))
    if request.POST.get("times") in list(Display):
        _keep(response, TIMES_COOKIE, request.POST["times"])
    if "zone" in request.POST:
        zone = request.POST["zone"]
        if zone in ZONE_NAMES:
            _keep(response, ZONE_COOKIE, zone)
        elif not zone:
            response.delete_cookie(ZONE_COOKIE)
    return response


def _keep(response: HttpResponse, name: str, value: str) -> None:
    is_secure: bool = settings.SESSION_COOKIE_SECURE
    response.set_cookie(name, value, max_age=_A_YEAR_S, samesite="Lax", httponly=True, secure=is_secure)


def _next(request: HttpRequest) -> str:
    asked = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(asked, {request.get_host()}, require_https=request.is_secure())
    return asked if is_ours else reverse("home")
