"""The ledger: what a claim finds out, what an outcome may overwrite, and what the statements cost."""

import json
import re
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from delivery import circuits, ledger, sending
from delivery.ledger import Outcome, Settlement, Tally
from delivery.models import Batch, Delivery, FailedAttempt, InboxMessage, State
from delivery.providers.base import Verdict
from schedules import operations, stops
from schedules.models import Device, MessageTemplate, Recipient
from tests.books import assert_books_close
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.service import DAY, HOUR, MINUTE, at_full_speed, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db

CHANNELS = ("email", "push", "in_app")


def reachable(**fields):
    """A recipient whom every channel reaches."""
    return DeviceFactory(recipient=RecipientFactory(**fields)).recipient


def take_up(now=NOW):
    """The only batch, as a worker takes it up."""
    (work,) = ledger.take_up(list(Batch.objects.values_list("pk", flat=True)), now=now)
    return work


def claimed(work, *, limit=50, now=NOW):
    tally = Tally()
    claim = ledger.claim([work], token=uuid4(), limit=limit, now=now, tally=tally)[0]
    tally.flush()
    assert_books_close()
    return claim


def settled(claim, outcomes, *, now=NOW):
    tally = Tally()
    count = ledger.settle([Settlement(claim, outcomes, now)], now=now, tally=tally)
    tally.flush()
    assert_books_close()
    return count


# --- What a claim finds out by itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["network", "transaction"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_who_has_opted_out_of_the_channel_is_suppressed(service, request, channel, through):
    if through == "network":
        request.getfixturevalue("provider")
    reachable(consent={channel: False})
    reachable(consent={name: False for name in CHANNELS if name != channel})
    reachable(consent={channel: True})
    schedule = ScheduleFactory(channel=channel)
    service.step()
    assert reasons(schedule) == {"suppressed: opted_out": 1, "sent: ": 2}


@pytest.mark.parametrize("through", ["network", "transaction"])
@pytest.mark.parametrize("channel", ["email", "push"])
def test_who_has_no_address_for_the_channel_is_unaddressable(service, request, channel, through):
    if through == "network":
        request.getfixturevalue("provider")
    reachable()
    RecipientFactory(email="")
    retired = RecipientFactory(email="")
    Device.objects.create(recipient=retired, token="retired", platform="web", active=False)
    schedule = ScheduleFactory(channel=channel)
    service.step()
    assert reasons(schedule) == {"unaddressable: no_address": 2, "sent: ": 1}


def test_in_app_needs_no_address(service):
    RecipientFactory(email="")
    schedule = ScheduleFactory(channel="in_app")
    service.step()
    assert states(schedule) == {"sent": 1}


@pytest.mark.parametrize("channel", CHANNELS)
def test_who_is_gone_is_erased_by_the_claim(service, provider, channel):
    staying, gone = reachable(), reachable()
    schedule = ScheduleFactory(channel=channel)
    service.open()
    Recipient.objects.filter(pk=gone.pk).delete()
    service.send()
    assert reasons(schedule) == {"erased: profile_gone": 1, "sent: ": 1}
    assert list(provider.reached()) == [staying.pk]


def test_consent_is_read_at_the_claim_and_not_before(service, provider):
    person = RecipientFactory()
    schedule = ScheduleFactory(run_at=NOW + HOUR)
    service.at(NOW + 59 * MINUTE).open()
    Recipient.objects.filter(pk=person.pk).update(consent={"email": False})
    service.at(NOW + HOUR).send()
    assert reasons(schedule) == {"suppressed: opted_out": 1}
    assert provider.calls == []


@pytest.mark.parametrize(
    ("mode", "recheck", "expected"),
    [
        ("user_local", None, "suppressed: left_audience"),
        ("user_local", False, "sent: "),
        ("fixed", None, "sent: "),
        ("fixed", True, "suppressed: left_audience"),
    ],
)
def test_who_has_left_the_audience_by_the_claim_is_suppressed_where_it_is_asked_again(
    service, provider, mode, recheck, expected
):
    person = RecipientFactory(tags=["vip"], attributes={"plan": "pro"})
    schedule = ScheduleFactory(
        run_at=NOW + DAY,
        time_zone_mode=mode,
        recheck_audience=recheck,
        audience_query={"field": "tags", "op": "contains", "value": "vip"},
    )
    schedule.refresh_from_db()
    service.at(schedule.next_run_at).open()
    Recipient.objects.filter(pk=person.pk).update(tags=[])
    service.run_to(NOW + DAY)
    assert reasons(schedule) == {expected: 1}


@pytest.mark.parametrize("through", ["network", "transaction"])
def test_a_message_that_can_not_be_rendered_fails_for_that_person_alone(service, request, through):
    if through == "network":
        request.getfixturevalue("provider")
    people(3, attributes={"points": 7})
    odd = RecipientFactory(attributes={"points": "many"})
    template = TemplateFactory(text="You have {{ points + 1 }} points.")
    schedule = ScheduleFactory(template_id=template.pk)
    service.step()
    assert reasons(schedule) == {"sent: ": 3, "failed: template_error": 1}
    assert row_of(schedule, odd).called_at is None
    assert FailedAttempt.objects.get().recipient_id == odd.pk


@pytest.mark.parametrize("through", ["network", "transaction"])
def test_a_template_that_never_ends_fails_for_everyone_with_its_reason(service, request, through):
    if through == "network":
        request.getfixturevalue("provider")
    people(60)
    loop = "{% for a in range(999) %}{% for b in range(999) %}{{ b }}{% endfor %}{% endfor %}"
    schedule = ScheduleFactory(template_id=TemplateFactory(text=loop).pk)
    service.send(rounds=2)
    service.step()
    (reason,) = reasons(schedule)
    assert reason in ("failed: fuel_exhausted", "failed: too_large")
    assert reasons(schedule)[reason] == 60


@pytest.mark.parametrize("through", ["network", "transaction"])
def test_a_template_that_has_been_deleted_fails_with_a_reason(service, request, through):
    if through == "network":
        request.getfixturevalue("provider")
    people(2)
    template = TemplateFactory()
    schedule = ScheduleFactory(template_id=template.pk)
    service.open()
    only_occurrence(schedule)
    schedule.occurrences.update(begun_at=NOW)  # begun, so the edit leaves it with its template
    service.update(schedule, template_id=TemplateFactory().pk)
    MessageTemplate.objects.filter(pk=template.pk).delete()
    service.send()
    assert reasons(schedule) == {"failed: no_content": 2}


# --- Claims and outcomes ---------------------------------------------------------------------------------------------


def test_a_claim_takes_no_more_than_its_limit_and_only_what_is_due(service):
    people(70)
    ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    assert claimed(take_up()).people == []
    claim = claimed(take_up(), now=NOW + MINUTE)
    assert (claim.found, len(claim.people)) == (50, 50)
    assert {person.attempt for person in claim.people} == {1}
    assert claimed(take_up(), now=NOW + MINUTE).found == 20
    assert set(Delivery.objects.values_list("state", flat=True)) == {State.SENDING}


def test_a_claim_reads_what_a_message_needs_of_the_profile(service):
    person = reachable(locale="de-AT", time_zone="Europe/Vienna", attributes={"plan": "pro"}, tags=["vip"])
    DeviceFactory(recipient=person)
    ScheduleFactory(channel="push")
    service.open()
    (found,) = claimed(take_up()).people
    assert (found.recipient_id, found.external_id, found.email) == (person.pk, person.external_id, person.email)
    assert (found.locale, found.time_zone, found.wave_at) == ("de-AT", "Europe/Vienna", NOW)
    assert (found.attributes, found.tags, found.consent) == ({"plan": "pro"}, ["vip"], {})
    assert (found.has_device, len(found.targets)) == (True, 2)


@pytest.mark.parametrize("hindrance", ["paused", "cancelled", "deleted", "stopped", "edited", "ended", "held", "open"])
def test_what_may_not_be_sent_now_is_neither_claimed_nor_begun(service, provider, hindrance):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    assert service.publish()
    changes = {
        "paused": lambda: service.pause(schedule),
        "cancelled": lambda: service.cancel(schedule),
        "deleted": lambda: operations.delete(schedule_id=schedule.pk, by=BY, now=NOW),
        "stopped": lambda: stops.stop_sending(scope="channel:email", by=BY, now=NOW),
        "edited": lambda: service.update(schedule, audience_query={"field": "tags", "op": "contains", "value": "x"}),
        "ended": lambda: schedule.occurrences.update(ends_at=NOW),
        "held": lambda: schedule.occurrences.update(held_reason="failures", held_at=NOW),
        "open": lambda: circuits.open_circuit("email", reason="credentials", detail="", now=NOW),
    }
    changes[hindrance]()
    work = take_up()
    tally = Tally()
    assert ledger.claim([work], token=uuid4(), limit=50, now=NOW, tally=tally)[0] is None
    assert states(schedule) == {"pending": 3}
    assert only_occurrence(schedule).begun_at is None


def test_an_occurrence_has_begun_once_somebody_is_claimed(service):
    people(3)
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    claimed(take_up())
    assert only_occurrence(schedule).begun_at is None
    claimed(take_up(), limit=2, now=NOW + MINUTE)
    claimed(take_up(), now=NOW + 2 * MINUTE)
    assert only_occurrence(schedule).begun_at == NOW + MINUTE


def test_an_outcome_of_another_claim_is_refused(service):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim = claimed(take_up())
    outcomes = [Outcome(person.recipient_id, State.SENT, verdict="sent") for person in claim.people]
    stranger = ledger.Claim(claim.work, uuid4(), *[getattr(claim, name) for name in claim.__slots__[2:]])
    assert settled(stranger, outcomes) == 0
    assert states(schedule) == {"sending": 3}
    assert settled(claim, outcomes) == 3
    assert settled(claim, outcomes) == 0
    assert states(schedule) == {"sent": 3}


def test_a_claim_of_which_the_commit_is_uncertain_is_taken_back_whole(service):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim = claimed(take_up())
    tally = Tally()
    assert ledger.take_back(claim.work, token=uuid4(), tally=tally) == 0
    assert ledger.take_back(claim.work, token=claim.token, tally=tally) == 3
    tally.flush()
    assert states(schedule) == {"pending": 3}
    assert set(Delivery.objects.values_list("attempt", "claim_token")) == {(0, None)}
    assert claimed(take_up()).found == 3


def test_only_people_whom_the_provider_was_asked_for_have_an_instant_of_the_call(service, provider):
    asked, silent = RecipientFactory(), RecipientFactory(consent={"email": False})
    schedule = ScheduleFactory()
    service.step()
    assert row_of(schedule, asked).called_at is not None
    assert row_of(schedule, silent).called_at is None


def test_the_database_refuses_counters_that_do_not_add_up(service):
    people(3)
    ScheduleFactory()
    service.open()
    tally = Tally()
    tally._moves[Batch.objects.get().pk]["sent"] += 1
    with pytest.raises(IntegrityError, match="batch_books_close"), transaction.atomic():
        tally.flush()


@pytest.mark.parametrize(
    "broken",
    [
        {"state": 99},
        {"state": State.SENT},
        {"state": State.SENDING},
        {"state": State.FAILED, "settled_at": NOW},
        {"claim_token": uuid4()},
    ],
    ids=["unknown state", "no instant", "no token", "no reason", "token without a claim"],
)
def test_the_database_refuses_a_row_that_makes_no_sense(service, broken):
    people(1)
    ScheduleFactory()
    service.open()
    with pytest.raises(IntegrityError), transaction.atomic():
        Delivery.objects.update(**broken)


# --- Too late --------------------------------------------------------------------------------------------------------


def test_a_wave_that_could_not_start_in_time_expires_because_the_service_was_down(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    service.at(NOW + HOUR + MINUTE).send()
    assert reasons(schedule) == {"expired: down": 3}
    assert provider.calls == []


def test_a_wave_that_could_not_start_in_time_expires_because_of_a_pause(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    service.pause(schedule)
    service.at(NOW + HOUR + MINUTE).resume(schedule)
    service.send()
    assert reasons(schedule) == {"expired: paused": 3}


def test_a_wave_that_has_started_runs_on_after_a_pause_however_long(service, provider, settings):
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 40
    people(120)
    schedule = ScheduleFactory()
    service.open()
    service.send()
    started = states(schedule)["sent"]
    assert 0 < started < 120
    service.pause(schedule)
    service.at(NOW + DAY).resume(schedule)
    service.send(rounds=5)
    assert states(schedule) == {"sent": 120}


def test_a_small_wave_that_lies_in_two_shared_batches_has_started_in_both(service, provider, settings):
    settings.BATCH_SIZE = 10
    people(25, time_zone="Europe/Berlin")
    schedule = ScheduleFactory(run_at=NOW + DAY, time_zone_mode="user_local")
    schedule.refresh_from_db()
    service.at(schedule.next_run_at).open()
    assert set(Batch.objects.values_list("wave_at", flat=True)) == {None}
    settings.PUBLISH_WINDOW_ROWS = 10
    service.at(NOW + DAY - HOUR).send()
    assert set(states(schedule)) == {"sent", "pending"}
    service.pause(schedule)
    service.after(5 * HOUR).resume(schedule)
    service.send(rounds=5)
    assert states(schedule) == {"sent": 25}


def test_of_two_waves_only_the_one_that_had_not_started_expires(service, provider):
    people(3, time_zone="Europe/Berlin")
    people(2, time_zone="UTC")
    schedule = ScheduleFactory(run_at=NOW + DAY, time_zone_mode="user_local")
    service.run_to(NOW + DAY - HOUR)
    assert states(schedule) == {"sent": 3, "pending": 2}
    service.pause(schedule)
    service.after(3 * HOUR).resume(schedule)
    service.send()
    assert reasons(schedule) == {"sent: ": 3, "expired: paused": 2}


def test_people_of_a_wave_that_has_started_wait_for_a_throttling_provider_however_long(service, provider):
    people(3, time_zone="Europe/Berlin")
    schedule = ScheduleFactory(run_at=NOW + DAY, time_zone_mode="user_local")
    service.run_to(NOW + DAY - HOUR - MINUTE)
    provider.answers(Verdict.THROTTLED, retry_after=7_200.0)
    service.at(NOW + DAY - HOUR).send()
    assert states(schedule) == {"pending": 3}
    provider.reset()
    at_full_speed()
    service.after(4 * HOUR).send()
    assert states(schedule) == {"sent": 3}


# --- What the statements cost ----------------------------------------------------------------------------------------


def statements_of(run):
    """What a run says to the database, without this test's own look at the books."""
    with CaptureQueriesContext(connection) as queries:
        run()
    return [query["sql"] for query in queries]


def sending_of(service):
    """Send everything that is due, in as many messages as it takes."""
    batch_ids = [message.batch_ids for message in service.publish()]

    def run():
        for ids in batch_ids:
            sending.send(batch_ids=ids)

    return run


@pytest.fixture(params=["network", "transaction"])
def channel(request):
    """A channel whose provider is on the network, and one that writes in the outcomes' transaction."""
    if request.param == "network":
        request.getfixturevalue("provider")
        return "email"
    return "in_app"


def test_every_statement_of_a_run_that_touches_the_ledger_names_its_day(service, channel):
    people(60)
    ScheduleFactory(channel=channel)
    service.open()
    touching = [sql for sql in statements_of(sending_of(service)) if "delivery_delivery" in sql]
    assert len(touching) >= 2
    for sql in touching:
        assert re.search(r"\bday = '2026-11-21'", sql), sql
        assert {node["Relation Name"] for node in scans(sql)} == {"delivery_delivery_20261121"}, sql


def scans(sql, *, analyze=False):
    """The nodes of a statement's plan that read the ledger. With ``analyze`` it is carried out, and undone."""
    options = "ANALYZE, FORMAT JSON" if analyze else "FORMAT JSON"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN ({options}) {sql}")
        ((plans,),) = cursor.fetchall()
        transaction.set_rollback(True)
    plans = json.loads(plans) if isinstance(plans, str) else plans
    return [
        node
        for node in nodes(plans[0]["Plan"])
        if node.get("Relation Name", "").startswith("delivery_delivery") and "Scan" in node["Node Type"]
    ]


def nodes(plan):
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def test_a_call_reads_its_batch_alone_even_where_statistics_know_of_small_occurrences_only(service, channel):
    people(1)
    ScheduleFactory(channel=channel)
    service.step()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE delivery_delivery_20261121")
    people(3_000)
    ScheduleFactory(channel=channel)
    service.open()
    work = ledger.take_up([Batch.objects.filter(size=500).order_by("id")[0].pk], now=NOW)[0]
    found = []

    def claim_and_settle():
        tally = Tally()
        limit = 50 if channel == "email" else 500
        found.extend(ledger.claim([work], token=uuid4(), limit=limit, now=NOW, tally=tally))
        if channel == "in_app":
            assert len(ledger.hold(found[0])) == 500
        sent = [Outcome(person.recipient_id, State.SENT) for person in found[0].people]
        ledger.settle([Settlement(found[0], sent, NOW)], now=NOW, tally=tally)
        tally.flush()

    with transaction.atomic():
        statements = statements_of(claim_and_settle)
        transaction.set_rollback(True)
    touching = [sql for sql in statements if "delivery_delivery" in sql]
    assert len(touching) == (2 if channel == "email" else 3)
    for sql in touching:
        for node in scans(sql, analyze=True):
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert read <= 2 * 500, sql


def test_statements_grow_with_the_calls_and_not_with_the_people(service, provider):
    people(500)
    ScheduleFactory()
    service.open()
    few = len(statements_of(sending_of(service)))
    people(4_500)
    ScheduleFactory()
    service.open()
    many = len(statements_of(sending_of(service)))
    assert few < 10 * 15
    assert many < 100 * 15
    assert max(len(call.messages) for call in provider.calls) == 50
    assert len(provider.messages()) == 5_500


def test_statements_of_a_transactional_provider_grow_with_its_calls_and_not_with_the_people(service):
    people(500)
    ScheduleFactory(channel="in_app")
    service.open()
    few = len(statements_of(sending_of(service)))
    people(1_500)
    ScheduleFactory(channel="in_app")
    service.open()
    many = len(statements_of(sending_of(service)))
    assert few < 25
    assert many < few + 3 * 16
    assert InboxMessage.objects.count() == 2_500


def test_a_claim_is_one_statement_whatever_its_size(service):
    people(400)
    ScheduleFactory()
    service.open()
    work = take_up()
    claimed(work, limit=1)  # the occurrence's first one notes how late it is
    one = statements_of(lambda: claimed(work, limit=1))
    many = statements_of(lambda: claimed(work, limit=300))
    assert len(one) == len(many)


@pytest.mark.django_db(transaction=True)
def test_seven_of_ten_updates_of_the_ledger_are_heap_only(service, channel):
    people(5_000)
    ScheduleFactory(channel=channel)
    service.open()
    with connection.cursor() as cursor:  # a snapshot that an earlier test left open keeps every old version alive
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )
    before = updates()
    service.send(rounds=3)
    after = updates()
    all_of_them, heap_only = after[0] - before[0], after[1] - before[1]
    assert all_of_them >= 5_000
    assert heap_only / all_of_them >= 0.7
    assert Delivery.objects.filter(state=State.SENT).count() == 5_000


def updates():
    """(updates, heap-only ones) of the ledger so far."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT 1")  # the statistics are handed over after a statement
        cursor.execute(
            "SELECT sum(n_tup_upd), sum(n_tup_hot_upd) FROM pg_stat_user_tables WHERE relname ~ '^delivery_delivery_'"
        )
        return cursor.fetchone()
