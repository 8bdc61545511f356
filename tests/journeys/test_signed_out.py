"""A session ends while its page is open: nothing that was typed is lost, and no login stands inside it."""

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from playwright.sync_api import Page, expect

from schedules.models import Schedule
from schedules.permissions import Role
from tests.accounts import PASSWORD
from tests.factories import TemplateFactory

pytestmark = pytest.mark.django_db(transaction=True)


def sign_out() -> None:
    Session.objects.all().delete()


def sign_in_elsewhere(page: Page, name: str = "marketer") -> None:
    """In another tab, which also changes the token of every form."""
    person = User.objects.get(username=name)
    person.set_password(PASSWORD)
    person.save()
    other = page.context.new_page()
    other.goto("/admin/login/?next=/account/")
    other.locator("[name=username]").fill(name)
    other.locator("[name=password]").fill(PASSWORD)
    other.locator("[name=password]").press("Enter")
    expect(other.get_by_role("heading", name="Your account", exact=True)).to_be_visible()
    other.close()


def words(page: Page):
    return page.get_by_role("alert").filter(has_text="You have been signed out.")


def covers(one, other) -> bool:
    a, b = one.bounding_box(), other.bounding_box()
    return (
        a["x"] < b["x"] + b["width"]
        and b["x"] < a["x"] + a["width"]
        and a["y"] < b["y"] + b["height"]
        and b["y"] < a["y"] + a["height"]
    )


def test_what_a_page_asks_for_by_itself_shows_words_and_no_login_and_goes_on_later(service, open_page):
    page = open_page(Role.MARKETER)
    page.goto("/audit/")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    sign_out()
    expect(words(page)).to_be_visible(timeout=10_000)
    assert page.locator("[name=password]").count() == 0
    assert page.get_by_role("heading", name="Audit").count() == 1
    asked.clear()
    page.wait_for_timeout(6_000)
    assert asked == []

    sign_in_elsewhere(page)
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(words(page)).to_be_hidden()
    with page.expect_response(lambda answer: "/audit/" in answer.url, timeout=10_000) as looked:
        pass
    assert looked.value.status in (200, 204)


def test_a_step_in_the_modal_is_saved_after_signing_in_elsewhere(service, open_page):
    page = open_page(Role.MARKETER)
    page.goto("/schedules/")
    page.get_by_role("link", name="New schedule").first.click()
    modal = page.get_by_role("dialog")
    modal.get_by_label("Name").fill("Winter sale")
    sign_out()
    modal.get_by_role("button", name="Next", exact=True).last.click()
    expect(words(modal)).to_be_visible()
    expect(modal.get_by_label("Name")).to_have_value("Winter sale")
    sign_in_elsewhere(page)
    modal.get_by_role("button", name="Next", exact=True).last.click()
    expect(modal.get_by_role("heading", name="Audience", exact=True)).to_be_visible()
    expect(words(page)).to_have_count(0)
    assert Schedule.objects.get().name == "Winter sale"


def test_a_form_that_leaves_the_page_keeps_what_was_typed(service, open_page):
    template = TemplateFactory(name="Spring offer")
    page = open_page(Role.MARKETER)
    page.goto(f"/templates/{template.pk}/")
    language = page.locator("#template-form [name$=default_locale]")
    language.fill("de")
    sign_out()
    page.evaluate("() => { const now = Date.now; Date.now = () => now() + 600_000; }")  # ten minutes go by
    page.locator("#template-form").evaluate("form => form.requestSubmit()")
    expect(words(page)).to_be_visible()
    expect(language).to_have_value("de")
    sign_in_elsewhere(page)
    with page.expect_response(lambda answer: answer.request.method == "POST") as posted:
        page.locator("#template-form").evaluate("form => form.requestSubmit()")
    assert posted.value.status in (302, 422)  # not 403: the token is the new one
    assert "/admin/login/" not in posted.value.headers.get("location", "")


def test_a_form_of_the_admin_keeps_what_was_typed(service, open_page):
    page = open_page(Role.ADMIN)
    page.goto("/admin/auth/user/add/")
    name = page.locator("#user_form [name=username]")
    name.fill("newcomer")
    sign_out()
    page.evaluate("() => { const now = Date.now; Date.now = () => now() + 600_000; }")  # ten minutes go by
    save = page.locator("button[name=_save]")
    save.click()
    expect(words(page)).to_be_visible()
    assert not covers(words(page), save)
    expect(name).to_have_value("newcomer")
    sign_in_elsewhere(page, "admin")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(words(page)).to_be_hidden()
    with page.expect_response(lambda answer: answer.request.method == "POST") as posted:
        save.click()
    assert posted.value.status == 200  # its passwords are missing; it is neither refused nor sent to the login
    expect(page.locator("#user_form [name=username]")).to_have_value("newcomer")
