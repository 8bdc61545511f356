"""Service accounts as Google's console hands them out, with keys of our own, and the access tokens they are worth.

A client signs an assertion with the account's key and gets a token for it (RFC 7523; "Using OAuth 2.0 for server to
server applications"). The file's `token_uri` names the stub, so google-auth and firebase-admin come here by themselves.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"  # what google-auth signs, wherever the token_uri points
TOKEN_SECONDS = 3600
_SCOPES = {"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/firebase.messaging"}
_SKEW_SECONDS = 300


class BadAssertion(ValueError):
    """The assertion is worth no token; the text says why."""


def write_account(path: Path, *, url: str, project: str = "demo-project") -> None:
    """A service-account file for the stub at `url`. A file that is there keeps its key, for those who have read it."""
    found = json.loads(path.read_text()) if path.exists() else {}
    email = f"stub@{project}.iam.gserviceaccount.example"
    account = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": found.get("private_key_id") or secrets.token_hex(20),
        "private_key": found.get("private_key") or _new_key(),
        "client_email": email,
        "client_id": "100000000000000000000",
        "auth_uri": f"{url}/auth",
        "token_uri": f"{url}/token",
    }
    if account == found:
        return
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(account, file, indent=2)
    new.replace(path)


def _new_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    coding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(coding, form, serialization.NoEncryption()).decode()


class Tokens:
    """The access tokens in force. Assertions must look like an account's and, once one guards them, be its own."""

    def __init__(self) -> None:
        self._account: Any = None
        self._ends: dict[str, float] = {}

    @property
    def project(self) -> str:
        """For which the tokens are good; empty: for any."""
        return self._account["project_id"] if self._account else ""

    def guard(self, account: Path) -> None:
        """From now on take only what this account has signed."""
        self._account = json.loads(account.read_text())

    def is_valid(self, authorization: str) -> bool:
        """Whether an Authorization header carries a token of ours that has not run out."""
        return self._ends.get(authorization, 0.0) > time.monotonic()

    def grant(self, assertion: str) -> dict[str, Any]:
        """An access token for the assertion, as the token endpoint answers it; raises BadAssertion."""
        self._check(assertion)
        token = f"ya29.{secrets.token_urlsafe(96)}"
        self._ends[f"Bearer {token}"] = time.monotonic() + TOKEN_SECONDS
        return {"access_token": token, "expires_in": TOKEN_SECONDS - 1, "token_type": "Bearer"}

    def revoke(self) -> None:
        """No token given out so far is worth anything any more."""
        self._ends.clear()

    def _check(self, assertion: str) -> None:
        try:
            signed, _, signature = assertion.rpartition(".")
            header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
            mark = _decoded(signature)
        except ValueError:
            raise BadAssertion("Invalid JWT: three parts of base64url are expected, JSON in the first two") from None
        if header.get("alg") != "RS256":
            raise BadAssertion("Invalid JWT: RS256 is expected")
        now = time.time()
        if not claims.get("iat", now) - _SKEW_SECONDS <= now <= claims.get("exp", 0):
            raise BadAssertion("Invalid JWT: Token must be a short-lived token and in a reasonable timeframe.")
        if not _SCOPES & set(claims.get("scope", "").split()):
            raise BadAssertion("Invalid scope: one of FCM's is needed")
        if self._account is not None:
            self._check_account(claims, signed, mark)

    def _check_account(self, claims: Any, signed: str, signature: bytes) -> None:
        if claims.get("iss") != self._account["client_email"]:
            raise BadAssertion("Invalid grant: account not found")
        if claims.get("aud") not in (AUDIENCE, self._account["token_uri"]):
            raise BadAssertion("Invalid JWT: Failed audience check.")
        key = serialization.load_pem_private_key(self._account["private_key"].encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        try:
            key.public_key().verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise BadAssertion("Invalid JWT Signature.") from None


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
