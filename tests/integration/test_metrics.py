"""``/metrics`` says what the ledger says, in Prometheus's format, whatever happens meanwhile."""

import subprocess
from collections import Counter
from datetime import timedelta
from threading import Event, Thread

import pytest
from django.db import OperationalError, connection, connections, transaction
from django_prometheus.middleware import Metrics
from prometheus_client.parser import text_string_to_metric_families

from delivery import counts, erasure, metrics, sending
from delivery.ledger import Tally
from delivery.models import Batch, Circuit, Count, State
from delivery.providers.base import Answer, Verdict
from schedules import stops
from tests.alarms import program
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people
from tests.recording import sent
from tests.service import HOUR, MINUTE, in_threads, states

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scrape(client):
    """What the page says: {(name, label values in the order of the labels' names): value}."""
    for metric in vars(Metrics.get_instance()).values():
        metric.clear()  # what earlier tests have asked for makes thousands of lines

    def read() -> dict[tuple[str, ...], float]:
        page = client.get("/metrics")
        assert page.status_code == 200
        assert page["Content-Type"].startswith("text/plain; version=")
        samples = {}
        for family in text_string_to_metric_families(page.content.decode()):
            for sample in family.samples:
                key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
                assert key not in samples, f"{key} twice"
                samples[key] = sample.value
        return samples

    return read


def outcomes(samples) -> Counter[tuple[str, str]]:
    """(state, channel): deliveries, by the counters."""
    found: Counter[tuple[str, str]] = Counter()
    for state in State:
        for (name, *labels), value in samples.items():
            if name == f"notifications_{state.label}_total" and state.is_outcome and value:
                found[state.label, labels[0]] += int(value)
    return found


def outcomes_by_sql() -> Counter[tuple[str, str]]:
    """The same, counted from the ledger's rows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.state, s.channel, count(*) FROM delivery_delivery d"
            " JOIN schedules_occurrence o ON o.id = d.occurrence_id JOIN schedules_schedule s ON s.id = o.schedule_id"
            " WHERE d.state >= 10 GROUP BY 1, 2"
        )
        return Counter({(State(state).label, channel): rows for state, channel, rows in cursor.fetchall()})


def moods(message) -> Answer | None:
    """One in five each: sent, refused, always tried again, slowed down once, and never answered."""
    mood = message.recipient_id % 5
    if mood == 1:
        return Answer(message.key, Verdict.PERMANENT, "address_refused")
    if mood == 2:
        return Answer(message.key, Verdict.TRANSIENT, "server_error")
    if mood == 3 and message.key not in SLOWED:
        SLOWED.add(message.key)
        return Answer(message.key, Verdict.THROTTLED, "too_fast", retry_after=0.05)
    return None if mood == 4 else sent(message)


SLOWED: set[str] = set()


def test_counters_equal_the_ledger_after_every_kind_of_outcome(service, provider, scrape):
    SLOWED.clear()
    everyone = people(100)
    people(5, consent={"email": False})
    people(5, email="")
    gone = RecipientFactory.create()
    ScheduleFactory.create()
    ScheduleFactory.create(channel="in_app")
    push = ScheduleFactory.create(channel="push")
    for person in everyone[:20]:
        DeviceFactory.create(recipient=person)
    late = ScheduleFactory.create(time_zone_mode="user_local", time_zone="UTC", run_at=NOW - 3 * HOUR, on_past="skip")
    provider.answer = staticmethod(moods)

    service.open()
    erasure.forget(recipient_id=gone.pk, by=BY, now=NOW)
    service.send(rounds=3)
    for _ in range(5):
        service.after(timedelta(seconds=241)).send()
    service.cancel(push)
    service.sweep()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE delivery_delivery SET leased_until = leased_until - interval '15 min' WHERE state = 2")
    service.after(MINUTE).step()

    samples = scrape()
    assert outcomes(samples) == outcomes_by_sql()
    assert states(late)["expired"] == sum(states(late).values())
    found = {state for state, _ in outcomes(samples)}
    assert found == {"sent", "failed", "suppressed", "unaddressable", "erased", "expired"}
    email_failed = {
        reason: samples["notifications_failed_total", "email", reason]
        for reason in ("refused", "retries_exhausted", "outcome_unknown", "rendering", "other")
        if samples.get(("notifications_failed_total", "email", reason))
    }
    assert email_failed == failed_by_sql("email")
    assert samples["notifications_retries_total", "email"] == 3 * email_failed["retries_exhausted"]
    assert samples["provider_throttled_total", "email"] == 20
    assert samples["notifications_unknown_total", "email", "no_answer"] == email_failed["outcome_unknown"]
    assert samples["swept_total", "unknown_failed"] == sum(
        value for (name, *labels), value in samples.items() if name == "notifications_unknown_total"
    )


def failed_by_sql(channel: str) -> dict[str, int]:
    """Failed deliveries of a channel by class, told by the reasons that ``moods`` gives."""
    classes = {"address_refused": "refused", "server_error": "retries_exhausted", "outcome_unknown": "outcome_unknown"}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.reason, count(*) FROM delivery_delivery d JOIN delivery_batch b ON b.id = d.batch_id"
            " WHERE d.state = 11 AND b.channel = %s GROUP BY 1",
            [channel],
        )
        return {classes[reason]: rows for reason, rows in cursor.fetchall()}


def test_threads_that_race_for_the_same_batches_count_each_delivery_once(service, provider, scrape):
    people(600)
    ScheduleFactory.create(channel="in_app")
    ScheduleFactory.create()
    service.open()
    batches = list(Batch.objects.values_list("pk", flat=True))

    in_threads(*[lambda: sending.send(batch_ids=batches)] * 4)

    samples = scrape()
    assert outcomes(samples) == outcomes_by_sql() == {("sent", "email"): 600, ("sent", "in_app"): 600}
    assert samples["notifications_send_lateness_seconds_count", "email"] == 600


def test_a_transaction_that_is_rolled_back_counts_nothing(service):
    with transaction.atomic():
        tally = Tally()
        tally.count(counts.RETRIES, "email", amount=7)
        tally.flush()
        assert Count.objects.exists()
        transaction.set_rollback(True)

    assert not Count.objects.exists()


def test_a_transaction_that_is_tried_again_counts_once(service, provider, scrape, monkeypatch):
    people(50)
    ScheduleFactory.create()
    service.open()
    add, failures = counts.add, []

    def fails_after_each_first_write(amounts):
        add(amounts)
        if amounts and len(failures) < 2:
            failures.append(dict(amounts))
            raise OperationalError("the connection is lost")

    monkeypatch.setattr(counts, "add", fails_after_each_first_write)
    service.send()

    assert len(failures) == 2
    assert outcomes(scrape()) == outcomes_by_sql() == {("sent", "email"): 50}


def test_lateness_counts_first_attempts_from_the_promised_instant_to_the_call(service, provider, scrape):
    people(30)
    ScheduleFactory.create()
    service.open()
    provider.answers(Verdict.TRANSIENT)

    service.after(timedelta(seconds=3)).send()
    provider.answer = staticmethod(sent)
    service.after(timedelta(seconds=60)).send()

    samples = scrape()
    name = "notifications_send_lateness_seconds"
    assert outcomes(samples) == {("sent", "email"): 30}
    assert samples[f"{name}_count", "email"] == 30
    assert samples[f"{name}_bucket", "email", "2"] == 0
    assert samples[f"{name}_bucket", "email", "5"] == samples[f"{name}_bucket", "email", "+Inf"] == 30
    assert 2.5 * 30 < samples[f"{name}_sum", "email"] <= 3 * 30
    assert samples["occurrence_run_lag_seconds_count", "email"] == 1
    assert samples["occurrence_run_lag_seconds_sum", "email"] == 3


def test_occurrences_that_nobody_got_are_counted_by_why(service, scrape):
    people(1)
    ScheduleFactory.create(cron="0 */6 * * *")

    service.after(HOUR * 25).tick()

    assert scrape()["occurrences_missed_total", "down"] == 4


def test_gauges_show_what_waits_and_what_is_held_back(service, provider, scrape):
    people(3)
    going = ScheduleFactory.create()
    service.open()
    service.after(timedelta(seconds=30))
    samples = scrape()
    assert samples["notifications_due", "email"] == 3
    assert samples["notifications_queued", "email"] == 0
    assert samples["notifications_oldest_due_seconds", "email"] == 30
    assert samples["notifications_oldest_due_seconds", "push"] == 0
    assert samples["occurrences_open", "running"] == 1

    service.publish()
    samples = scrape()
    assert (samples["notifications_due", "email"], samples["notifications_queued", "email"]) == (0, 3)
    assert samples["notifications_oldest_due_seconds", "email"] == 30

    service.pause(going)
    samples = scrape()
    assert (samples["notifications_queued", "email"], samples["notifications_held_back", "email"]) == (0, 3)
    assert samples["notifications_oldest_due_seconds", "email"] == 0

    service.resume(going)
    stops.stop_sending(scope="channel:email", by=BY, now=NOW, reason="")
    samples = scrape()
    assert samples["notifications_held_back", "email"] == 3
    assert (samples["notifications_stopped", "email"], samples["notifications_stopped", "push"]) == (1, 0)


def test_an_open_circuit_is_shown_with_its_reason(service, scrape):
    assert scrape()["provider_circuit_open", "email", ""] == 0
    Circuit.objects.create(scope="email", reason="account_suspended", opened_at=NOW, probe_at=NOW)
    samples = scrape()
    assert samples["provider_circuit_open", "email", "account_suspended"] == 1
    assert ("provider_circuit_open", "email", "") not in samples


def test_everything_that_can_be_counted_is_there_as_zero_before_it_happens(service, scrape):
    samples = scrape()
    for state, classes in counts.REASON_CLASSES.items():
        name = counts.UNKNOWN if state is State.UNKNOWN else counts.OUTCOMES[state]
        for channel in ("email", "push", "in_app"):
            assert all(samples[name, channel, each] == 0 for each in classes)
    assert samples["notifications_retries_total", "email"] == 0
    assert samples["notifications_send_lateness_seconds_count", "push"] == 0
    assert samples["ledger_default_partition_rows",] == 0
    assert samples["notification_database_up",] == 1


def test_a_database_that_is_away_leaves_a_page_that_says_so(service, scrape, monkeypatch):
    def refuse():
        raise OperationalError("connection refused")

    connection.close()
    with monkeypatch.context() as patched:
        patched.setattr(connection, "ensure_connection", refuse)
        samples = scrape()

    assert samples["notification_database_up",] == 0
    assert samples["django_http_requests_before_middlewares_total",] > 0
    assert not outcomes(samples)


def test_a_question_that_takes_too_long_leaves_out_its_own_answer_only(service, scrape, monkeypatch):
    monkeypatch.setattr(metrics, "TIMEOUT_MS", 100)
    locked, done = Event(), Event()

    def lock():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE delivery_circuit IN ACCESS EXCLUSIVE MODE")
            locked.set()
            done.wait(30)
        connections.close_all()

    thread = Thread(target=lock)
    thread.start()
    assert locked.wait(30)
    samples = scrape()
    done.set()
    thread.join()

    assert samples["notification_database_up",] == 0
    assert ("provider_circuit_open", "email", "") not in samples
    assert samples["ledger_default_partition_rows",] == 0
    assert samples["notifications_due", "email"] == 0


def test_promtool_finds_nothing_to_say_against_our_part(service, provider):
    people(3)
    ScheduleFactory.create()
    service.open()
    service.send()

    page = metrics.page(now=lambda: service.now)
    done = subprocess.run([program("promtool"), "check", "metrics"], input=page, capture_output=True, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
