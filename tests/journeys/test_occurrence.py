"""A run, watched: how far it is without reloading, paused and resumed at hand, its failures tried again, cancelled."""

import pytest
from playwright.sync_api import expect

from delivery import sending
from delivery.models import Delivery, State
from delivery.providers.base import Answer, Verdict
from schedules.models import OccurrenceState, Recipient
from schedules.permissions import Role
from tests.factories import NOW, ScheduleFactory, people
from tests.journeys.conftest import ENOUGH_CONTRAST, PHONE, TOO_WIDE, contrast
from tests.races import claim_some
from tests.recording import sent
from tests.service import HOUR, MINUTE, only_occurrence

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def begun(service, provider):
    """A schedule of 120 people, 50 of them sent to and the rest with a worker; two of these will be rejected."""
    people(120)
    schedule = ScheduleFactory(name="Spring offer")
    service.open()
    (message,) = service.publish()
    claim_some(message.batch_ids, settle_as=State.SENT)
    ids = list(Delivery.objects.filter(state=State.PENDING).values_list("recipient_id", flat=True)[20:22])
    refused = (Verdict.PERMANENT, "message_rejected", "", "550 5.1.1 user unknown")
    provider.answer = staticmethod(lambda m: Answer(m.key, *refused) if m.recipient_id in ids else sent(m))
    return schedule, message.batch_ids, Recipient.objects.get(pk=ids[0])


def test_a_run_is_watched_paused_resumed_and_its_failures_tried_again(service, provider, begun, open_page, errors):
    _, batch_ids, unlucky = begun
    page = open_page(Role.MARKETER)
    page.get_by_role("link", name="Runs").click()
    page.get_by_role("link", name="Spring offer").click()
    expect(page.get_by_text("50 sent, 70 still wait")).to_be_visible()
    page.evaluate("window.stays = true")

    page.get_by_text("Pause", exact=True).press("Enter")
    expect(page.get_by_text("Pausing belongs to the schedule “Spring offer”")).to_be_visible()
    page.get_by_label("Why?").fill("The offer is wrong")
    page.get_by_role("button", name="Yes, pause the schedule").click()
    expect(page.get_by_text("Nothing is sent: the schedule is paused. Reason: The offer is wrong")).to_be_visible()
    page.get_by_text("Resume", exact=True).press("Enter")
    page.get_by_role("button", name="Yes, resume the schedule").press("Enter")
    expect(page.get_by_text("The schedule goes on where it stopped.")).to_be_visible()
    page.evaluate("window.stays = true")

    sending.send(batch_ids=batch_ids)  # as a worker does meanwhile
    service.sweep()
    expect(page.get_by_text("118 sent, 2 failed")).to_be_visible()
    expect(page.get_by_text("The books close: 120 targeted, 120 accounted for.")).to_be_visible()
    expect(page.locator("#said")).to_have_text("The run is over: 120 people have their outcome.")
    expect(page.locator("[hx-trigger^=every]")).to_have_count(0)
    expect(page.get_by_text("Pause", exact=True)).to_have_count(0)
    assert page.evaluate("window.stays") is True

    page.get_by_label("Person").fill(unlucky.external_id)
    page.get_by_role("button", name="Tell the story").press("Enter")
    expect(page.get_by_label("What became of it")).to_contain_text("trying again by itself would not help")
    expect(page.get_by_text("550 5.1.1 user unknown")).to_be_visible()

    provider.reset()  # somebody has corrected the addresses
    page.get_by_text("Retry these 2").press("Enter")
    expect(page.get_by_text("2 people did not get it. They are tried at once")).to_be_visible()
    page.locator("#reasons").get_by_role("button", name="Yes, send again").press("Enter")
    expect(page.get_by_text("2 people are being tried again.")).to_be_visible()
    service.step()
    expect(page.locator(".ns-outcome-words")).to_have_text("120 sent")
    assert errors == []


def test_a_run_is_cancelled_on_a_phone_and_an_analyst_only_looks(service, open_page, errors):
    people(30, time_zone="Asia/Kathmandu")
    people(20, time_zone="Europe/Berlin")
    schedule = ScheduleFactory(name="Morning", time_zone_mode="user_local", run_at=NOW + 20 * HOUR, now=NOW)
    service.run_to(NOW + 15 * HOUR)
    address = f"/occurrences/{only_occurrence(schedule).pk}/"

    analyst = open_page(Role.ANALYST, theme="dark")
    analyst.goto(address)
    expect(analyst.get_by_role("row", name="Europe/Berlin")).to_contain_text("ahead")
    expect(analyst.get_by_text("Cancel", exact=True)).to_have_count(0)
    assert contrast(analyst) >= ENOUGH_CONTRAST

    page = open_page(Role.MARKETER, viewport=PHONE)
    page.goto(address)
    assert page.evaluate(TOO_WIDE) <= 0
    page.get_by_text("Cancel", exact=True).click()
    expect(page.get_by_text("There is no way back.")).to_be_visible()
    assert page.evaluate(TOO_WIDE) <= 0
    page.get_by_role("button", name="Yes, cancel the schedule").click()
    expect(page.get_by_text("The schedule is cancelled, and what of it was open with it.")).to_be_visible()
    service.after(MINUTE).step()
    expect(page.get_by_text("30 sent, 20 left out")).to_be_visible()
    expect(analyst.get_by_text("30 sent, 20 left out")).to_be_visible()
    assert only_occurrence(schedule).state == OccurrenceState.CANCELLED
    assert errors == []
