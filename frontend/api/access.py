"""Who calls: access tokens, what they may, and how the audit names their bearer."""

from collections.abc import Mapping
from typing import Any, cast

from django.contrib.auth.models import AbstractBaseUser
from oauth2_provider.contrib.rest_framework import OAuth2Authentication
from oauth2_provider.oauth2_backends import get_oauthlib_core
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from frontend.access import actor
from frontend.api.problems import FORBIDDEN, Refused
from schedules.permissions import Ability, Scope, can, scope_for, shown_address, token_can


class TokenAuthentication(OAuth2Authentication):  # type: ignore[misc]
    """A Bearer token in the Authorization header and nowhere else."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        # Django's request, for DRF's would parse the body before it is known who sent it.
        valid, checked = get_oauthlib_core().verify_request(request._request, scopes=[])
        if valid and (checked.user is None or checked.user.is_active):
            return checked.user, checked.access_token
        request.oauth2_error = getattr(checked, "oauth2_error", {})  # type: ignore[attr-defined]
        return None


class MayCall(BasePermission):
    """The token's scope, and a person's role, as the view's ``abilities`` ask for the method.

    A method whose ability is None needs the ``inbox`` scope in a person's own token.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        abilities: Mapping[str, Ability | None] = view.abilities
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method not in abilities:
            return True  # the view answers 405
        token: Any = request.auth
        if token is None:
            return False
        ability = abilities[method]
        if ability is None:
            return self._may_read_inbox(request, token)
        if may(request, ability):
            return True
        raise Refused(FORBIDDEN, _why_not(person(request), token, ability))

    def _may_read_inbox(self, request: Request, token: Any) -> bool:
        if person(request) is None:
            raise Refused(FORBIDDEN, "An inbox is read with a token of its person, not with a service's.")
        if Scope.INBOX not in token.scopes:
            raise Refused(FORBIDDEN, f"The token lacks the scope {Scope.INBOX}.")
        return True


def _why_not(user: AbstractBaseUser | None, token: Any, ability: Ability) -> str:
    scope = scope_for(ability)
    if scope not in token.scopes:
        return f"The token lacks the scope {scope}."
    if user is not None and not can(user, Ability.READ):
        return "The account has no role: ask an admin to give it one."
    return f"The account's role does not allow it ({ability.value})."


def actor_of(request: Request) -> str:
    """As the audit names who calls: ``user:ID`` or ``client:ID``."""
    caller, token = person(request), cast(Any, request.auth)
    return actor(caller) if caller is not None else f"client:{token.application_id}"


def person(request: Request) -> AbstractBaseUser | None:
    """For whom the token was issued; None for a service's."""
    return cast(AbstractBaseUser | None, request.user)


def may(request: Request, ability: Ability) -> bool:
    return token_can(person(request), cast(Any, request.auth).scopes, ability)


def address_for(request: Request, address: str) -> str:
    """``address`` as the caller may see it: in clear or masked."""
    return shown_address(address, in_clear=may(request, Ability.SEE_ADDRESSES))
