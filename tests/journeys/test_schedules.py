"""Schedules in a browser: found, paused by keyboard alone, several at once, in the calendar; an analyst's look."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from schedules.models import Schedule
from schedules.permissions import Role
from tests.factories import NOW, ScheduleFactory, TemplateFactory, people
from tests.journeys.conftest import PHONE, TOO_WIDE

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def planned(service, provider):
    """A launch that has been sent, a digest each Monday, and two reminders."""
    people(3)
    template = TemplateFactory(name="Spring offer")
    ScheduleFactory(name="Launch", template_id=template.pk)
    service.step()
    ScheduleFactory(name="Weekly digest", template_id=template.pk, cron="0 9 * * MON", time_zone="Europe/Berlin")
    for name in ("Reminder one", "Reminder two"):
        ScheduleFactory(name=name, template_id=template.pk, run_at=NOW + timedelta(days=3), now=NOW)


def test_a_marketer_finds_pauses_and_copies_by_keyboard_and_sees_the_month(planned, open_page, errors):
    page = open_page(Role.MARKETER)
    expect(page).to_have_url(re.compile("/schedules/$"))
    expect(page.get_by_role("row", name=re.compile("Launch"))).to_contain_text("3 sent")

    # What is asked stands in the address, and comes back with it.
    page.get_by_label("How often").select_option("cron")
    expect(page).to_have_url(re.compile("schedule_type=cron"))
    expect(page.get_by_role("link", name="Launch")).to_have_count(0)
    page.reload()
    expect(page.get_by_label("How often")).to_have_value("cron")
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Name or number").fill("reminder")
    expect(page.get_by_role("link", name="Launch")).to_have_count(0)
    expect(page).to_have_url(re.compile("text=reminder"))

    # Several at once.
    page.get_by_label("Tick all on this page").check()
    expect(page.get_by_text("2 / 2")).to_be_visible()
    page.get_by_label("With the ticked ones").select_option("pause")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Pause: yes, these 2").click()
    expect(page.get_by_text("Pause: done for 2 schedules.")).to_be_visible()
    assert set(Schedule.objects.filter(status="paused").values_list("name", flat=True)) == {
        "Reminder one",
        "Reminder two",
    }

    # One, by keyboard alone: the menu, the question, the answer.
    page.get_by_role("link", name="Clear").click()
    page.get_by_role("button", name="Actions for Weekly digest").press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Pause", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog")
    expect(question.get_by_role("heading", name="Pause “Weekly digest”?")).to_be_focused()
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(page.get_by_role("button", name="Actions for Weekly digest")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    question.get_by_label("Reason").fill("The stock is gone")
    question.get_by_label("Reason").press("Enter")
    expect(page.get_by_text("“Weekly digest” is paused.")).to_be_visible()

    # Whose clock: an arrow alone changes nothing, Enter does, and one stands where one stood.
    times = page.get_by_label("Times")
    times.press("ArrowDown")
    expect(page.get_by_role("row", name=re.compile("Weekly digest"))).to_contain_text("Europe/Berlin (UTC+01:00)")
    times.press("End")
    times.press("Enter")
    expect(times).to_be_focused()
    expect(times).to_have_value("utc")

    # Its own page: why, whom it would reach, and a copy.
    page.get_by_role("link", name="Weekly digest", exact=True).click()
    expect(page.get_by_text("Reason given: The stock is gone")).to_be_visible()
    expect(page.get_by_text("3 people fit")).to_be_visible()
    page.get_by_role("link", name="Resume").click()
    page.get_by_role("button", name="Yes, resume it").click()
    page.get_by_role("button", name="More actions").click()
    page.get_by_role("link", name="Duplicate").click()
    page.get_by_role("button", name="Yes, make a copy").click()
    expect(page.get_by_role("heading", name="Copy of Weekly digest", level=1)).to_be_visible()

    # The calendar leads to a day, and from there to the run.
    page.get_by_role("link", name="Calendar").first.click()
    expect(page.get_by_role("heading", name="November 2026")).to_be_visible()
    page.get_by_role("link", name="Saturday, November 21, 2026").click()
    page.get_by_role("link", name="Launch").click()
    expect(page).to_have_url(re.compile("/occurrences/"))
    assert errors == []


def test_an_analyst_reads_all_of_it_on_a_phone_and_has_nothing_to_change(planned, open_page, errors):
    page = open_page(Role.ANALYST, viewport=PHONE)
    schedule = Schedule.objects.get(name="Weekly digest")
    for address in ("/schedules/", f"/schedules/{schedule.pk}/", f"/schedules/{schedule.pk}/history/", "/calendar/"):
        page.goto(address)
        assert page.evaluate(TOO_WIDE) <= 0, address
        expect(page.get_by_text("Weekly digest").first).to_be_visible()
        for word in ("Actions", "Pause", "Edit", "New schedule", "Send a test"):
            expect(page.get_by_role("button", name=word)).to_have_count(0)
            expect(page.locator("main").get_by_role("link", name=word)).to_have_count(0)
    assert errors == []
