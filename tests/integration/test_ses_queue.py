"""Events come from a queue over HTTP: a message is deleted once its event is kept, never before, whatever dies.

The queue is moto's, or the stub's where that tells of real messages.
"""

import json
import os
import signal
import subprocess
import sys
import time

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from delivery import continuity, counts, heartbeats, metrics
from delivery.events import settling, sqs
from delivery.events.base import Kind
from delivery.models import Count, Delivery, Feedback, Heartbeat, News
from stubs.ses_events import record
from stubs.sns import Sns
from stubs.testing import running_ses
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.service import of_the_tests, reasons
from tests.told_by_ses import ORIGIN, TOPIC, accepted

pytestmark = pytest.mark.django_db

REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def account(monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def amazon(s3, monkeypatch):
    """Who owns the queue. moto's server answers for SQS too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", s3)
    return boto3.client("sqs", region_name=REGION)


@pytest.fixture
def url(amazon):
    made = amazon.create_queue(QueueName="ses-events")["QueueUrl"]
    yield made
    amazon.delete_queue(QueueUrl=made)


@pytest.fixture
def queue(url, service):
    return sqs.Queue(url, region=REGION, wait_s=1, hidden_s=30)


@pytest.fixture
def settled(monkeypatch):
    """The events that were handed over, call by call, in the place of settling them."""
    calls = []
    monkeypatch.setattr(settling, "settle", lambda events, now: calls.append(list(events)))
    return calls


def keys(number):
    return [f"20261121-17-{4711 + each}" for each in range(number)]


def told(key="20261121-17-4711", kind="Bounce"):
    return json.dumps(record(kind, accepted(key, message_id=f"0100-{key}")))


def put(amazon, url, *bodies):
    for body in bodies:
        amazon.send_message(QueueUrl=url, MessageBody=body)


def left(amazon, url):
    """Messages in the queue: those that are handed out, and those that hide from whoever had them."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = amazon.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


def poll(queue):
    return queue.poll(now=lambda: NOW)


def refused():
    found = Count.objects.filter(name=counts.PROVIDER_HOOKS).values_list("label", "value")
    return dict(found)


def test_an_empty_queue_is_waited_for(queue, settled):
    begun = time.monotonic()
    assert poll(queue) == (0, 0)
    assert time.monotonic() - begun >= 0.9
    assert settled == []


def test_records_come_raw_and_in_the_envelope_of_sns(queue, amazon, url, settled):
    server = Sns(ORIGIN, TOPIC)
    put(amazon, url, told(), json.dumps(server.notification(told(kind="Delivery"))))
    assert poll(queue) == (2, 2)
    assert sorted(event.kind for event in settled[0]) == [Kind.BOUNCE_HARD, Kind.DELIVERY]
    assert left(amazon, url) == 0


def test_many_are_settled_together(queue, amazon, url, settled):
    put(amazon, url, *map(told, keys(35)))
    assert poll(queue) == (35, 35)
    assert len(settled) == 1
    assert {event.key for event in settled[0]} == set(keys(35))
    assert left(amazon, url) == 0


def test_what_the_ledger_does_not_tell_is_deleted_and_not_settled(queue, amazon, url, settled):
    put(amazon, url, "Successfully validated SNS topic for Amazon SES event publishing.")
    assert poll(queue) == (1, 1)
    assert (settled, left(amazon, url)) == ([], 0)


@pytest.mark.parametrize(
    "body",
    [
        "{", "[]", "x" * 1000, "[" * 50_000, json.dumps({"eventType": "Bounce", "mail": [[]]}),
        json.dumps({"TopicArn": TOPIC, "Type": "SubscriptionConfirmation", "Message": "x"}),
        json.dumps({"TopicArn": TOPIC, "Type": "Notification", "Message": {"eventType": "Send"}}),
    ],
    ids=range(7),
)  # fmt: skip
def test_what_can_not_be_read_is_left_to_the_queues_own_policy_and_keeps_nobody(queue, amazon, url, settled, body):
    put(amazon, url, body, told())
    assert poll(queue) == (2, 1)
    assert [event.kind for event in settled[0]] == [Kind.BOUNCE_HARD]
    assert left(amazon, url) == 1
    assert refused() == {"unreadable": 1}


def test_what_can_not_be_read_for_the_tenth_time_goes(amazon, url, service, settled):
    put(amazon, url, "{")
    impatient = sqs.Queue(url, region=REGION, wait_s=1, hidden_s=0)
    assert [poll(impatient) for _ in range(10)] == [*([(1, 0)] * 9), (1, 1)]
    assert left(amazon, url) == 0


def test_a_topic_of_others_is_left(queue, amazon, url, settled, settings):
    settings.SNS_TOPICS = [TOPIC]
    put(amazon, url, json.dumps(Sns(ORIGIN, TOPIC + "2").notification(told())))
    assert poll(queue) == (1, 0)
    assert settled == []


def test_nothing_is_deleted_while_the_database_is_away(queue, amazon, url, monkeypatch):
    def away(events, now):
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(settling, "settle", away)
    put(amazon, url, *map(told, keys(3)))
    with pytest.raises(OperationalError):
        poll(queue)
    assert left(amazon, url) == 3


def test_one_event_that_can_not_be_settled_keeps_no_other_from_it(queue, amazon, url, monkeypatch):
    kept = []

    def settle(events, now):
        if any(event.key.endswith("4712") for event in events):
            raise KeyError("a bug")
        kept.extend(event.key for event in events)

    monkeypatch.setattr(settling, "settle", settle)
    put(amazon, url, *map(told, keys(4)))
    assert poll(queue) == (4, 3)
    assert sorted(kept) == [keys(4)[0], *keys(4)[2:]]
    assert left(amazon, url) == 1


def test_a_message_that_could_not_be_deleted_comes_again(amazon, url, service, settled, monkeypatch):
    put(amazon, url, told())
    first = sqs.Queue(url, region=REGION, wait_s=1, hidden_s=0)
    monkeypatch.setattr(first, "_delete", lambda messages: (_ for _ in ()).throw(_gone()))
    with pytest.raises(ClientError):
        poll(first)
    assert poll(sqs.Queue(url, region=REGION, wait_s=1, hidden_s=30)) == (1, 1)
    assert [event.key for call in settled for event in call] == keys(1) * 2


@pytest.mark.django_db(transaction=True)
def test_a_process_killed_between_the_commit_and_the_deletion_loses_nothing_and_counts_nothing_twice(
    amazon, url, service
):
    """Really killed, on the test's own database; the next one takes the message again."""
    eva = RecipientFactory(email="eva@example.com")
    ScheduleFactory()
    service.step()
    row = Delivery.objects.get(recipient_id=eva.pk)
    put(amazon, url, told(f"{row.day:%Y%m%d}-{row.occurrence_id}-{row.recipient_id}"))
    connection.close()  # each of the two opens one of its own
    pid = os.fork()
    if pid == 0:  # the child
        try:
            dying = sqs.Queue(url, region=REGION, wait_s=5, hidden_s=1)
            dying._delete = lambda messages: os.kill(os.getpid(), signal.SIGKILL)
            dying.poll(now=lambda: NOW)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert [News(each.news) for each in Feedback.objects.all()] == [News.BOUNCED_HARD]
    assert left(amazon, url) == 1
    time.sleep(1.1)
    before = metrics.page(now=lambda: NOW).decode()
    assert poll(sqs.Queue(url, region=REGION, wait_s=5)) == (1, 1)
    after = metrics.page(now=lambda: NOW).decode()
    assert Feedback.objects.count() == 1
    name = 'notifications_bounced_total{channel="email",kind="hard"} 1.0'
    assert name in before
    assert name in after
    assert left(amazon, url) == 0


def _gone():
    return ClientError({"Error": {"Code": "ReceiptHandleIsInvalid"}}, "DeleteMessageBatch")


@pytest.mark.django_db(transaction=True)  # it closes the connection, as it has to
def test_whoever_is_away_is_asked_again_after_ever_longer_pauses(service, monkeypatch, settled):
    pauses = []

    class Away:
        def poll(self, now):
            if len(pauses) == 8:
                raise KeyboardInterrupt
            raise EndpointConnectionError(endpoint_url="https://sqs.example.com")

    monkeypatch.setattr(sqs, "time", type("Time", (), {"sleep": staticmethod(pauses.append)}))
    with pytest.raises(KeyboardInterrupt):
        sqs.run(Away(), now=lambda: NOW)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.django_db(transaction=True)
def test_each_turn_is_a_sign_of_life(service, settled, settings):
    class Once:
        turns = 0

        def poll(self, now):
            self.turns += 1
            if self.turns > 1:
                raise KeyboardInterrupt
            return sqs.Polled()

    settings.SES_EVENTS_QUEUE_URL = "https://sqs.example.com/1/events"
    assert b"provider_queue_polled_seconds" not in metrics.page(now=lambda: NOW)
    with pytest.raises(KeyboardInterrupt):
        sqs.run(Once(), now=lambda: NOW)
    assert b"\nprovider_queue_polled_seconds " in metrics.page(now=lambda: NOW)
    settings.SES_EVENTS_QUEUE_URL = ""
    assert b"provider_queue_polled_seconds" not in metrics.page(now=lambda: NOW)
    assert Heartbeat.objects.filter(name=heartbeats.SES_EVENTS).exists()


@pytest.mark.django_db(transaction=True)  # it closes the connection
def test_while_a_restored_database_waits_the_queue_is_left_alone(service, monkeypatch, same_numbers):
    class Untouched:
        def poll(self, **_):
            pytest.fail("the runs that it tells of are not there yet")

    def ended(seconds):
        raise KeyboardInterrupt

    continuity.declare(restored_to=NOW, now=NOW)
    monkeypatch.setattr(sqs, "time", type("Time", (), {"sleep": staticmethod(ended)}))
    with pytest.raises(KeyboardInterrupt):
        sqs.run(Untouched(), now=lambda: NOW)


def test_settling_a_restored_database_takes_what_lies_there(
    amazon, url, service, provider, settings, capsys, same_numbers
):
    settings.SES_EVENTS_QUEUE_URL, settings.AWS_REGION = url, REGION
    schedule = ScheduleFactory()
    people(3)
    service.open()
    continuity.declare(restored_to=NOW, now=NOW)
    rows = Delivery.objects.order_by("recipient_id")
    put(amazon, url, *(told(str(row), "Delivery") for row in rows[:2]), told(kind="Delivery"))
    call_command("settle_restored")
    assert "2 people had got it, 1 may have" in capsys.readouterr().out
    assert left(amazon, url) == 0
    assert reasons(schedule) == {"sent: confirmed": 2, "failed: outcome_unknown": 1}


def test_a_queue_that_is_away_settles_nothing_for_good(service, settings, monkeypatch, same_numbers):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    settings.SES_EVENTS_QUEUE_URL, settings.AWS_REGION = "http://127.0.0.1:9/1/gone", REGION
    continuity.declare(restored_to=NOW, now=NOW)
    with pytest.raises(CommandError, match=r"The queue of events can't be read.*Run this again"):
        call_command("settle_restored")
    assert continuity.restored() is not None


def test_the_command_takes_what_lies_there(amazon, url, service, settled, settings, capsys):
    settings.SES_EVENTS_QUEUE_URL = url
    put(amazon, url, *map(told, keys(3)))
    call_command("poll_ses_events", "--once")
    assert capsys.readouterr().out == "3 messages came, 3 are done with.\n"


def test_the_command_says_what_it_lacks(settings):
    settings.SES_EVENTS_QUEUE_URL = ""
    with pytest.raises(CommandError, match="SES_EVENTS_QUEUE_URL"):
        call_command("poll_ses_events")


@pytest.mark.django_db(transaction=True)
def test_the_command_ends_when_it_is_told_to_while_it_waits(amazon, url, s3):
    environment = {**of_the_tests(), "SES_EVENTS_QUEUE_URL": url, "AWS_ENDPOINT_URL_SQS": s3}
    put(amazon, url, "Successfully validated SNS topic for Amazon SES event publishing.")
    process = subprocess.Popen([sys.executable, "manage.py", "poll_ses_events"], env=environment)
    try:
        until = time.monotonic() + 120
        while left(amazon, url) and time.monotonic() < until:
            time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_the_stub_tells_by_its_queue_what_became_of_messages(service, monkeypatch, settled):
    rules = [
        {"event": "bounce", "match": {"to": "*@gone.example"}},
        {"event": "none", "match": {"to": "*@dark.example"}},
    ]
    with running_ses(options=["--events", json.dumps(rules), "--events-pace", "0"]) as stub:
        for name, value in stub.variables().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", stub.url)
        mail = boto3.client("sesv2", region_name=REGION)
        for domain in ("gone", "dark", "good"):
            mail.send_email(
                FromEmailAddress="shop@example.com",
                Destination={"ToAddresses": [f"eva@{domain}.example"]},
                Content={"Simple": {"Subject": {"Data": "s"}, "Body": {"Text": {"Data": "t"}}}},
                EmailTags=[{"Name": "delivery", "Value": "20261121-17-4711"}],
            )
        queue = sqs.Queue(f"{stub.url}/000000000000/ses-events", region=REGION, wait_s=1)
        came = sum(poll(queue).came for _ in range(3))
    events = {(event.kind, event.addresses[0]) for call in settled for event in call}
    assert events == {
        (Kind.SEND, "eva@gone.example"),
        (Kind.BOUNCE_HARD, "eva@gone.example"),
        (Kind.SEND, "eva@good.example"),
        (Kind.DELIVERY, "eva@good.example"),
    }
    assert came == 4
    assert {event.key for call in settled for event in call} == {"20261121-17-4711"}
