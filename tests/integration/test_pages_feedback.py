"""What pages show of the news of messages, and of addresses that are not written to."""

import re
from html import unescape

import pytest
from django.urls import reverse

from audit.models import AuditEvent
from delivery.events.base import Kind
from delivery.models import Delivery
from delivery.providers.base import Verdict
from schedules.models import Suppression
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.provider_events import event, settle
from tests.service import only_occurrence

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    assert response.status_code == 200
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


@pytest.fixture
def sent(service, provider):
    """Four people who were sent to: (schedule, their deliveries)."""
    people(4)
    schedule = ScheduleFactory(name="News")
    service.step()
    return schedule, list(Delivery.objects.order_by("recipient_id"))


def page(client, name, *args, **query):
    return text_of(client.get(reverse(name, args=args), query))


def test_a_run_tells_what_became_of_those_sent_to(sent):
    schedule, (first, second, third, _) = sent
    run = only_occurrence(schedule)
    client = signed_in(Role.ANALYST)
    assert "Of those sent" not in page(client, "occurrence", run.pk)
    settle(event(Kind.DELIVERY, first), event(Kind.BOUNCE_HARD, second), event(Kind.COMPLAINT, third))
    said = page(client, "occurrence", run.pk)
    told = "Delivered 2 Among them called spam 1 Came back 1 No news yet 1"
    assert f"Of those sent, by what the provider told since: {told}" in said
    german = signed_in(Role.ANALYST, name="german")
    german.cookies.load({"django_language": "de"})
    assert "Zugestellt 2 Darunter als Spam gemeldet 1 Zurückgekommen 1 Noch keine Nachricht 1" in page(
        german, "occurrence", run.pk
    )


def test_whom_the_provider_confirmed_is_nobody_who_did_not_get_it(service, provider):
    people(2)
    schedule = ScheduleFactory()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    settle(*(event(Kind.SEND, row) for row in Delivery.objects.all()))
    service.sweep()
    run, row = only_occurrence(schedule), Delivery.objects.first()
    client = signed_in(Role.ANALYST)
    assert "Who did not get it" not in page(client, "occurrence", run.pk)
    said = page(client, "delivery", run.pk, row.recipient_id)
    assert (
        "Nobody answered for the call, but the provider told at 2026-11-21 10:00:00 UTC that it had taken it." in said
    )
    assert "attempt 1: no answer" in said
    assert "attempt 1: taken after all" in said
    assert "tried again" not in said


def test_the_story_of_a_message_has_its_news_in_their_order(sent):
    _, (row, *_) = sent
    settle(
        event(Kind.BOUNCE_HARD, row, at=NOW.replace(hour=12)),
        event(Kind.DELAY, row, at=NOW.replace(hour=11)),
    )
    said = page(signed_in(Role.ANALYST), "delivery", row.occurrence_id, row.recipient_id)
    assert "It came back at 2026-11-21 12:00:00 UTC: the address takes no mail." in said
    assert said.index("put off") < said.index("came back Permanent/General 5.1.1")


def test_ledger_and_history_show_the_gravest_news(sent):
    _, (row, *_) = sent
    settle(event(Kind.DELIVERY, row))
    client = signed_in(Role.ANALYST)
    assert "sent delivered" in page(client, "ledger")
    assert "sent delivered" in page(client, "recipient", row.recipient_id)
    assert "sent delivered" in page(client, "explain", recipient=f"#{row.recipient_id}")


def test_a_bounce_shows_on_the_persons_page_and_the_person_can_be_written_to_again(sent):
    _, (row, *_) = sent
    settle(event(Kind.BOUNCE_HARD, row), now=NOW)
    marketer = signed_in(Role.MARKETER)
    said = page(marketer, "recipient", row.recipient_id)
    assert "The address is not written to A message to it came back: it takes no mail." in said
    assert "Permanent/General 5.1.1" in said
    assert "Write to it again" in said
    assert "Write to it again" not in page(signed_in(Role.ANALYST), "recipient", row.recipient_id)
    answer = marketer.post(reverse("recipient-unblock", args=[row.recipient_id]), follow=True)
    assert "The address is written to again." in text_of(answer)
    assert not Suppression.objects.exists()
    assert "The address is written to already." in text_of(
        marketer.post(reverse("recipient-unblock", args=[row.recipient_id]), follow=True)
    )
    event_of_it = AuditEvent.objects.get(action="suppression.remove")
    assert event_of_it.payload_diff["recipient"] == row.recipient_id


def test_a_complaint_is_an_admins_to_take_back(sent):
    _, (row, *_) = sent
    settle(event(Kind.COMPLAINT, row))
    marketer, admin = signed_in(Role.MARKETER), signed_in(Role.ADMIN)
    said = page(marketer, "recipient", row.recipient_id)
    assert "Only an admin can take back a complaint." in said
    assert "Write to it again" not in said
    refused = marketer.post(reverse("recipient-unblock", args=[row.recipient_id]), follow=True)
    assert "only an admin can take that back" in text_of(refused)
    assert Suppression.objects.exists()
    admin.post(reverse("recipient-unblock", args=[row.recipient_id]))
    assert not Suppression.objects.exists()


def test_an_address_is_blocked_by_hand_and_the_audit_says_who_did(service):
    person, bare = RecipientFactory(external_id="anna"), RecipientFactory(email="")
    marketer = signed_in(Role.MARKETER)
    said = text_of(marketer.post(reverse("recipient-block", args=[person.pk]), follow=True))
    assert "The address is written to no more." in said
    assert "Somebody has blocked the address. By marketer." in said
    assert "Block the address" not in said
    assert "The person has no e-mail address." in text_of(
        marketer.post(reverse("recipient-block", args=[bare.pk]), follow=True)
    )
    told = page(signed_in(Role.ADMIN), "audit")
    assert "blocked the address of anna" in told
    assert Suppression.objects.count() == 1
    assert signed_in(Role.ANALYST).post(reverse("recipient-block", args=[person.pk])).status_code == 403


def test_soft_bounces_are_told_before_they_are_too_many(sent):
    _, (row, *_) = sent
    settle(event(Kind.BOUNCE_SOFT, row), now=NOW)
    assert "1 message came back within a fortnight; with 5 the address is written to no more." in page(
        signed_in(Role.ANALYST), "recipient", row.recipient_id
    )
