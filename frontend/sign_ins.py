"""Who signed in at the door for people, and whom it refused: events of the audit.

Django tells by signals alone. What was typed as a name is never kept: people type their password there. Refused tokens
of the API are many and tell of programs: they are counted by status and view (``django_http_responses_total_*`` at
``/metrics``) and logged, not kept one by one.
"""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in, user_login_failed

from audit import trail
from audit.models import Action
from frontend import second_factor
from frontend.access import actor
from schedules import clock

BY = "system:sign_in"


def listen() -> None:
    """From the app's start on."""
    user_logged_in.connect(_came_in, dispatch_uid="audit")
    user_login_failed.connect(_refused, dispatch_uid="audit")


def _came_in(user: AbstractBaseUser, **_: Any) -> None:
    # Without a request a shell or a test has made a session: nobody came through the door. Who has a second factor is
    # in once his code was right (``verified.signed_in``).
    if trail.request_id() and second_factor.of(user) is None:
        trail.record(action=Action.ACCOUNT_SIGN_IN, by=actor(user), now=clock.now(), changes={"account": user.pk})


def _refused(credentials: dict[str, Any], **_: Any) -> None:
    if trail.request_id():
        typed = str(credentials.get("username", "")).replace("\0", "")
        account = get_user_model()._default_manager.filter(username=typed).values_list("pk", flat=True).first()
        action = Action.ACCOUNT_FACTOR_REFUSE if "token" in credentials else Action.ACCOUNT_REFUSE
        trail.record(action=action, by=BY, now=clock.now(), changes={"account": account})
