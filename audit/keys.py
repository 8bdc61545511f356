"""Keys as settings give them, 32 bytes each as base64 or hexadecimal digits; those of the seals are Ed25519."""

import hashlib
from base64 import b64decode
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

KEY_BYTES: Final = 32
# 32 bytes of chance hold 30 different ones; fewer than 16 is no accident.
_DIFFERENT: Final = 16


def key_of(text: str, *, name: str) -> bytes:
    """A key of 32 bytes. Raises ``ImproperlyConfigured``, which says its ``name`` and no part of it."""
    text = text.strip()
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ImproperlyConfigured(f"{name}: a key is 32 bytes, as base64 or 64 hexadecimal digits.")
    return raw


def is_guessable(key: bytes) -> bool:
    """Whether its bytes repeat themselves."""
    return len(set(key)) < _DIFFERENT


def private_key() -> Ed25519PrivateKey:
    """The key in ``AUDIT_SEAL_KEY``: 32 bytes, as base64 or hexadecimal digits."""
    return Ed25519PrivateKey.from_private_bytes(key_of(settings.AUDIT_SEAL_KEY, name="AUDIT_SEAL_KEY"))


def public_key() -> str:
    """Of ``AUDIT_SEAL_KEY``, in hexadecimal digits: what is written down elsewhere, and given to whoever verifies."""
    return private_key().public_key().public_bytes_raw().hex()


def key_id(public: Ed25519PublicKey) -> str:
    """16 hexadecimal digits of the public key's hash."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def known_keys(former: Iterable[str]) -> dict[str, Ed25519PublicKey]:
    """By key id: the public key of the one in use, and ``former`` ones as ``read_public_keys`` takes them."""
    public = private_key().public_key()
    return {key_id(public): public, **read_public_keys(former)}


def read_public_keys(given: Iterable[str]) -> dict[str, Ed25519PublicKey]:
    """By key id: public keys of 32 bytes, as base64 or hexadecimal digits. Raises ``ImproperlyConfigured``."""
    keys = [Ed25519PublicKey.from_public_bytes(key_of(text, name="A public key of the seals")) for text in given]
    return {key_id(key): key for key in keys}
