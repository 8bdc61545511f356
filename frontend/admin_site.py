"""The one admin site: unfold's, with our roles at the door and what everybody must know on top of each page."""

from typing import Any

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.templatetags.static import static
from django.urls import reverse
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite

from frontend.instants import show, show_seconds
from frontend.navigation import sidebar
from schedules import clock
from schedules.models import StopSwitch
from schedules.permissions import Ability, can

# More stops than that are summed up, so that the banner stays a banner.
_STOPS_SHOWN = 3


class LoginForm(AuthenticationForm):  # type: ignore[misc]
    """A role is what lets in; Django's staff flag says nothing here."""

    def confirm_login_allowed(self, user: Any) -> None:
        if not can(user, Ability.READ):
            raise ValidationError("This account has no role yet: ask an admin to give it one.", code="no_role")


class SchedulerAdminSite(UnfoldAdminSite):  # type: ignore[misc]
    login_form = LoginForm
    site_title = site_header = "Notification scheduler"
    index_title = "Everything"

    def has_permission(self, request: HttpRequest) -> bool:
        return can(request.user, Ability.READ)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Unfold's form forgets where to go next, unless the address says it."""
        if request.method == "GET" and REDIRECT_FIELD_NAME not in request.GET:
            return redirect_to_login(reverse("admin:index"), login_url=request.path)
        response: HttpResponse = super().login(request, extra_context)
        return response

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        return sidebar(request)

    def extra_context(self, context: dict[str, Any], request: HttpRequest) -> dict[str, Any]:
        """Called by unfold at the end of ``each_context``."""
        context["styles"] = [*(context.get("styles") or []), static("frontend/pages.css")]
        icon = {"rel": "icon", "href": static("frontend/favicon.svg"), "type": "image/svg+xml"}
        context["site_favicons"] = context.get("site_favicons") or [icon]
        context["banners"] = _banners() if self.has_permission(request) else []
        return context


def _banners() -> list[str]:
    """What makes the whole service behave otherwise than its schedules say."""
    banners = []
    stops = list(StopSwitch.objects.order_by("created_at")[: _STOPS_SHOWN + 1])
    for stop in stops[:_STOPS_SHOWN]:
        what = "All sending is" if stop.scope == StopSwitch.ALL else f"Sending for {stop.scope.replace(':', ' ')} is"
        why = f" Reason: {stop.reason}" if stop.reason else ""
        banners.append(f"{what} stopped since {show(stop.created_at)}.{why}")
    if len(stops) > _STOPS_SHOWN:
        banners.append("More stop switches are on: see Stop switch.")
    if shift := clock.shift():
        ahead = show_seconds(shift.total_seconds())
        banners.append(f"Test clock: it is taken to be {show(clock.now())}, {ahead} ahead of the real time.")
    return banners


site = SchedulerAdminSite(name="admin")
