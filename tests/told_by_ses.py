"""What Amazon SES and SNS would tell, and the hosts of Amazon in memory: for tests."""

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, urlsplit

from schedules import outgoing
from stubs.log import Accepted
from stubs.sns import Sns

TOPIC = "arn:aws:sns:eu-central-1:123456789012:ses-events"
ORIGIN = "https://sns.eu-central-1.amazonaws.com"
LOOPBACK = [ip_network("127.0.0.0/8")]
SENT_AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


def accepted(key: str = "20261121-17-4711", **changes: Any) -> Accepted:
    """A message that SES has taken."""
    made = Accepted(
        at=SENT_AT.isoformat(),
        message_id="0100abcdef012345-000000000001-000000",
        to="eva@example.com",
        subject="Hello",
        delivery=key,
        text="",
        html="",
    )
    return made._replace(**changes)


class Web:
    """In the place of ``schedules.outgoing.fetch``: the hosts of Amazon, and who was called."""

    def __init__(self, *servers: Sns) -> None:
        self.pages = {sns.origin + sns.path: outgoing.Answer(200, {}, sns.certified.pem) for sns in servers}
        self.confirmed: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.error: outgoing.OutgoingError | None = None

    def fetch(self, url: str, **_: Any) -> outgoing.Answer:
        self.calls.append(url)
        if self.error:
            raise self.error
        if "Action=ConfirmSubscription" in url:
            self.confirmed = parse_qs(urlsplit(url).query)
            return outgoing.Answer(200, {}, b"<ConfirmSubscriptionResponse/>")
        return self.pages.get(url, outgoing.Answer(404, {}, b""))
