"""The front door."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from schedules.permissions import Ability, can


def home(request: HttpRequest) -> HttpResponse:
    """To what there is to see, or to the login."""
    name = "schedules" if can(request.user, Ability.READ) else "admin:login"
    return HttpResponseRedirect(reverse(name))
