"""Secrets of accounts at rest: AES-256-GCM under a key derived from ``SECRET_KEY``.

Whoever reads the database's files or a dump learns nothing of them without that key. While a key is being changed,
``SECRET_KEY_FALLBACKS`` opens what the former one has sealed.
"""

import base64
import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

_NONCE_BYTES = 12
_PURPOSE = b"secrets of accounts, 1"


class Unreadable(ValueError):
    """Sealed under a key that is gone, for somebody else, or changed since."""


def seal(secret: bytes, *, owner: str) -> str:
    """``secret`` as text: base64url of nonce and ciphertext, 28 bytes longer. It opens for the same ``owner`` alone."""
    nonce = os.urandom(_NONCE_BYTES)
    key = _derived(str(settings.SECRET_KEY))
    return base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, secret, owner.encode())).decode()


def unseal(sealed: str, *, owner: str) -> bytes:
    """Raises ``Unreadable``."""
    try:
        given = base64.urlsafe_b64decode(sealed)
    except ValueError as error:
        raise Unreadable("not a sealed secret") from error
    for key in [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]:
        try:
            return AESGCM(_derived(str(key))).decrypt(given[:_NONCE_BYTES], given[_NONCE_BYTES:], owner.encode())
        except (InvalidTag, ValueError):
            continue
    raise Unreadable("no key opens it")


def _derived(key: str) -> bytes:
    return hmac.new(key.encode(), _PURPOSE, hashlib.sha256).digest()
