"""The providers that the conformance suite is run on, each with a double to speak to.

A provider is added by a case: how to make it, which settings it needs, what a message for it looks like, and how its
double fails.
"""

import abc
import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delivery.models import InboxMessage, OutboxMessage
from delivery.providers import mail
from delivery.providers.base import Message, Provider, Target
from delivery.providers.fcm import FcmProvider
from delivery.providers.in_app import InAppProvider
from delivery.providers.outbox import OutboxProvider
from delivery.providers.ses import SesProvider
from delivery.providers.smtp import SmtpProvider
from delivery.providers.webhook import WebhookProvider
from schedules import standard_webhooks
from schedules.models import Recipient
from stubs.testing import running_fcm, running_ses
from tests import http_double, smtp_double
from tests.conformance.example import EXAMPLE
from tests.http_double import HttpDouble, Reply, Request
from tests.recording import RecordingProvider
from tests.smtp_double import SmtpDouble

POISON = 666  # the recipient whose message a double refuses, when told to
REJECTED = ("refused_alone", "refuses_the_call")
# The ways in which every double can fail. One that is missing would be a test that nobody misses.
WAYS = frozenset({"silence", "half", "garbage", "reset", "error", "throttled", "refused_alone"})


class Double(abc.ABC):
    """The other side of a provider. One serves all tests of its case: `fresh` begins each."""

    url: str = ""

    @abc.abstractmethod
    def fresh(self) -> None:
        """Behave well, and count from here."""

    @abc.abstractmethod
    def reached(self) -> Counter[int]:
        """How often each recipient's message was accepted."""

    def headers(self, recipient: int) -> Mapping[str, str]:
        """What RFC 8058 asks for, as the e-mail to the recipient had it; of doubles of e-mail alone."""
        raise NotImplementedError


class FailingDouble(Double):
    """One that can be told to fail, and counts what it is asked."""

    @abc.abstractmethod
    def requests(self) -> int:
        """Complete requests that asked to send, so far."""

    @abc.abstractmethod
    def fail(self, how: str) -> None:
        """Fail in this way from now on; see `Case.rules`."""


class Case(abc.ABC):
    """A provider. `settings` are those that `from_settings` needs; it has to name one that is missing.

    `rules` says how the double of one that speaks to a server is told to fail; the ways are

    silence, half, garbage, reset   after the whole request was read
    error                           an error of the server's own, such as 500
    throttled                       "slow down", with Retry-After: 7 where there is such a thing
    denied_*                        the account, its credentials or its rights are refused
    refused_alone                   the message to POISON alone; the others are accepted
    refuses_the_call                the whole call, whenever POISON is in it
    """

    provider: type[Provider]
    is_bulk = True  # one request for all messages of a call
    is_double = False  # stands for a provider in other tests, and speaks to nobody
    is_http = True
    # Seconds that "slow down" names; None where the protocol has no word for them.
    retry_after: float | None = 7
    settings: Mapping[str, Any] = {}
    rules: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        return self.provider.name

    @property
    def is_network(self) -> bool:
        return not (self.provider.transactional or self.is_double)

    @property
    def is_email(self) -> bool:
        return "email" in self.provider.channels and not (self.is_push or self.is_double)

    @property
    def is_push(self) -> bool:
        return bool(self.message(1).targets)

    def ways(self) -> frozenset[str]:
        """How its double has to be able to fail, beside refusing the account."""
        return WAYS | {"refuses_the_call"} if self.is_bulk else WAYS

    @contextmanager
    @abc.abstractmethod
    def running(self, folder: Path) -> Iterator[Double]:
        """The double, for as long as the block lasts; `folder` is empty and its own."""

    @abc.abstractmethod
    def make(self, url: str, **timeouts: float) -> Provider:
        """A provider that speaks to `url`, with the timeouts given or its own."""

    def message(self, recipient: int) -> Message:
        return Message(_key(recipient), recipient, self.address(recipient), "Hi", "Hello", "<p>Hello</p>")

    def address(self, recipient: int) -> str:
        return f"{_name(recipient)}@example.com"


def _key(recipient: int) -> str:
    return f"20261121-17-{recipient}"


def _name(recipient: int) -> str:
    return "poison" if recipient == POISON else f"person-{recipient:04d}"


def _to_device(message: Message, token: str) -> Message:
    return message._replace(to="", targets=(Target(message.recipient_id, "android", token),))


class StubDouble(FailingDouble):
    """One of our stubs; a rule is what `stubs.faults` takes."""

    def __init__(self, stub: Any, rules: Mapping[str, Any]) -> None:
        self.url = stub.url
        self._stub = stub
        self._rules = rules
        self._before: tuple[Counter[int], int] = (Counter(), 0)

    def fresh(self) -> None:
        self._stub.clear_faults()
        self._before = (self._accepted(), self._stub.stats()["requests"])

    def reached(self) -> Counter[int]:
        return self._accepted() - self._before[0]

    def requests(self) -> int:
        found: int = self._stub.stats()["requests"]
        return found - self._before[1]

    def fail(self, how: str) -> None:
        self._stub.fault(self._rules[how])

    def headers(self, recipient: int) -> Mapping[str, str]:
        sent = [each for each in self._stub.messages(limit=1000) if each["delivery"] == _key(recipient)]
        found = max(sent, key=lambda each: str(each["message_id"]))
        url = found.get("list_unsubscribe", "")  # which the stub tells of those alone that have the other one, too
        return {"List-Unsubscribe": url, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"} if url else {}

    def _accepted(self) -> Counter[int]:
        return Counter(int(each["delivery"].rsplit("-", 1)[1]) for each in self._stub.messages(limit=1000))


_CUTS = {kind: {"kind": kind} for kind in ("silence", "half", "garbage", "reset")}


class Ses(Case):
    provider = SesProvider
    settings: Mapping[str, Any] = {"EMAIL_FROM": "shop@example.com", "AWS_REGION": "eu-central-1"}
    rules: Mapping[str, Any] = {
        **_CUTS,
        "error": {"kind": "status", "status": 500, "error": "InternalServiceError"},
        "throttled": {"kind": "status", "status": 429, "error": "TooManyRequestsException", "retry_after": 7},
        "denied_signature": {"kind": "status", "status": 403, "error": "SignatureDoesNotMatch"},
        "denied_token": {"kind": "status", "status": 401, "error": "UnrecognizedClientException"},
        "refused_alone": {"kind": "bulk_entry_status", "match": {"to": "poison@*"}, "code": "MESSAGE_REJECTED"},
        "refuses_the_call": {"kind": "status", "match": {"to": "poison@*"}, "status": 400, "error": "MessageRejected"},
    }

    @contextmanager
    def running(self, folder: Path) -> Iterator[Double]:
        with running_ses() as stub:
            yield StubDouble(stub, self.rules)

    def make(self, url: str, **timeouts: float) -> Provider:
        return SesProvider(sender="shop@example.com", region="eu-central-1", endpoint_url=url, **timeouts)


class Fcm(Case):
    provider = FcmProvider
    is_bulk = False
    settings: Mapping[str, Any] = {"FCM_CREDENTIALS": "", "FCM_PROJECT": "shop", "FCM_ENDPOINT": "https://fcm.example"}
    rules: Mapping[str, Any] = {
        **_CUTS,
        "error": {"kind": "status", "error": "INTERNAL"},
        "throttled": {"kind": "status", "error": "QUOTA_EXCEEDED", "retry_after": 7},
        "denied_token": {"kind": "status", "error": "UNAUTHENTICATED"},
        "denied_rights": {"kind": "status", "error": "PERMISSION_DENIED"},
        "refused_alone": {"kind": "status", "match": {"to": "poison*"}, "error": "UNREGISTERED"},
    }

    @contextmanager
    def running(self, folder: Path) -> Iterator[Double]:
        with running_fcm(credentials=folder / "account.json") as stub:
            self._account = str(stub.credentials)
            yield StubDouble(stub, self.rules)

    def make(self, url: str, **timeouts: float) -> Provider:
        return FcmProvider(service_account=self._account, endpoint=url, **timeouts)

    def message(self, recipient: int) -> Message:
        return _to_device(super().message(recipient), self.address(recipient))

    def address(self, recipient: int) -> str:
        return f"{_name(recipient)}:APA91bHun4MxP5egoKMwt2KZFBaFUH"


_HTTP_RULES: Mapping[str, Any] = {
    "silence": http_double.silence,
    "half": http_double.half,
    "garbage": http_double.garbage,
    "reset": http_double.reset,
    "error": Reply(500),
    "throttled": Reply(429, headers={"Retry-After": "7"}),
    "denied_key": Reply(401),
    "denied_rights": Reply(403),
}


class _Program(FailingDouble):
    """A program that answers as a test wants; a rule is a failure or a reply of `tests.http_double`."""

    def __init__(self, server: HttpDouble, rules: Mapping[str, Any]) -> None:
        self.server = server
        self.url = server.url
        self._rules = rules
        server.answer = self._answer
        self.fresh()

    def fresh(self) -> None:
        self._reached: Counter[int] = Counter()
        self._how = ""
        self.server.failure = None
        self.server.requests.clear()

    def reached(self) -> Counter[int]:
        return self._reached

    def requests(self) -> int:
        return len(self.server.requests)

    def fail(self, how: str) -> None:
        self._how = how
        self.server.failure = self._rules[how] if callable(self._rules[how]) else None

    @abc.abstractmethod
    def _answer(self, request: Request) -> Reply:
        """The reply, and who was reached."""


class RelayDouble(_Program):
    """The other side of the page's example."""

    def fresh(self) -> None:
        super().fresh()
        self._headers: dict[int, Mapping[str, str]] = {}

    def headers(self, recipient: int) -> Mapping[str, str]:
        return self._headers[recipient]

    def _answer(self, request: Request) -> Reply:
        keys = {each["id"]: int(each["id"].rsplit("-", 1)[1]) for each in request.json}
        if self._how and (self._how not in REJECTED or (self._how == "refuses_the_call" and POISON in keys.values())):
            reply: Reply = self._rules[self._how]
            return reply
        self._headers |= {keys[each["id"]]: each["headers"] for each in request.json}
        refused = {POISON} if self._how == "refused_alone" else set()
        self._reached.update(set(keys.values()) - refused)
        said = {key: {"error": "no such mailbox"} if to in refused else {"id": f"m{to}"} for key, to in keys.items()}
        return Reply(body=json.dumps(said).encode())


class Example(Case):
    """The provider that the page `docs/providers.md` shows."""

    provider = EXAMPLE
    settings: Mapping[str, Any] = {"RELAY_URL": "https://relay.example"}
    rules: Mapping[str, Any] = {**_HTTP_RULES, "refused_alone": None, "refuses_the_call": Reply(400)}

    @contextmanager
    def running(self, folder: Path) -> Iterator[Double]:
        with HttpDouble() as server:
            yield RelayDouble(server, self.rules)

    def make(self, url: str, **timeouts: float) -> Provider:
        return self.provider(url=url, **timeouts)  # type: ignore[call-arg]


class WebhookDouble(_Program):
    """A program that takes signed messages."""

    def fresh(self) -> None:
        super().fresh()
        self._headers: dict[int, Mapping[str, str]] = {}

    def headers(self, recipient: int) -> Mapping[str, str]:
        return self._headers[recipient]

    def _answer(self, request: Request) -> Reply:
        assert standard_webhooks.is_signed(WEBHOOK_KEYS, request.headers, request.body)
        recipient = int(request.headers["webhook-id"].rsplit("-", 1)[1])
        if self._how and (self._how not in REJECTED or recipient == POISON):
            reply: Reply = self._rules[self._how]
            return reply
        self._headers[recipient] = request.json["data"].get("headers", {})
        self._reached[recipient] += 1
        return Reply(202, json.dumps({"id": f"m{recipient}"}).encode())


WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a good secret").decode()
WEBHOOK_KEYS = standard_webhooks.secrets(WEBHOOK_SECRET)


class Webhook(Case):
    provider = WebhookProvider
    is_bulk = False
    settings: Mapping[str, Any] = {"WEBHOOK_URL": "https://mail.example/in", "WEBHOOK_SECRET": WEBHOOK_SECRET}
    rules: Mapping[str, Any] = {**_HTTP_RULES, "denied_gone": Reply(410), "refused_alone": Reply(422)}

    @contextmanager
    def running(self, folder: Path) -> Iterator[Double]:
        with HttpDouble() as server:
            yield WebhookDouble(server, self.rules)

    def make(self, url: str, **timeouts: float) -> Provider:
        return WebhookProvider(url=url, secret=WEBHOOK_SECRET, **timeouts)


class WebhookPush(Webhook):
    """The same provider on its other channel."""

    name = "webhook_push"
    rules: Mapping[str, Any] = {**Webhook.rules, "refused_alone": Reply(body=json.dumps({"gone": [POISON]}).encode())}

    def message(self, recipient: int) -> Message:
        return _to_device(super().message(recipient), self.address(recipient))


class MailDouble(FailingDouble):
    """A mail server; a rule is a failure of `tests.smtp_double`, or what it says at a stage of the dialogue."""

    def __init__(self, server: SmtpDouble, rules: Mapping[str, Any]) -> None:
        self.server = server
        self.url = server.url
        self._rules = rules

    def fresh(self) -> None:
        self.server.fresh()

    def reached(self) -> Counter[int]:
        return Counter(
            int(mail.message["Message-ID"].strip("<>").split("@")[0].rsplit("-", 1)[1]) for mail in self.server.mails
        )

    def headers(self, recipient: int) -> Mapping[str, str]:
        (sent,) = [each.message for each in self.server.mails if _key(recipient) in each.message["Message-ID"]]
        return {name: value.strip() for name, value in sent.items() if name.startswith("List-")}

    def requests(self) -> int:
        return self.server.ended

    def fail(self, how: str) -> None:
        rule = self._rules[how]
        if callable(rule):
            self.server.failure = rule
        elif how in REJECTED:
            self.server.refused = {"poison@example.com": rule}
        else:
            self.server.replies = dict(rule)


class Smtp(Case):
    provider = SmtpProvider
    is_bulk = False
    is_http = False
    retry_after = None
    settings: Mapping[str, Any] = {
        "SMTP_URL": "submission://shop:secret" + "@mail.example",
        "EMAIL_FROM": "shop@example.com",
        "SMTP_CA_FILE": "",
    }
    rules: Mapping[str, Any] = {
        "silence": smtp_double.silence,
        "half": smtp_double.half,
        "garbage": smtp_double.garbage,
        "reset": smtp_double.reset,
        "error": {".": b"451 4.3.0 Error: queue file write error"},
        "throttled": {"MAIL": b"454 Throttling failure: Maximum sending rate exceeded."},
        "denied_sign_in": {"MAIL": b"530 5.7.0 Must issue a STARTTLS command first"},
        "denied_sender": {"MAIL": b"553 5.7.1 <shop@example.com>: Sender address rejected: not owned by user"},
        "denied_relay": {"RCPT": b"554 5.7.1 <person-0001@example.com>: Relay access denied"},
        "refused_alone": {"RCPT": b"550 5.1.1 <poison@example.com>: Recipient address rejected: User unknown"},
    }

    @contextmanager
    def running(self, folder: Path) -> Iterator[Double]:
        with SmtpDouble() as server:
            yield MailDouble(server, self.rules)

    def make(self, url: str, **timeouts: float) -> Provider:
        url = url.replace("http://", "smtp://").replace("localhost", "127.0.0.1")
        return SmtpProvider(url=url, sender="Shop <shop@example.com>", **timeouts)


class _Rows(Double):
    def __init__(self, model: Any) -> None:
        self._model = model

    def fresh(self) -> None:
        """The database is emptied by the test."""

    def reached(self) -> Counter[int]:
        return Counter(self._model.objects.values_list("recipient_id", flat=True))


class _Outbox(_Rows):
    def headers(self, recipient: int) -> Mapping[str, str]:
        kept = OutboxMessage.objects.get(recipient=recipient)
        return mail.one_click(kept.unsubscribe_url)


class InApp(Case):
    provider = InAppProvider

    @contextmanager
    def running(self, folder: Path) -> Iterator[Double]:
        yield _Rows(InboxMessage)

    def make(self, url: str, **timeouts: float) -> Provider:
        return InAppProvider()


class Outbox(InApp):
    provider = OutboxProvider

    @contextmanager
    def running(self, folder: Path) -> Iterator[Double]:
        yield _Outbox(OutboxMessage)

    def make(self, url: str, **timeouts: float) -> Provider:
        return OutboxProvider()


class OutboxPush(Outbox):
    """The same provider on its other channel."""

    name = "outbox_push"

    def message(self, recipient: int) -> Message:
        return _to_device(super().message(recipient), f"token-{recipient}")


class _Recorded(Double):
    def fresh(self) -> None:
        RecordingProvider.reset()

    def reached(self) -> Counter[int]:
        return RecordingProvider.reached()


class Recording(Case):
    """What other tests take for a provider must be one."""

    provider = RecordingProvider
    is_double = True

    @contextmanager
    def running(self, folder: Path) -> Iterator[Double]:
        yield _Recorded()
        RecordingProvider.reset()

    def make(self, url: str, **timeouts: float) -> Provider:
        return RecordingProvider()


def people(number: int) -> None:
    """The recipients of a case with a database, and the poisoned one."""
    ids = [*range(1, number + 1), POISON]
    Recipient.objects.bulk_create(Recipient(pk=each, external_id=f"person-{each}") for each in ids)


CASES: tuple[Case, ...] = (
    Ses(),
    Smtp(),
    Fcm(),
    Webhook(),
    WebhookPush(),
    Example(),
    InApp(),
    Outbox(),
    OutboxPush(),
    Recording(),
)
