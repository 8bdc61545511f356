"""Doors for people: who comes in, and who it was."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

from audit import trail
from schedules.permissions import Ability, can

View = Callable[..., HttpResponseBase]


def needs(ability: Ability) -> Callable[[View], View]:
    """Let through who has ``ability``; send the anonymous to the login and refuse everybody else."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            if not can(request.user, ability):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def actor(user: AbstractBaseUser | AnonymousUser) -> str:
    """The person as the audit names him, which from here on knows his name too."""
    name = f"user:{user.pk}"
    trail.introduce(name, user.get_username())
    return name
