"""Access tokens for Google's APIs, as google-auth fetches them, within the time that a permit leaves."""

from __future__ import annotations

import threading
import time
from typing import Any

from firebase_admin import credentials
from google.auth.credentials import Credentials, TokenState
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

from delivery.providers.base import Permit, ProviderError, Verdict

_PAUSE_S = 10.0  # between early fetches; a token has nearly four minutes left at the first


class AccessToken:
    """The access token of a credential: fetched by one thread at a time, and anew some minutes before it expires.

    `timeout`: seconds that each of a fetch's requests may take.
    """

    def __init__(self, credential: credentials.Base, *, timeout: float) -> None:
        self._credential = credential
        self._timeout = timeout
        self._lock = threading.Lock()
        self._request: Request | None = None
        self._again_at = 0.0  # time.monotonic() before which no early fetch is tried

    def headers(self, permit: Permit) -> tuple[str, dict[str, str]]:
        """The token, and the headers of a request with it. Raises ProviderError."""
        try:
            found = self._credential.get_credential()
        except (GoogleAuthError, OSError, ValueError) as error:  # none, or a file that can't be read
            raise ProviderError(Verdict.MISCONFIGURED, "fcm_credentials", detail=str(error), asked=False) from error
        self._freshen(found, permit)
        permit.check()
        token, headers = found.token, {"content-type": "application/json; charset=utf-8"}
        if token is None:  # another thread has forgotten it just now
            raise ProviderError(Verdict.NOT_STARTED, "next_call", asked=False)
        found.apply(headers, token)
        return token, headers

    def forget(self, token: str) -> None:
        """FCM refuses this token: the next call fetches another, unless that has happened."""
        found = self._credential.get_credential()
        if found.token == token:
            found.token = None

    def _freshen(self, found: Credentials, permit: Permit) -> None:
        """Fetch a token unless there is a fresh one. Near its end the old one serves whoever can't get a new one."""
        state = found.token_state
        if state is TokenState.FRESH or (state is TokenState.STALE and time.monotonic() < self._again_at):
            return
        wait = max(permit.deadline - time.monotonic(), 0) if state is TokenState.INVALID else 0
        if not self._lock.acquire(timeout=wait):
            return
        try:
            if found.token_state is not TokenState.FRESH:
                self._fetch(found, permit)
        except ProviderError:
            if state is TokenState.INVALID:
                raise
            self._again_at = time.monotonic() + _PAUSE_S
        finally:
            self._lock.release()

    def _fetch(self, found: Credentials, permit: Permit) -> None:
        if self._request is None:
            self._request = Request()
        request = self._request

        def ask(*given: Any, **options: Any) -> Any:
            permit.check()  # google-auth repeats what the server says may be repeated
            return request(*given, **{**options, "timeout": self._timeout})

        try:
            found.refresh(ask)  # type: ignore[no-untyped-call]
        except ProviderError:
            raise
        except TransportError as error:
            raise ProviderError(Verdict.TRANSIENT, "unreachable", detail=type(error).__name__) from error
        except GoogleAuthError as error:
            words = str(error)
            if error.retryable:
                raise ProviderError(Verdict.TRANSIENT, "provider_error", detail=words) from error
            raise ProviderError(Verdict.MISCONFIGURED, "access_denied", detail=words) from error
        except Exception as error:  # google-auth takes an answer apart without looking what it is
            raise ProviderError(Verdict.TRANSIENT, "provider_error", detail=type(error).__name__) from error
