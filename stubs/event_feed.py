"""How a stub tells what happened to messages: a queue, polled as Amazon SQS is, or calls as Amazon SNS makes them.

POST /    SQS's JSON protocol ("Making Amazon SQS API requests using AWS JSON protocol"): ReceiveMessage with long
          polling and a visibility timeout, DeleteMessage, DeleteMessageBatch. Its messages are records as they are
          (raw message delivery), one queue whatever it is called
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from stubs.http import Request, Response
from stubs.ses_events import Happening, record
from stubs.sns import Sns, body_of

_AT_ONCE = 10  # messages, says SQS
_LOOK_S = 0.05
_MOST = 200_000  # that wait; the eldest go first
_TRIES = 4  # SNS's own: once, and three times more
_JSON = "application/x-amz-json-1.0"


class Feed:
    """What is to be told, each when it is due. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, int, Happening]] = []
        self._numbers = count()

    def put(self, happenings: Iterable[Happening], *, after_s: float = 0.0) -> None:
        begins = time.monotonic() + after_s
        with self._lock:
            for each in happenings:
                heapq.heappush(self._waiting, (begins + each.after_s, next(self._numbers), each))
            while len(self._waiting) > _MOST:
                heapq.heappop(self._waiting)

    def take(self, most: int) -> list[Happening]:
        """Those that are due, the eldest first; they are gone then."""
        now = time.monotonic()
        found: list[Happening] = []
        with self._lock:
            while self._waiting and len(found) < most and self._waiting[0][0] <= now:
                found.append(heapq.heappop(self._waiting)[2])
        return found

    def __len__(self) -> int:
        return len(self._waiting)


def document(happening: Happening) -> str:
    """The record as it is published."""
    at = happening.taken_at + timedelta(seconds=happening.after_s)
    return json.dumps(record(happening.kind, happening.message, at=at, sent_at=happening.taken_at))


class SqsQueue:
    """The feed as a queue of SQS. What was handed out and not deleted comes again."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._out: dict[str, tuple[float, int, Happening]] = {}  # by receipt handle: until when, and how often by then
        self._again: list[tuple[int, Happening]] = []
        self.deleted = 0

    async def answer(self, request: Request) -> Response:
        target = request.headers.get("x-amz-target", "").removeprefix("AmazonSQS.")
        if not request.headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 Credential="):
            return _refused("MissingAuthenticationToken", "The request is not signed.", status=403)
        try:
            asked = json.loads(request.body)
        except ValueError:
            return _refused("SerializationException", "The body is not JSON.")
        if target == "ReceiveMessage":
            return await self._receive(asked)
        if target == "DeleteMessageBatch":
            return self._delete({entry["Id"]: entry["ReceiptHandle"] for entry in asked["Entries"]})
        if target == "DeleteMessage":
            self._delete({"": asked["ReceiptHandle"]})
            return _said({})
        return _refused("UnsupportedOperation", f"{target} is not known here.")

    async def _receive(self, asked: Mapping[str, Any]) -> Response:
        most, hidden = asked.get("MaxNumberOfMessages", 1), asked.get("VisibilityTimeout", 30)
        if not 1 <= most <= _AT_ONCE or not 0 <= asked.get("WaitTimeSeconds", 0) <= 20:
            return _refused("InvalidParameterValue", "1 to 10 messages, and a wait of 0 to 20 seconds.")
        until = time.monotonic() + asked.get("WaitTimeSeconds", 0)
        while not (found := self._take(most)) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
        messages = []
        for times, happening in found:
            handle, body = uuid.uuid4().hex, document(happening)
            self._out[handle] = (time.monotonic() + hidden, times + 1, happening)
            messages.append(
                {
                    "MessageId": str(uuid.uuid4()),
                    "ReceiptHandle": handle,
                    "MD5OfBody": hashlib.md5(body.encode()).hexdigest(),  # noqa: S324 - SQS's own sum
                    "Body": body,
                    "Attributes": {"ApproximateReceiveCount": str(times + 1)},
                }
            )
        return _said({"Messages": messages} if messages else {})

    def _take(self, most: int) -> list[tuple[int, Happening]]:
        now = time.monotonic()
        for handle in [handle for handle, (until, _, _) in self._out.items() if until <= now]:
            _, times, happening = self._out.pop(handle)
            self._again.append((times, happening))
        found, self._again = self._again[:most], self._again[most:]
        return [*found, *((0, each) for each in self._feed.take(most - len(found)))]

    def _delete(self, handles: Mapping[str, str]) -> Response:
        for handle in handles.values():
            self.deleted += self._out.pop(handle, None) is not None
        return _said({"Successful": [{"Id": each} for each in handles], "Failed": []})


class SnsCaller(threading.Thread):
    """Calls ``url`` with each record, as SNS does once the address has confirmed that it wants the topic."""

    def __init__(self, feed: Feed, sns: Sns, url: str, *, pause_s: float = 1.0) -> None:
        super().__init__(daemon=True, name="sns")
        self.confirmed = threading.Event()
        self.answers: dict[int, int] = {}
        self._feed = feed
        self._sns = sns
        self._url = urlsplit(url)
        self._pause_s = pause_s
        self._ended = threading.Event()

    def confirm(self, request: Request) -> Response:
        """What the address asks for to say that it wants the topic."""
        query = request.query
        if query.get("Token") != self._sns.token or query.get("TopicArn") != self._sns.topic:
            return Response(
                400, b"<ErrorResponse><Error><Code>InvalidParameter</Code></Error></ErrorResponse>", "text/xml"
            )
        self.confirmed.set()
        return Response(200, b"<ConfirmSubscriptionResponse/>", "text/xml")

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set() and not self.confirmed.is_set():
            self._post(self._sns.confirmation())
            self.confirmed.wait(self._pause_s)
        while not self._ended.is_set():
            happenings = self._feed.take(_AT_ONCE)
            for each in happenings:
                self._tell(document(each))
            if not happenings:
                self._ended.wait(_LOOK_S)

    def _tell(self, text: str) -> None:
        message = self._sns.notification(text)
        for _ in range(_TRIES):
            status = self._post(message)
            if 200 <= status < 500 or self._ended.wait(self._pause_s):
                return

    def _post(self, message: Mapping[str, Any]) -> int:
        status = 0
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=15)
            connection.request("POST", self._url.path, body_of(message), self._sns.headers(message))
            status = connection.getresponse().status
            connection.close()
        self.answers[status] = self.answers.get(status, 0) + 1
        return status


def _said(content: Mapping[str, Any]) -> Response:
    return Response(200, json.dumps(content).encode(), _JSON)


def _refused(error: str, words: str, *, status: int = 400) -> Response:
    return Response(status, json.dumps({"__type": f"com.amazonaws.sqs#{error}", "message": words}).encode(), _JSON)
