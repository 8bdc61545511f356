"""E-mail through any SMTP server: one message after another over a kept connection.

A server has accepted a message when it says 250 to its end, and not before (RFC 5321, 4.1.1.4 and 6.1). What goes wrong
before the message's first byte has sent nothing, so it may be tried again; from there until the answer it is unclear.
A kept connection that the server has closed meanwhile is opened anew at once.

The dialogue is the standard library's, the message Django's. The delivery's key is the message's id, so that mailboxes
which drop what they have already take a repeat for what it is.
"""

from __future__ import annotations

import os
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from email.utils import parseaddr
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.core.mail.utils import DNS_NAME

from delivery.providers.base import (
    CONNECT_S,
    READ_S,
    Answer,
    Message,
    NotStarted,
    Permit,
    Provider,
    ProviderError,
    Verdict,
)
from delivery.providers.mail import ascii_domain, by_amazons_words, flaw, headers
from schedules.bounded import bounded_file

KEEP_S = 20.0  # seconds that a connection may rest: servers close theirs after some minutes, firewalls earlier
MOST_MESSAGES = 100  # through one connection, as many servers allow
_PORTS = {"smtp": 25, "submission": 587, "smtps": 465}
_MEANING = (
    "the mail server's address: smtps://host (TLS from the start), submission://host (TLS by STARTTLS) or smtp://host"
    " (in clear), with user:password@ before the host"
)
# Servers say in words that it is too fast: no code means that alone. "Throttling failure" is Amazon's.
_SLOW = re.compile(rb"throttl|\brate\b|too (many|fast|much)|slow down", re.IGNORECASE)
_TOO_LARGE = re.compile(rb"\A5\.(2\.3|3\.4)\b|size|too (large|big)", re.IGNORECASE)
_LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)
_NO_RELAY = re.compile(rb"relay", re.IGNORECASE)
_OF_THE_MAILBOX = b"4.2."  # RFC 3463: "Mailbox Status"
# Whoever is left of the call would be told the same.
_OF_THE_ACCOUNT = (Verdict.THROTTLED, Verdict.MISCONFIGURED)


class Server(NamedTuple):
    """Where the server is and how it is spoken to."""

    host: str
    port: int
    user: str
    password: str
    tls: ssl.SSLContext | None
    is_tls_first: bool  # else by STARTTLS


class SmtpProvider(Provider):
    """Connections are made at the first call and kept for the next; threads share them, each call has one of its own.

    Times are in seconds: `connect_timeout` bounds connecting, TLS and signing in, `read_timeout` the dialogue of one
    message. A call takes at most the permit, plus both.
    """

    name: ClassVar[str] = "smtp"
    channels: ClassVar[frozenset[str]] = frozenset({"email"})
    # One after another, all within the permit: what is not begun by then is handed back.
    max_per_call: ClassVar[int] = 20

    def __init__(
        self,
        *,
        url: str,
        sender: str,
        ca_file: str = "",
        connect_timeout: float = CONNECT_S,
        read_timeout: float = READ_S,
    ) -> None:
        self._require(bool(url), "SMTP_URL is empty", _MEANING)
        self._require(
            bool(sender), "EMAIL_FROM is empty", "the address messages come from, e.g. 'Shop <news@shop.example>'"
        )
        self._sender, self._envelope = sender, ascii_domain(parseaddr(sender)[1])
        self._require("@" in self._envelope, f"EMAIL_FROM is {sender!r}", "an address, e.g. 'Shop <news@shop.example>'")
        self._server = self._read(url, ca_file)
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._idle: list[_Line] = []
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls) -> Self:
        """From SMTP_URL, EMAIL_FROM and SMTP_CA_FILE; raises ImproperlyConfigured."""
        return cls(url=settings.SMTP_URL, sender=settings.EMAIL_FROM, ca_file=settings.SMTP_CA_FILE)

    def _read(self, url: str, ca_file: str) -> Server:
        try:  # the address is not quoted: it holds a password
            given = urlsplit(url)
            port = given.port
        except ValueError:
            given, port = urlsplit(""), None
        self._require(given.scheme in _PORTS and bool(given.hostname), "SMTP_URL can't be read", _MEANING)
        tls = None
        if given.scheme != "smtp":
            try:
                tls = ssl.create_default_context(cafile=ca_file or None)
            except OSError as error:
                means = "a file of certificates (PEM), beside the system's"
                self._require(False, f"SMTP_CA_FILE can't be read ({type(error).__name__})", means)
        if tls is not None:
            tls.minimum_version = ssl.TLSVersion.TLSv1_2
        user, password = unquote(given.username or ""), unquote(given.password or "")
        return Server(given.hostname or "", port or _PORTS[given.scheme], user, password, tls, given.scheme == "smtps")

    def _refuse(self, message: Message) -> Answer | None:
        reason = flaw(message)
        return None if reason is None else Answer(message.key, Verdict.PERMANENT, reason)

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        answers: list[Answer] = []
        line: _Line | None = None
        for number, message in enumerate(messages):
            try:
                content = self._mime(message)
            except UnicodeError as error:  # half a surrogate pair, which no mail can carry
                refusal = ProviderError(
                    Verdict.PERMANENT, "invalid_parameter", detail=type(error).__name__, asked=False
                )
                answers.append(refusal.answer(message))
                continue
            try:
                line, answer = self._deliver(line, message, content, permit)
            except ProviderError as error:  # there is no connection: the same for all that are left
                answers += [error.answer(each) for each in messages[number:]]
                break
            answers.append(answer)
            if answer.verdict in _OF_THE_ACCOUNT:
                answers += [answer._replace(key=each.key, asked=False) for each in messages[number + 1 :]]
                break
        if line is not None:
            self._keep(line)
        return answers

    def _deliver(
        self, line: _Line | None, message: Message, content: bytes, permit: Permit
    ) -> tuple[_Line | None, Answer]:
        """One message over `line`, or over another where that has ended. Raises ProviderError where none opens."""
        line = line or self._kept()
        while True:
            is_used = line is not None and line.messages > 0
            if line is None:
                line = self._open(permit)
            if not permit.is_valid():
                return line, NotStarted().answer(message)
            try:
                provider_id = line.deliver(self._envelope, ascii_domain(message.to), content, within=self._read_timeout)
            except _Cut as cut:
                line.close()
                if cut.is_begun:
                    return None, Answer(message.key, Verdict.UNKNOWN, "no_answer", detail=str(cut))
                if is_used:  # the server has closed it while it rested
                    line = None
                    continue
                return None, Answer(message.key, Verdict.TRANSIENT, "unreachable", detail=str(cut))
            except _Said as said:
                answer = said.error().answer(message)
                return (line if line.is_open else None), answer
            return line, Answer(message.key, Verdict.SENT, provider_id=provider_id)

    def _open(self, permit: Permit) -> _Line:
        server = self._server
        try:
            line = _Line(server, permit, within=self._connect_timeout)
        except _Said as said:
            raise said.error() from said
        except _Cut as cut:
            raise ProviderError(Verdict.TRANSIENT, "unreachable", detail=str(cut)) from cut
        except ssl.SSLCertVerificationError as error:
            raise _settings(f"certificate: {error.verify_message}") from error
        except smtplib.SMTPException as error:  # the server knows no STARTTLS, or no way to sign in that we know
            raise _settings(str(error)) from error
        return line

    def _kept(self) -> _Line | None:
        with self._lock:
            if self._pid != os.getpid():  # a fork: they are the parent's
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                line = self._idle.pop()
                if time.monotonic() - line.rests_since < KEEP_S:
                    return line
                line.close()
        return None

    def _keep(self, line: _Line) -> None:
        if line.messages >= MOST_MESSAGES:
            line.leave()
            return
        line.rests_since = time.monotonic()
        with self._lock:
            self._idle.append(line)

    def _mime(self, message: Message) -> bytes:
        is_html = bool(message.html) and not message.text
        mail = EmailMultiAlternatives(
            message.subject,
            message.html if is_html else message.text,
            self._sender,
            [ascii_domain(message.to)],
            headers={"Message-ID": f"<{message.key}@{self._envelope.rpartition('@')[2]}>", **headers(message)},
        )
        if is_html:
            mail.content_subtype = "html"
        elif message.html:
            mail.attach_alternative(message.html, "text/html")
        return mail.message().as_bytes(linesep="\r\n")  # type: ignore[call-arg]  # Django's own argument


def _settings(detail: str) -> ProviderError:
    return ProviderError(Verdict.MISCONFIGURED, "smtp_settings", detail=detail)


class _Cut(Exception):
    """The connection ended, or its time. `is_begun`: bytes of the message may have left."""

    def __init__(self, words: str, *, is_begun: bool) -> None:
        super().__init__(words)
        self.is_begun = is_begun


class _Said(Exception):
    """The server refused. `stage`: greeting, sign_in, sender, recipient or content."""

    def __init__(self, stage: str, code: int, words: bytes) -> None:
        super().__init__(stage)
        self.stage, self.code, self.words = stage, code, words

    def error(self) -> ProviderError:
        verdict, reason = judge(self.stage, self.code, self.words)
        return ProviderError(verdict, reason, detail=f"{self.code} {self.words.decode(errors='replace')}")


def judge(stage: str, code: int, words: bytes) -> tuple[Verdict, str]:
    """What a refusal means, by where it came in the dialogue, its code (RFC 5321, 4.2.3; RFC 4954, 6) and its words."""
    if found := by_amazons_words(words.decode(errors="replace")):
        return found
    if code in (530, 534, 535, 538):
        return Verdict.MISCONFIGURED, "access_denied"
    if 400 <= code < 500:
        is_slow = _SLOW.search(words) and not words.startswith(_OF_THE_MAILBOX)
        return (Verdict.THROTTLED, "throttled") if is_slow else (Verdict.TRANSIENT, "provider_error")
    if not 500 <= code < 600:
        is_unclear = stage == "content"
        return (Verdict.UNKNOWN, "unreadable_answer") if is_unclear else (Verdict.MISCONFIGURED, "unexpected_status")
    if stage in ("greeting", "sign_in"):
        return Verdict.MISCONFIGURED, "access_denied"
    if code == 552 or _TOO_LARGE.search(words):
        return Verdict.PERMANENT, "recipient_refused" if words.startswith(
            b"5.2.2"
        ) else "too_large"  # the mailbox is full
    if stage == "sender":
        return Verdict.MISCONFIGURED, "sender_refused"
    if stage == "recipient":
        if _NO_RELAY.search(words):
            return Verdict.MISCONFIGURED, "access_denied"
        return Verdict.PERMANENT, "recipient_refused"
    return Verdict.PERMANENT, "message_rejected"


class _Line(smtplib.SMTP):
    """A connection that is signed in. Every dialogue ends in its time, also where the server answers by drops."""

    def __init__(self, server: Server, permit: Permit, *, within: float) -> None:
        self.messages = 0
        self.rests_since = 0.0
        self._ends_at = time.monotonic() + within
        self._server, self._permit = server, permit
        self._is_begun = False
        try:
            super().__init__(server.host, server.port, local_hostname=DNS_NAME.get_fqdn(), timeout=within)
            self._greet()
        except BaseException as error:
            self.close()
            raise _translated(error) from error

    def _greet(self) -> None:
        server = self._server
        self.ehlo_or_helo_if_needed()
        if server.tls is not None and not server.is_tls_first:
            self.starttls(context=server.tls)
            self.ehlo_or_helo_if_needed()
        if server.user:
            self.login(server.user, server.password)

    @property
    def is_open(self) -> bool:
        return self.sock is not None

    def deliver(self, sender: str, to: str, content: bytes, *, within: float) -> str:
        """The id that the server gave, if it told one. Raises _Cut and _Said."""
        self._ends_at = time.monotonic() + within
        self._is_begun = False
        self.messages += 1
        try:
            code, words = self.mail(sender, [f"size={len(content)}"] if self.has_extn("size") else [])
            self._expect("sender", code, words)
            code, words = self.rcpt(to)
            self._expect("recipient", code, words)
            code, words = self.data(content)
            self._expect("content", code, words)
        except OSError as error:
            raise _translated(error, is_begun=self._is_begun) from error
        return _queue_id(words)

    def _expect(self, stage: str, code: int, words: bytes) -> None:
        if 200 <= code < 300:
            return
        if code == 421:
            self.close()
        elif self._is_begun and not 400 <= code < 600:
            self.close()  # not a word of this can be trusted any more
        else:
            with suppress(OSError):
                self.rset()
        raise _Said(stage, code, words)

    def data(self, msg: Any) -> tuple[int, bytes]:
        self.putcmd("data")
        code, words = self.getreply()
        if code != 354:
            # Refused before a byte of the message: 2xx would be nonsense here.
            return (code if code >= 400 else 451), words
        self._is_begun = True
        self.send(_LEADING_DOT.sub(b"..", msg).removesuffix(b"\r\n") + b"\r\n.\r\n")
        return self.getreply()

    def leave(self) -> None:
        """Say goodbye; nobody waits for long."""
        self._ends_at = time.monotonic() + 1
        with suppress(OSError):
            self.quit()
        self.close()

    # What the library calls

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        try:
            self._permit.check()
            if self._server.tls is not None and self._server.is_tls_first:
                return self._server.tls.wrap_socket(made, server_hostname=host)
        except BaseException:
            made.close()
            raise
        return made

    def send(self, s: Any) -> None:
        self._bound()
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        self._bound()
        self.file = bounded_file(self.sock)  # what came unasked, before TLS perhaps, is dropped
        return super().getreply()

    def _bound(self) -> None:
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("closed")
        left = self._ends_at - time.monotonic()
        if left <= 0:
            self.close()
            raise smtplib.SMTPServerDisconnected("out of time")
        self.sock.settimeout(left)


def _translated(error: BaseException, *, is_begun: bool = False) -> BaseException:
    """An error of the library as _Cut or _Said, where it is one of the dialogue's. All of its own are OSErrors."""
    match error:
        case smtplib.SMTPResponseException():
            stage = "sign_in" if isinstance(error, smtplib.SMTPAuthenticationError) else "greeting"
            stage = "content" if is_begun else stage
            words = error.smtp_error
            # A text is the library's own: the server's line was none.
            return _Said(stage, error.smtp_code, words) if isinstance(words, bytes) else _Said(stage, -1, b"")
        case smtplib.SMTPServerDisconnected():
            return _Cut("the server ended the connection", is_begun=is_begun)
        case ssl.SSLCertVerificationError() | smtplib.SMTPException():
            return error
        case OSError():
            return _Cut(type(error).__name__, is_begun=is_begun)
    return error


def _queue_id(words: bytes) -> str:
    """The server's own name for what it took, by which its operators find it: the last word, as servers have it."""
    last = words.decode("ascii", errors="replace").split()[-1:]
    return last[0].strip("<>.;,") if last and any(sign.isdigit() for sign in last[0]) else ""
