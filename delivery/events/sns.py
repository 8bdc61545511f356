"""Messages of Amazon SNS, believed only when signed: "Verifying the signatures of Amazon SNS messages" in its guide.

The certificate's address stands in the message itself, so anybody can name one. It is asked for only at Amazon's own
host in the region of a topic of ours (or at ``SNS_ENDPOINT``, a double), by a name that only SNS's certificates have:
other addresses of that host answer with texts that a stranger may have put there. TLS of that host vouches for what
comes; ``SNS_CA_FILE`` may ask for a chain besides. The clock here is the real one.
"""

import base64
import json
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from django.conf import settings
from django.utils.dateparse import parse_datetime

from schedules import outgoing

log = structlog.get_logger(__name__)

NOTIFICATION: Final = "Notification"
SUBSCRIPTION: Final = "SubscriptionConfirmation"
UNSUBSCRIBED: Final = "UnsubscribeConfirmation"
# SNS tries for an hour at most ("Amazon SNS message delivery retries"), not counting the 15 s that each of up to a
# hundred tries may take. What is older was kept by somebody.
OLDEST: Final = timedelta(hours=2)
_AHEAD: Final = timedelta(minutes=15)  # by which clocks may differ
# In byte order; Subject only where the message has one.
_SIGNED: Final[Mapping[str, tuple[str, ...]]] = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    SUBSCRIPTION: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    UNSUBSCRIBED: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303
_HOST: Final = re.compile(r"https://sns\.([a-z0-9-]{3,})\.amazonaws\.com(?:\.cn)?", re.ASCII)
_CERTIFICATE: Final = re.compile(r"/SimpleNotificationService-[0-9A-Za-z]{1,64}\.pem", re.ASCII)
_NAME: Final = re.compile(r"sns(\.[a-z0-9-]{3,})?\.amazonaws\.com(\.cn)?", re.ASCII)
_LEAST_BITS: Final = 2048
_MAX_PEM: Final = 64 * 1024
_FETCH_S: Final = 5.0  # SNS itself waits 15 s for an answer
_FETCHES: Final = 10  # a minute: a stranger may name as many addresses as he likes
_KEPT: Final = 32


class SnsError(Exception):
    """The message is not taken. ``code`` is for metrics and logs; the text quotes nothing of the message."""

    names_nobody = True  # as logs ask

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class Malformed(SnsError):
    """No message as SNS sends it."""


class Refused(SnsError):
    """Not signed by SNS, of a topic that is none of ours, or too old. It helps nothing to send it again."""


class Away(SnsError):
    """Whether it is signed could not be found out now; SNS sends it again."""


class Message(NamedTuple):
    """A message that SNS has signed. ``text`` is what was published; ``token`` confirms a subscription."""

    type: str
    message_id: str
    topic: str
    text: str
    token: str
    origin: str  # of SNS in the topic's region, such as https://sns.eu-central-1.amazonaws.com


def opened(body: bytes, *, now: datetime) -> Message:
    """The message in the body of SNS's POST, verified. Raises ``SnsError``. What is cheap to ask is asked first."""
    said = _read(body)
    topic = said["TopicArn"]
    if topic not in settings.SNS_TOPICS:
        raise Refused("topic", "The topic is none of those in SNS_TOPICS.")
    _check_age(said["Timestamp"], now)
    origin = _check_address(said["SigningCertURL"], topic)
    certificate = _certificates.get(said["SigningCertURL"], now=now)
    _check_signature(said, certificate)
    return Message(said["Type"], said["MessageId"], topic, said["Message"], said.get("Token", ""), origin)


def confirm(message: Message) -> None:
    """Tell SNS that this subscription is wanted. Raises ``Away``.

    The address is made here from what was verified, and not the message's own ``SubscribeURL``.
    """
    query = f"Action=ConfirmSubscription&TopicArn={quote(message.topic, safe='')}&Token={quote(message.token, safe='')}"
    try:
        answer = outgoing.fetch(f"{message.origin}/?{query}", timeout_s=_FETCH_S, max_bytes=_MAX_PEM)
    except outgoing.OutgoingError as error:
        raise Away("away", f"SNS could not be told: {error}") from error
    if answer.status != 200:
        raise Away("away", f"SNS answered the confirmation with {answer.status}.")


def _read(body: bytes) -> Mapping[str, str]:
    """The fields that a message of its type must have, all texts."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("malformed", "Send one JSON object, as Amazon SNS does.") from None
    if not isinstance(said, dict):
        raise Malformed("malformed", "The body is no JSON object.")
    kind = said.get("Type")
    if not isinstance(kind, str) or kind not in _SIGNED:
        raise Malformed("malformed", f"Type is one of {', '.join(_SIGNED)}.")
    found: dict[str, str] = {}
    for name in (*_SIGNED[kind], "SignatureVersion", "Signature", "SigningCertURL"):
        value = said.get(name)
        if name == "Subject" and value is None:
            continue
        if not isinstance(value, str):
            raise Malformed("malformed", f"{name} is missing, or is no text.")
        found[name] = value
    return found


def _check_age(timestamp: str, now: datetime) -> None:
    try:
        at = parse_datetime(timestamp)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Malformed("malformed", "Timestamp is an instant with its offset, such as 2026-11-22T10:00:00.000Z.")
    if not now - OLDEST <= at <= now + _AHEAD:
        raise Refused("stale", "The message is older than SNS would still send it, or from the future.")


def _check_address(url: str, topic: str) -> str:
    """Whether a certificate of SNS can lie there; where SNS itself is asked then."""
    region = topic.split(":")[3] if topic.count(":") > 3 else ""
    origin, path = (url[:cut], url[cut:]) if (cut := url.rfind("/")) > 0 else ("", "")
    if settings.SNS_ENDPOINT:
        is_trusted = origin == settings.SNS_ENDPOINT
    else:
        host = _HOST.fullmatch(origin)
        is_trusted = host is not None and host[1] == region
    if not is_trusted or not _CERTIFICATE.fullmatch(path):
        raise Refused("forged", "SigningCertURL is no address of a certificate of SNS in the topic's region.")
    return origin


def _check_signature(said: Mapping[str, str], certificate: x509.Certificate) -> None:
    algorithm = _HASHES.get(said["SignatureVersion"])
    if algorithm is None:
        raise Refused("forged", "SignatureVersion is 1 or 2.")
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)  # as `_checked` saw to
    try:
        signature = base64.b64decode(said["Signature"], validate=True)
        key.verify(signature, to_sign(said), padding.PKCS1v15(), algorithm)
    except (ValueError, InvalidSignature):
        raise Refused("forged", "The signature is not that of SNS.") from None


def to_sign(said: Mapping[str, str]) -> bytes:
    """What SNS signs of a message: its fields in byte order, names and values on lines of their own."""
    pairs = ((name, said[name]) for name in _SIGNED[said["Type"]] if name in said)
    return "".join(f"{name}\n{value}\n" for name, value in pairs).encode(errors="replace")


class _Certificates:
    """Those that were believed, by address: SNS gives a new one a new address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, x509.Certificate] = {}
        self._asked: deque[float] = deque(maxlen=_FETCHES)

    def get(self, url: str, *, now: datetime) -> x509.Certificate:
        """Raises ``Refused`` and ``Away``."""
        found = self._known.get(url) or self._fetched(url, now)
        if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
            raise Refused("forged", "The signing certificate has expired, or is not valid yet.")
        return found

    def forget(self) -> None:
        """For tests, whose doubles share an address."""
        self._known.clear()
        self._asked.clear()

    def _fetched(self, url: str, now: datetime) -> x509.Certificate:
        with self._lock:
            if found := self._known.get(url):  # somebody else's, meanwhile
                return found
            if len(self._asked) == _FETCHES and time.monotonic() - self._asked[0] < 60:
                raise Away("away", "Too many certificates were asked for in this minute.")
            self._asked.append(time.monotonic())
            certificate = _checked(_pem(url), now)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[url] = certificate
            return certificate


_certificates = _Certificates()
forget_certificates = _certificates.forget


def _pem(url: str) -> bytes:
    try:
        answer = outgoing.fetch(url, timeout_s=_FETCH_S, max_bytes=_MAX_PEM)
    except outgoing.OutgoingError as error:  # no fault of the message's, whose address is one of SNS
        raise Away("away", f"The signing certificate can't be fetched: {error}") from error
    if answer.status >= 500 or answer.status == 429:
        raise Away("away", f"SNS answered {answer.status} for its certificate.")
    if answer.status != 200:
        raise Refused("forged", f"There is no such certificate: {answer.status}.")
    return answer.body


def _checked(pem: bytes, now: datetime) -> x509.Certificate:
    """The certificate, where SNS can have signed with it. Its dates are looked at whenever it is used."""
    try:
        certificate, *others = x509.load_pem_x509_certificates(pem)
        key, names = certificate.public_key(), _names(certificate)
    except (ValueError, x509.UnsupportedGeneralNameType):
        raise Refused("forged", "What lies at SigningCertURL is no certificate.") from None
    name = next(filter(_NAME.fullmatch, names), None)
    if name is None:
        raise Refused("forged", "The signing certificate is not that of SNS.")
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _LEAST_BITS:
        raise Refused("forged", f"The signing certificate's key is none of RSA with {_LEAST_BITS} bits and more.")
    if settings.SNS_CA_FILE:
        anchors = x509.load_pem_x509_certificates(Path(settings.SNS_CA_FILE).read_bytes())
        try:
            verifier = PolicyBuilder().store(Store(anchors)).time(now).build_server_verifier(x509.DNSName(name))
            verifier.verify(certificate, others)
        except VerificationError:
            raise Refused("forged", "The signing certificate leads to no authority in SNS_CA_FILE.") from None
    return certificate


def _names(certificate: x509.Certificate) -> list[str]:
    subject = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [str(each.value) for each in subject]
    return [*alternatives.get_values_for_type(x509.DNSName), *(str(each.value) for each in subject)]
