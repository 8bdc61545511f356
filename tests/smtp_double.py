"""A mail server that behaves as a test wants, or fails in one of the ways in which mail servers fail.

It runs in threads of the test's process and speaks as much of RFC 5321, 3207 and 4954 as a client of ours says.
"""

import base64
import email
import email.policy
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any, NamedTuple

Replies = Mapping[str, bytes]
_TAKEN = b"250 2.0.0 Ok: queued as 4Xq7"


class Mail(NamedTuple):
    """One that was accepted: the envelope, and what was said after DATA."""

    sender: str
    to: str
    content: bytes
    at: datetime

    @property
    def message(self) -> EmailMessage:
        made = email.message_from_bytes(self.content, policy=email.policy.default)
        assert isinstance(made, EmailMessage)
        return made


def silence(talk: "_Talk") -> None:
    """Says nothing until the client goes away."""
    talk.sock.settimeout(300)
    talk.sock.recv(1)


def half(talk: "_Talk") -> None:
    talk.sock.sendall(b"2")


def garbage(talk: "_Talk") -> None:
    talk.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def reset(talk: "_Talk") -> None:
    talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drip(said: bytes) -> "Callable[[_Talk], None]":
    """Says that at once, and then goes on with a line that never ends."""

    def answer(talk: "_Talk") -> None:
        talk.sock.sendall(said)
        for _ in range(2_000):
            time.sleep(0.15)
            talk.sock.sendall(b"-")

    return answer


class SmtpDouble:
    """A context manager.

    `replies`: what it says instead of its own words at ``greeting``, ``EHLO``, ``AUTH``, ``MAIL``, ``RCPT``, ``DATA``
    and ``.`` (the end of a message); `refused`: the same for single recipients. `failure`: a function above, in place
    of the answer to a whole message, or of the stage `fails_at`. `mails`: what was accepted; `ended`: messages that
    arrived complete; `connections` made so far, `open_now` of them still; `most`: messages that one may carry.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, is_tls_first: bool = False, user: str = "") -> None:
        self.replies: dict[str, bytes] = {}
        self.refused: dict[str, Replies] = {}
        self.failure: Callable[[_Talk], None] | None = None
        self.fails_at = "."
        self.most = 1_000
        self.mails: list[Mail] = []
        self.ended = self.connections = self.open_now = 0
        self.tls, self.is_tls_first, self.user = tls, is_tls_first, user
        self.signed_in: list[str] = []
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Talk)
        self._server.double = self

    @property
    def port(self) -> int:
        found: int = self._server.server_address[1]
        return found

    @property
    def url(self) -> str:
        scheme = "smtp" if self.tls is None else "smtps" if self.is_tls_first else "submission"
        at = f"{self.user}@" if self.user else ""
        return f"{scheme}://{at}localhost:{self.port}"

    def fresh(self) -> None:
        self.replies, self.refused, self.failure = {}, {}, None
        self.mails.clear()
        self.ended = 0

    def __enter__(self) -> "SmtpDouble":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 200
    double: SmtpDouble


class _Talk(socketserver.BaseRequestHandler):
    server: _Server
    sock: Any

    def handle(self) -> None:
        self.double, self.sock = self.server.double, self.request
        with self.double.lock:
            self.double.connections += 1
            self.double.open_now += 1
        try:
            self._talk()
        except (OSError, EOFError):  # the client went away
            pass
        finally:
            with self.double.lock:
                self.double.open_now -= 1
            with suppress(OSError):
                self.sock.close()

    def _talk(self) -> None:
        self.encrypted = False
        self.sender = self.to = ""
        self.carried = 0
        if self.double.is_tls_first:
            self._encrypt()
        self.file = self.sock.makefile("rb")
        goes_on = self._say("greeting", b"220 double")
        while goes_on:
            verb, _, rest = self._line().partition(b" ")
            answer = getattr(self, f"_{verb.decode().lower()}", None)
            assert answer is not None, verb
            goes_on = answer(rest)

    def _ehlo(self, rest: bytes) -> bool:
        return self._say("EHLO", self._extensions())

    def _starttls(self, rest: bytes) -> bool:
        self.sock.sendall(b"220 go\r\n")
        self._encrypt()
        self.file = self.sock.makefile("rb")
        return True

    def _auth(self, rest: bytes) -> bool:
        return self._say("AUTH", self._sign_in(rest))

    def _mail(self, rest: bytes) -> bool:
        self.carried += 1
        self.sender = _address(rest)
        return self._say("MAIL", b"250 ok" if self.carried <= self.double.most else b"421 4.3.2 enough for one")

    def _rcpt(self, rest: bytes) -> bool:
        self.to = _address(rest)
        return self._say("RCPT", b"250 ok")

    def _rset(self, rest: bytes) -> bool:
        self.sock.sendall(b"250 ok\r\n")
        return True

    def _quit(self, rest: bytes) -> bool:
        self.sock.sendall(b"221 bye\r\n")
        return False

    def _data(self, rest: bytes) -> bool:
        if not self._say("DATA", b"354 go"):
            return False
        if not self._reply("DATA", b"354 go").startswith(b"354"):
            return True
        lines = []
        while (line := self._line()) != b".":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        is_taken = self._reply(".", _TAKEN).startswith(b"250") and self.double.failure is None
        with self.double.lock:
            self.double.ended += 1
            if is_taken:
                self.double.mails.append(Mail(self.sender, self.to, b"\r\n".join(lines) + b"\r\n", datetime.now(UTC)))
        return self._say(".", _TAKEN)

    def _say(self, stage: str, words: bytes) -> bool:
        """Whether the dialogue goes on."""
        if self.double.failure is not None and self.double.fails_at == stage:
            self.double.failure(self)
            return False
        said = self._reply(stage, words)
        self.sock.sendall(said + b"\r\n")
        return not said.startswith(b"421")

    def _reply(self, stage: str, words: bytes) -> bytes:
        return self.double.refused.get(self.to, {}).get(stage) or self.double.replies.get(stage) or words

    def _extensions(self) -> bytes:
        more = [b"SIZE 1000000"]
        if self.double.tls is not None and not self.encrypted:
            more.append(b"STARTTLS")
        elif self.double.user:
            more.append(b"AUTH PLAIN")
        return b"\r\n".join([b"250-double", *(b"250-" + each for each in more), b"250 8BITMIME"])

    def _sign_in(self, rest: bytes) -> bytes:
        given = base64.b64decode(rest.split(b" ")[1]).decode().split("\0")[1:]
        with self.double.lock:
            self.double.signed_in.append(":".join(given))
        return b"235 ok" if ":".join(given) == self.double.user else b"535 5.7.8 wrong"

    def _encrypt(self) -> None:
        assert self.double.tls is not None
        self.sock = self.double.tls.wrap_socket(self.sock, server_side=True)
        self.encrypted = True

    def _line(self) -> bytes:
        line: bytes = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        return line[:-2]


def _address(rest: bytes) -> str:
    found = re.search(rb"<([^>]*)>", rest)
    assert found
    return found[1].decode()
