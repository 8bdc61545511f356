"""Signs of life: who asks, who answers, and who is called silent."""

import pytest
from django.db import connection
from structlog.testing import capture_logs

from delivery import heartbeats, tasks
from delivery.models import Heartbeat
from tests.service import in_threads

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(heartbeats, "_said", {})


def pass_by(seconds: float) -> None:
    """So much later: every heartbeat is that much older."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE delivery_heartbeat SET seen_at = seen_at - make_interval(secs => %s)", [seconds])


def ask() -> list[str]:
    """The queues that were handed a canary."""
    queues: list[str] = []
    heartbeats.ask(queues.append)
    return queues


def ask_for(seconds: float, *, answering: set[str]) -> None:
    """Ask as the tick does for so long; ``answering`` queues take their canaries at once."""
    for _ in range(int(seconds) // heartbeats.ASK_S):
        for queue in ask():
            if queue in answering:
                tasks.canary(queue=queue)
        pass_by(heartbeats.ASK_S)


EVERY = set(heartbeats.QUEUES)


def test_each_queue_is_asked_every_fifteen_seconds_by_whoever_comes_first():
    assert set(ask()) == EVERY
    assert ask() == []
    pass_by(14)
    assert ask() == []
    pass_by(1)
    asked = in_threads(ask, ask, ask, ask)
    assert sorted(len(queues) for queues in asked) == [0, 0, 0, len(EVERY)]


def test_a_queue_that_answers_is_not_silent():
    ask_for(300, answering=EVERY)
    with capture_logs() as logs:
        ask()

    assert logs == []
    assert {life.silent for life in heartbeats.read().values()} == {0.0}
    assert all(0 < life.consumed_ago < 16 for life in heartbeats.read().values())


def test_a_queue_that_consumes_nothing_is_named_after_a_minute():
    ask_for(60, answering=EVERY)
    with capture_logs() as logs:
        ask_for(60, answering=EVERY - {"email"})
    assert logs == []

    with capture_logs() as logs:
        ask_for(15, answering=EVERY - {"email"})

    assert [(line["event"], line["queue"], line["seconds"]) for line in logs] == [("queue_silent", "email", 60)]
    lives = heartbeats.read()
    assert lives["email"].silent == pytest.approx(60, abs=1)
    assert lives["email"].consumed_ago == pytest.approx(90, abs=1)
    assert lives["push"].silent == 0.0


def test_a_queue_never_heard_of_is_named_too():
    with capture_logs() as logs:
        ask_for(90, answering=EVERY - {"push"})

    assert {line["queue"] for line in logs} == {"push"}
    assert heartbeats.read()["push"].consumed_ago is None


def test_a_busy_queue_whose_canaries_wait_is_not_silent():
    ask_for(30, answering=EVERY)
    with capture_logs() as logs:
        for _ in range(20):
            ask_for(15, answering=EVERY - {"email"})
            heartbeats._said.clear()  # five seconds have passed
            tasks.send(batch_ids=[], queue="email")

    assert logs == []
    assert heartbeats.read()["email"].silent == 0.0


def test_materialising_may_take_as_long_as_it_may():
    with capture_logs() as logs:
        ask_for(300, answering=EVERY - {"materialise"})
    assert logs == []

    with capture_logs() as logs:
        ask_for(120, answering=EVERY - {"materialise"})
    assert {line["queue"] for line in logs} == {"materialise"}


def test_a_service_that_stood_still_blames_nobody_when_it_goes_on():
    ask_for(30, answering=EVERY)
    ask()  # never answered: everything stops
    pass_by(3600)
    assert max(life.silent for life in heartbeats.read().values()) < 1

    with capture_logs() as logs:
        ask()
        ask_for(60, answering=EVERY)

    assert logs == []


def test_a_queue_that_could_not_be_reached_counts_as_not_asked():
    def refuse(queue: str) -> None:
        raise ConnectionError(queue)

    with pytest.raises(ConnectionError):
        heartbeats.ask(refuse)

    assert not Heartbeat.objects.exists()
    assert set(ask()) == EVERY


def test_work_is_written_down_now_and_then_only(django_assert_num_queries):
    with django_assert_num_queries(1):
        for _ in range(100):
            heartbeats.consumed("email")
    assert Heartbeat.objects.get().name == "queue:email"


def test_tick_and_sweep_say_when_they_came_to_their_end(service, monkeypatch):
    monkeypatch.setattr(tasks.canary, "apply_async", lambda **_: None)
    tasks.tick()
    tasks.sweep()

    names = set(Heartbeat.objects.values_list("name", flat=True))
    assert {"tick", "sweep"} <= names
