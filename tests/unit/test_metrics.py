"""What is counted under which name, and into which bucket."""

from dataclasses import fields

import pytest

from delivery import counts, heartbeats
from delivery.counts import Histogram, Key
from delivery.models import State
from delivery.sweep import Swept

SOME = Histogram("lag_seconds", (0.5, 1, 60))


@pytest.mark.parametrize(
    ("state", "reason", "verdict", "expected"),
    [
        (State.SENT, "", "sent", ""),
        (State.FAILED, "address_refused", "permanent", "refused"),
        (State.FAILED, "template_error", "permanent", "rendering"),
        (State.FAILED, "server_error", "transient", "retries_exhausted"),
        (State.FAILED, "outcome_unknown", "", "outcome_unknown"),
        (State.FAILED, "timeout", "unknown", "outcome_unknown"),
        (State.FAILED, "worker_lost", "", "worker_lost"),
        (State.UNKNOWN, "timeout", "unknown", "no_answer"),
        (State.UNKNOWN, "worker_lost", "", "worker_lost"),
        (State.RATE_LIMITED, "daily_cap", "", "daily_cap"),
        (State.RATE_LIMITED, "weekly_cap", "", "weekly_cap"),
        (State.EXPIRED, "past_zone", "", "past_zone"),
    ],
)
def test_a_reason_falls_into_its_class(state, reason, verdict, expected):
    assert counts.reason_class(state, reason, verdict) == expected
    assert expected in counts.REASON_CLASSES[state]


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.EXPIRED, State.UNKNOWN])
def test_whatever_a_reason_says_the_classes_stay_a_closed_set(state):
    assert counts.reason_class(state, "schedule 17 of a@example.com") == "other"


@pytest.mark.parametrize(
    ("seconds", "label"), [(0.0, "0.5"), (0.5, "0.5"), (0.51, "1"), (60.0, "60"), (60.1, "+Inf"), (1e9, "+Inf")]
)
def test_an_observation_falls_into_the_first_bucket_that_holds_it(seconds, label):
    assert SOME.observed("email", seconds, 3) == {
        Key("lag_seconds_bucket", "email", label): 3,
        Key("lag_seconds_sum", "email"): seconds * 3,
    }


def test_every_outcome_has_a_counter_whose_classes_are_known():
    for state in State:
        if state.is_outcome:
            assert set(counts.COUNTERS[counts.OUTCOMES[state]].values) == counts.REASON_CLASSES[state]


def test_every_step_of_the_sweep_is_there_as_zero():
    assert set(counts.COUNTERS[counts.SWEPT].values) == {field.name for field in fields(Swept)}


def test_keys_fit_their_columns():
    for name, counter in counts.COUNTERS.items():
        assert len(name) <= 60
        assert all(len(value) <= 40 for value in counter.values)


def test_silence_lasts_from_the_first_canary_in_vain_to_the_latest():
    ages = {"queue:email": 300.0, "canary:email": 80.0, "queue:push": 3.0, "canary:push": 5.0, "canaries": 5.0}
    lives = heartbeats.of_queues(ages)

    assert lives["email"] == (300.0, 75.0)
    assert lives["push"] == (3.0, 0.0)
    assert lives["in_app"] == (None, 0.0)  # never asked


def test_the_first_canary_in_vain_is_not_yet_a_silence():
    assert heartbeats.of_queues({"queue:email": 300.0, "canary:email": 5.0, "canaries": 5.0})["email"].silent == 0.0
