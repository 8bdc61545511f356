"""What providers tell afterwards: kept once, counted once, and outcomes that nobody knew are corrected by it."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from delivery import caps, counts, feedback, partitions, reopening
from delivery.events import settling
from delivery.events.base import Kind
from delivery.events.settling import NEWS, Settled
from delivery.ledger import Tally
from delivery.models import FIRST_TEST_ID, Batch, Delivery, FailedAttempt, Feedback, News, State
from delivery.providers.base import Verdict
from schedules.models import Suppression
from tests import races
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.provider_events import assert_counted, event, news_of, settle
from tests.races import claim_some, leases_expire
from tests.service import DAY, HOUR, MINUTE, expire_leases, only_occurrence, reasons, states

pytestmark = pytest.mark.django_db

HANDED_ON = [Kind.DELIVERY, Kind.DELAY, Kind.BOUNCE_HARD, Kind.BOUNCE_SOFT, Kind.COMPLAINT]
REFUSED = [Kind.REJECT, Kind.RENDERING_FAILURE]


def rows():
    return list(Delivery.objects.order_by("recipient_id"))


def counted(name, channel="email", label=""):
    return counts.read().get(counts.Key(name, channel, label), 0)


@pytest.fixture
def sent(service, provider):
    """Three people who were sent to."""
    people(3)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 3}
    return schedule


@pytest.fixture
def unknown(service, provider):
    """Three people of whom nobody knows whether they were."""
    people(3)
    schedule = ScheduleFactory()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    assert reasons(schedule) == {"unknown: read_timeout": 3}
    return schedule


# --- Kept and counted -------------------------------------------------------------------------------------------------


def test_every_kind_of_event_is_some_news_and_the_metrics_name_them_all():
    assert set(NEWS) == set(Kind)
    assert set(NEWS.values()) == set(News)
    assert set(counts.EVENT_KINDS) == {kind.value for kind in Kind}
    assert set(counts.RESULTS) == {result.value for result in settling.Result}


def test_what_is_told_of_those_sent_to_changes_no_outcome(sent):
    first, second, third = rows()
    before = [list(Delivery.objects.order_by("recipient_id").values()), list(Batch.objects.values())]
    settled = settle(event(Kind.DELIVERY, first), event(Kind.BOUNCE_HARD, second), event(Kind.REJECT, third))
    assert settled == Settled(new=3, suppressed=1)
    assert [list(Delivery.objects.order_by("recipient_id").values()), list(Batch.objects.values())] == before
    assert news_of([first, second, third]) == ["delivered", "bounced_hard", "rejected"]
    heard = feedback.of_occurrences([first.occurrence_id])[first.occurrence_id]
    assert (heard.delivered, heard.bounced, heard.refused, heard.awaited(3)) == (1, 1, 1, 0)


def test_an_event_that_comes_again_is_counted_once(sent):
    first, second, _ = rows()
    told = [event(Kind.DELIVERY, first), event(Kind.BOUNCE_SOFT, second), event(Kind.COMPLAINT, first)]
    assert settle(*told, *told) == Settled(new=3, repeated=3, suppressed=1)
    before = list(Feedback.objects.order_by("recipient_id").values())
    assert settle(*told) == Settled(repeated=3)
    assert list(Feedback.objects.order_by("recipient_id").values()) == before
    assert [counted(name, label=label) for name, label in settling._METRICS.values()] == [1, 0, 1, 1]
    assert counted(counts.EVENTS, "new", "delivery") == 1
    assert counted(counts.EVENTS, "repeated", "delivery") == 2


def test_the_gravest_news_stays_whatever_comes_after_it(sent):
    row, *_ = rows()
    for kind, expected in [
        (Kind.SEND, "accepted"),
        (Kind.DELAY, "delayed"),
        (Kind.BOUNCE_SOFT, "bounced_soft"),
        (Kind.DELIVERY, "delivered"),
        (Kind.DELAY, "delivered"),
        (Kind.BOUNCE_HARD, "bounced_hard"),
        (Kind.DELIVERY, "bounced_hard"),
        (Kind.COMPLAINT, "complained"),
        (Kind.SEND, "complained"),
    ]:
        settle(event(kind, row))
        assert news_of([row]) == [expected]


def test_each_instant_is_that_of_the_first_event_of_its_kind(sent):
    row, *_ = rows()
    for hours in (2, 1, 3):
        settle(event(Kind.DELAY, row, at=NOW + hours * HOUR))
    assert Feedback.objects.get().delayed_at == NOW + HOUR


@pytest.mark.parametrize(
    "key", ["", "no key", "20261121-1", "20261321-1-1", "20261121-99999999-1", "20261121-1-99999999999999999999"]
)
def test_what_names_no_delivery_is_counted_and_dropped(sent, key):
    assert settle(event(Kind.COMPLAINT, key, address="somebody@example.com")) == Settled(unmatched=1)
    assert not Feedback.objects.exists()
    assert not Suppression.objects.exists()
    assert counted(counts.EVENTS, "unmatched", "complaint") == 1


def test_messages_of_tests_are_recognised_and_left_alone(sent):
    key = f"20261121-{FIRST_TEST_ID + 7}-{rows()[0].recipient_id}"
    assert settle(event(Kind.BOUNCE_HARD, key, address="somebody@example.com")) == Settled(tests=1)
    assert not Suppression.objects.exists()


# --- Outcomes that nobody knew ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.SEND, *HANDED_ON])
def test_an_unknown_outcome_is_sent_once_the_provider_tells_of_it(service, unknown, kind):
    settled = settle(*(event(kind, row) for row in rows()), now=service.now)
    assert settled.corrected == 3
    assert reasons(unknown) == {"sent: confirmed": 3}
    row = rows()[0]
    assert (row.provider_id, row.claim_token, row.leased_until) == (f"ses-{row}", None, None)
    assert row.settled_at == service.now
    service.sweep()
    assert only_occurrence(unknown).closed_at is not None


@pytest.mark.parametrize(
    ("kind", "reason"), [(Kind.REJECT, "message_rejected"), (Kind.RENDERING_FAILURE, "rendering_failure")]
)
def test_an_unknown_outcome_is_failed_once_the_provider_refuses_it(service, unknown, kind, reason):
    settle(event(kind, rows()[0], detail="Bad content"), now=service.now + MINUTE)
    assert reasons(unknown) == {"unknown: read_timeout": 2, f"failed: {reason}": 1}
    kept = FailedAttempt.objects.get(recipient_id=rows()[0].recipient_id, verdict="permanent")
    assert (kept.reason, kept.detail, kept.attempt) == (reason, "Bad content", 1)


def test_who_got_nothing_after_all_has_the_place_under_the_cap_back(
    service, provider, django_capture_on_commit_callbacks
):
    people(2)
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    capped = ScheduleFactory(max_per_user_per_day=1)
    service.step()
    refused, accepted = rows()
    with django_capture_on_commit_callbacks(execute=True):
        settle(event(Kind.REJECT, refused), event(Kind.SEND, accepted), now=service.now)
    provider.reset()
    again = ScheduleFactory(max_per_user_per_day=1, run_at=NOW + HOUR)
    service.at(NOW + HOUR).step()
    assert reasons(capped) == {"failed: message_rejected": 1, "sent: confirmed": 1}
    assert reasons(again) == {"sent: ": 1, "rate_limited: daily_cap": 1}


def test_a_late_event_corrects_what_was_given_up(service, unknown):
    leases_expire()
    service.sweep()
    assert reasons(unknown) == {"failed: outcome_unknown": 3}
    first, second, _ = rows()
    settle(event(Kind.DELIVERY, first), event(Kind.REJECT, second), now=service.now)
    assert reasons(unknown) == {"sent: confirmed": 1, "failed: outcome_unknown": 2}


def test_a_late_event_leaves_alone_whom_somebody_has_had_tried_again(service, unknown, provider):
    leases_expire()
    service.sweep()
    reopening.retry_failed(occurrence_id=only_occurrence(unknown).pk, by=BY, now=service.now)
    row, *_ = rows()
    settle(event(Kind.DELIVERY, row), now=service.now)
    assert reasons(unknown) == {"pending: ": 3}
    assert news_of([row]) == ["delivered"]
    provider.reset()
    service.after(MINUTE).step()
    assert reasons(unknown) == {"sent: ": 3}


def test_a_refusal_of_the_call_before_says_nothing_of_the_one_that_is_unanswered(service, unknown, provider):
    leases_expire()
    service.sweep()
    row, *_ = rows()
    settle(event(Kind.REJECT, row, at=datetime.now(UTC) - HOUR), now=service.now)
    reopening.retry_failed(occurrence_id=only_occurrence(unknown).pk, by=BY, now=service.now)
    service.after(MINUTE).step()
    assert reasons(unknown) == {"unknown: read_timeout": 3}
    assert service.sweep().confirmed == 0


def test_what_the_provider_answered_stands(service, provider):
    people(1)
    schedule = ScheduleFactory()
    provider.answers(Verdict.PERMANENT, "message_rejected")
    service.step()
    assert reasons(schedule) == {"failed: message_rejected": 1}
    settle(event(Kind.REJECT, rows()[0]))
    assert reasons(schedule) == {"failed: message_rejected": 1}
    assert FailedAttempt.objects.count() == 1


def test_an_event_that_is_quicker_than_the_answer_is_remembered(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (handout,) = service.publish()
    claim = claim_some(handout.batch_ids)
    settle(*(event(Kind.SEND, row) for row in rows()))
    assert states(schedule) == {"sending": 3}
    races.settle(claim, state=State.UNKNOWN, reason="no_answer", was_asked=True)
    assert reasons(schedule) == {"unknown: no_answer": 3}
    assert service.sweep().confirmed == 3
    assert reasons(schedule) == {"sent: confirmed": 3}
    assert service.sweep().confirmed == 0


def test_an_event_for_whom_a_worker_lost_settles_the_call(service, provider):
    people(2)
    schedule = ScheduleFactory()
    service.open()
    (handout,) = service.publish()
    claim_some(handout.batch_ids)
    settle(event(Kind.DELIVERY, rows()[0]))
    assert states(schedule) == {"sending": 2}
    expire_leases()
    service.sweep()
    assert reasons(schedule) == {"sent: confirmed": 1, "unknown: worker_lost": 1}


# --- Any order --------------------------------------------------------------------------------------------------------

INSTANTS = st.integers(0, 3).map(lambda minutes: timedelta(minutes=minutes))
TOLD = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(list(Kind)), INSTANTS), min_size=1, max_size=12)


def expected(kinds) -> str:
    if kinds & set(HANDED_ON) or (Kind.SEND in kinds and not kinds & set(REFUSED)):
        return "sent"
    return "failed" if kinds else "unknown"


@given(told=TOLD, data=st.data())
@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_the_order_and_however_often_the_end_is_the_same(service, unknown, told, data):
    """Events in any order and portions, repeated, with sweeps in between: books close, and one state comes of it."""
    persons = rows()
    now = datetime.now(UTC)
    made = [event(kind, persons[who], at=now + late, detail=f"{kind} {late}") for who, kind, late in told]
    results = []
    for _ in range(2):
        order = data.draw(st.permutations(made + data.draw(st.lists(st.sampled_from(made), max_size=4))))
        with transaction.atomic():
            while order:
                size = data.draw(st.integers(1, len(order)))
                settle(*order[:size], now=service.now)
                order = order[size:]
                if data.draw(st.booleans()):
                    service.sweep()
            service.sweep()
            of = {who: {kind for each, kind, _ in told if each == who} for who in range(3)}
            assert [State(row.state).label for row in rows()] == [expected(of[who]) for who in range(3)]
            assert_counted()
            kept = [{**each, "kinds_before": 0} for each in Feedback.objects.order_by("recipient_id").values()]
            suppressed = Suppression.objects.order_by("fingerprint").values_list("fingerprint", "reason")
            results.append(
                (
                    kept,
                    sorted((bytes(key), why) for key, why in suppressed),
                    [counted(name, label=label) for name, label in settling._METRICS.values()],
                    Counter((row.recipient_id, row.state, row.reason) for row in rows()),
                )
            )
            transaction.set_rollback(True)
    assert results[0] == results[1]


def test_who_dies_half_way_has_done_nothing(sent, monkeypatch):
    told = [event(Kind.BOUNCE_HARD, row) for row in rows()]
    with monkeypatch.context() as dying:
        dying.setattr(Tally, "flush", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            settling.settle(told, now=NOW)
    assert not Feedback.objects.exists()
    assert not Suppression.objects.exists()
    assert settle(*told) == Settled(new=3, suppressed=3)


# --- Past the retention -----------------------------------------------------------------------------------------------


def test_the_counts_stay_when_the_rows_are_gone_and_a_complaint_still_counts(service, sent):
    first, second, third = rows()
    settle(event(Kind.DELIVERY, first), event(Kind.DELIVERY, second))
    partitions.drop(before=(NOW + 2 * DAY).date())
    assert not Delivery.objects.exists()
    late = event(Kind.COMPLAINT, third)
    assert settling.settle([late], now=NOW) == Settled(unmatched=1, suppressed=1)
    assert Suppression.objects.get().reason == "complained"
    assert not Feedback.objects.exists()
    assert feedback.of_occurrences([first.occurrence_id])[first.occurrence_id].delivered == 2
    assert_books_close()


def test_caps_know_nothing_of_events(sent):
    """Who was sent to has used up a place, whatever came back."""
    settle(event(Kind.BOUNCE_HARD, rows()[0]))
    assert len(caps.usage.uses([row.recipient_id for row in rows()], now=NOW)) == 3
