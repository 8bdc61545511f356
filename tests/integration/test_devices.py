"""People with several devices: each device gets the message once, and the person counts as sent when one has it."""

import json
from datetime import timedelta
from uuid import uuid4

import pytest

from delivery import erasure
from delivery.models import Batch, Delivery, FailedAttempt, State
from delivery.providers import registry
from delivery.providers.base import Answer, Verdict
from schedules.models import Device, Occurrence, Recipient
from schedules.occurrences import ApplyTo
from stubs.testing import running_fcm
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory
from tests.service import DAY, HOUR, expire_leases, reasons, row_of, states

pytestmark = pytest.mark.django_db


@pytest.fixture
def person():
    return RecipientFactory()


@pytest.fixture
def devices(person):
    """The ids of the person's three devices."""
    return tuple(DeviceFactory(recipient=person).pk for _ in range(3))


@pytest.fixture
def answering(provider, monkeypatch):
    """Calls are answered one after the other as given: (verdict, devices reached[, devices gone])."""
    monkeypatch.setattr(provider, "repeats_unknown", True)

    def set_up(*given):
        turns = iter(given)

        def answer(message):
            verdict, reached, *gone = next(turns)
            return Answer(message.key, verdict, "so", reached=tuple(reached), gone=tuple(*gone))

        provider.answer = staticmethod(answer)

    return set_up


def asked(provider):
    """The devices of each call."""
    return [tuple(target.device_id for target in message.targets) for message in provider.messages()]


def run(service, schedule, person, *, calls):
    """Let so many calls be made, each as soon as it is due."""
    service.step()
    for _ in range(calls - 1):
        service.at(row_of(schedule, person).due_at).step()


def test_a_retry_gets_only_the_devices_that_do_not_have_it_yet(service, provider, answering, person, devices):
    one, two, three = devices
    answering((Verdict.TRANSIENT, [two]), (Verdict.TRANSIENT, [three]), (Verdict.SENT, [one]))
    schedule = ScheduleFactory(channel="push")
    run(service, schedule, person, calls=2)
    row = row_of(schedule, person)
    assert (row.state, row.reason, row.attempt, row.reached) == (State.PENDING, "so", 2, f"{two},{three}")
    service.at(row.due_at).step()
    assert asked(provider) == [(one, two, three), (one, three), (one,)]
    row = row_of(schedule, person)
    assert (row.state, row.reason, row.attempt, row.reached) == (State.SENT, "", 3, f"{two},{three},{one}")


@pytest.mark.parametrize("last", [Verdict.TRANSIENT, Verdict.PERMANENT, Verdict.UNKNOWN], ids=lambda it: it.value)
def test_who_has_it_on_one_device_counts_as_sent_when_retries_are_used_up(
    service, provider, answering, person, devices, last
):
    answering((Verdict.TRANSIENT, [devices[0]]), *[(Verdict.TRANSIENT, [])] * 2, (last, []))
    schedule = ScheduleFactory(channel="push")
    run(service, schedule, person, calls=4)
    assert asked(provider) == [devices, devices[1:], devices[1:], devices[1:]]
    assert reasons(schedule) == {"sent: ": 1}
    assert not schedule.occurrences.filter(closed_at=None).exists()


def test_who_has_it_nowhere_fails_when_retries_are_used_up(service, provider, answering, person, devices):
    answering(*[(Verdict.TRANSIENT, [])] * 4)
    schedule = ScheduleFactory(channel="push")
    run(service, schedule, person, calls=4)
    assert asked(provider) == [devices] * 4
    assert reasons(schedule) == {"failed: so": 1}
    assert FailedAttempt.objects.count() == 4


def test_an_ambiguous_call_is_repeated_to_all_who_may_not_have_it_and_ends_unknown(
    service, provider, answering, person, devices
):
    answering(*[(Verdict.UNKNOWN, [])] * 4)
    schedule = ScheduleFactory(channel="push")
    run(service, schedule, person, calls=4)
    assert asked(provider) == [devices] * 4
    assert reasons(schedule) == {"unknown: so": 1}
    service.after(HOUR).step()
    assert len(provider.calls) == 4


def test_a_device_that_the_provider_does_not_know_any_more_is_retired(service, provider, answering, person, devices):
    one, two, three = devices
    answering((Verdict.TRANSIENT, [one], [two]), (Verdict.SENT, [three]), (Verdict.SENT, [one, three]))
    schedule = ScheduleFactory(channel="push")
    run(service, schedule, person, calls=2)
    assert asked(provider) == [devices, (three,)]
    assert dict(Device.objects.values_list("pk", "active")) == {one: True, two: False, three: True}
    ScheduleFactory(channel="push", run_at=service.now, now=service.now - HOUR)
    service.step()
    assert asked(provider)[-1] == (one, three)


def test_where_no_device_is_left_who_has_it_on_one_counts_as_sent_and_who_has_not_is_unaddressable(
    service, provider, answering
):
    had, never = DeviceFactory(), DeviceFactory()
    reached = {had.recipient_id: (had.pk,), never.recipient_id: ()}
    provider.answer = staticmethod(
        lambda message: Answer(message.key, Verdict.TRANSIENT, "so", reached=reached[message.recipient_id])
    )
    schedule = ScheduleFactory(channel="push")
    service.step()
    Device.objects.update(active=False)
    service.after(HOUR).step()
    assert reasons(schedule) == {"sent: ": 1, "unaddressable: no_address": 1}
    assert row_of(schedule, had.recipient).state == State.SENT
    assert len(provider.calls) == 1


def test_a_device_that_comes_meanwhile_gets_the_retry_too(service, provider, answering, person, devices):
    answering((Verdict.TRANSIENT, devices), (Verdict.SENT, []))
    schedule = ScheduleFactory(channel="push")
    service.step()
    newer = DeviceFactory(recipient=person).pk
    service.at(row_of(schedule, person).due_at).step()
    assert asked(provider) == [devices, (newer,)]
    assert states(schedule) == {"sent": 1}


@pytest.mark.parametrize("verdict", [Verdict.TRANSIENT, Verdict.UNKNOWN], ids=lambda it: it.value)
def test_what_has_reached_or_may_have_reached_a_device_keeps_its_place_under_a_cap(
    service, provider, answering, person, devices, verdict
):
    reached = devices[:1] if verdict is Verdict.TRANSIENT else ()
    answering((verdict, reached), (Verdict.TRANSIENT, []), (Verdict.SENT, devices))
    first = ScheduleFactory(channel="push", max_per_user_per_day=1)
    run(service, first, person, calls=2)
    assert states(first) == {"pending": 1}
    second = ScheduleFactory(channel="push", max_per_user_per_day=1, run_at=service.now, now=service.now - HOUR)
    service.step()
    assert reasons(second) == {"rate_limited: daily_cap": 1}
    member = f"{first.occurrences.get().occurrence_at:%Y%m%d}-{first.occurrences.get().pk}"
    assert json.loads(row_of(second, person).detail) == {"limit": 1, "used": [member]}
    service.at(row_of(first, person).due_at).step()
    assert states(first) == {"sent": 1}
    assert len(provider.calls) == 3


def test_who_got_nothing_frees_the_place_under_a_cap(service, provider, answering, person, devices):
    answering((Verdict.TRANSIENT, []), (Verdict.SENT, devices))
    first = ScheduleFactory(channel="push", max_per_user_per_day=1)
    service.step()
    second = ScheduleFactory(channel="push", max_per_user_per_day=1, run_at=service.now, now=service.now - HOUR)
    service.step()
    assert states(second) == {"sent": 1}
    service.at(row_of(first, person).due_at).step()
    assert reasons(first) == {"rate_limited: daily_cap": 1}


def test_a_lost_call_is_made_again_to_the_devices_that_have_nothing_yet(service, provider, answering, person, devices):
    answering((Verdict.TRANSIENT, devices[:1]), (Verdict.SENT, devices[1:]))
    schedule = ScheduleFactory(channel="push")
    service.step()
    row = row_of(schedule, person)
    provider.meanwhile = staticmethod(lambda: (_ for _ in ()).throw(SystemExit))
    service.at(row.due_at)
    with pytest.raises(SystemExit):
        service.send()
    assert states(schedule) == {"sending": 1}
    expire_leases()
    service.sweep()
    provider.meanwhile = staticmethod(lambda: None)
    service.after(HOUR).step()
    assert asked(provider) == [devices, devices[1:], devices[1:]]
    assert states(schedule) == {"sent": 1}


# --- Whoever has it on one device has been sent it --------------------------------------------------------------------


def opt_out(service, schedule):
    Recipient.objects.update(consent={"push": False})


def leave_the_audience(service, schedule):
    Recipient.objects.update(locale="fr")


def spoil_the_template(service, schedule):
    Recipient.objects.update(attributes={"points": "many"})
    template = TemplateFactory(text="You have {{ points + 1 }} points.")
    service.update(schedule, template_id=template.pk, apply_to=ApplyTo.UNSENT)


def fall_out_by_an_edit(service, schedule):
    query = {"field": "locale", "op": "eq", "value": "fr"}
    service.update(schedule, audience_query=query, apply_to=ApplyTo.UNSENT)


def end(service, schedule):
    service.after(8 * DAY)


def cancel(service, schedule):
    service.cancel(schedule)


def erase(service, schedule):
    erasure.forget(recipient_id=Recipient.objects.get().pk, by=BY, now=service.now)


def disappear(service, schedule):
    Recipient.objects.all().delete()


def lose_the_worker(service, schedule):
    """As often as it is tried."""
    Delivery.objects.update(state=State.SENDING, attempt=4, claim_token=uuid4(), leased_until=NOW - 1_000 * DAY)
    Batch.objects.update(pending=0, sending=1, next_due_at=None, lease_until=NOW - 1_000 * DAY)


def come_too_late_after_an_edit(service, schedule):
    service.update(schedule, run_at=service.now + HOUR, apply_to=ApplyTo.UNSENT)
    service.materialise()
    service.after(3 * HOUR)


def come_too_late_for_an_edit(service, schedule):
    service.update(schedule, run_at=service.now + HOUR, apply_to=ApplyTo.UNSENT)
    service.after(3 * HOUR)


@pytest.mark.parametrize(
    "end",
    [
        opt_out, leave_the_audience, spoil_the_template, fall_out_by_an_edit, end, cancel, erase, disappear,
        lose_the_worker, come_too_late_after_an_edit, come_too_late_for_an_edit,
    ],
    ids=lambda end: end.__name__,
)  # fmt: skip
def test_who_has_it_on_one_device_counts_as_sent_whatever_keeps_it_from_the_others(
    service, provider, answering, person, devices, end
):
    answering((Verdict.TRANSIENT, devices[:1]))
    schedule = ScheduleFactory(
        channel="push",
        recheck_audience=True,
        audience_query={"field": "locale", "op": "eq", "value": "en"},
    )
    service.step()
    assert states(schedule) == {"pending": 1}
    end(service, schedule)
    service.materialise()
    service.after(HOUR / 60).step()
    row = row_of(schedule, person)
    assert (State(row.state).label, row.reason, row.reached) == ("sent", "", str(devices[0]))
    assert row.settled_at is not None
    assert len(provider.calls) == 1
    assert not Occurrence.objects.filter(closed_at=None).exists()


def test_while_fcm_may_have_delivered_a_push_its_place_is_kept_and_the_repeat_replaces_it(
    service, settings, monkeypatch, tmp_path, person
):
    device = DeviceFactory(recipient=person)
    with running_fcm(credentials=tmp_path / "account.json") as stub:
        settings.PROVIDERS = {**settings.PROVIDERS, "push": "fcm"}
        settings.FCM_CREDENTIALS, settings.FCM_ENDPOINT = str(stub.credentials), stub.url
        registry.chain.cache_clear()
        stub.fault({"kind": "status", "error": "UNAVAILABLE", "retry_after": 90, "accept": True, "count": 1})
        try:
            first = ScheduleFactory(channel="push", max_per_user_per_day=1)
            service.step()
            assert reasons(first) == {"pending: provider_error": 1}
            assert row_of(first, person).due_at - service.now >= timedelta(seconds=89)
            second = ScheduleFactory(channel="push", max_per_user_per_day=1, run_at=service.now, now=service.now - HOUR)
            service.step()
            assert reasons(second) == {"rate_limited: daily_cap": 1}
            service.at(row_of(first, person).due_at).step()
        finally:
            registry.chain.cache_clear()
        assert states(first) == {"sent": 1}
        assert len(stub.messages()) == 2
        assert len(stub.shown(device.token)) == 1
