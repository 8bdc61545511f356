"""Calling the API as other programs do, with tokens made without the hashing that a secret costs."""

import json
from collections.abc import Mapping
from datetime import timedelta
from secrets import token_hex
from typing import Any

from django.contrib.auth.models import User
from django.test import Client as Browser
from django.utils import timezone
from oauth2_provider.models import AccessToken, set_token_value

from frontend.models import Client
from schedules.permissions import Scope

READ_WRITE = f"{Scope.READ} {Scope.WRITE}"


def service_client(*, scopes: str = READ_WRITE, name: str = "a service") -> Client:
    return Client.objects.create(
        name=name,
        client_type=Client.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Client.GRANT_CLIENT_CREDENTIALS,
        client_secret="!",
        hash_client_secret=False,
        scopes=scopes,
    )


def token(
    *, scopes: str = READ_WRITE, user: User | None = None, client: Client | None = None, lives_s: float = 600
) -> str:
    """An access token: a service's, or with ``user`` a person's."""
    raw = token_hex(16)
    made = AccessToken(
        application=client or service_client(),
        user=user,
        scope=scopes,
        expires=timezone.now() + timedelta(seconds=lives_s),
    )
    set_token_value(made, raw)
    made.save()
    return raw


class Api:
    """One caller. Answers are Django's, with ``.json()``."""

    def __init__(self, bearer: str | None = None) -> None:
        self._browser = Browser(raise_request_exception=False)
        self._headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}

    def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Any:
        """``body``: anything that JSON can say, or bytes as they are."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self._browser.generic(
            method,
            f"/api/v1/{path}",
            data,
            content_type=options.pop("content_type", "application/json" if data else ""),
            headers={**self._headers, **(headers or {})},
            **options,
        )

    def get(self, path: str, **options: Any) -> Any:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.call("POST", path, body, **options)

    def put(self, path: str, body: Any, *, version: int | str = "*", **options: Any) -> Any:
        return self.call("PUT", path, body, headers=_if_match(version), **options)

    def patch(self, path: str, body: Any, *, version: int | str = "*", **options: Any) -> Any:
        return self.call("PATCH", path, body, headers=_if_match(version), **options)

    def delete(self, path: str, *, version: int | str = "*", **options: Any) -> Any:
        return self.call("DELETE", path, headers=_if_match(version), **options)


def _if_match(version: int | str) -> dict[str, str]:
    return {"If-Match": version if version == "*" else f'"{version}"'}
