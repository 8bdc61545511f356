"""Edits meet the first claim, and a day that is dropped meets its people."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, connections, transaction

from delivery import ledger, partitions
from delivery.ledger import Tally
from delivery.models import Delivery
from delivery.providers.base import Verdict
from schedules import operations
from schedules.models import Occurrence
from schedules.occurrences import Effect
from tests.factories import NOW, ScheduleFactory, TemplateFactory, people
from tests.races import VIPS, cancel, editing_of, sending_of
from tests.service import HOUR, MINUTE, only_occurrence, reasons, states

pytestmark = pytest.mark.django_db(transaction=True)


# --- Edits and the first claim ---------------------------------------------------------------------------------------


def test_a_first_claim_waits_for_the_edit_and_sends_its_words(service, provider, meeting):
    people(3)
    template, other = TemplateFactory(text="old"), TemplateFactory(text="new")
    schedule = ScheduleFactory(template_id=template.pk)
    service.open()
    (message,) = service.publish()
    with transaction.atomic():
        edit = service.update(schedule, template_id=other.pk)
        worker = meeting.rival(sending_of(message.batch_ids))
        worker.wait_for_lock()
    worker.result()
    assert [touched.effect for touched in edit.touched] == [Effect.REPINNED]
    assert {message.text for message in provider.messages()} == {"new"}
    assert set(Delivery.objects.values_list("version", flat=True)) == {2}


def test_a_first_claim_waits_for_an_edit_of_the_audience_and_claims_nobody(service, provider, meeting):
    people(3, tags=["vip"])
    people(4)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    with transaction.atomic():
        service.update(schedule, audience_query=VIPS)
        worker = meeting.rival(sending_of(message.batch_ids))
        worker.wait_for_lock()
    worker.result()
    assert provider.calls == []
    assert only_occurrence(schedule).begun_at is None
    service.step()
    assert reasons(schedule) == {"sent: ": 3, "cancelled: edited": 4}


def test_an_edit_waits_for_the_first_claim_and_sees_that_it_has_begun(service, provider, meeting):
    people(3)
    template, other = TemplateFactory(text="old"), TemplateFactory(text="new")
    schedule = ScheduleFactory(template_id=template.pk)
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(Tally, "flush")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    editing = meeting.rival(editing_of(schedule, template_id=other.pk))
    editing.wait_for_lock()
    gate.open()
    worker.result()
    assert [touched.effect for touched in editing.result().touched] == [Effect.UNTOUCHED]
    assert {message.text for message in provider.messages()} == {"old"}


def test_a_cancellation_waits_for_the_first_claim_whose_call_ends(service, provider, meeting):
    people(60)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(Tally, "flush")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    cancelling = meeting.rival(lambda: cancel(schedule))
    cancelling.wait_for_lock()
    gate.open()
    worker.result()
    cancelling.result()
    service.step()
    assert states(schedule)["sent"] + states(schedule)["cancelled"] == 60
    assert states(schedule)["sent"] >= 50
    assert only_occurrence(schedule).closed_at == NOW


def test_two_edits_at_once_follow_one_another(service, meeting):
    schedule = ScheduleFactory()
    with transaction.atomic():
        service.update(schedule, name="First", expected_version=1)
        second = meeting.rival(editing_of(schedule, name="Second", expected_version=1))
        second.wait_for_lock()
    with pytest.raises(operations.VersionConflict):
        second.result()
    schedule.refresh_from_db()
    assert (schedule.name, schedule.version) == ("First", 2)


def test_a_wave_put_off_while_a_worker_waits_for_it_is_sent_at_its_new_time(service, provider, meeting):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(ledger, "claim")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    service.update(schedule, run_at=NOW + HOUR)
    gate.open()
    worker.result()
    service.run_to(NOW + HOUR - MINUTE)
    assert provider.calls == []
    service.run_to(NOW + HOUR)
    assert set(provider.reached().values()) == {1}
    assert states(schedule) == {"sent": 3}


# --- Dropping a partition --------------------------------------------------------------------------------------------


OLD = datetime(2026, 8, 3, 12, tzinfo=UTC)


@pytest.fixture
def old(service, provider):
    """A schedule whose only occurrence lies on a day past its retention."""
    partitions.ensure(first=OLD.date(), last=OLD.date())
    people(3)
    schedule = ScheduleFactory(run_at=OLD, now=OLD - MINUTE)
    service.at(OLD).open()
    yield schedule
    Occurrence.objects.all().delete()
    with connection.cursor() as cursor:
        for table in partitions.TABLES:
            cursor.execute(f"DROP TABLE IF EXISTS {table}_{OLD:%Y%m%d}")


def drop_old():
    return partitions.drop(before=(OLD + timedelta(days=1)).date())


def test_a_day_with_people_who_wait_is_not_dropped(service, old):
    service.pause(old)
    with pytest.raises(partitions.PartitionInUse):
        drop_old()
    assert states(old) == {"pending": 3}


@pytest.mark.parametrize("answer", [Verdict.SENT, Verdict.TRANSIENT, Verdict.UNKNOWN])
def test_a_day_with_a_call_under_way_is_not_dropped(service, provider, old, answer):
    refused = []

    def meanwhile():
        try:
            drop_old()
        except partitions.PartitionInUse:
            refused.append(True)
        connections.close_all()

    provider.meanwhile = staticmethod(meanwhile)
    provider.answers(answer)
    service.send()
    assert refused == [True]
    assert sum(states(old).values()) == 3


def test_a_day_is_dropped_once_its_books_are_closed(service, old):
    service.send()
    with pytest.raises(partitions.PartitionInUse):
        drop_old()
    service.sweep()
    assert drop_old() == [f"{table}_{OLD:%Y%m%d}" for table in sorted(partitions.TABLES)]
    assert not Delivery.objects.exists()
