"""Programs that may ask for access tokens: made, signed out and removed, each with its audit event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from oauth2_provider.generators import generate_client_secret
from oauth2_provider.models import get_access_token_model, get_grant_model, get_refresh_token_model

from audit import trail
from audit.models import Action
from frontend.models import Client
from schedules.permissions import Scope

SERVICE_SCOPES = (Scope.READ, Scope.WRITE)


class InvalidClient(ValueError):
    """There can be no such client; the words say why."""


@dataclass(frozen=True)
class NewClient:
    """``secret`` is known here and nowhere else: the database holds its hash. An app has none."""

    client: Client
    secret: str | None


def create_service(*, name: str, by: str, now: datetime, scopes: Iterable[str] = SERVICE_SCOPES) -> NewClient:
    """A service, which acts for itself (client credentials). Raises ``InvalidClient``."""
    asked = _checked_scopes(scopes, allowed=SERVICE_SCOPES)
    secret = generate_client_secret()
    client = Client(
        name=_checked_name(name),
        client_type=Client.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Client.GRANT_CLIENT_CREDENTIALS,
        client_secret=secret,
        scopes=" ".join(asked),
    )
    return NewClient(_keep(client, by=by, now=now), secret)


def create_app(
    *, name: str, redirect_uris: Sequence[str], by: str, now: datetime, scopes: Iterable[str] = tuple(Scope)
) -> NewClient:
    """An app that people sign in through (authorization code with PKCE). It can keep no secret, so it has none.

    Raises ``InvalidClient``.
    """
    if not redirect_uris:
        raise InvalidClient("Say where people are sent back to: an app needs a redirect URI.")
    client = Client(
        name=_checked_name(name),
        client_type=Client.CLIENT_PUBLIC,
        authorization_grant_type=Client.GRANT_AUTHORIZATION_CODE,
        redirect_uris=" ".join(redirect_uris),
        scopes=" ".join(_checked_scopes(scopes, allowed=tuple(Scope))),
    )
    try:
        client.clean()
    except ValidationError as error:
        raise InvalidClient(" ".join(error.messages)) from error
    return NewClient(_keep(client, by=by, now=now), None)


@transaction.atomic
def revoke_tokens(*, client_id: int, by: str, now: datetime) -> int:
    """End every token and sign-in of the client at once; how many tokens. It may ask for new ones."""
    client = Client.objects.select_for_update().get(pk=client_id)
    get_grant_model().objects.filter(application=client).delete()
    get_refresh_token_model().objects.filter(application=client).delete()
    ended: int = get_access_token_model().objects.filter(application=client).delete()[0]
    changes = {"client": client.pk, "name": client.name, "tokens": [ended, 0]}
    trail.record(action=Action.CLIENT_REVOKE, by=by, now=now, changes=changes)
    return ended


@transaction.atomic
def delete(*, client_id: int, by: str, now: datetime) -> None:
    """Let the client in no more; its tokens end with it. What it did stays under its id in the audit."""
    client = Client.objects.select_for_update().get(pk=client_id)
    changes = {"client": client.pk, **trail.diff(_said(client), {})}
    client.delete()
    trail.record(action=Action.CLIENT_DELETE, by=by, now=now, changes=changes)


@transaction.atomic
def _keep(client: Client, *, by: str, now: datetime) -> Client:
    client.save()
    changes = {"client": client.pk, **trail.diff({}, _said(client))}
    trail.record(action=Action.CLIENT_CREATE, by=by, now=now, changes=changes)
    return client


def _said(client: Client) -> Mapping[str, Any]:
    return {
        "name": client.name,
        "kind": client.authorization_grant_type,
        "scopes": client.scopes,
        "redirect_uris": client.redirect_uris or None,
    }


def _checked_name(name: str) -> str:
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise InvalidClient("Give the client a name of at most 200 printable characters.")
    return name


def _checked_scopes(scopes: Iterable[str], *, allowed: Sequence[Scope]) -> list[str]:
    asked = list(dict.fromkeys(scopes))
    words = ", ".join(allowed)
    for scope in asked:
        if scope not in list(allowed):
            why = "A service has no inbox" if scope == Scope.INBOX else f"There is no scope {scope!r}"
            raise InvalidClient(f"{why}: use some of {words}.")
    if not asked:
        raise InvalidClient(f"A client without scopes may do nothing: use some of {words}.")
    return asked
