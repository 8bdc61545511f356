"""The second factor of people who sign in: an app's codes (TOTP, RFC 6238), and ten recovery codes for when it is lost.

What an account has and how it changes; who is let in for it stands in ``frontend.verified``. Tries are not counted
here: callers hold the account's turn (``frontend.sign_in_limits``).
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import segno
import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction
from django.utils.safestring import SafeString, mark_safe

from audit import trail
from audit.models import Action
from frontend import session_life
from frontend.models import Authenticator, AuthenticatorSecret, RecoveryCode
from schedules.encryption import Undecryptable
from schedules.permissions import roles_of

APP, RECOVERY = "app", "recovery"
CODES = 10
# Without what is mistaken for another; 24 of them are 118 bits.
_SIGNS = "abcdefghjkmnpqrstuvwxyz23456789"
_SECRET_BYTES = 20  # RFC 4226, 4
_OFFERED_S = 15 * 60
_SALT = "frontend.second_factor"
_log = structlog.get_logger(__name__)


class WrongCode(ValueError):
    """Neither shown by the app now nor a recovery code that is left."""


class TooLate(ValueError):
    """What was offered is a quarter of an hour old, was offered to another, or the account has a factor by now."""


@dataclass(frozen=True)
class Offer:
    """A secret that somebody may take into his app. ``signed`` comes back with the first code; nothing is kept."""

    secret: str
    address: str
    signed: str

    @property
    def spelled(self) -> str:
        """The secret as it is typed: in groups of four."""
        return " ".join(self.secret[at : at + 4] for at in range(0, len(self.secret), 4))

    @property
    def picture(self) -> SafeString:
        """The QR code as an SVG element: shapes and attributes alone, so that no policy has to make room for it."""
        drawn = segno.make(self.address, error="m").svg_inline(scale=5, border=4, svgclass="ns-qr", lineclass=None)
        return mark_safe(drawn)  # noqa: S308 - drawn from black and white squares


def of(user: Any) -> int | None:
    """The key of the authenticator of ``user``, None without one. No statement where ``verified.Backend`` has asked."""
    if not hasattr(user, "factor_id"):
        user.factor_id = Authenticator.objects.filter(user=user, confirmed=True).values_list("pk", flat=True).first()
    found: int | None = user.factor_id
    return found


def is_demanded(user: Any) -> bool:
    """Whether one of the person's roles is in ``SECOND_FACTOR_REQUIRED_FOR``."""
    demanding = settings.SECOND_FACTOR_REQUIRED_FOR
    return bool(demanding) and not roles_of(user).isdisjoint(demanding)


def offer(user: Any, *, again: str = "") -> Offer:
    """A new secret, or the one that was ``again`` sent back. Raises ``TooLate``."""
    key = _offered(user, again) if again else secrets.token_bytes(_SECRET_BYTES)
    drawn = Authenticator(user=user)
    AuthenticatorSecret(device=drawn, secret=key)
    return Offer(
        secret=base64.b32encode(key).decode(),
        address=drawn.config_url,
        signed=again or signing.dumps([user.pk, key.hex()], salt=_SALT),
    )


@transaction.atomic
def turn_on(*, user: Any, signed: str, code: str, by: str, now: datetime) -> tuple[Authenticator, list[str]]:
    """The authenticator, and the recovery codes, which are known here and nowhere else: the database holds hashes.

    Raises ``WrongCode``, ``TooLate``.
    """
    key = _offered(user, signed)
    User.objects.select_for_update().get(pk=user.pk)
    if Authenticator.objects.filter(user=user, confirmed=True).exists():
        raise TooLate
    device = Authenticator.objects.create(user=user, name=APP, key="")
    AuthenticatorSecret.objects.create(device=device, secret=key)
    if not device.verify_token(_bare(code)):
        raise WrongCode
    codes = ["-".join("".join(secrets.choice(_SIGNS) for _ in range(6)) for _ in range(4)) for _ in range(CODES)]
    RecoveryCode.objects.bulk_create(RecoveryCode(device=device, digest=_digest(each)) for each in codes)
    session_life.end_tokens(user.pk)  # got by the password alone
    trail.record(action=Action.ACCOUNT_FACTOR_ON, by=by, now=now, changes={"account": user.pk})
    return device, codes


@transaction.atomic
def spend(*, user: Any, code: str) -> tuple[Authenticator, str]:
    """Take ``code``, which is good no more after that: the authenticator, and ``APP`` or ``RECOVERY``.

    Raises ``WrongCode``.
    """
    device = Authenticator.objects.select_for_update().filter(user=user, confirmed=True).first()
    if device is None:
        raise WrongCode
    given = _bare(code)
    if given.isdecimal() and len(given) == device.digits:
        try:
            is_right = device.verify_token(given)
        except Undecryptable:
            _log.error("second_factor_unreadable", account=user.pk)
            is_right = False
        if not is_right:
            raise WrongCode
        return device, APP
    if not device.recovery_codes.filter(digest=_digest(given)).delete()[0]:
        raise WrongCode
    return device, RECOVERY


def turn_off(*, user: Any, by: str, now: datetime) -> bool:
    """For who has just given a code. Whether there was anything to turn off."""
    return _end(user.pk, Action.ACCOUNT_FACTOR_OFF, by=by, now=now)


@transaction.atomic
def reset(*, user_id: int, by: str, now: datetime) -> bool:
    """For who has lost app and codes: by somebody else. Whether there was anything to reset.

    Sessions and tokens of the account end: one that waits for a code may be that of who has stolen the password.
    """
    if not _end(user_id, Action.ACCOUNT_FACTOR_RESET, by=by, now=now):
        return False
    session_life.end_sessions(user_id)
    session_life.end_tokens(user_id)
    return True


def codes_left(user: Any) -> int:
    return RecoveryCode.objects.filter(device__user=user).count()


@transaction.atomic
def _end(user_id: int, action: Action, *, by: str, now: datetime) -> bool:
    if not Authenticator.objects.filter(user=user_id).delete()[0]:
        return False
    trail.record(action=action, by=by, now=now, changes={"account": user_id})
    return True


def _offered(user: Any, signed: str) -> bytes:
    try:
        to_whom, key = signing.loads(signed, salt=_SALT, max_age=_OFFERED_S)
    except signing.BadSignature as error:
        raise TooLate from error
    if to_whom != user.pk:
        raise TooLate
    return bytes.fromhex(key)


def _bare(code: str) -> str:
    """As it is compared: people write codes with spaces and hyphens, and phones begin with a capital."""
    return "".join(code.split()).replace("-", "").lower()


def _digest(code: str) -> str:
    return hashlib.sha256(_bare(code).encode()).hexdigest()
