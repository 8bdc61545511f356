"""A marketer at a browser: plans something, watches it go out, reads a message, on a wide screen and on a phone."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from delivery.providers.base import Answer, Verdict
from schedules import templates
from schedules.models import MessageTemplate, Schedule
from schedules.permissions import Role
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.journeys.conftest import PHONE
from tests.recording import sent
from tests.service import only_occurrence

pytestmark = pytest.mark.django_db(transaction=True)


def rich_template() -> None:
    html = "<h1>Rich words</h1><script>document.body.textContent = 'a script ran'</script>"
    contents = [{"channel": "email", "locale": "en", "subject": "Hello", "text": "Plain words", "html": html}]
    templates.save(name="Spring offer", contents=contents, by="user:1", now=NOW)


def test_a_marketer_pauses_resumes_and_reads_what_went_out(service, open_page, errors):
    rich_template()
    people(3)
    template = MessageTemplate.objects.get()
    ScheduleFactory(
        name="Spring offer to everyone", template_id=template.pk, run_at=NOW + timedelta(seconds=30), now=NOW
    )
    page = open_page(Role.MARKETER)

    page.get_by_role("link", name="Spring offer to everyone").click()
    expect(page.get_by_role("cell", name="2026-11-21 10:00:30 UTC")).to_be_visible()
    page.get_by_role("link", name="Pause", exact=True).click()
    page.get_by_role("button", name="Yes, pause it").click()
    expect(page.get_by_text("Whoever is left waits until it is resumed.")).to_be_visible()
    page.get_by_role("link", name="Resume", exact=True).click()
    page.get_by_role("button", name="Yes, resume it").click()
    expect(page.get_by_text("goes on where it stopped.").first).to_be_visible()

    service.open()
    service.after(timedelta(seconds=30)).step()
    run = only_occurrence(Schedule.objects.get())
    page.goto(f"/occurrences/{run.pk}/")
    expect(page.get_by_text("The books close: 3 targeted, 3 accounted for.")).to_be_visible()
    page.get_by_role("link", name="Its messages").click()
    page.get_by_role("link", name="Hello").first.click()
    framed = page.frame_locator("iframe")
    expect(framed.get_by_role("heading", name="Rich words")).to_be_visible()
    expect(page.get_by_text("Plain words")).to_be_visible()
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newer")).to_be_visible()

    page.get_by_role("link", name="Ledger").click()
    page.get_by_label("Recipient").fill(run.schedule.name)
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("Nobody has this external id.")).to_be_visible()
    assert [error for error in errors if "sandboxed" not in error] == []


def test_a_marketer_finds_out_why_a_person_did_not_get_it_and_sends_again(service, provider, open_page, errors):
    RecipientFactory(external_id="berta")
    anna = RecipientFactory(external_id="anna")
    refusal = ("message_rejected", "", "550 5.1.1 user unknown")
    provider.answer = staticmethod(
        lambda m: Answer(m.key, Verdict.PERMANENT, *refusal) if m.recipient_id == anna.pk else sent(m)
    )
    schedule = ScheduleFactory(name="Spring offer")
    service.step()
    run = only_occurrence(schedule)
    page = open_page(Role.MARKETER)

    page.get_by_role("link", name="Ledger").click()
    page.get_by_label("Recipient").fill("anna")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("cell", name="The provider rejected the message.")).to_be_visible()
    page.get_by_role("link", name="What happened").click()
    expect(page.get_by_label("What became of it")).to_contain_text("trying again by itself would not help")
    expect(page.get_by_text("550 5.1.1 user unknown")).to_be_visible()

    provider.reset()  # somebody has corrected the address
    sure = page.get_by_role("button", name="Yes, send again")
    expect(sure).to_be_hidden()
    page.get_by_text("Send again", exact=True).press("Enter")
    expect(page.get_by_text("The person did not get it. It is tried at once, up to four times.")).to_be_visible()
    sure.press("Enter")
    expect(page.get_by_text("1 person is being tried again.")).to_be_visible()
    service.step()
    page.reload()
    expect(page.get_by_label("What became of it")).to_contain_text("The provider took it at")
    expect(page.get_by_text("Somebody had it tried again.")).to_be_visible()
    page.get_by_role("link", name=f"run {run.pk}").click()
    expect(page.get_by_text("The books close: 2 targeted, 2 accounted for.")).to_be_visible()
    assert provider.reached() == {anna.pk: 1}
    assert errors == []


def test_the_admin_is_used_by_keyboard_alone_on_a_phone(service, open_page):
    page = open_page(Role.ADMIN, viewport=PHONE)
    page.goto("/admin/schedules/stopswitch/")
    menu, calendar = page.get_by_role("button", name="Menu"), page.get_by_role("link", name="Calendar")
    menu.press("Enter")
    expect(calendar).to_be_visible()
    page.keyboard.press("Escape")
    expect(calendar).to_be_hidden()
    menu.press("Enter")
    page.get_by_role("button", name="Your account: admin").press("Enter")
    page.get_by_role("button", name="Dark").press("Enter")
    expect(page.locator("html")).to_have_class(re.compile("dark"))
    page.get_by_role("button", name="Log out").press("Enter")
    expect(page.get_by_text("You are signed out in this browser.")).to_be_visible()
