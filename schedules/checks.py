"""System checks: are there keys for what lies encrypted in the database, and can the user service be called?"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from audit.keys import is_guessable
from schedules import encryption


def check_keys(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``check --deploy``: ``schedules.E001`` for keys that are missing, short or repeated, ``E002`` for guessable ones.

    The source of the keys is asked, whichever it is.
    """
    try:
        keys = encryption.source()()
        encryption.Keyset(keys)
    except ImproperlyConfigured as error:
        hint = (
            "Set ENCRYPTION_KEYS and BLIND_INDEX_KEY to what this prints, each to another: openssl rand -hex 32. Or "
            "let ENCRYPTION_KEYSET name a function that gives them (docs/security.md)."
        )
        return [Error(str(error), hint=hint, id="schedules.E001")]
    if not any(is_guessable(key) for key in (*keys.encryption, keys.index)):
        return []
    words = "A key of the encryption can be guessed: its bytes repeat themselves."
    hint = "Put a key made by openssl rand -hex 32 in front of ENCRYPTION_KEYS, and run manage.py rotate_keys."
    return [Error(words, hint=hint, id="schedules.E002")]


def check_user_service(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``schedules.E003``: an address that nobody can call, or one with more in it than belongs there."""
    if not settings.USER_SERVICE_URL or is_address(settings.USER_SERVICE_URL):
        return []
    words = "USER_SERVICE_URL is no address that can be called."  # not quoted: it may hold a password
    hint = "Write one such as https://users.example.com/notifications; the token goes into USER_SERVICE_TOKEN."
    return [Error(words, hint=hint, id="schedules.E003")]


def is_address(url: str) -> bool:
    """Whether ``url`` is what a user service can be called at."""
    try:
        parts = urlsplit(url)
        has_more = parts.query or parts.fragment or parts.username or parts.password or parts.port == 0
    except ValueError:  # of the port, or of an address in brackets
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not has_more
