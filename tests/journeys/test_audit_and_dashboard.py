"""An analyst watches what others do, and reads what has become of messages, on a wide screen and on a phone."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from delivery.providers.base import Answer, Message, Verdict
from schedules import operations
from schedules.permissions import Role
from tests.accounts import account
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.journeys.conftest import ENOUGH_CONTRAST, PHONE, TOO_WIDE, contrast
from tests.recording import sent

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_somebody_does_appears_without_reloading_until_it_is_paused(service, open_page, errors):
    mara = account(Role.MARKETER, name="mara")
    schedule = ScheduleFactory(name="Spring offer", run_at=NOW + timedelta(days=1))
    page = open_page(Role.ANALYST)
    page.get_by_role("link", name="Audit", exact=True).click()
    said = page.locator(".ns-said")
    expect(said.first).to_contain_text("made the schedule “Spring offer”")
    operations.pause(schedule_id=schedule.pk, by=f"user:{mara.pk}", now=NOW)
    expect(said.first).to_have_text("mara (marketer) paused “Spring offer”", timeout=15_000)
    expect(page.locator("#news")).to_have_text("1 new event at the top.")
    page.get_by_role("link", name="Pause").press("Enter")
    expect(page.get_by_text("Paused: new events appear")).to_be_visible()
    assert page.locator("[hx-trigger]").count() == 0
    page.get_by_label("What", exact=True).select_option(label="Schedule made")
    page.get_by_role("button", name="Filter").press("Enter")
    expect(said).to_have_count(1)
    page.get_by_text("What it says:").press("Enter")
    expect(page.get_by_text("Everyone", exact=True)).to_be_visible()
    page.get_by_role("link", name="“Spring offer”").click()
    expect(page).to_have_url(re.compile(f"/schedules/{schedule.pk}/$"))
    assert errors == []


@pytest.mark.parametrize(("viewport", "theme"), [(None, "light"), (PHONE, "dark")])
def test_the_dashboard_is_read_as_picture_and_as_table(service, provider, open_page, errors, viewport, theme):
    def answer(message: Message) -> Answer:
        is_bad = message.recipient_id % 4 == 0
        return Answer(message.key, Verdict.PERMANENT, "message_rejected") if is_bad else sent(message)

    people(40)
    RecipientFactory(email="")
    provider.answer = staticmethod(answer)
    ScheduleFactory()
    service.step()
    page = open_page(Role.ANALYST, **({"viewport": viewport} if viewport else {}), theme=theme)
    page.goto("/dashboard/")
    expect(page.get_by_role("heading", name="What became of 41 messages")).to_be_visible()
    expect(page.get_by_role("img", name="E-mail: 30 sent, 10 failed, 1 no address")).to_be_visible()
    fill = page.locator("svg rect.ns-fill-failed").first.evaluate("each => getComputedStyle(each).fill")
    assert fill != "rgb(0, 0, 0)"  # as it would be without our colours
    page.get_by_text("As a table").press("Enter")
    expect(page.get_by_role("table").first.get_by_role("row")).to_have_count(26)
    page.get_by_role("link", name="Last 7 days").press("Enter")
    expect(page.get_by_role("heading", name="What became of 41 messages")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="E-mail as CSV").click()
    assert download.value.suggested_filename == "outcomes-email-week.csv"
    assert page.evaluate(TOO_WIDE) == 0
    assert contrast(page) >= ENOUGH_CONTRAST
    page.get_by_role("link", name="The provider rejected the message.").click()
    expect(page.get_by_role("cell", name="The provider rejected the message.").first).to_be_visible()
    assert errors == []
