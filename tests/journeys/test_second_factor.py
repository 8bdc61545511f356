"""A person sets up the second factor, signs in with it, and turns it off: in both themes, on a desk and on a phone."""

import os
from base64 import b32decode
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django_otp.oath import totp
from playwright.sync_api import Page, expect

from frontend.models import Authenticator
from schedules.permissions import Role
from tests.accounts import PASSWORD
from tests.journeys.conftest import PHONE, TOO_WIDE, WIDE
from tests.journeys.test_every_page import ALL, SERIOUS

pytestmark = pytest.mark.django_db(transaction=True)

# Where pictures go, for who wants to look at them.
PICTURES = os.environ.get("PICTURES_OF_SECOND_FACTOR", "")


def _is_fine(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)
    expect(page.locator("main")).to_be_visible()
    assert page.evaluate(TOO_WIDE) <= 0, name
    found = Axe().run(page, options=ALL).response["violations"]
    assert [each["id"] for each in found if each["impact"] in SERIOUS] == [], name


def _sign_in(page: Page, person: User) -> None:
    page.goto("/schedules/")
    page.get_by_label("Username").fill(person.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize(("viewport", "theme"), [(WIDE, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_a_person_sets_it_up_signs_in_with_it_and_turns_it_off(service, open_page, errors, viewport, theme):
    page = open_page(Role.MARKETER, viewport=viewport, theme=theme)
    looks = f"{viewport['width']}-{theme}"
    person = User.objects.get()
    person.set_password(PASSWORD)
    person.save()  # which ends his session
    _sign_in(page, person)

    page.get_by_label("Your account").click()
    page.get_by_role("link", name="Your account").click()
    _is_fine(page, f"account-{looks}")
    page.get_by_role("link", name="Set it up").click()
    _is_fine(page, f"set-up-{looks}")
    secret = b32decode(page.locator(".ns-secret").inner_text().replace(" ", ""))
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("textbox", name="Code").fill(f"{totp(secret):06d}")
    page.get_by_role("button", name="Turn it on").click()
    expect(page.locator(".ns-codes")).to_be_visible()
    _is_fine(page, f"codes-{looks}")
    codes = page.locator(".ns-codes code").all_inner_texts()
    assert len(codes) == 10
    page.get_by_role("link", name="I have kept them").click()
    assert page.get_by_text("10 recovery codes are left").is_visible()

    page.get_by_label("Your account").click()
    page.get_by_role("button", name="Log out", exact=True).click()
    _sign_in(page, person)
    page.get_by_role("textbox", name="Code").fill("000")
    page.get_by_role("button", name="Go on").click()
    assert page.get_by_text("That code is wrong").is_visible()
    _is_fine(page, f"code-{looks}")
    errors.clear()  # the browser tells of the 422, as it should
    page.get_by_role("textbox", name="Code").fill(codes[0].upper())
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("**/schedules/")

    page.goto("/account/")
    page.get_by_role("link", name="Turn it off…").click()
    _is_fine(page, f"turn-off-{looks}")
    page.get_by_role("textbox", name="Code").fill(codes[1])
    page.get_by_role("button", name="Turn it off").click()
    assert page.get_by_text("The second factor is off").is_visible()
    assert not Authenticator.objects.exists()
    assert errors == []


def test_who_must_have_one_sees_the_way_in(service, open_page, errors, settings):
    page = open_page(Role.ADMIN, viewport=PHONE)
    settings.SECOND_FACTOR_REQUIRED_FOR = ["ADMIN"]
    page.goto("/dashboard/")
    assert page.get_by_text("Your role needs a second factor").is_visible()
    _is_fine(page, "must-375-light")
    page.get_by_role("button", name="Not now: log out").click()
    page.goto("/dashboard/")
    assert page.get_by_label("Password").is_visible()
    assert errors == []
