"""Certificates for a day, a client that speaks old versions of TLS, and a TLS server in front of one that has none."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scheduler_project.local.ports import LOOPBACK


class Paper(NamedTuple):
    """Of a server called ``localhost``, and of an authority that has nothing to do with it."""

    authority: Path
    certificate: Path
    key: Path
    stranger: Path


def drawn(folder: Path) -> Paper:
    """Written into ``folder``."""
    authority, signer = _signed("An authority")
    stranger, _ = _signed("Another authority")
    certificate, key = _signed("localhost", by=(authority, signer))
    found = Paper(*(folder / name for name in ("ca.pem", "server.pem", "server.key", "stranger.pem")))
    for path, each in ((found.authority, authority), (found.certificate, certificate), (found.stranger, stranger)):
        path.write_bytes(each.public_bytes(serialization.Encoding.PEM))
    found.key.touch(mode=0o600)
    found.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return found


def _signed(
    name: str, *, by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for a day: by an authority for a host, by itself for an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    draft = x509.CertificateBuilder(
        issuer_name=by[0].subject if by else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(hours=1),
        not_valid_after=now + timedelta(days=1),
    )
    draft = draft.add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    if by:
        draft = draft.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return draft.sign(by[1] if by else key, hashes.SHA256()), key


def client(version: ssl.TLSVersion) -> ssl.SSLContext:
    """Speaks ``version`` and nothing else, with whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


def spoken(port: int, version: ssl.TLSVersion, *, first: bytes = b"") -> str | None:
    """The version in which the server then spoke. Raises what it, or OpenSSL here, has against it."""
    with socket.create_connection((LOOPBACK, port), timeout=60) as plain:
        if first:
            plain.sendall(first)
            assert plain.recv(1) == b"S"
        with client(version).wrap_socket(plain) as secure:
            return secure.version()


@contextmanager
def front(
    paper: Paper, *, to: int | None = None, lax: bool = False, on_name: Callable[[str | None], None] | None = None
) -> Iterator[int]:
    """A TLS server of Python's, in front of the port ``to`` or of nothing; its own port.

    ``on_name`` is told by what name a client asks for it (SNI).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paper.certificate, paper.key)
    if on_name:
        context.sni_callback = lambda _socket, name, _context: on_name(name)
    if lax:
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
    loop, stop, ready, ports = asyncio.new_event_loop(), asyncio.Event(), Event(), []

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if to is None:
            writer.close()
            return
        behind = await asyncio.open_connection(LOOPBACK, to)
        await asyncio.gather(pass_on(reader, behind[1]), pass_on(behind[0], writer), return_exceptions=True)

    async def run() -> None:
        server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()

    thread = Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield ports[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
