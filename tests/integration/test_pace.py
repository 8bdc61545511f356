"""The shared rate: found by a throttled answer, kept by all processes together, grown again in quiet.

Redis's own clock counts here; instead of waiting a test sets back what the rate remembers.
"""

import os
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from delivery import calls, counters, pace, sending
from delivery.counters import CountersAway
from delivery.models import Batch, InboxMessage
from delivery.providers.base import Answer, Verdict
from tests.counting import flush
from tests.factories import ScheduleFactory, people
from tests.recording import sent
from tests.service import MINUTE, at_full_speed, in_threads, states


def passes(seconds, channel="email"):
    """Let time go by for the channel's rate."""
    key = f"{{pace}}:{channel}"
    client = counters._client()
    known = {name.decode(): float(value) for name, value in client.hgetall(key).items()}
    back = {name: round(1000 * seconds) for name in ("at", "until", "cut")} | {"second": round(seconds)}
    moved = {name: int(known[name] - by) for name, by in back.items() if name in known}
    if moved:
        client.hset(key, mapping=moved)


def throttled_after(number, *, wait_s=0.0, channel="email"):
    """So many people went through within a second, and then the provider asked to slow down."""
    assert pace.take(channel, number) == 0.0
    pace.slow_down(channel, wait_s=wait_s)


# --- The rate alone, on one server and on a cluster ------------------------------------------------------------------


def test_before_the_first_throttled_answer_there_is_no_limit(servers):
    assert [pace.take("email", 10_000) for _ in range(50)] == [0.0] * 50
    assert pace.rate("email") is None


def test_a_throttled_answer_halves_what_went_through_within_the_second(servers):
    throttled_after(400)
    assert pace.rate("email") == 200


def test_what_went_through_long_before_does_not_count(servers):
    pace.take("email", 4_000)
    passes(5)
    throttled_after(40)
    assert pace.rate("email") == 20


def test_a_channel_of_which_nothing_went_through_is_slowed_to_the_least(servers):
    pace.slow_down("email", wait_s=0.0)
    assert pace.rate("email") == pace.SLOWEST


def test_the_answers_of_calls_under_way_together_cut_once(servers):
    throttled_after(400)
    for _ in range(5):
        pace.slow_down("email", wait_s=0.0)
    assert pace.rate("email") == 200
    passes(1.0)
    for _ in range(5):
        pace.slow_down("email", wait_s=0.0)
    assert pace.rate("email") == 100


def test_however_often_it_is_throttled_a_channel_goes_at_the_least_rate(servers):
    throttled_after(10)
    for _ in range(12):
        passes(1.0)
        pace.slow_down("email", wait_s=0.0)
    assert pace.rate("email") == pace.SLOWEST
    passes(0.1)
    assert pace.take("email", 1) == 0.0
    assert 1 < pace.take("email", 1) <= 1 / pace.SLOWEST


def test_nobody_calls_as_long_as_the_provider_has_asked_for_and_the_longest_wish_counts(servers):
    throttled_after(400, wait_s=60.0)
    pace.slow_down("email", wait_s=1.0)
    assert 55 < pace.take("email", 1) <= 60
    passes(50)
    assert 5 < pace.take("email", 1) <= 10
    passes(10)
    assert pace.take("email", 1) <= 0.01  # what was saved up meanwhile is nothing
    time.sleep(0.02)
    assert pace.take("email", 1) == 0.0


def test_a_call_larger_than_the_rate_runs_ahead_and_is_waited_for(servers):
    throttled_after(20)
    passes(1)
    assert pace.take("email", 50) == 0.0
    assert 3 < pace.take("email", 1) <= 5


def test_quiet_lets_the_rate_grow_by_a_twentieth_a_second_until_nothing_is_left_of_the_limit(servers):
    throttled_after(400)
    passes(10)
    pace.take("email", 1)
    assert pace.rate("email") == pytest.approx(200 * 1.05**10, rel=0.05)
    passes(15)
    pace.take("email", 1)
    assert 400 < pace.rate("email") < 800
    passes(10)
    assert pace.take("email", 10_000) == pace.take("email", 10_000) == 0.0
    assert pace.rate("email") is None


def test_a_limit_that_is_gone_is_found_anew(servers):
    throttled_after(400)
    passes(60)
    throttled_after(1_000)
    assert pace.rate("email") == 500


def test_however_long_it_was_quiet_no_more_than_a_second_is_saved_up(servers):
    throttled_after(400)
    passes(20)
    through = 0
    while pace.take("email", 50) == 0.0:
        through += 50
    assert 200 <= through <= 300


def test_channels_have_rates_of_their_own(servers):
    throttled_after(400, wait_s=60.0)
    assert pace.take("push", 1_000) == 0.0
    assert pace.rate("push") is None


def test_what_is_not_used_for_an_hour_is_forgotten_but_never_a_wish_that_is_still_to_be_kept(servers):
    throttled_after(1)
    client = counters._client()
    assert 3_500 < client.ttl("{pace}:email") <= 3_600
    pace.slow_down("push", wait_s=7_200.0)
    assert client.ttl("{pace}:push") >= 7_200


def test_the_scripts_are_loaded_again_by_a_server_that_has_lost_them(servers):
    throttled_after(400)
    flush(servers)
    for server in servers:
        with Redis.from_url(server.url) as client:
            client.script_flush()
    assert pace.take("email", 1) == 0.0
    assert pace.rate("email") is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 60)),
        st.tuples(st.just("pass"), st.sampled_from([0.05, 0.3, 0.8, 1.5, 3.0])),
    ),
    min_size=5,
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, went=st.sampled_from([2, 30, 400]))
def test_never_more_goes_through_than_the_rate_allows_and_who_has_waited_gets_leave(own_counters, steps, went):
    flush([own_counters])
    throttled_after(went)
    begun, skipped, through, ahead = time.monotonic(), 0.0, 0, 0
    for kind, value in steps:
        if kind == "pass":
            passes(value)
            skipped += value
            continue
        wait = pace.take("email", value)
        assert wait >= 0
        if wait:
            passes(wait)
            skipped += wait + 0.001  # it is set back in whole milliseconds
            assert pace.take("email", value) == 0.0
        rate = pace.rate("email")
        if rate is None:  # it has grown out of its limit
            return
        # The last call may run ahead of the rate, and no other may.
        through, ahead = through + ahead, value
        assert through <= rate * (time.monotonic() - begun + skipped + 0.01)


def test_where_the_counters_are_away_nobody_gets_leave(own_counters):
    throttled_after(400)
    own_counters.kill()
    with pytest.raises(CountersAway):
        pace.take("email", 1)
    with pytest.raises(CountersAway):
        pace.slow_down("email", wait_s=1.0)


TAKING = """
import sys, time
import django
django.setup()
from delivery import pace
pace.rate("email")
print("ready", flush=True)
begin, end = map(float, input().split())
while time.time() < begin:
    time.sleep(0.005)
through = 0
while time.time() < end:
    wait = pace.take("email", 5)
    if wait:
        time.sleep(min(wait, 0.05))
    else:
        through += 5
print(through)
"""


def test_processes_share_one_rate(own_counters):
    env = {**os.environ, "COUNTERS_URL": own_counters.url, "BROKER_URL": own_counters.url}
    env |= {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "SECRET_KEY": "only a test's"}
    env |= {"DJANGO_SETTINGS_MODULE": "scheduler_project.settings"}
    command, seconds = [sys.executable, "-c", TAKING], 3
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    takers = [subprocess.Popen(command, env=env, text=True, **pipes) for _ in range(2)]
    try:
        for taker in takers:
            assert taker.stdout.readline() == "ready\n"
        throttled_after(400)
        begin = time.time() + 0.1
        for taker in takers:
            taker.stdin.write(f"{begin} {begin + seconds}\n")
            taker.stdin.flush()
        through = [int(taker.communicate(timeout=60)[0]) for taker in takers]
    finally:
        for taker in takers:
            taker.kill()
            taker.wait()
    assert min(through) > 0
    # 200 a second that grow by a twentieth, and what one call each runs ahead
    assert 200 < sum(through) <= 200 * 1.05**seconds * (seconds + 0.2) + 10


def test_threads_share_one_rate(servers):
    throttled_after(400)

    def taking():
        through, end = 0, time.monotonic() + 1.0
        while time.monotonic() < end:
            if wait := pace.take("email", 5):
                time.sleep(min(wait, 0.05))
            else:
                through += 5
        return through

    assert 50 < sum(in_threads(*[taking] * 4)) <= 200 * 1.05 * 1.2 + 5


# --- What sending makes of it ----------------------------------------------------------------------------------------


@pytest.fixture
def throttling(provider):
    """How many of the people who are asked for are throttled, by the rest of their id."""

    def set_up(share, **more):
        provider.answer = staticmethod(
            lambda message: (
                Answer(message.key, Verdict.THROTTLED, "slow_down", **more)
                if message.recipient_id % 20 < share * 20
                else sent(message)
            )
        )

    yield set_up
    at_full_speed()


@pytest.mark.django_db
def test_a_throttled_call_slows_the_channel_and_lets_go_of_what_is_left(service, provider, throttling):
    people(1_000)
    schedule = ScheduleFactory()
    throttling(1.0, retry_after=60.0)
    service.step()
    assert len(provider.calls) <= 10
    assert states(schedule) == {"pending": 1_000}
    assert not Batch.objects.exclude(queued_at=None).exists()
    assert 50 < pace.take("email", 1) <= 60
    asked = len(provider.calls)
    service.after(2 * MINUTE).step()
    assert len(provider.calls) == asked
    provider.reset()
    at_full_speed()
    service.send(rounds=5)
    assert states(schedule) == {"sent": 1_000}


@pytest.mark.django_db
@pytest.mark.parametrize(("share", "slows"), [(0.05, False), (0.1, True)])
def test_what_is_said_of_a_few_devices_is_no_word_on_the_account(service, provider, throttling, share, slows):
    people(20)
    ScheduleFactory()
    throttling(share)
    service.step()
    assert (pace.rate("email") is not None) is slows


@pytest.mark.django_db
def test_a_provider_that_asks_for_a_day_is_asked_again_after_ten_minutes(service, provider, throttling):
    people(3)
    ScheduleFactory()
    throttling(1.0, retry_after=86_400.0)
    service.step()
    assert calls.LONGEST_PAUSE_S - 10 < pace.take("email", 1) <= calls.LONGEST_PAUSE_S


@pytest.mark.django_db
def test_other_channels_and_what_is_written_here_go_on(service, provider, throttling, settings):
    people(3)
    settings.PROVIDERS = {**settings.PROVIDERS, "in_app": "in_app"}
    for channel in ("email", "in_app"):
        pace.slow_down(channel, wait_s=60.0)
    schedules = [ScheduleFactory(channel=channel) for channel in ("email", "in_app")]
    service.step()
    assert [states(schedule) for schedule in schedules] == [{"pending": 3}, {"sent": 3}]
    assert InboxMessage.objects.count() == 3


@pytest.mark.django_db
def test_a_slowed_channel_is_sent_to_at_its_rate(service, provider):
    people(400)
    schedule = ScheduleFactory()
    throttled_after(400)
    begun = time.monotonic()
    service.step()
    asked = 0
    for call in sorted(provider.calls):
        assert asked <= (200 * 1.05**4) * (call.started_at - begun) + sending.CALLS_PER_CLAIM * provider.max_per_call
        asked += len(call.messages)
    assert asked == states(schedule)["sent"] == 400
    assert max(call.started_at for call in provider.calls) - begun > 1.0
    at_full_speed()
