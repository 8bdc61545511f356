"""Amazon SES's events from a queue of Amazon SQS: long polling, many events a transaction, deleted once they are kept.

Who may write into the queue is its policy's business, so nothing is believed less here for bearing no signature. A
message is a record of SES (raw message delivery) or SNS's envelope around one. SQS may bring it twice, and does so
whenever this process ends between the commit and the deletion; the ledger's keys make that harmless.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from delivery import continuity, counts, heartbeats
from delivery.events import settling
from delivery.events.base import ProviderEvent
from delivery.events.reading import Unreadable, read

log = structlog.get_logger(__name__)

# What SQS, or the way to it, answers in the place of an answer.
AWAY: Final = (BotoCoreError, ClientError)
HEARTBEAT: Final = "ses_events"
CONNECT_S, READ_S = 3.0, 10.0
WAIT_S: Final = 20  # the longest that SQS lets a question wait for a message
# Until a message that was handed out and not deleted is handed out again; settling what was gathered takes well below.
HIDDEN_S: Final = 120
_AT_ONCE: Final = 10  # messages that SQS hands out, and deletes, in one request
_GATHERED: Final = 100  # before they are settled together
# A message that can't be read is left to the queue's own redrive policy, which moves it aside where there is one. Where
# there is none it goes after so many times.
_TIMES: Final = 10
_LONGEST_PAUSE_S: Final = 60.0

Raw = Mapping[str, Any]


class Polled(NamedTuple):
    """Messages of one turn: how many came, and how many of them were deleted."""

    came: int = 0
    done: int = 0


class Queue:
    """One queue. Times are in seconds; credentials are found as boto3 finds them, its endpoint too."""

    def __init__(self, url: str, *, region: str, wait_s: int = WAIT_S, hidden_s: int = HIDDEN_S) -> None:
        self._url = url
        self._wait_s = wait_s
        self._hidden_s = hidden_s
        self._client: Any = boto3.session.Session().client(
            "sqs",
            region_name=region,
            config=Config(
                connect_timeout=CONNECT_S,
                read_timeout=wait_s + READ_S,
                retries={"total_max_attempts": 1, "mode": "standard"},
                tcp_keepalive=True,
                user_agent="notification-scheduler",
            ),
        )

    @classmethod
    def from_settings(cls) -> Self:
        """From SES_EVENTS_QUEUE_URL and AWS_REGION."""
        return cls(settings.SES_EVENTS_QUEUE_URL, region=settings.AWS_REGION)

    def poll(self, *, now: Callable[[], datetime]) -> Polled:
        """Wait for messages, settle their events, and delete them once that is committed.

        Raises ``ClientError`` and ``BotoCoreError`` of SQS, ``OperationalError`` and ``InterfaceError`` of the
        database: whatever was not deleted then comes again.
        """
        messages = self._gather()
        if not messages:
            return Polled()
        done, events = _told(messages)
        done += _settled(events, now()) if events else []
        self._delete(done)
        return Polled(len(messages), len(done))

    def _gather(self) -> list[Raw]:
        """Waits for the first, and takes as many as lie there already."""
        found = self._receive(self._wait_s)
        while found and len(found) % _AT_ONCE == 0 and len(found) < _GATHERED:
            more = self._receive(0)
            if not more:
                break
            found += more
        return found

    def _receive(self, wait_s: int) -> list[Raw]:
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_AT_ONCE,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=self._hidden_s,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return list(answer.get("Messages", ()))

    def _delete(self, messages: Sequence[Raw]) -> None:
        for start in range(0, len(messages), _AT_ONCE):
            some = messages[start : start + _AT_ONCE]
            entries = [{"Id": str(i), "ReceiptHandle": each["ReceiptHandle"]} for i, each in enumerate(some)]
            answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
            if failed := answer.get("Failed"):  # they come again, and are told apart by the ledger's keys
                log.warning("provider_events_undeleted", messages=len(failed), code=failed[0].get("Code", ""))


def run(queue: Queue, *, now: Callable[[], datetime]) -> None:
    """Poll for ever; whoever is away is asked again, after ever longer pauses. Ended by KeyboardInterrupt, at any
    point: what is not deleted comes again."""
    pause = 0.0
    while True:
        try:
            close_old_connections()
            if continuity.restored():  # its runs are not those yet that the events tell of
                polled = Polled()
                time.sleep(WAIT_S)
            else:
                polled = queue.poll(now=now)
            heartbeats.beat(heartbeats.SES_EVENTS)
        except (*AWAY, OperationalError, InterfaceError) as error:
            pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE_S)
            log.error("provider_events_unpolled", error=error, again_in_s=pause)
            connection.close()
            time.sleep(pause)
        else:
            pause = 0.0
            if polled.came:
                log.debug("provider_events_polled", came=polled.came, done=polled.done)


def record_of(body: str) -> str:
    """The record in a message: SNS's envelope is taken off. Raises ``Unreadable``, also for a topic of others."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return body  # nor will the record be readable, but for what SES says in words
    if not isinstance(said, dict) or "TopicArn" not in said:
        return body
    if settings.SNS_TOPICS and said["TopicArn"] not in settings.SNS_TOPICS:
        raise Unreadable("The message's topic is none of those in SNS_TOPICS.")
    text = said.get("Message")
    if said.get("Type") != "Notification" or not isinstance(text, str):
        raise Unreadable("The message is no notification of SNS with a text.")
    return text


def _told(messages: Sequence[Raw]) -> tuple[list[Raw], list[tuple[Raw, ProviderEvent]]]:
    """Messages that are done with, and those that hold an event of which the ledger tells."""
    done: list[Raw] = []
    events: list[tuple[Raw, ProviderEvent]] = []
    unreadable = 0
    for message in messages:
        try:
            event = read(record_of(message["Body"]))
        except Unreadable as error:
            unreadable += 1
            times = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
            log.warning("provider_event_unreadable", reason=error, message_id=message.get("MessageId"), times=times)
            if times >= _TIMES:
                done.append(message)
            continue
        if event is None:
            done.append(message)
        else:
            events.append((message, event))
    if unreadable:
        counts.add({counts.Key(counts.PROVIDER_HOOKS, label="unreadable"): unreadable})
    return done, events


def _settled(events: Sequence[tuple[Raw, ProviderEvent]], now: datetime) -> list[Raw]:
    """The messages whose events are kept. One that can't be keeps no other from it."""
    try:
        settling.settle([event for _, event in events], now=now)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        if len(events) == 1:
            log.exception("provider_event_unsettled", message_id=events[0][0].get("MessageId"), error=error)
            return []
        return [message for each in events for message in _settled([each], now)]
    return [message for message, _ in events]
