"""Who calls: access tokens, what they may, and how the audit names their bearer."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.db.models.functions import Now
from oauth2_provider.contrib.rest_framework import OAuth2Authentication
from oauth2_provider.models import get_access_token_model, get_application_model
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from audit import trail
from frontend.access import actor
from frontend.api.problems import FORBIDDEN, Refused
from schedules.permissions import Ability, Scope, can, scope_for, shown_address, token_can

AccessToken = get_access_token_model()
Application = get_application_model()


@dataclass(frozen=True)
class Token:
    """What an access token says: of which application it is, for whom (none: a service's), for what and until when."""

    pk: int
    application_id: int
    user_id: int | None
    scopes: frozenset[str]
    expires: datetime
    application_name: str = ""


class TokenAuthentication(OAuth2Authentication):  # type: ignore[misc]
    """A Bearer token in the Authorization header and nowhere else (RFC 6750, 2.1).

    Asked of the database at each request, so that what is revoked is revoked at once; by one plain statement, since
    the toolkit's own way through OAuthLib takes as long as the rest of a request.
    """

    def authenticate(self, request: Request) -> tuple[Any, Token] | None:
        scheme, _, given = request.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() == "bearer" and (token := _find(given.strip(), request)):
            if token.user_id is None:
                return None, token
            if user := get_user_model().objects.filter(pk=token.user_id, is_active=True).first():
                return user, token
        # Whoever did not come with a bearer's token has made no mistake in it (RFC 6750, 3.1).
        error = {"error": "invalid_token", "error_description": "The access token is invalid."}
        request.oauth2_error = error if given and scheme.lower() == "bearer" else {}  # type: ignore[attr-defined]
        return None


def _find(given: str, request: Request) -> Token | None:
    """The token, unless it is unknown, has expired or was revoked, or is for another server (RFC 8707)."""
    checksum = hashlib.sha256(given.encode(errors="replace")).hexdigest()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.id, t.application_id, t.user_id, t.scope, t.expires, t.resource, c.name"
            f" FROM {AccessToken._meta.db_table} t LEFT JOIN {Application._meta.db_table} c ON c.id = t.application_id"
            " WHERE t.token_checksum = %s AND t.expires > clock_timestamp()",
            [checksum],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    pk, application_id, user_id, scope, expires, resource, name = row
    if resource not in ("", "[]"):
        whole = AccessToken.objects.filter(pk=pk).first()
        if whole is None or not whole.allows_audience(request.build_absolute_uri(request.path)):
            return None
    return Token(pk, application_id, user_id, frozenset(scope.split()), expires, name or "")


def bearers(token_ids: Collection[int]) -> dict[int, str]:
    """The usernames of those whose tokens are good still, by the tokens; for what goes on after it was let in."""
    tokens = AccessToken.objects.filter(pk__in=token_ids, expires__gt=Now(), user__is_active=True)
    return dict(tokens.values_list("pk", "user__username"))


class MayCall(BasePermission):
    """The token's scope, and a person's role, as the view's ``abilities`` ask for the method.

    A method whose ability is None needs the ``inbox`` scope in a person's own token.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        abilities: Mapping[str, Ability | None] = view.abilities
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method not in abilities:
            return True  # the view answers 405
        token = cast(Token | None, request.auth)
        if token is None:
            return False
        ability = abilities[method]
        if ability is None:
            return self._may_read_inbox(request, token)
        if may(request, ability):
            return True
        scope = scope_for(ability)
        if scope and scope not in token.scopes:
            raise _lacks(scope)
        raise Refused(FORBIDDEN, _why_not(person(request), ability))

    def _may_read_inbox(self, request: Request, token: Token) -> bool:
        if person(request) is None:
            raise Refused(FORBIDDEN, "An inbox is read with a token of its person, not with a service's.")
        if Scope.INBOX not in token.scopes:
            raise _lacks(Scope.INBOX)
        return True


def _lacks(scope: Scope) -> Refused:
    """With the challenge that RFC 6750 (3.1) has for it."""
    challenge = f'Bearer realm="api",error="insufficient_scope",scope="{scope}"'
    return Refused(FORBIDDEN, f"The token lacks the scope {scope}.", headers={"WWW-Authenticate": challenge})


def _why_not(user: AbstractBaseUser | None, ability: Ability) -> str:
    if user is not None and not can(user, Ability.READ):
        return "The account has no role: ask an admin to give it one."
    return f"The account's role does not allow it ({ability.value})."


def actor_of(request: Request) -> str:
    """As the audit names who calls: ``user:ID`` or ``client:ID``."""
    caller, token = person(request), cast(Token, request.auth)
    if caller is not None:
        return actor(caller)
    name = f"client:{token.application_id}"
    trail.introduce(name, token.application_name)
    return name


def person(request: Request) -> AbstractBaseUser | None:
    """For whom the token was issued; None for a service's."""
    return cast(AbstractBaseUser | None, request.user)


def may(request: Request, ability: Ability) -> bool:
    return token_can(person(request), cast(Token, request.auth).scopes, ability)


def address_for(request: Request, address: str) -> str:
    """``address`` as the caller may see it: in clear or masked."""
    return shown_address(address, in_clear=may(request, Ability.SEE_ADDRESSES))
