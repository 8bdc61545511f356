"""Draws what the servers of docker-compose.yml show each other: certificates of an authority of their own, passwords.

    papers.py AUTHORITY PAPERS     two folders: the first for everybody, the second for the servers alone

Certificates that are good for a month more are left as they are; passwords are written anew, from the environment
(APP_DATABASE_PASSWORD, REDIS_PASSWORD). The authority's key is kept nowhere: all are drawn together, or none.
"""

import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# By file: the names and addresses under which its server is called, the first being its own.
SERVERS: Mapping[str, Sequence[str]] = {
    "postgres": ("postgres",),
    "pgbouncer": ("pgbouncer",),
    "redis": ("broker", "counters-1", "counters-2", "counters-3", "10.77.0.11", "10.77.0.12", "10.77.0.13"),
    "mailpit": ("mailpit",),
    "proxy": ("localhost", "127.0.0.1", "proxy"),
}
# Of the servers' images, each of which is told to run as it.
OWNER = 999
_LIFE, _SPARE = timedelta(days=397), timedelta(days=30)
_PASSWORDS = ("APP_DATABASE_PASSWORD", "REDIS_PASSWORD")


def draw(authority: Path, papers: Path, *, passwords: Mapping[str, str], now: datetime) -> bool:
    """Return whether certificates were drawn. ``passwords``: by the names of their variables."""
    shown = authority / "ca.pem"
    is_due = not shown.exists() or any(not _is_good(papers / f"{name}.pem", now) for name in SERVERS)
    if is_due:
        issuer, signer = _signed("notification-scheduler, of this machine", (), now=now)
        for name, called in SERVERS.items():
            certificate, key = _signed(called[0], called, now=now, by=(issuer, signer))
            _write(papers / f"{name}.key", _pem_of(key))
            _write(papers / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        # As HAProxy wants it: both in one.
        _write(papers / "proxy-both.pem", (papers / "proxy.pem").read_bytes() + (papers / "proxy.key").read_bytes())
        _write(shown, issuer.public_bytes(serialization.Encoding.PEM), mode=0o644)
    user = _quoted(passwords["APP_DATABASE_PASSWORD"])
    _write(papers / "userlist.txt", f'"notification_app" {user}\n'.encode())
    _write(papers / "redis-password.conf", f"requirepass {passwords['REDIS_PASSWORD']}\n".encode())
    return is_due


def _signed(
    name: str,
    called: Sequence[str],
    *,
    now: datetime,
    by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """By an authority, for a server; without one by itself, for an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    draft = x509.CertificateBuilder(
        issuer_name=by[0].subject if by else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(hours=1),
        not_valid_after=now + _LIFE,
    )
    draft = draft.add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    if called:
        draft = draft.add_extension(x509.SubjectAlternativeName([_name(each) for each in called]), critical=False)
    return draft.sign(by[1] if by else key, hashes.SHA256()), key


def _name(called: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(called))
    except ValueError:
        return x509.DNSName(called)


def _is_good(path: Path, now: datetime) -> bool:
    if not path.exists():
        return False
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc > now + _SPARE


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""'))


def _write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Nobody ever sees half of it, nor somebody else a key."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=mode)
    draft.write_bytes(content)
    draft.chmod(mode)  # whatever the umask
    if os.geteuid() == 0:
        os.chown(draft, OWNER, OWNER)
    draft.replace(path)


def main(arguments: Sequence[str]) -> int:
    missing = [name for name in _PASSWORDS if not os.environ.get(name)]
    if missing:
        print(f"papers: {' and '.join(missing)} must be set, in deploy/env", file=sys.stderr)  # noqa: T201
        return 1
    authority, papers = map(Path, arguments)
    passwords = {name: os.environ[name] for name in _PASSWORDS}
    is_drawn = draw(authority, papers, passwords=passwords, now=datetime.now(UTC))
    print("papers: drawn" if is_drawn else "papers: still good")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
