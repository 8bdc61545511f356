"""Who is let in: whoever has a second factor, or must have one, is a stranger to every door until he has given it.

``request.user`` is anonymous meanwhile, so that no page, no view of the admin and no consent to an app has to ask; only
the pages that take a code know who waits. Also a session that was open before the factor was turned on waits.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth import REDIRECT_FIELD_NAME, authenticate
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.middleware import AuthenticationMiddleware, get_user
from django.contrib.auth.models import AnonymousUser, User
from django.db import OperationalError, transaction
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.utils.http import url_has_allowed_host_and_scheme
from django_otp import DEVICE_ID_SESSION_KEY

from audit import trail
from audit.models import Action
from frontend import second_factor, session_life, sign_in_limits
from frontend.access import actor
from frontend.models import Authenticator
from schedules import clock

# So long a password alone is worth a place before the page that asks for the code.
WAITING = timedelta(minutes=15)


class TooMany(Exception):
    """The account rests: no code is looked at."""


@dataclass(frozen=True)
class Waiting:
    """Somebody who has given his password. ``has_factor`` else he has to set one up first."""

    user: Any
    has_factor: bool


class Backend(ModelBackend):
    """Django's, which looks at codes too and tells with a person, in one statement, whether he has a second factor."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        **more: Any,
    ) -> Any:
        """By password, or by ``token``: a code, whose kind then stands in the person's ``by_code``."""
        if token is None:
            return super().authenticate(request, username, password, **more)
        user: Any = User.objects.filter(username=username, is_active=True).first()
        if user is None:
            return None
        try:
            device, user.by_code = second_factor.spend(user=user, code=token)
        except second_factor.WrongCode:
            return None
        user.factor_id = device.pk
        return user

    def get_user(self, user_id: int) -> Any:
        factor = Authenticator.objects.filter(user=OuterRef("pk"), confirmed=True).values("pk")[:1]
        user = User.objects.annotate(factor_id=Subquery(factor)).filter(pk=user_id).first()
        return user if user and self.user_can_authenticate(user) else None


class Authentication(AuthenticationMiddleware):
    """Django's, but for those who wait. Asks the database only where somebody looks at ``request.user``."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        request.user = SimpleLazyObject(lambda: _who(request))  # type: ignore[assignment]


def _who(request: HttpRequest) -> Any:
    user = get_user(request)
    if not user.is_authenticated or is_verified(request, user):
        return user
    request.awaited = Waiting(user, second_factor.of(user) is not None)  # type: ignore[attr-defined]
    return AnonymousUser()


def is_verified(request: HttpRequest, user: Any) -> bool:
    """Whether the session of ``user`` needs no code: none is asked of him, or this authenticator has been given."""
    factor = second_factor.of(user)
    if factor is None:
        return not second_factor.is_demanded(user)
    return bool(request.session.get(DEVICE_ID_SESSION_KEY) == _persistent_id(factor))


def waiting(request: HttpRequest) -> Waiting | None:
    """Who has given his password in this session and nothing else yet."""
    if request.user.is_authenticated:
        return None
    found: Waiting | None = getattr(request, "awaited", None)
    return found


def step_after_password(request: HttpRequest, going_to: str) -> str | None:
    """Where who has just given his password has to go before ``going_to``; his session ends soon unless he does.

    None for who is in.
    """
    if is_verified(request, request.user):
        return None
    request.session.set_expiry(timezone.now() + WAITING)  # an instant: a length would begin anew at each look
    return step_of(Waiting(request.user, second_factor.of(request.user) is not None), going_to)


def step_of(awaited: Waiting, going_to: str) -> str:
    """Where who waits has to go before ``going_to``."""
    where = reverse("sign-in-code" if awaited.has_factor else "second-factor")
    return f"{where}?{urlencode({REDIRECT_FIELD_NAME: going_to})}" if going_to else where


def next_of(request: HttpRequest) -> str:
    """Where somebody wanted to go, if that is a page of ours; else empty."""
    asked = request.GET.get(REDIRECT_FIELD_NAME, "")
    is_ours = url_has_allowed_host_and_scheme(asked, {request.get_host()}, require_https=request.is_secure())
    return asked if is_ours else ""


def try_code(request: HttpRequest, user: Any, code: str) -> Any:
    """The person with ``by_code``; None for a wrong code, which counts as a wrong password does. Raises ``TooMany``."""
    return _tried(request, user, token=code)


def try_password(request: HttpRequest, user: Any, password: str) -> bool:
    """For what asks the person once more: a session may be in the hands of somebody else. Raises ``TooMany``."""
    return _tried(request, user, password=password) is not None


def _tried(request: HttpRequest, user: Any, **credentials: str) -> Any:
    name = user.get_username()
    try:
        with sign_in_limits.turn(name):
            found = authenticate(request, username=name, **credentials)
    except OperationalError as error:
        raise TooMany from error
    if found is None and getattr(request, "axes_locked_out", False):
        raise TooMany
    return found


def let_in(request: HttpRequest, user: Any, factor: int) -> None:
    """This session has given the code of ``factor``. Its key changes, as whoever knew it before was let in for less."""
    request.session[DEVICE_ID_SESSION_KEY] = _persistent_id(factor)
    request.session.set_expiry(None)
    request.session.cycle_key()
    user.factor_id = factor
    request.user = user


@transaction.atomic
def signed_in(user: Any) -> None:
    """For the audit: a person with a factor is in once the code was right."""
    changes = {"account": user.pk, "by_code": user.by_code}
    trail.record(action=Action.ACCOUNT_SIGN_IN, by=actor(user), now=clock.now(), changes=changes)


@transaction.atomic
def end_everywhere(user: Any, *, by: str) -> int:
    """End every session of ``user``, and what apps got in his name; how many sessions there were."""
    ended = session_life.end_sessions(user.pk)
    session_life.end_tokens(user.pk)
    changes = {"account": user.pk, "sessions": ended}
    trail.record(action=Action.ACCOUNT_END_SESSIONS, by=by, now=clock.now(), changes=changes)
    return ended


@transaction.atomic
def password_changed(user: Any, *, by: str) -> None:
    """What ends besides the sessions, and the audit's word of it: that it changed."""
    session_life.end_tokens(user.pk)
    changes = {"account": user.pk, "password": "changed"}
    trail.record(action=Action.ACCOUNT_UPDATE, by=by, now=clock.now(), changes=changes)


def _persistent_id(factor: int) -> str:
    return f"{Authenticator.model_label()}/{factor}"
