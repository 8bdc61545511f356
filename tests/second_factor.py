"""Somebody with a second factor, and the addresses that have to do with it."""

import re
from base64 import b32decode

from django.db.models import F
from django.test import Client
from django_otp.oath import totp

from frontend import second_factor
from frontend.models import Authenticator
from schedules.permissions import Role
from tests.accounts import PASSWORD, account
from tests.factories import BY, NOW

LOGIN, CODE, SET_UP = "/admin/login/?next=/", "/sign-in/code", "/account/second-factor"
OFF, EVERYWHERE, ACCOUNT = "/account/second-factor/off", "/account/sign-out", "/account/"
OWN = [ACCOUNT, SET_UP, OFF, EVERYWHERE]


class Somebody:
    """A person with a second factor, and what his app shows: each code once, as the app's next one comes."""

    def __init__(self, role: Role | None = Role.ADMIN) -> None:
        self.user = account(role, password=PASSWORD)
        offer = second_factor.offer(self.user)
        self.secret = b32decode(offer.secret)
        self.device, self.codes = second_factor.turn_on(
            user=self.user, signed=offer.signed, code=self.shown(), by=BY, now=NOW
        )
        self.half_a_minute_passes()

    def shown(self) -> str:
        return f"{totp(self.secret):06d}"

    def wrong(self) -> str:
        near = {totp(self.secret, t0=steps * 30) for steps in (-2, -1, 0, 1, 2)}
        return next(f"{number:06d}" for number in range(10) if number not in near)

    def half_a_minute_passes(self) -> None:
        """As far as the device knows: real time can't be waited for."""
        Authenticator.objects.filter(pk=self.device.pk).update(last_t=F("last_t") - 2)

    def after_the_password(self, *, going_to: str = "/") -> Client:
        browser = Client()
        answer = browser.post(f"/admin/login/?next={going_to}", {"username": self.user.username, "password": PASSWORD})
        assert answer.status_code == 302, answer.content
        assert answer["Location"].startswith(CODE)
        return browser

    def inside(self) -> Client:
        browser = self.after_the_password()
        assert browser.post(CODE, {"code": self.shown()}).status_code == 302
        self.half_a_minute_passes()
        return browser


def offered(page) -> tuple[str, bytes]:
    """What comes back with the code, and the secret as a person would copy it."""
    text = page.content.decode()
    spelled = re.search(r'<code class="ns-secret">([A-Z2-7 ]+)</code>', text)[1]
    return re.search(r'name="offer" value="([^"]+)"', text)[1], b32decode(spelled.replace(" ", ""))
