"""Header injection: what people write into names, subjects and addresses never becomes a header, a recipient or a body.

The raw request that SES would receive is looked at, and the mail that a careless mailer would make of it; of a mail
server the raw mail, as it comes over the wire.
"""

import json
import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import SMTP, compat32

import pytest

from delivery.providers.base import Message, Permit, Verdict
from delivery.providers.ses import SesProvider
from delivery.providers.smtp import SmtpProvider
from delivery.rendering import RenderError, Shared, render_many
from schedules.content import CONTROL, Content
from schedules.imports.values import Refused, read_email
from tests.corpora import corpus
from tests.http_double import HttpDouble, Reply, Request
from tests.smtp_double import Mail, SmtpDouble

SHARED = Shared(schedule_name="News", schedule_zone="UTC", occurrence_at=datetime(2026, 11, 22, tzinfo=UTC))


@pytest.fixture(autouse=True)
def _credentials(monkeypatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def _accepting(request: Request) -> Reply:
    entries = request.json["BulkEmailEntries"]
    results = [{"Status": "SUCCESS", "MessageId": f"m{number}"} for number, _ in enumerate(entries)]
    return Reply(body=json.dumps({"BulkEmailEntryResults": results}).encode())


def _send(messages: list[Message]) -> tuple[list[Verdict], list[Request]]:
    """What became of each, and the requests as they came over the wire."""
    with HttpDouble(_accepting) as double:
        sender = "Shop <shop@example.com>"
        provider = SesProvider(sender=sender, region="eu-central-1", endpoint_url=double.url)
        verdicts = [
            answer.verdict
            for first in range(0, len(messages), 50)
            for answer in provider.send(messages[first : first + 50], permit=Permit.lasting(60))
        ]
        return verdicts, list(double.requests)


def _entries(requests: list[Request]) -> list[dict]:
    """Each entry, after a look at its whole request: nothing in it but what the provider puts there."""
    found = []
    for request in requests:
        body = request.json
        assert body["FromEmailAddress"] == "Shop <shop@example.com>"
        assert body.keys() <= {"FromEmailAddress", "DefaultContent", "BulkEmailEntries", "ConfigurationSetName"}
        for entry in body["BulkEmailEntries"]:
            assert entry.keys() == {"Destination", "ReplacementTags", "ReplacementEmailContent"}
            assert entry["Destination"].keys() == {"ToAddresses"}
            found.append(entry)
    return found


def _as_mail(*, to: str, subject: str) -> bytes:
    """As a mailer would that checks nothing."""
    head = f"From: shop@example.com\r\nTo: {to}\r\nSubject: {subject}\r\nContent-Type: text/plain\r\n\r\n"
    return head.encode("utf-8", "replace") + b"Hello\r\n"


def test_the_corpus_is_large_enough():
    assert len(corpus("headers")) >= 200


def test_a_name_in_a_subject_stays_in_the_subject():
    hostile = corpus("headers")
    contents = [Content(channel="email", locale="en", subject="Hi {{ name }}", text="Hello", html="")]
    people = [
        {"external_id": "p", "locale": "en", "time_zone": "UTC", "attributes": {"name": name}} for name in hostile
    ]
    rendered = render_many(contents=contents, channel="email", recipients=people, shared=SHARED)
    refused = [name for name, each in zip(hostile, rendered, strict=True) if isinstance(each, RenderError)]
    assert refused == [name for name in hostile if CONTROL.search(name)]
    subjects = [each.subject for each in rendered if not isinstance(each, RenderError)]
    messages = [
        Message(f"20261122-1-{number}", number, "ann@example.com", subject=subject, text="Hello", html="")
        for number, subject in enumerate(subjects)
    ]
    verdicts, requests = _send(messages)
    assert set(verdicts) == {Verdict.SENT}
    entries = _entries(requests)
    assert len(entries) == len(subjects)
    for subject, entry in zip(subjects, entries, strict=True):
        assert entry["Destination"]["ToAddresses"] == ["ann@example.com"]
        content = entry["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"]
        assert json.loads(content) == {"subject": subject, "text": "Hello"}
        for policy in (SMTP, compat32):
            mail = message_from_bytes(_as_mail(to="ann@example.com", subject=subject), policy=policy)
            assert sorted(mail.keys()) == ["Content-Type", "From", "Subject", "To"], subject
            assert mail.get_payload().strip() == "Hello"


def test_a_subject_that_no_template_checked_never_leaves_with_a_line_break():
    hostile = corpus("headers")
    messages = [
        Message(f"20261122-1-{number}", number, "ann@example.com", subject=f"Hi{each}", text="Hello", html="")
        for number, each in enumerate(hostile)
    ]
    verdicts, requests = _send(messages)
    assert [each for each, verdict in zip(hostile, verdicts, strict=True) if verdict is Verdict.SENT] == [
        each for each in hostile if not CONTROL.search(each)
    ]
    for entry in _entries(requests):
        content = entry["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"]
        assert not CONTROL.search(json.loads(content)["subject"])


def test_an_address_is_one_address_or_none():
    hostile = corpus("headers")
    addresses = [f"ann@example.com{each}" for each in hostile] + [f"{each}@example.com" for each in hostile] + hostile
    messages = [
        Message(f"20261122-1-{number}", number, address, subject="Hi", text="Hello", html="")
        for number, address in enumerate(addresses)
    ]
    _, requests = _send(messages)
    for entry in _entries(requests):
        (to,) = entry["Destination"]["ToAddresses"]
        assert to.count("@") == 1, to
        assert not CONTROL.search(to)
        assert not set(to) & set(' ,;<>"()[]'), to
        mail = message_from_bytes(_as_mail(to=to, subject="Hi"), policy=compat32)
        assert sorted(mail.keys()) == ["Content-Type", "From", "Subject", "To"], to


def _mailed(messages: list[Message]) -> tuple[list[Verdict], list[Mail]]:
    """What became of each, and the mails that the server took, whatever the dialogue made of them."""
    with SmtpDouble() as server:
        provider = SmtpProvider(url=server.url, sender="Shop <shop@example.com>")
        most = provider.max_per_call
        verdicts = [
            answer.verdict
            for first in range(0, len(messages), most)
            for answer in provider.send(messages[first : first + most], permit=Permit.lasting(60))
        ]
        return verdicts, list(server.mails)


_HEADERS = ["Content-Transfer-Encoding", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To"]


def _is_one_mail(mail: Mail) -> None:
    assert mail.sender == "shop@example.com"
    assert mail.to.count("@") == 1
    for policy in (SMTP, compat32):
        assert sorted(message_from_bytes(mail.content, policy=policy).keys()) == _HEADERS, mail.content
    raw = message_from_bytes(mail.content, policy=compat32)  # no encoded word is read
    assert (raw["From"], raw["To"]) == ("Shop <shop@example.com>", mail.to)


def test_no_subject_becomes_a_header_on_the_wire():
    hostile = corpus("headers")
    messages = [
        Message(f"20261122-1-{number}", number, "ann@example.com", subject=f"Hi{each}", text="Hello", html="")
        for number, each in enumerate(hostile)
    ]
    verdicts, mails = _mailed(messages)
    assert [each for each, verdict in zip(hostile, verdicts, strict=True) if verdict is Verdict.SENT] == [
        each for each in hostile if not CONTROL.search(each)
    ]
    assert len(mails) == verdicts.count(Verdict.SENT) > 20
    for mail in mails:
        _is_one_mail(mail)
        assert mail.to == "ann@example.com"


def test_no_text_becomes_a_second_mail_on_the_wire():
    """Whatever of CR, LF and dots a server may take for the end of a message (SMTP smuggling)."""
    end = ("\r\n.\r\n", "\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\n.\r", "\r\n\0.\r\n")
    second = "MAIL FROM:<evil@evil.example>\r\nRCPT TO:<victim@evil.example>\r\nDATA\r\nSubject: second\r\n\r\nHello"
    messages = [
        Message(
            f"20261122-1-{number}",
            number,
            "ann@example.com",
            subject="Hi",
            text=f"First{each}{end[number % len(end)]}{second}{end[number % len(end)]}QUIT\r\n",
            html="",
        )
        for number, each in enumerate(corpus("headers"))
    ]
    verdicts, mails = _mailed(messages)
    assert set(verdicts) == {Verdict.SENT}
    assert len(mails) == len(messages)
    for mail in mails:
        _is_one_mail(mail)
        assert mail.to == "ann@example.com"
        assert b"victim@evil.example" in mail.message.get_payload(decode=True)
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)", mail.content)  # a line ends in one way alone


def test_no_address_becomes_a_second_one_on_the_wire():
    hostile = corpus("headers")
    addresses = [f"ann@example.com{each}" for each in hostile] + [f"{each}@example.com" for each in hostile] + hostile
    messages = [
        Message(f"20261122-1-{number}", number, address, subject="Hi", text="Hello", html="")
        for number, address in enumerate(addresses)
    ]
    verdicts, mails = _mailed(messages)
    assert len(mails) == verdicts.count(Verdict.SENT)
    assert mails
    for mail in mails:
        _is_one_mail(mail)
        assert not CONTROL.search(mail.to)
        assert not set(mail.to) & set(' ,;<>"()[]'), mail.to
        assert mail.message.get_payload().strip() == "Hello"


def test_no_door_keeps_an_address_with_a_break_or_a_second_one():
    for each in corpus("headers"):
        for address in (f"ann@example.com{each}", f"ann{each}@example.com"):
            try:
                kept = read_email(address)
            except Refused:
                continue
            assert kept.count("@") == 1, address
            assert not CONTROL.search(kept), address
            assert not set(kept) & set(' ,;<>"()[]'), address
