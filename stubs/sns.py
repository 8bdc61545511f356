"""Amazon SNS, as far as an address that it calls can tell: messages signed with a key whose certificate lies here.

    GET /SimpleNotificationService-{digits}.pem      the certificate
    GET /?Action=ConfirmSubscription&TopicArn=&Token=   what an address calls that wants the topic

Formats are those of "Parsing message formats" and "Verifying the signatures of Amazon SNS messages" in the SNS guide.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "sns.amazonaws.com"
_YEAR = timedelta(days=365)
# In byte order; Subject only where the message has one.
_SIGNED = ("Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_HASHES: Mapping[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303


class Certified:
    """An RSA key with its certificate: an authority's, or by ``issuer`` one that it vouches for."""

    def __init__(
        self,
        name: str = NAME,
        *,
        issuer: Certified | None = None,
        begins: datetime | None = None,
        ends: datetime | None = None,
        bits: int = 2048,
    ) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name if issuer else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins or now - timedelta(days=1))
            .not_valid_after(ends or now + _YEAR)
        )
        signing = issuer.key if issuer else self.key
        for extension, is_critical in _extensions(name, self.key, signing, is_authority=issuer is None):
            made = made.add_extension(extension, critical=is_critical)
        self.certificate = made.sign(signing, hashes.SHA256())
        self.pem = self.certificate.public_bytes(Encoding.PEM)


def _extensions(
    name: str, key: rsa.RSAPrivateKey, signing: rsa.RSAPrivateKey, *, is_authority: bool
) -> Sequence[tuple[x509.ExtensionType, bool]]:
    """What a verifier of web certificates wants to see (RFC 5280)."""
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    common: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_authority, path_length=None), True),
        (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False),
    ]
    if is_authority:
        return common
    return [
        *common,
        (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ]


class Sns:
    """SNS in one region: signs what it sends for a topic. ``origin`` is its address, without a slash at its end."""

    def __init__(self, origin: str, topic: str, *, certified: Certified | None = None, version: str = "2") -> None:
        self.origin = origin
        self.topic = topic
        self.version = version
        self.certified = certified or Certified(issuer=Certified("Stub of an authority"))
        self.path = f"/SimpleNotificationService-{hashlib.sha256(self.certified.pem).hexdigest()[:32]}.pem"
        self.token = uuid.uuid4().hex * 4

    def notification(self, text: str, *, at: datetime | None = None, **changes: Any) -> dict[str, Any]:
        """``at`` is SNS's real clock; ``changes`` are made before it is signed, None takes a field away."""
        subscription = f"{self.topic}:{uuid.uuid4()}"
        own = {
            "Subject": "Amazon SES Email Event Notification",
            "UnsubscribeURL": f"{self.origin}/?Action=Unsubscribe&SubscriptionArn={subscription}",
        }
        return self._signed("Notification", text, at, {**own, **changes})

    def confirmation(
        self, *, kind: str = "SubscriptionConfirmation", at: datetime | None = None, **changes: Any
    ) -> dict[str, Any]:
        """What asks whether the topic is wanted, or says that it is not any more."""
        url = f"{self.origin}/?Action=ConfirmSubscription&TopicArn={self.topic}&Token={self.token}"
        text = f"You have chosen to subscribe to the topic {self.topic}.\nTo confirm it, visit the SubscribeURL."
        return self._signed(kind, text, at, {"Token": self.token, "SubscribeURL": url, **changes})

    def headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        return {
            "Content-Type": "text/plain; charset=UTF-8",
            "User-Agent": "Amazon Simple Notification Service Agent",
            "x-amz-sns-message-type": str(message.get("Type")),
            "x-amz-sns-message-id": str(message.get("MessageId")),
            "x-amz-sns-topic-arn": str(message.get("TopicArn")),
        }

    def sign(self, message: Mapping[str, Any]) -> str:
        fields = ((name, message[name]) for name in _SIGNED if message.get(name) is not None)
        text = "".join(f"{name}\n{value}\n" for name, value in fields)
        algorithm = _HASHES.get(str(message.get("SignatureVersion")), hashes.SHA256())
        return base64.b64encode(self.certified.key.sign(text.encode(), padding.PKCS1v15(), algorithm)).decode()

    def _signed(self, kind: str, text: str, at: datetime | None, more: Mapping[str, Any]) -> dict[str, Any]:
        message = {
            "Type": kind,
            "MessageId": str(uuid.uuid4()),
            "TopicArn": self.topic,
            "Message": text,
            "Timestamp": written(at or datetime.now(UTC)),
            "SignatureVersion": self.version,
            "SigningCertURL": self.origin + self.path,
            **more,
        }
        message = {name: value for name, value in message.items() if value is not None}
        return {**message, "Signature": self.sign(message)}


def written(at: datetime) -> str:
    """An instant as Amazon writes it, to the millisecond."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def body_of(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, indent=2).encode()
