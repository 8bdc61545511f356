"""Real worker processes, killed and doubled: nobody is lost, nobody gets two, and the ledger says what is unclear."""

from collections import Counter

from celery import Celery

CALL = 50
CALLS_IN_FLIGHT = 4  # of each process
PROCESSES = 2


def test_two_beats_and_the_same_message_ten_times_send_to_each_person_once(running, mailing) -> None:
    schedule = mailing(people=2_000, seconds=8, tag="tenfold")
    running.wait_for("materialised", lambda: running.counts(schedule).get("pending") == 2_000, seconds=60)

    batches = [pk for (pk,) in running.sql("SELECT id FROM delivery_batch ORDER BY id")]
    broker = Celery(broker=running.env["BROKER_URL"])
    for _ in range(10):
        broker.send_task("delivery.send", kwargs={"batch_ids": batches}, queue="email")

    running.wait_for("all sent", lambda: running.counts(schedule) == {"sent": 2_000}, seconds=60)
    assert len(running.sql("SELECT 1 FROM schedules_occurrence WHERE schedule_id = %s", schedule)) == 1
    people = Counter(line["to"] for line in running.accepted() if line["to"].startswith("tenfold-"))
    assert len(people) == 2_000
    assert set(people.values()) == {1}
    running.manage("books")


def test_after_kill_9_in_mid_run_only_the_calls_in_flight_are_unclear(running, mailing) -> None:
    running.stub.fault({"kind": "latency", "seconds": 0.15})
    schedule = mailing(people=6_000, seconds=8, tag="killed")
    running.wait_for("some sent", lambda: running.counts(schedule).get("sent", 0) > 500, seconds=60)

    running.supervisor.kill("email")  # the worker and its processes, at once; a new one starts

    running.wait_for("drained", lambda: running.counts(schedule).keys() <= {"sent", "unknown"}, seconds=90)
    running.stub.clear_faults()
    counts = running.counts(schedule)
    assert counts["sent"] + counts["unknown"] == 6_000
    assert 0 < counts["unknown"] <= CALL * CALLS_IN_FLIGHT * PROCESSES
    reasons = running.sql("SELECT DISTINCT reason FROM delivery_delivery WHERE state = 2")
    assert reasons == [("worker_lost",)]

    people = Counter(line["to"] for line in running.accepted() if line["to"].startswith("killed-"))
    assert set(people.values()) == {1}
    sent = _addresses(running, schedule, state=10)
    unclear = _addresses(running, schedule, state=2)
    assert sent <= people.keys()
    assert people.keys() - sent <= unclear
    _let_unknown_run_out(running)
    running.wait_for("settled", lambda: "unknown" not in running.counts(schedule), seconds=30)
    assert running.counts(schedule).get("failed", 0) == len(unclear)
    running.wait_for("closed", lambda: _state(running, schedule) == "finished", seconds=30)
    running.manage("books")


def _addresses(running, schedule: int, *, state: int) -> set[str]:
    rows = running.sql(
        "SELECT r.email FROM delivery_delivery d JOIN schedules_recipient r ON r.id = d.recipient_id"
        " JOIN schedules_occurrence o ON o.id = d.occurrence_id WHERE o.schedule_id = %s AND d.state = %s",
        schedule,
        state,
    )
    return {email for (email,) in rows}


def _let_unknown_run_out(running) -> None:
    """Fifteen minutes of real time, without waiting for them."""
    running.sql("UPDATE delivery_delivery SET leased_until = leased_until - interval '15 min' WHERE state = 2")


def _state(running, schedule: int) -> str:
    return running.sql("SELECT state FROM schedules_occurrence WHERE schedule_id = %s", schedule)[0][0]
