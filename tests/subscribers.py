"""A subscriber's program for tests: what it was sent, and whether the signature is good, by ten lines of its own."""

import base64
import hashlib
import hmac
import json
import socket
import time
from datetime import datetime
from ipaddress import ip_network
from typing import Any

from delivery.endpoint_models import Attempt, Endpoint, Event, Posting
from delivery.subscribers import calling, operations
from tests.factories import BY, NOW
from tests.http_double import HttpDouble, Request

LOOPBACK = [ip_network("127.0.0.0/8")]


def subscribed(double: HttpDouble, *types: str, now: Any = NOW, path: str = "/in") -> Endpoint:
    return operations.create(url=f"{double.url}{path}", description="Shop", types=types, by=BY, now=now)


def is_good(request: Request, secret: str) -> bool:
    """As the specification says it, without our own code."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    event_id, at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    assert abs(time.time() - int(at)) < 300
    signed = f"{event_id}.{at}.".encode() + request.body
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return wanted in request.headers["webhook-signature"].split(" ")


def serve() -> int:
    """Call what is due in this thread, hence in the test's own transaction."""
    return sum(calling.serve(lease, ends_at=time.monotonic() + 30) for lease in calling.take())


def got(double: HttpDouble, event_type: str = "") -> list[dict[str, Any]]:
    """The events that arrived, in their order."""
    found = [json.loads(request.body) for request in double.requests]
    return [event for event in found if event_type in ("", event["type"])]


def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/in"


def shown(*, now: datetime = NOW) -> Posting:
    """An endpoint that nobody asks about, with an event that waits after a refusal, and one that arrived."""
    endpoint = Endpoint.objects.create(
        url="https://shop.example.com/hooks",
        description="Shop",
        types=["occurrence.finished"],
        secret="whsec_" + base64.b64encode(b"s" * 32).decode(),
        created_at=now,
        created_by=BY,
    )
    waiting, arrived = [
        Posting.objects.create(
            endpoint=endpoint,
            event=Event.objects.create(
                event_id=f"evt_{endpoint.pk}_{number}", type="occurrence.finished", occurred_at=now, data={}
            ),
            attempts=1,
        )
        for number in range(2)
    ]
    Posting.objects.filter(pk=arrived.pk).update(state=Posting.State.DELIVERED, due_at=None, settled_at=now)
    for posting, outcome, status, answer in (
        (waiting, "refused", 400, "<b>What is this?</b>"),
        (arrived, "delivered", 200, ""),
    ):
        Attempt.objects.create(posting=posting, at=now, duration_ms=12, outcome=outcome, status=status, answer=answer)
    return waiting
