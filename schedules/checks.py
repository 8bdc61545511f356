"""System checks: are there keys for what lies encrypted in the database, can the organisation's services be
called, and which networks may users have this service call?"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from audit.keys import is_guessable
from schedules import encryption, outgoing


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


def check_outgoing_networks(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``check --deploy``: ``schedules.E010`` where users may have the service call its own machine, or what tells a
    machine of a cloud its credentials."""
    refused = settings.OUTGOING_REFUSED_NETWORKS
    own = [
        each for each in outgoing.OWN_NETWORKS if not any(each[0] in other and each[-1] in other for other in refused)
    ]
    open_ones = [
        network for network in settings.OUTGOING_ALLOWED_NETWORKS if any(network.overlaps(each) for each in own)
    ]
    if not open_ones:
        return []
    words = f"OUTGOING_ALLOWED_NETWORKS has users call this machine itself: {', '.join(map(str, open_ones))}."
    hint = "Name in OUTGOING_ALLOWED_NETWORKS the networks of the hosts that users may have called, and no more."
    return [Error(words, hint=hint, id="schedules.E010")]


def check_template_service(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """``schedules.E004``: as ``E003``."""
    if not settings.TEMPLATE_SERVICE_URL or is_address(settings.TEMPLATE_SERVICE_URL):
        return []
    words = "TEMPLATE_SERVICE_URL is no address that can be called."  # not quoted: it may hold a password
    hint = "Write one such as https://templates.example.com/notifications; the token goes into TEMPLATE_SERVICE_TOKEN."
    return [Error(words, hint=hint, id="schedules.E004")]


def is_address(url: str) -> bool:
    """Whether ``url`` is what a service of the organisation can be called at."""
    try:
        parts = urlsplit(url)
        has_more = parts.query or parts.fragment or parts.username or parts.password or parts.port == 0
    except ValueError:  # of the port, or of an address in brackets
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not has_more
