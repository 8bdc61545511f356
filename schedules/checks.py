"""System checks: whether there are keys for what lies encrypted in the database."""

from collections.abc import Sequence
from typing import Any

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
