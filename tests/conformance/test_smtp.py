"""What only a mail server does: TLS by two ways, signing in, dialogues that end in the middle, mails as they arrive."""

import os
import ssl
import time

import pytest
from django.core.exceptions import ImproperlyConfigured

from delivery.providers.base import Message, Permit, Verdict
from delivery.providers.smtp import SmtpProvider, judge
from tests import smtp_double, tls
from tests.http_double import PATIENCE_S
from tests.smtp_double import SmtpDouble

SHORT = {"connect_timeout": 0.5, "read_timeout": 0.5}
SENDER = "Bücher & mehr <news@bücher.example>"


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    return tls.drawn(tmp_path_factory.mktemp("paper"))


def context(paper) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(paper.certificate, paper.key)
    return made


@pytest.fixture
def server():
    with SmtpDouble() as double:
        yield double


def provider(server: SmtpDouble, **options) -> SmtpProvider:
    return SmtpProvider(url=server.url, sender=SENDER, **options)


def message(number: int = 1, **parts) -> Message:
    given = {"to": f"person-{number}@example.com", "subject": "Hi", "text": "Hello", "html": ""} | parts
    return Message(f"20261121-17-{number}", number, **given)


def send(made: SmtpProvider, *messages: Message, permit: Permit | None = None):
    return made.send(messages or [message()], permit=permit or Permit.lasting(60))


def verdicts(answers) -> list[tuple[Verdict, str]]:
    return [(answer.verdict, answer.reason) for answer in answers]


SENT = (Verdict.SENT, "")


# The mail


def test_a_mail_arrives_as_it_was_rendered_in_both_parts(server):
    text = "Grüße\n.\n.. two dots\nand a line of " + "x" * 2000
    (answer,) = send(provider(server), message(subject="Grüße – ✓", text=text, html="<p>Grüße</p>\n.\n"))
    assert answer.provider_id == "4Xq7"
    (mail,) = server.mails
    assert (mail.sender, mail.to) == ("news@xn--bcher-kva.example", "person-1@example.com")
    read = mail.message
    assert read["Subject"] == "Grüße – ✓"
    assert str(read["From"].addresses[0].display_name) == "Bücher & mehr"
    assert read["To"] == "person-1@example.com"
    assert read["Message-ID"] == "<20261121-17-1@xn--bcher-kva.example>"
    assert read["Date"]
    assert read.get_body(("plain",)).get_content().replace("\r\n", "\n").strip() == text
    assert read.get_body(("html",)).get_content().replace("\r\n", "\n") == "<p>Grüße</p>\n.\n"


@pytest.mark.parametrize(
    ("parts", "kind"),
    [({"html": "<p>x</p>", "text": ""}, "text/html"), ({"text": "x"}, "text/plain"), ({"text": ""}, "text/plain")],
)
def test_a_part_that_the_template_lacks_is_none_of_the_mail(server, parts, kind):
    assert verdicts(send(provider(server), message(**parts))) == [SENT]
    assert server.mails[0].message.get_content_type() == kind


def test_a_domain_in_other_letters_is_written_in_punycode(server):
    assert verdicts(send(provider(server), message(to="anna@bücher.example"))) == [SENT]
    assert server.mails[0].to == "anna@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"to": ""}, "no_address"),
        ({"to": "a@b.example, c@d.example"}, "no_address"),
        ({"to": "a@b.example\r\nRCPT TO:<c@d.example>"}, "line_break_in_header"),
        ({"subject": "Hi\r\nBcc: c@d.example"}, "line_break_in_header"),
        ({"to": "änne@b.example"}, "address_not_ascii"),
        ({"text": "half a pair \ud83d"}, "invalid_parameter"),
    ],
)
def test_what_no_server_would_take_fails_alone_and_asks_nobody(server, parts, reason):
    answers = send(provider(server), message(1), message(2, **parts), message(3))
    assert verdicts(answers) == [SENT, (Verdict.PERMANENT, reason), SENT]
    assert not answers[1].asked
    assert len(server.mails) == 2


# TLS and signing in


@pytest.mark.parametrize("is_tls_first", [True, False], ids=["smtps", "submission"])
def test_it_signs_in_over_tls_alone(paper, is_tls_first):
    with SmtpDouble(tls=context(paper), is_tls_first=is_tls_first, user="shop:s%20cret") as server:
        server.user = "shop:s cret"
        made = SmtpProvider(
            url=server.url.replace("s cret", "s%20cret"), sender=SENDER, ca_file=str(paper.authority), **SHORT
        )
        assert verdicts(send(made)) == [SENT]
        assert server.signed_in == ["shop:s cret"]


@pytest.mark.parametrize("is_tls_first", [True, False], ids=["smtps", "submission"])
def test_a_certificate_of_a_stranger_ends_it_before_anything_is_said(paper, is_tls_first):
    with SmtpDouble(tls=context(paper), is_tls_first=is_tls_first, user="shop:secret") as server:
        (answer,) = send(SmtpProvider(url=server.url, sender=SENDER, ca_file=str(paper.stranger), **SHORT))
    assert (answer.verdict, answer.reason) == (Verdict.MISCONFIGURED, "smtp_settings")
    assert "certificate" in answer.detail
    assert not server.signed_in
    assert not server.mails


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")  # it is these that are asked for
def test_old_versions_of_tls_are_not_spoken(paper):
    old = context(paper)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with SmtpDouble(tls=old, is_tls_first=True) as server:
        (answer,) = send(SmtpProvider(url=server.url, sender=SENDER, ca_file=str(paper.authority), **SHORT))
    assert (answer.verdict, answer.reason) == (Verdict.TRANSIENT, "unreachable")
    assert not server.mails


def test_a_server_that_knows_no_tls_is_not_spoken_to_in_clear(server):
    url = server.url.replace("smtp://", "submission://shop:secret@")
    (answer,) = send(SmtpProvider(url=url, sender=SENDER, **SHORT))
    assert (answer.verdict, answer.reason) == (Verdict.MISCONFIGURED, "smtp_settings")
    assert "STARTTLS" in answer.detail


def test_a_wrong_password_is_the_accounts_fault_and_is_told_nowhere(paper):
    with SmtpDouble(tls=context(paper), user="shop:secret") as server:
        url = server.url.replace("secret", "a-mistyped-one")
        made = SmtpProvider(url=url, sender=SENDER, ca_file=str(paper.authority), **SHORT)
        answers = send(made, message(1), message(2))
    assert verdicts(answers) == [(Verdict.MISCONFIGURED, "access_denied")] * 2
    assert len(server.signed_in) == 1
    assert "mistyped" not in answers[0].detail


@pytest.mark.parametrize(
    "url", ["mail.example", "http://mail.example", "smtp://", "smtp://mail.example:99999", "smtps://u:pass word@[::1"]
)
def test_an_address_that_cant_be_read_is_named_without_its_password(url):
    with pytest.raises(ImproperlyConfigured, match="SMTP_URL can't be read") as caught:
        SmtpProvider(url=url, sender=SENDER)
    assert "pass word" not in str(caught.value)


def test_a_file_of_authorities_that_is_none_is_named(tmp_path):
    with pytest.raises(ImproperlyConfigured, match="SMTP_CA_FILE"):
        SmtpProvider(url="smtps://mail.example", sender=SENDER, ca_file=str(tmp_path / "none.pem"))


# Connections


def test_a_connection_serves_many_calls(server):
    made = provider(server)
    for number in range(5):
        assert verdicts(send(made, message(number), message(number + 10))) == [SENT, SENT]
    assert server.connections == 1


def test_a_connection_that_the_server_has_closed_meanwhile_is_opened_anew_and_costs_nobody_anything(server):
    made = provider(server)
    server.most = 2
    server.failure, server.fails_at = None, "."
    answers = send(made, *map(message, range(1, 4)))
    # The third was refused with 421 where it began: a connection's end, which is tried again later.
    assert verdicts(answers) == [SENT, SENT, (Verdict.TRANSIENT, "provider_error")]
    assert verdicts(send(made, message(4))) == [SENT]
    server.failure, server.fails_at = smtp_double.reset, "MAIL"

    def comes_back(talk) -> None:
        server.failure = None
        smtp_double.reset(talk)

    server.failure = comes_back
    assert verdicts(send(made, message(5))) == [SENT]
    assert [mail.to for mail in server.mails] == [f"person-{n}@example.com" for n in (1, 2, 4, 5)]


def test_one_that_ends_at_once_whenever_it_is_opened_is_not_opened_for_ever(server):
    server.failure, server.fails_at = smtp_double.reset, "MAIL"
    assert verdicts(send(provider(server))) == [(Verdict.TRANSIENT, "unreachable")]
    assert server.connections == 1


def test_what_is_not_begun_within_the_permit_is_handed_back(server):
    class ForTwo(Permit):
        def is_valid(self) -> bool:
            return len(server.mails) < 2

    answers = send(provider(server), *map(message, range(1, 5)), permit=ForTwo(0))
    assert verdicts(answers) == [SENT, SENT, *[(Verdict.NOT_STARTED, "permit_expired")] * 2]


def test_a_child_does_not_speak_over_the_parents_connection(server):
    made = provider(server)
    send(made)
    child = os.fork()
    if not child:
        (answer,) = send(made, message(2))
        os._exit(0 if answer.verdict is Verdict.SENT else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert verdicts(send(made, message(3))) == [SENT]
    assert server.connections == 2


# Where a dialogue breaks


@pytest.mark.parametrize("stage", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("failure", [smtp_double.silence, smtp_double.reset, smtp_double.drip(b"250-")])
def test_what_breaks_before_the_messages_first_byte_may_be_tried_again(server, stage, failure):
    server.failure, server.fails_at = failure, stage
    started = time.monotonic()
    (answer,) = send(provider(server, **SHORT))
    assert (answer.verdict, answer.reason) == (Verdict.TRANSIENT, "unreachable")
    assert time.monotonic() - started < PATIENCE_S
    assert server.ended == 0


@pytest.mark.parametrize(
    "failure",
    [
        smtp_double.silence,
        smtp_double.reset,
        smtp_double.half,
        smtp_double.garbage,
        smtp_double.drip(b""),
        smtp_double.drip(b"250-"),
    ],
)
def test_what_breaks_after_it_is_unclear_and_is_said_once(server, failure):
    server.failure = failure
    started = time.monotonic()
    answers = send(provider(server, **SHORT), message(1), message(2), permit=Permit.lasting(5))
    assert answers[0].verdict is Verdict.UNKNOWN
    assert time.monotonic() - started < PATIENCE_S
    assert server.ended == sum(answer.verdict is Verdict.UNKNOWN for answer in answers)


def test_a_refusal_names_nobody_and_can_be_kept(server):
    server.replies = {
        "RCPT": b"550-5.1.1 <person-1@example.com> is \x00 unknown\r\n550 5.1.1 person-1@example.com \xff"
    }
    (answer,) = send(provider(server))
    assert (answer.verdict, answer.reason) == (Verdict.PERMANENT, "recipient_refused")
    assert "person-1" not in answer.detail
    assert "\x00" not in answer.detail
    assert answer.detail.startswith("550 5.1.1 ")


def test_after_one_refusal_of_the_account_the_others_of_the_call_are_not_tried(server):
    server.replies = {"MAIL": b"450 4.7.1 Error: too much mail from 192.0.2.1"}
    answers = send(provider(server), *map(message, range(1, 4)))
    assert verdicts(answers) == [(Verdict.THROTTLED, "throttled")] * 3
    assert [answer.asked for answer in answers] == [True, False, False]


@pytest.mark.parametrize(
    ("stage", "said", "verdict", "reason"),
    [
        ("greeting", "554 5.3.2 not here", Verdict.MISCONFIGURED, "access_denied"),
        ("greeting", "421 4.3.2 busy", Verdict.TRANSIENT, "provider_error"),
        ("sign_in", "535 5.7.8 wrong", Verdict.MISCONFIGURED, "access_denied"),
        ("sign_in", "454 4.7.0 Temporary authentication failure", Verdict.TRANSIENT, "provider_error"),
        ("sender", "530 5.7.0 Authentication required", Verdict.MISCONFIGURED, "access_denied"),
        ("sender", "552 5.3.4 Message size exceeds fixed limit", Verdict.PERMANENT, "too_large"),
        ("sender", "550 5.7.1 not yours", Verdict.MISCONFIGURED, "sender_refused"),
        ("recipient", "550 5.1.1 unknown", Verdict.PERMANENT, "recipient_refused"),
        ("recipient", "552 5.2.2 Mailbox full", Verdict.PERMANENT, "recipient_refused"),
        ("recipient", "554 5.7.1 Relay access denied", Verdict.MISCONFIGURED, "access_denied"),
        ("recipient", "450 4.2.0 Greylisted", Verdict.TRANSIENT, "provider_error"),
        ("recipient", "450 4.2.1 receiving mail at a rate that", Verdict.TRANSIENT, "provider_error"),
        ("recipient", "452 4.5.3 too many recipients", Verdict.THROTTLED, "throttled"),
        ("content", "554 5.6.0 spam", Verdict.PERMANENT, "message_rejected"),
        ("content", "552 5.2.3 Message too large", Verdict.PERMANENT, "too_large"),
        ("content", "451 4.3.0 disk", Verdict.TRANSIENT, "provider_error"),
        ("content", "354 what", Verdict.UNKNOWN, "unreadable_answer"),
        ("content", "-1 ", Verdict.UNKNOWN, "unreadable_answer"),
        # As Amazon SES's SMTP interface has it ("SMTP response codes returned by Amazon SES").
        ("content", "454 Throttling failure: Maximum sending rate exceeded.", Verdict.THROTTLED, "throttled"),
        ("content", "454 Throttling failure: Daily message quota exceeded.", Verdict.MISCONFIGURED, "daily_quota"),
        (
            "content",
            "554 Message rejected: Email address is not verified.",
            Verdict.MISCONFIGURED,
            "identity_not_verified",
        ),
    ],
)
def test_a_refusal_means_what_its_stage_code_and_words_say(stage, said, verdict, reason):
    code, _, words = said.partition(" ")
    assert judge(stage, int(code), words.encode()) == (verdict, reason)
