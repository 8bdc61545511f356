"""The frame around each of our pages."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from frontend import notices
from frontend.admin_site import site
from frontend.navigation import sidebar
from frontend.wording.actions import ROLES
from frontend.zones import zones_of
from schedules.permissions import Ability, can, roles_of


def framed(request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200) -> HttpResponse:
    """``template`` extends ``frontend/base.html`` and says at least ``title``."""
    return render(request, template, {**frame(request), **context}, status=status)


def frame(request: HttpRequest) -> dict[str, Any]:
    """What every page of ours knows, fragments for htmx included."""
    zones = zones_of(request)
    banners = notices.banners(zones) if can(request.user, Ability.READ) else []
    if can(request.user, Ability.MANAGE_ENDPOINTS):
        banners += notices.endpoints_off(zones)
    return {
        "site_header": site.site_header,
        "navigation": sidebar(request),
        "banners": banners,
        "zones": zones,
        "roles": ", ".join(str(ROLES[role]) for role in sorted(roles_of(request.user))),
        "may_decide": can(request.user, Ability.EDIT_SCHEDULES),
    }


def is_htmx(request: HttpRequest) -> bool:
    """Whether a part of a page is asked for, rather than the page."""
    return request.headers.get("HX-Request") == "true"
