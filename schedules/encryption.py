"""What must not lie in the database in clear: AES-256-GCM (NIST SP 800-38D) under a set of keys, and blind indexes.

A kept value is one byte of version, four bytes that name the key, a random nonce of 12 bytes, the ciphertext and its
tag of 16. Table and column are authenticated with it, so that no value can be moved to another column. The empty text
is kept as no bytes: whether there is an address is no secret. A blind index is an HMAC-SHA256 (RFC 2104) under a key
of its own, by which equal values are found without being read. ``docs/security.md`` says what is kept so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from os import urandom
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from audit.keys import KEY_BYTES, key_of

HEAD_BYTES: Final = 5  # version and key
_VERSION: Final = b"\x01"
_NONCE: Final = 12
_TAG: Final = 16
_FOLDED: Final = 12  # bytes of an address's index that tell nothing of small letters and large
_SETTINGS: Final = ("ENCRYPTION_KEYS", "BLIND_INDEX_KEY", "ENCRYPTION_KEYSET")


class Undecryptable(Exception):
    """A kept value can't be read: ``reason`` is the slug that the ledger keeps, ``key_id`` the key that is missing.

    Its words name keys and columns, and no value.
    """

    reason = "unreadable"
    key_id = ""
    names_nobody = True  # as logs ask


class UnknownKey(Undecryptable):
    """It was encrypted under a key that this process does not have. The value is whole: with the key it can be read."""

    reason = "key_unknown"

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"A value is encrypted under the key {key_id}, which is not among ENCRYPTION_KEYS: put that key back, "
            "after the first one."
        )
        self.key_id = key_id


class Tampered(Undecryptable):
    """It was changed, cut off, or belongs to another column."""

    def __init__(self, of: bytes) -> None:
        super().__init__(f"A value of {of.decode()} was changed behind the application's back, or is damaged.")


@dataclass(frozen=True)
class Keys:
    """What a source of keys gives: 32 bytes each, in ``encryption`` the primary one first, then those still read.

    ``index`` is the key of the blind indexes. A source is any callable without arguments that the setting
    ``ENCRYPTION_KEYSET`` names, such as one that has them unwrapped by a key management service; it is asked once per
    process.
    """

    encryption: tuple[bytes, ...] = field(repr=False)
    index: bytes = field(repr=False)


class Keyset:
    """Keys made ready. Raises ``ImproperlyConfigured`` for none, short ones, and one that stands there twice."""

    def __init__(self, keys: Keys) -> None:
        if not keys.encryption:
            raise ImproperlyConfigured(
                "ENCRYPTION_KEYS is not set: addresses, device tokens and messages can neither be kept nor read."
            )
        if any(len(key) != KEY_BYTES for key in (*keys.encryption, keys.index)):
            raise ImproperlyConfigured("Each of ENCRYPTION_KEYS, and BLIND_INDEX_KEY, is 32 bytes.")
        self._ciphers = {_VERSION + _id_of(key): AESGCM(key) for key in keys.encryption}
        if len(self._ciphers) < len(keys.encryption) or keys.index in keys.encryption:
            raise ImproperlyConfigured("The same key stands twice among ENCRYPTION_KEYS and BLIND_INDEX_KEY.")
        self.head = next(iter(self._ciphers))  # with which every value begins that needs no rotation
        self._primary = self._ciphers[self.head]
        self._index = _index_of(keys.index)

    @property
    def key_ids(self) -> list[str]:
        """The names of the keys, the primary one's first."""
        return [head[1:].hex() for head in self._ciphers]

    def encrypt(self, data: bytes, of: bytes) -> bytes:
        """``of``: table and column, as ``schedules_recipient.email``."""
        return self._sealed(urandom(_NONCE), data, of)

    def encrypt_all(self, many: Sequence[bytes], of: bytes) -> list[bytes]:
        """Each but those that are empty. Chance is asked for once: for each it would take longer than to encrypt."""
        chance = urandom(_NONCE * len(many))
        return [
            self._sealed(chance[start : start + _NONCE], data, of) if data else b""
            for start, data in zip(range(0, len(chance), _NONCE), many, strict=True)
        ]

    def _sealed(self, nonce: bytes, data: bytes, of: bytes) -> bytes:
        return self.head + nonce + self._primary.encrypt(nonce, data, of)

    def decrypt(self, kept: bytes, of: bytes) -> bytes:
        """Raises ``UnknownKey`` and ``Tampered``."""
        cipher = self._ciphers.get(kept[:HEAD_BYTES])
        if cipher is None:
            if kept[:1] != _VERSION or len(kept) < HEAD_BYTES + _NONCE + _TAG:
                raise Tampered(of)
            raise UnknownKey(kept[1:HEAD_BYTES].hex())
        try:
            return cipher.decrypt(kept[HEAD_BYTES : HEAD_BYTES + _NONCE], kept[HEAD_BYTES + _NONCE :], of)
        except (InvalidTag, ValueError):
            raise Tampered(of) from None

    def index_of_token(self, token: str) -> UUID | None:
        """None for the empty text, as below. Of 10 million texts two have one index in one of 10^24 cases."""
        return UUID(bytes=self._of_token(token)) if token else None

    def digits_of_token(self, token: str) -> str | None:
        """The same as 32 hexadecimal digits: to make a UUID takes longer than to find what is in it."""
        return self._of_token(token).hex() if token else None

    def index_of_address(self, address: str) -> UUID | None:
        """Of its 16 bytes twelve are the same however the address uses small letters and large, four tell those apart.

        So an import sees a change of letters, and ``range_of_address`` finds any spelling.
        """
        return UUID(bytes=self._of_address(address)) if address else None

    def digits_of_address(self, address: str) -> str | None:
        """As ``digits_of_token``."""
        return self._of_address(address).hex() if address else None

    def range_of_address(self, address: str) -> tuple[UUID, UUID]:
        """First and last of the indexes that the address has in any use of small letters and large."""
        return range_of_index(UUID(bytes=self._folded(address) + b"\0" * 4))

    @property
    def heads(self) -> list[bytes]:
        """With which the values begin whose keys are known."""
        return list(self._ciphers)

    def _of_token(self, token: str) -> bytes:
        return self._mac("token", token)[:16]

    def _of_address(self, address: str) -> bytes:
        return self._folded(address) + self._mac("address as written", address)[:4]

    def _folded(self, address: str) -> bytes:
        return self._mac("address", address.strip().casefold())[:_FOLDED]

    def _mac(self, purpose: str, text: str) -> bytes:
        mac = self._index(purpose).copy()
        mac.update(text.encode(errors="surrogatepass"))
        return mac.finalize()


def _index_of(key: bytes) -> Callable[[str], HMAC]:
    """One HMAC per purpose, to be copied: making it anew takes four times as long."""
    return cache(lambda purpose: HMAC(_expanded(key, f"blind index of {purpose}"), SHA256()))


def from_settings() -> Keys:
    """The keys in ``ENCRYPTION_KEYS`` and ``BLIND_INDEX_KEY``, each as base64 or hexadecimal digits."""
    read = [key_of(text, name="ENCRYPTION_KEYS") for text in settings.ENCRYPTION_KEYS]
    return Keys(tuple(read), key_of(settings.BLIND_INDEX_KEY, name="BLIND_INDEX_KEY"))


@cache
def keyset() -> Keyset:
    """This process's keys, read once. Raises ``ImproperlyConfigured``."""
    return Keyset(source()())


def source() -> Callable[[], Keys]:
    """Where the keys come from. Raises ``ImproperlyConfigured``."""
    try:
        found: Callable[[], Keys] = import_string(settings.ENCRYPTION_KEYSET)
    except ImportError as error:
        raise ImproperlyConfigured(f"ENCRYPTION_KEYSET names nothing that can be imported: {error}") from None
    return found


def encrypt(text: str, of: bytes) -> bytes:
    """Raises ``ValueError`` for what a column of PostgreSQL's texts could not hold either, and nobody could show."""
    return keyset().encrypt(_bytes(text), of) if text else b""


def decrypt(kept: bytes, of: bytes) -> str:
    """Raises ``UnknownKey`` and ``Tampered``."""
    return keyset().decrypt(kept, of).decode() if kept else ""


def encrypt_all(texts: Iterable[str], of: bytes) -> list[bytes]:
    """Raises as ``encrypt``."""
    return keyset().encrypt_all([_bytes(text) for text in texts], of)


def _bytes(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("A text holds a NUL character.")
    return text.encode()


def index_of_token(token: str) -> UUID | None:
    return keyset().index_of_token(token)


def index_of_address(address: str) -> UUID | None:
    return keyset().index_of_address(address)


def range_of_address(address: str) -> tuple[UUID, UUID]:
    return keyset().range_of_address(address)


def range_of_index(index: UUID) -> tuple[UUID, UUID]:
    """As ``range_of_address``, of an address of which nothing but the index is known."""
    return UUID(bytes=index.bytes[:_FOLDED] + b"\0" * 4), UUID(bytes=index.bytes[:_FOLDED] + b"\xff" * 4)


def fingerprint_of(index: UUID) -> bytes:
    """What the indexes of one address have in common over its spellings: by it an address is known that is nobody's."""
    return index.bytes[:_FOLDED]


def fingerprint_sql(index: str) -> str:
    """SQL: the same; ``index`` is a column of blind indexes."""
    return f"substring(uuid_send({index}) FROM 1 FOR {_FOLDED})"


def index_with(fingerprint: bytes) -> UUID:
    """An index that has it, as good as any for ``range_of_index``."""
    return UUID(bytes=fingerprint + bytes(16 - _FOLDED))


def _id_of(key: bytes) -> bytes:
    """A key's name is made from it (HKDF, RFC 5869), so that no two people name two keys alike."""
    return _expanded(key, "key id")[:4]


def _expanded(key: bytes, purpose: str) -> bytes:
    return HKDFExpand(SHA256(), KEY_BYTES, f"notification-scheduler {purpose}".encode()).derive(key)


def _forget(*, setting: str, **_: Any) -> None:
    if setting in _SETTINGS:
        keyset.cache_clear()


setting_changed.connect(_forget)
