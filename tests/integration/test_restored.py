"""A database that was set back beneath the service: found out whatever set it back, stopped, settled, let go.

A savepoint that is rolled back is the backup: the ledger forgets, while Redis and the provider's log do not.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.conf import settings as project
from django.core.management import CommandError, call_command
from django.db import transaction
from django.db.models import F
from redis import Redis

from audit.lost import LostEvent
from audit.models import Action, AuditEvent
from delivery import continuity, counters, restores, tasks
from delivery.counters import CountersAway
from delivery.events.base import Kind, ProviderEvent
from delivery.models import Continuity, Delivery, InboxMessage, State
from delivery.providers.base import run_of
from frontend import erasing, notices
from schedules import stops
from schedules.models import Occurrence, Recipient, StopSwitch
from stubs import ses_events
from tests.books import assert_books_close
from tests.factories import BY, NOW, DeviceFactory, ScheduleFactory, people
from tests.provider_events import event
from tests.provider_events import settle as told_later
from tests.service import DAY, MINUTE, Service, only_occurrence, reasons, states
from tests.told_by_ses import accepted

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("same_numbers")]


@pytest.fixture(autouse=True)
def _nobody_has_looked() -> Iterator[None]:
    counters._pause.until = 0.0  # Redis, which a test before took away, is asked
    continuity.forget()
    yield
    continuity.forget()


@pytest.fixture
def look(service, django_capture_on_commit_callbacks) -> Callable[[], bool]:
    def looked() -> bool:
        with django_capture_on_commit_callbacks(execute=True):
            return continuity.look(now=service.now)

    return looked


@contextmanager
def lost(look: Callable[[], bool]) -> Iterator[None]:
    """What happens inside happens after the backup; at its end the backup is restored."""
    assert look()
    backup = transaction.savepoint()
    yield
    assert look()
    transaction.savepoint_rollback(backup)
    continuity.forget()


def expire() -> None:
    Continuity.objects.update(proven_until=F("proven_until") - timedelta(hours=1))


ANOTHER_CLUSTER = "7000000000000000000/00000001"


def another_timeline(server: str) -> str:
    return f"{server.partition('/')[0]}/0000000A"


def _raise_away(*_: object) -> None:
    raise CountersAway


def settle(service: Service, *events: ProviderEvent, **options: object) -> restores.Settlement:
    given = {"until": service.now + MINUTE, "erase": lambda person: None, **options}
    done = restores.settle(events=[events] if events else [], by=BY, now=service.now, **given)
    assert_books_close()
    return done


def go_on(service: Service) -> None:
    assert restores.go(scope=StopSwitch.ALL, by=BY, now=service.now)
    assert continuity.look(now=service.now)
    service.send(rounds=3)
    service.sweep()


# --- Finding out -----------------------------------------------------------------------------------------------------


def test_a_database_that_goes_on_is_let_go_on(service, look):
    assert [look(), look(), look()] == [True] * 3
    assert Continuity.objects.get().number >= 2
    assert not StopSwitch.objects.exists()


def test_a_database_that_was_set_back_is_stopped_and_says_why(service, look):
    with lost(look):
        service.after(MINUTE)
    assert not look()
    stop = StopSwitch.objects.get()
    assert (stop.scope, stop.reason, stop.created_by) == ("all", "restored", "system:restore")
    told = AuditEvent.objects.get(action=Action.SENDING_STOP)
    assert (told.actor_id, told.payload_diff["reason"]) == ("system:restore", [None, "restored"])
    kept = continuity.restored()
    assert (kept.restored_to, kept.last_seen_at) == (NOW, NOW + MINUTE)
    said, stopped = notices.banners()
    assert "This database was restored, or another has taken its place: it knows nothing of what happened after" in said
    assert "2026-11-21 10:00:00 UTC" in said
    assert "settle_restored" in said
    assert stopped.endswith("Reason: the database was restored")
    assert not look(), "looking again changes nothing"
    assert AuditEvent.objects.filter(action=Action.SENDING_STOP).count() == 1


def test_who_had_stopped_before_keeps_his_stop_and_it_is_found_all_the_same(service, look):
    stops.stop_sending(scope="all", by=BY, now=NOW, reason="Easter")
    with lost(look):
        pass
    assert not look()
    assert StopSwitch.objects.get().reason == "Easter"
    with pytest.raises(restores.NotSettled):
        restores.go(scope="all", by=BY, now=NOW)


def test_a_failover_that_lost_nothing_stops_nothing(service, look):
    assert look()
    before = Continuity.objects.get().server
    Continuity.objects.update(server=another_timeline(before))
    expire()
    assert look(), "another timeline, and nothing committed is missing"
    assert Continuity.objects.get().server == before


@pytest.mark.parametrize(
    ("server", "is_proven", "may_go"),
    [
        ("as it was", False, True),  # Redis came up empty, after a night switched off
        ("another timeline", True, True),  # a failover, and Redis lost its own
        ("another timeline", False, False),  # a recovery to a point in time
        ("another cluster", True, False),  # a dump of a minute ago in another cluster: a copy of production
        ("another cluster", False, False),
    ],
)
def test_where_nothing_is_told_outside_the_server_decides(service, look, server, is_proven, may_go):
    assert look()
    kept = Continuity.objects.get()
    if server != "as it was":
        kept.server = another_timeline(kept.server) if server == "another timeline" else ANOTHER_CLUSTER
        kept.save()
    if not is_proven:
        expire()
    with Redis.from_url(project.COUNTERS_URL) as redis:
        redis.flushall()
    assert look() is may_go
    assert StopSwitch.objects.exists() is not may_go


def test_while_redis_is_away_a_proven_database_is_proven_on(service, look, monkeypatch):
    assert look()
    with monkeypatch.context() as patch:
        patch.setattr(counters.Script, "run", _raise_away)
        first = Continuity.objects.get().proven_until
        assert look()
        assert Continuity.objects.get().proven_until > first, "who is under no cap does not come to wait for Redis"
        expire()
        assert not look(), "started while Redis is away: it may come yet, and tell more"
        assert continuity.restored() is None
        assert not StopSwitch.objects.exists()
        patch.setattr(continuity, "PROVEN_S", 0)
        assert look(), "it did not come, and the server is the one that it was"
    assert look()


def test_another_server_waits_for_redis_and_is_not_stopped_for_good(service, look, monkeypatch):
    assert look()
    Continuity.objects.update(server=ANOTHER_CLUSTER)
    with monkeypatch.context() as patch:
        patch.setattr(counters.Script, "run", _raise_away)
        patch.setattr(continuity, "PROVEN_S", 0)
        assert not look()
        assert not StopSwitch.objects.exists()
    assert look(), "Redis has come, and no commit is missing"


def test_redis_that_lost_more_than_a_moment_proves_nothing(service, look):
    assert look()
    kept = Continuity.objects.get()
    Continuity.objects.update(number=kept.number + 100, server=another_timeline(kept.server))
    expire()
    assert not look(), "it was away before, and the recovery is to a moment of that time"
    assert continuity.restored().last_seen_at is None


def test_a_restored_database_is_born_stopped_before_anybody_has_looked(service, provider, look):
    assert look()
    schedule = ScheduleFactory()
    people(3)
    service.open()
    handouts = service.publish()
    expire()
    for handout in handouts:  # a message that the broker still had
        tasks.sending.send(batch_ids=handout.batch_ids)
    assert provider.calls == []
    assert states(schedule) == {"pending": 3}
    assert look()
    for handout in handouts:
        tasks.sending.send(batch_ids=handout.batch_ids)
    assert states(schedule) == {"sent": 3}


def test_nothing_is_opened_swept_or_sent_while_it_waits(service, provider, look):
    people(2)
    with lost(look):
        pass
    schedule = ScheduleFactory()
    assert not look()
    tasks.tick()
    tasks.materialise_occurrences(occurrence_ids=[1])
    tasks.send(batch_ids=[1])
    tasks.sweep()
    assert not Occurrence.objects.filter(schedule=schedule).exists()


def test_ids_of_the_lost_time_are_given_to_nobody_else(service, look):
    with lost(look):
        gone = people(1)[0].pk
    assert not look()
    assert people(1)[0].pk > gone + 90_000_000
    service.step()


@pytest.mark.parametrize("is_of_waiting", [False, True], ids=["as it was", "when it waited to be settled"])
def test_restored_twice_it_is_found_twice_and_gives_other_numbers(
    service, look, django_capture_on_commit_callbacks, is_of_waiting
):
    """The second time what happened after the first is lost as well, and the provider tells of both."""
    assert look()
    backup = transaction.savepoint()
    service.after(MINUTE)
    assert look()
    transaction.savepoint_rollback(backup)
    again = transaction.savepoint()
    if is_of_waiting:
        assert not look()
        again = transaction.savepoint()
    assert not look()
    with django_capture_on_commit_callbacks(execute=True):
        restores.go(scope="all", by=BY, now=service.now, settled_otherwise=True)
    service.after(MINUTE)
    assert look()
    gone = people(1)[0].pk
    transaction.savepoint_rollback(again)
    continuity.forget()
    service.after(MINUTE)
    assert [look(), look()] == [False, False]
    kept = continuity.restored()
    assert kept.last_seen_at == NOW + 2 * MINUTE, "when the second life was seen last, not the first"
    found = people(1)[0].pk
    assert found > gone + 1_000_000
    assert not look()
    assert people(1)[0].pk == found + 1, "once"


def test_of_two_databases_of_one_name_one_goes_on(service, look):
    """A standby that was promoted although its primary lives: whoever looks first has the others stopped."""
    assert look()
    fork = transaction.savepoint()
    assert look()
    transaction.savepoint_rollback(fork)
    assert not look()


def test_who_was_thought_lost_and_lives_is_stopped_once_another_has_been_settled(
    service, look, django_capture_on_commit_callbacks
):
    assert look()
    lives = transaction.savepoint()
    continuity.declare(restored_to=NOW - MINUTE, now=service.now)
    with django_capture_on_commit_callbacks(execute=True):
        continuity.settled(now=service.now)
    transaction.savepoint_rollback(lives)
    assert not look()
    assert continuity.restored() is not None


# --- Letting go ------------------------------------------------------------------------------------------------------


def command(name: str, *arguments: object) -> str:
    out = io.StringIO()
    call_command(name, *map(str, arguments), stdout=out, stderr=out)
    return out.getvalue()


def test_go_refuses_until_it_is_settled_or_somebody_answers_for_it(service, look):
    with lost(look):
        pass
    assert not look()
    with pytest.raises(CommandError, match=r"run manage\.py settle_restored first"):
        command("go")
    assert not look()
    assert "Going on: all." in command("go", "--settled-otherwise")
    assert look()
    assert AuditEvent.objects.filter(action=Action.SENDING_SETTLE).count() == 1


def test_after_settling_it_is_still_stopped_and_go_goes_on(service, look):
    with lost(look):
        pass
    assert not look()
    assert "Everything is still stopped" in command("settle_restored")
    assert StopSwitch.objects.get().scope == "all"
    assert "Going on: all." in command("go")
    assert look()
    with pytest.raises(CommandError, match="nothing to settle"):
        command("settle_restored")


def test_what_could_not_be_found_out_can_be_said(service, look):
    assert look()
    before = Continuity.objects.get().service
    assert "0 runs opened again" in command("settle_restored", "--restored-to", "2026-11-21T09:50:00Z")
    assert StopSwitch.objects.get().reason == "restored"
    assert Continuity.objects.get().service != before, "the other one may turn out to live"
    assert "goes on from where the service left off" in command("settle_restored", "--look")
    with pytest.raises(CommandError, match="--until 'noon': give an instant such as"):
        command("settle_restored", "--until", "noon")
    with pytest.raises(CommandError, match="--until: give an instant after 2026-11-21 10:00:00 UTC"):
        command("settle_restored", "--restored-to", "2026-11-21T10:00:00Z", "--until", "2026-11-21T09:00:00Z")
    assert continuity.restored() is None


# --- Settling --------------------------------------------------------------------------------------------------------


def test_who_was_sent_to_is_told_and_the_others_are_not_guessed(service, provider, look):
    schedule = ScheduleFactory()
    people(6)
    service.open()
    with lost(look):
        service.send()
        rows = _rows(schedule)
    assert len(provider.messages()) == 6
    assert states(schedule) == {"pending": 6}
    assert not look()
    sent, delivered, bounced, refused = rows[:4]
    events = [
        event(Kind.SEND, sent),
        *([event(Kind.DELIVERY, delivered)] * 2),
        event(Kind.BOUNCE_HARD, bounced),
        event(Kind.REJECT, refused),
        event(Kind.DELIVERY, f"20261121-999-{sent.recipient_id}"),
        event(Kind.DELIVERY, "nonsense"),
    ]
    done = settle(service, *events)
    assert (done.told, done.unclear, done.unmatched) == (4, 2, 2)
    go_on(service)
    assert reasons(schedule) == {
        "sent: confirmed": 3, "failed: message_rejected": 1, "failed: outcome_unknown": 2
    }  # fmt: skip
    assert max(provider.reached().values()) == 1
    assert only_occurrence(schedule).state == "finished"


def test_with_every_send_told_of_the_rest_gets_it_now(service, provider, look):
    schedule = ScheduleFactory()
    crowd = people(6)
    service.open()
    with lost(look):
        provider.answer = staticmethod(lambda message: None)
        sent = [row for row in _rows(schedule) if row.recipient_id in {each.pk for each in crowd[:4]}]
    provider.reset()
    assert not look()
    done = settle(service, *(event(Kind.SEND, row) for row in sent), is_complete=True)
    assert (done.told, done.unclear) == (4, 0)
    go_on(service)
    assert states(schedule) == {"sent": 6}
    assert set(provider.reached()) == {each.pk for each in crowd[4:]}


def test_who_is_told_of_later_becomes_sent_after_all(service, provider, look):
    schedule = ScheduleFactory()
    people(2)
    service.open()
    with lost(look):
        service.send()
        first, _ = _rows(schedule)
    assert not look()
    assert settle(service).unclear == 2
    assert told_later(event(Kind.DELIVERY, first), now=service.now).corrected == 1
    assert reasons(schedule) == {"sent: confirmed": 1, "failed: outcome_unknown": 1}


def test_runs_of_the_lost_time_are_opened_again_and_known_by_their_instant(service, provider, look):
    schedule = ScheduleFactory()
    people(4)
    with lost(look):
        service.open()
        service.send()
        gone = only_occurrence(schedule)
        rows = _rows(schedule)
    assert not Occurrence.objects.exists()
    assert not look()
    run = run_of(schedule.pk, gone.occurrence_at)
    strange = run_of(schedule.pk, gone.occurrence_at + DAY)
    events = [event(Kind.DELIVERY, row, run=run) for row in rows[:2]]
    done = settle(service, *events, event(Kind.DELIVERY, rows[2], run=strange), event(Kind.DELIVERY, rows[3]))
    assert (done.opened, done.told, done.unclear, done.unmatched) == (1, 2, 2, 2)
    assert only_occurrence(schedule).pk > gone.pk + 90_000_000
    go_on(service)
    assert reasons(schedule) == {"sent: confirmed": 2, "failed: outcome_unknown": 2}
    assert max(provider.reached().values()) == 1


def test_runs_of_a_lost_night_are_opened_each_at_its_own_instant(service, provider, look):
    """Hours later each would be missed: nobody could be told of, and who got it would be nowhere."""
    schedule = ScheduleFactory(schedule_type="cron", run_at=None, cron="0 * * * *", misfire_grace_minutes=10)
    people(2)
    with lost(look):
        service.run_to(NOW + timedelta(hours=5, minutes=30))
    assert max(provider.reached().values()) == 5
    assert not look()
    assert settle(service).unclear == 10
    go_on(service)
    assert states(schedule) == {"failed": 10}
    assert set(schedule.occurrences.values_list("state", flat=True)) == {"finished"}
    assert max(provider.reached().values()) == 5


def test_what_was_not_due_in_the_lost_time_is_sent_as_planned(service, provider, look):
    schedule = ScheduleFactory(run_at=NOW + timedelta(hours=2))
    people(2)
    with lost(look):
        service.after(MINUTE)
    assert not look()
    assert settle(service).unclear == 0
    assert restores.go(scope="all", by=BY, now=service.now)
    assert look()
    service.at(NOW + timedelta(hours=2)).step()
    assert states(schedule) == {"sent": 2}


def test_a_push_repeats_under_its_collapse_id_but_not_under_another(service, provider, look):
    for person in people(2):
        DeviceFactory(recipient=person)
    known = ScheduleFactory(channel="push")
    service.open()
    with lost(look):
        service.send()
        late = ScheduleFactory(channel="push")
        service.step()
    keys = Counter(message.key for message in provider.messages())
    Schedule = type(known)
    assert not Schedule.objects.filter(pk=late.pk).exists(), "what was made after the backup is lost"
    assert not look()
    assert settle(service).unclear == 0
    go_on(service)
    assert states(known) == {"sent": 2}
    again = Counter(message.key for message in provider.messages()) - keys
    assert set(again) <= set(keys), "the device replaces the first"


def test_a_push_of_a_run_that_is_opened_again_is_not_repeated(service, provider, look):
    for person in people(2):
        DeviceFactory(recipient=person)
    schedule = ScheduleFactory(channel="push")
    with lost(look):
        service.step()
    assert not look()
    assert settle(service).unclear == 2
    go_on(service)
    assert reasons(schedule) == {"failed: outcome_unknown": 2}
    assert max(provider.reached().values()) == 1


def test_in_the_app_everybody_has_it_once(service, look):
    schedule = ScheduleFactory(channel="in_app")
    people(3)
    with lost(look):
        service.step()
        assert InboxMessage.objects.count() == 3
    assert InboxMessage.objects.count() == 0
    assert not look()
    assert settle(service).unclear == 0
    go_on(service)
    assert states(schedule) == {"sent": 3}
    assert InboxMessage.objects.count() == 3


def test_who_was_in_a_call_at_the_backup_is_not_called_again(service, provider, look):
    schedule = ScheduleFactory()
    people(2)
    service.open()
    provider.meanwhile = staticmethod(lambda: None)
    provider.answer = staticmethod(lambda message: None)  # no answer for anybody: unknown
    service.send()
    assert states(schedule) == {"unknown": 2}
    with lost(look):
        pass
    assert not look()
    first, _ = _rows(schedule)
    assert settle(service, event(Kind.DELIVERY, first)).told == 1
    go_on(service)
    assert states(schedule) == {"sent": 1, "unknown": 1}
    assert max(provider.reached().values()) == 1


def test_who_was_erased_after_the_backup_is_erased_again(service, look):
    person = people(1)[0]
    with lost(look):
        pass
    assert not look()
    gone = [
        LostEvent(Action.RECIPIENT_ERASE, "user:1", "", None, {"recipient": number}, NOW)
        for number in (person.pk, person.pk + 1)
    ]
    done = settle(service, gone=gone, erase=lambda number: erasing.erase(recipient_id=number, by=BY, now=service.now))
    assert done.erased == 1
    assert not Recipient.objects.filter(pk=person.pk).exists()


def test_who_said_something_by_a_link_gets_nothing_until_they_say_otherwise(service, look):
    first, other = people(2)
    with lost(look):
        pass
    assert not look()
    said = {"recipient": first.pk, "consent": "changed"}
    gone = [
        LostEvent(Action.RECIPIENT_SAVE, "system:person", "", None, said, NOW),
        LostEvent(Action.RECIPIENT_SAVE, "user:1", "", None, {**said, "recipient": other.pk}, NOW),
        LostEvent(Action.RECIPIENT_SAVE, "system:person", "", None, {**said, "recipient": 10**9}, NOW),
    ]
    done = settle(service, gone=gone)
    assert (done.silenced, done.erased) == (1, 0)
    consent = dict(Recipient.objects.values_list("pk", "consent"))
    assert consent[first.pk] == {"email": False, "push": False, "in_app": False}
    assert consent[other.pk] == other.consent


def test_a_file_with_a_line_that_is_no_event_changes_nothing(service, provider, look, tmp_path):
    schedule = ScheduleFactory()
    people(2)
    service.open()
    with lost(look):
        service.send()
        first, second = _rows(schedule)
    assert not look()
    record = ses_events.record("Delivery", accepted(str(first)))
    path = tmp_path / "events.ndjson"
    path.write_text(json.dumps(record) + "\n\n" + '{"eventType": "Delivery"}\n')
    with pytest.raises(CommandError, match=r"events\.ndjson, line 3: The record has no object mail\. Nothing was done"):
        command("settle_restored", "--events", path)
    with pytest.raises(CommandError, match=r"nowhere.*can't be read"):
        command("settle_restored", "--events", tmp_path / "nowhere")
    assert states(schedule) == {"pending": 2}
    path.write_text(json.dumps(record) + "\n" + json.dumps({**record, "eventType": "Open"}) + "\n")
    said = command("settle_restored", "--events", path)
    assert "This database knows nothing of what happened after 2026-11-21 10:00:00 UTC." in said
    assert "1 people had got it, 1 may have (outcome_unknown)" in said
    assert second.state == State.SENT


def _rows(schedule):
    ids = list(schedule.occurrences.values_list("pk", flat=True))
    return list(Delivery.objects.filter(occurrence_id__in=ids).order_by("recipient_id"))
