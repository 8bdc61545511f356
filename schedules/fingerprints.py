"""Whom an import must not bring back: keyed fingerprints of the people who were erased, and nothing else of them.

HMAC-SHA256 (RFC 2104) of the external id and of the address, each under a label of its own, of which 128 bits are
kept. Without the key nobody can try ids or addresses against the table; with another key it fits nobody.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from django.conf import settings

from schedules.models import ErasedPerson

_ID: Final = b"external_id\0"
_ADDRESS: Final = b"address\0"


def of_id(external_id: str) -> UUID:
    return _of(_ID, external_id)


def of_address(address: str) -> UUID:
    """The same for any use of small letters and large."""
    return _of(_ADDRESS, address.strip().casefold())


def of_person(external_id: str, address: str | None) -> list[UUID]:
    return [of_id(external_id), *([of_address(address)] if address and address.strip() else [])]


def digits(external_id: str, address: str | None) -> tuple[str, str | None]:
    """Of the id and of the address, if there is one, as 32 hexadecimal digits: to make UUIDs takes longer."""
    folded = address.strip().casefold() if address else ""
    return _mac(_ID, external_id).hex(), _mac(_ADDRESS, folded).hex() if folded else None


def keep(*, external_ids: Iterable[str], address: str, now: datetime) -> int:
    """Remember somebody who is being erased; how many fingerprints that takes."""
    found = {each for external_id in external_ids for each in of_person(external_id, address)}
    rows = [ErasedPerson(fingerprint=each, erased_at=now) for each in sorted(found)]
    ErasedPerson.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def is_erased(external_id: str, address: str | None) -> bool:
    return ErasedPerson.objects.filter(fingerprint__in=of_person(external_id, address)).exists()


def drop(external_id: str, address: str | None) -> None:
    """Somebody is wanted back."""
    ErasedPerson.objects.filter(fingerprint__in=of_person(external_id, address)).delete()


def _of(label: bytes, text: str) -> UUID:
    return UUID(bytes=_mac(label, text))


def _mac(label: bytes, text: str) -> bytes:
    mac = _begun(settings.ERASURE_KEY, label).copy()
    mac.update(text.encode(errors="surrogatepass"))
    return mac.finalize()[:16]


@lru_cache(maxsize=8)
def _begun(key: str, label: bytes) -> HMAC:
    """To be copied: an import makes two of each person, and to begin anew takes half as long again."""
    mac = HMAC(key.encode(), SHA256())
    mac.update(label)
    return mac
