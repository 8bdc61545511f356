"""What follows from a provider's answer."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.models import State
from delivery.providers.base import Answer, Verdict
from delivery.retry import MAX_RETRIES, decide, delay

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
ANYWHERE = st.integers(0, 2**32)


def decided(verdict, *, attempt=1, reason="so", seed=1, **more):
    answer = Answer("20261121-7-4711", verdict, reason, **more)
    return decide(answer, recipient_id=4711, attempt=attempt, now=NOW, rng=random.Random(seed))


@given(seed=ANYWHERE, attempt=st.integers(1, MAX_RETRIES))
def test_each_retry_waits_four_times_as_long_as_the_last_less_up_to_half(seed, attempt):
    whole = 10 * 4 ** (attempt - 1)
    assert whole / 2 <= delay(attempt, rng=random.Random(seed)) <= whole


def test_the_people_of_one_failed_call_do_not_come_back_as_one_crowd():
    rng = random.Random(1)
    answer = Answer("20261121-7-4711", Verdict.TRANSIENT)
    dues = {decide(answer, recipient_id=4711, attempt=1, now=NOW, rng=rng).due_at for _ in range(50)}
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


def test_a_misconfigured_account_is_asked_again_after_a_minute():
    assert timedelta(seconds=60) <= decided(Verdict.MISCONFIGURED).due_at - NOW <= timedelta(seconds=90)


def test_what_was_not_started_is_due_at_once_and_leaves_no_trace():
    outcome = decided(Verdict.NOT_STARTED, reason="permit_expired")
    assert (outcome.due_at, outcome.reason, outcome.verdict, outcome.detail) == (NOW, "", "", "")


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


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_a_call_that_started_is_one_the_provider_was_asked_in(verdict):
    assert decided(verdict).was_asked is (verdict is not Verdict.NOT_STARTED)
