"""What follows from a provider's answer."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.ledger import SOME_DEVICE, Person
from delivery.models import State
from delivery.providers.base import Answer, Verdict
from delivery.retry import MAX_RETRIES, decide, delay, not_sent

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
ANYWHERE = st.integers(0, 2**32)


def claimed(*, attempt=1, had=()):
    """The person as a claim knows them; ``had`` are the devices that have the message since an earlier attempt."""
    words = "ada", "ada@example.com", "en", "UTC"
    return Person(4711, NOW, attempt, *words, {}, [], {}, NOW, bool(had), [], had, attempt == 1, 1)


def decided(verdict, *, attempt=1, had=(), reason="so", repeats_unknown=False, seed=1, **more):
    answer = Answer("20261121-7-4711", verdict, reason, **more)
    person = claimed(attempt=attempt, had=had)
    return decide(answer, person=person, repeats_unknown=repeats_unknown, now=NOW, rng=random.Random(seed))


@given(seed=ANYWHERE, attempt=st.integers(1, MAX_RETRIES))
def test_each_retry_waits_four_times_as_long_as_the_last_less_up_to_half(seed, attempt):
    whole = 10 * 4 ** (attempt - 1)
    assert whole / 2 <= delay(attempt, rng=random.Random(seed)) <= whole


def test_the_people_of_one_failed_call_do_not_come_back_as_one_crowd():
    rng = random.Random(1)
    answer = Answer("20261121-7-4711", Verdict.TRANSIENT)
    dues = {decide(answer, person=claimed(), repeats_unknown=False, now=NOW, rng=rng).due_at for _ in range(50)}
    assert len(dues) == 50


def test_what_was_sent_is_an_outcome_with_the_providers_id():
    outcome = decided(Verdict.SENT, reason="", provider_id="ses-1")
    assert (outcome.recipient_id, outcome.state, outcome.reason) == (4711, State.SENT, "")
    assert (outcome.provider_id, outcome.due_at, outcome.verdict) == ("ses-1", None, "sent")


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_transient_failure_is_tried_again(attempt):
    outcome = decided(Verdict.TRANSIENT, attempt=attempt, detail="450 busy")
    assert (outcome.state, outcome.reason, outcome.is_attempt) == (State.PENDING, "so", True)
    assert (outcome.verdict, outcome.detail) == ("transient", "450 busy")
    assert outcome.due_at > NOW


def test_after_three_retries_a_transient_failure_is_a_failure():
    outcome = decided(Verdict.TRANSIENT, attempt=MAX_RETRIES + 1)
    assert (MAX_RETRIES, outcome.state, outcome.reason, outcome.due_at) == (3, State.FAILED, "so", None)


@given(seed=ANYWHERE, wait=st.floats(0, 86_400))
def test_a_retry_is_never_sooner_than_the_provider_asked_for(seed, wait):
    due = decided(Verdict.TRANSIENT, seed=seed, retry_after=wait).due_at
    assert due >= NOW + timedelta(seconds=wait)
    assert due >= NOW + timedelta(seconds=5)


@pytest.mark.parametrize("attempt", [1, MAX_RETRIES + 1, 50])
@pytest.mark.parametrize("verdict", [Verdict.THROTTLED, Verdict.MISCONFIGURED, Verdict.NOT_STARTED])
def test_what_is_not_the_messages_fault_costs_no_attempt(verdict, attempt):
    outcome = decided(verdict, attempt=attempt)
    assert (outcome.state, outcome.is_attempt) == (State.PENDING, False)


@given(seed=ANYWHERE, wait=st.floats(0.001, 86_400))
def test_being_throttled_waits_as_long_as_asked_and_up_to_half_as_long_again(seed, wait):
    seconds = (decided(Verdict.THROTTLED, seed=seed, retry_after=wait).due_at - NOW).total_seconds()
    assert wait - 1e-6 <= seconds <= 1.5 * wait + 1e-6


def test_being_throttled_without_a_number_waits_a_moment():
    assert timedelta(seconds=2) <= decided(Verdict.THROTTLED).due_at - NOW <= timedelta(seconds=3)


@given(seed=ANYWHERE)
def test_a_misconfigured_account_holds_nobody_longer_than_its_circuit(seed):
    waits = decided(Verdict.MISCONFIGURED, seed=seed, retry_after=600.0).due_at - NOW
    assert timedelta(seconds=2) <= waits <= timedelta(seconds=3)


def test_what_was_not_started_is_due_at_once_and_leaves_no_trace():
    outcome = decided(Verdict.NOT_STARTED, reason="permit_expired")
    assert (outcome.due_at, outcome.reason, outcome.verdict, outcome.detail) == (NOW, "", "", "")


def test_who_was_not_sent_to_for_no_reason_of_their_own_waits_without_using_an_attempt():
    outcome = not_sent(4711, "counters_away", after_s=2.5, now=NOW)
    assert (outcome.recipient_id, outcome.state, outcome.reason) == (4711, State.PENDING, "counters_away")
    assert (outcome.due_at - NOW, outcome.is_attempt, outcome.was_asked) == (timedelta(seconds=2.5), False, False)
    assert (outcome.verdict, outcome.detail) == ("", "")


@pytest.mark.parametrize(("given_reason", "kept"), [("rejected", "rejected"), ("", "refused")])
def test_a_permanent_refusal_is_a_failure_with_a_reason(given_reason, kept):
    outcome = decided(Verdict.PERMANENT, reason=given_reason)
    assert (outcome.state, outcome.reason, outcome.due_at) == (State.FAILED, kept, None)


def test_an_ambiguous_answer_is_unknown_and_not_due_again():
    outcome = decided(Verdict.UNKNOWN, reason="read_timeout", detail="10 s")
    assert (outcome.state, outcome.reason, outcome.detail, outcome.due_at) == (
        State.UNKNOWN,
        "read_timeout",
        "10 s",
        None,
    )


@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.SENT])
def test_what_never_left_the_house_was_not_asked(verdict):
    assert not decided(verdict, asked=False).was_asked


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_a_call_that_started_is_one_the_provider_was_asked_in(verdict):
    assert decided(verdict).was_asked is (verdict is not Verdict.NOT_STARTED)


# --- Where a repeat does no harm -------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_an_ambiguous_answer_is_tried_again_where_a_repeat_replaces_the_first(attempt):
    outcome = decided(Verdict.UNKNOWN, attempt=attempt, reason="read_timeout", repeats_unknown=True)
    assert (outcome.state, outcome.reason, outcome.is_attempt) == (State.PENDING, "read_timeout", True)
    assert outcome.due_at >= NOW + timedelta(seconds=5 * 4 ** (attempt - 1))
    assert outcome.reached == (SOME_DEVICE,)  # it may have arrived, and keeps its place under a cap


def test_what_may_have_arrived_is_noted_once_and_is_no_device_that_has_it():
    outcome = decided(Verdict.UNKNOWN, attempt=2, had=(SOME_DEVICE,), repeats_unknown=True)
    assert outcome.reached == (SOME_DEVICE,)
    outcome = decided(Verdict.TRANSIENT, attempt=MAX_RETRIES + 1, had=(SOME_DEVICE,), repeats_unknown=True)
    assert (outcome.state, outcome.reason) == (State.FAILED, "so")


def test_where_a_repeat_does_harm_the_ledgers_unknown_says_all():
    assert decided(Verdict.UNKNOWN).reached == ()


def test_an_ambiguous_answer_to_the_last_attempt_is_unknown():
    outcome = decided(Verdict.UNKNOWN, attempt=MAX_RETRIES + 1, reason="read_timeout", repeats_unknown=True)
    assert (outcome.state, outcome.reason, outcome.due_at) == (State.UNKNOWN, "read_timeout", None)


# --- People with several devices -------------------------------------------------------------------------------------


def test_devices_that_have_the_message_are_kept_over_the_attempts_each_once():
    outcome = decided(Verdict.TRANSIENT, had=(1, 2), reached=(2, 3), gone=(4,))
    assert (outcome.state, outcome.reached, outcome.gone) == (State.PENDING, (1, 2, 3), (4,))


@pytest.mark.parametrize(
    ("had", "reached"), [((1,), ()), ((), (2,)), ((1,), (2,))], ids=["before", "at last", "both times"]
)
@pytest.mark.parametrize(
    ("verdict", "attempt"),
    [(Verdict.PERMANENT, 1), (Verdict.TRANSIENT, MAX_RETRIES + 1), (Verdict.UNKNOWN, MAX_RETRIES + 1)],
    ids=lambda value: getattr(value, "value", value),
)
def test_who_has_the_message_on_one_device_counts_as_sent_when_nothing_more_can_be_tried(
    verdict, attempt, had, reached
):
    outcome = decided(verdict, attempt=attempt, had=had, repeats_unknown=True, provider_id="fcm-1", reached=reached)
    assert (outcome.state, outcome.reason, outcome.verdict) == (State.SENT, "", "sent")
    assert (outcome.provider_id, outcome.due_at) == ("fcm-1", None)
    assert [device for device in outcome.reached if device != SOME_DEVICE] == [*had, *reached]


@pytest.mark.parametrize("verdict", [Verdict.TRANSIENT, Verdict.THROTTLED, Verdict.MISCONFIGURED, Verdict.NOT_STARTED])
def test_as_long_as_the_other_devices_may_get_it_the_person_waits(verdict):
    outcome = decided(verdict, had=(1,))
    assert (outcome.state, outcome.reached) == (State.PENDING, (1,))
