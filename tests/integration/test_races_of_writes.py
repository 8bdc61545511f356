"""A worker of in-app messages meets the sweep, erasure and the ends of connections between claim and write."""

import pytest

from delivery import erasure, ledger
from delivery.models import Batch, InboxMessage
from schedules.models import Recipient
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory, people
from tests.races import LONG_AGO, cancel, claim_some, leases_expire, pause, sending_of
from tests.service import MINUTE, reasons, states

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def held_up(service, meeting):
    """A worker whose claim of three in-app messages is committed and of which none is written yet.

    The schedule, its people, the worker and the gate at which it stands.
    """
    persons = people(3, attributes={"points": 1})
    template = TemplateFactory(text="You have {{ points + 1 }} points.")
    Recipient.objects.filter(pk=persons[2].pk).update(attributes={"points": "many"})
    schedule = ScheduleFactory(channel="in_app", template_id=template.pk)
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(ledger, "hold")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    assert states(schedule) == {"sending": 3}
    return schedule, persons, worker, gate


def test_a_worker_that_loses_its_connection_between_claim_and_write_writes_once(held_up):
    schedule, _, worker, gate = held_up
    worker.kill()
    gate.open()
    worker.result()
    assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    assert InboxMessage.objects.count() == 2


def test_a_claim_whose_worker_is_killed_is_written_by_another_once(service):
    people(3)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    (message,) = service.publish()
    claim_some(message.batch_ids)
    leases_expire()
    Batch.objects.update(queued_at=LONG_AGO)
    service.sweep()
    assert reasons(schedule) == {"pending: worker_lost": 3}
    assert not InboxMessage.objects.exists()
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 3}
    assert InboxMessage.objects.count() == 3


def test_a_worker_that_wakes_when_another_has_written_its_messages_writes_none(service, held_up):
    schedule, _, worker, gate = held_up
    leases_expire()
    service.sweep()
    service.after(MINUTE).send()
    assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    gate.open()
    worker.result()
    assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    assert InboxMessage.objects.count() == 2
    assert_books_close()


@pytest.mark.parametrize("by_another", [False, True], ids=["given up", "claimed by another"])
def test_a_worker_that_wakes_when_its_people_are_no_longer_its_own_writes_none(service, held_up, by_another):
    schedule, _, worker, gate = held_up
    leases_expire()
    service.sweep()
    if by_another:
        claim_some([Batch.objects.get().pk], now=NOW + MINUTE)
    gate.open()
    worker.result()
    assert not InboxMessage.objects.exists()
    assert states(schedule) == ({"sending": 3} if by_another else {"pending": 3})
    assert_books_close()


@pytest.mark.parametrize("who", [0, 2], ids=["a person with a message", "one whose message can't be rendered"])
def test_who_is_erased_between_claim_and_write_gets_no_message(held_up, who):
    schedule, persons, worker, gate = held_up
    erasure.forget(recipient_id=persons[who].pk, by=BY, now=NOW)
    gate.open()
    worker.result()
    if who == 0:
        assert reasons(schedule) == {"erased: profile_gone": 1, "sent: ": 1, "failed: template_error": 1}
    else:
        assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    assert not InboxMessage.objects.filter(recipient_id=persons[who].pk).exists()
    assert_books_close()


def test_an_erasure_waits_for_the_message_that_is_being_written_and_takes_it_along(service, meeting):
    persons = people(3)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(ledger, "hold", behind=True)
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    erasing = meeting.rival(lambda: erasure.forget(recipient_id=persons[0].pk, by=BY, now=NOW))
    erasing.wait_for_lock()
    gate.open()
    worker.result()
    erasing.result()
    assert states(schedule) == {"sent": 3}
    assert set(InboxMessage.objects.values_list("recipient_id", flat=True)) == {persons[1].pk, persons[2].pk}


@pytest.mark.parametrize("end", ["cancel", "pause"])
def test_what_is_claimed_when_the_schedule_is_stopped_is_written_within_its_permit(held_up, end):
    schedule, _, worker, gate = held_up
    {"cancel": cancel, "pause": pause}[end](schedule)
    gate.open()
    worker.result()
    assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    assert InboxMessage.objects.count() == 2
