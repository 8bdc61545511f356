"""What is kept of the people whom the user service tells of, and what in its words is new.

Whoever is known is held by the row that says when the service told of them, until the caller's transaction ends: what
is judged here is still so when it is written. Texts are compared as PostgreSQL writes them. Where they are equal
nothing is new; where they differ the statement that writes looks once more at what they mean.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from schedules import encryption
from schedules.fields import place
from schedules.imports.rows import Row

_EMAIL: Final = place("schedules_recipient", "email")
_TOKEN: Final = place("schedules_device", "token")
# Between external ids, which hold no control characters: one text is quicker than thousands.
_BETWEEN: Final = "\n"
_NO_QUIET_HOURS: Final = "null"  # as a row says it

# Whose row is missing gets one. The answer is the text of an array, to be sent back as it came.
_KNOW = """
WITH known AS MATERIALIZED (
    SELECT id FROM schedules_recipient WHERE external_id = ANY(string_to_array(%(names)s, E'\\n'))
), noted AS (
    INSERT INTO schedules_mirroredperson (recipient_id, mirrored_at)
    SELECT k.id, %(now)s FROM known k
    WHERE NOT EXISTS (SELECT 1 FROM schedules_mirroredperson m WHERE m.recipient_id = k.id)
    ORDER BY k.id ON CONFLICT DO NOTHING
)
SELECT array_agg(id ORDER BY id)::text FROM known
"""
_HOLD = """
SELECT count(*) FROM (
    SELECT 1 FROM schedules_mirroredperson WHERE recipient_id = ANY(%s::bigint[]) ORDER BY recipient_id FOR UPDATE
) held
"""
_READ = """
SELECT r.external_id, r.id, r.email, r.locale, r.time_zone, r.tags::text, r.consent::text, r.quiet_hours::text,
       r.attributes::text,
       m.source_updated_at, m.resolution_id
FROM schedules_recipient r JOIN schedules_mirroredperson m ON m.recipient_id = r.id WHERE r.id = ANY(%s::bigint[])
"""
_READ_DEVICES = """
SELECT recipient_id, id, token, token_index, platform, active FROM schedules_device
WHERE recipient_id = ANY(%s::bigint[])
"""


class Person(NamedTuple):
    """A profile as it is kept: JSON as PostgreSQL writes it. ``told_at``, ``resolution_id``: see ``MirroredPerson``."""

    id: int
    email: bytes
    locale: str
    time_zone: str
    tags: str
    consent: str
    quiet_hours: str | None
    attributes: str
    told_at: datetime | None
    resolution_id: int | None


class Device(NamedTuple):
    """A device as it is kept. ``token`` is None where nobody can read it."""

    id: int
    token: str | None
    token_index: UUID
    platform: str
    active: bool


def array(numbers: Iterable[int]) -> str:
    """As PostgreSQL reads it: quicker than to send each."""
    return f"{{{','.join(map(str, numbers))}}}"


def names(external_ids: Iterable[str]) -> str:
    """For ``string_to_array(…, E'\\n')``."""
    return _BETWEEN.join(external_ids)


def hold(cursor: Any, external_ids: Iterable[str], *, now: datetime) -> Mapping[str, Person]:
    """Those of them who are kept, by external id; nobody else tells of them until the transaction ends."""
    cursor.execute(_KNOW, {"names": names(external_ids), "now": now})
    (ids,) = cursor.fetchone()
    if ids is None:
        return {}
    cursor.execute(_HOLD, [ids])
    # By a statement of its own: one that had waited would see profiles as they were before.
    cursor.execute(_READ, [ids])
    return {external_id: Person(*rest) for external_id, *rest in cursor.fetchall()}


def devices_of(cursor: Any, ids: Iterable[int]) -> Mapping[int, list[Device]]:
    """By the person's number; of those who have any."""
    found: dict[int, list[Device]] = {}
    cursor.execute(_READ_DEVICES, [array(ids)])
    for person, pk, kept, *rest in cursor.fetchall():
        found.setdefault(person, []).append(Device(pk, _token(kept), *rest))
    return found


def _token(kept: bytes) -> str | None:
    try:
        return encryption.decrypt(kept, _TOKEN)
    except encryption.Undecryptable:
        return None


class News(NamedTuple):
    """``row``: what is to be written of what was said; None where nothing is new. ``is_damaged``: the address that is
    kept was changed behind the application's back."""

    row: Row | None
    is_damaged: bool = False


_NONE: Final = News(None)


def news(row: Row, kept: Person) -> News:
    """What ``row`` says that is not known, but for devices. An address that stands and can be read is left out of it,
    so that it is not encrypted anew; one that nobody can read is told again."""
    address, is_damaged = (None, False) if row.email is None else _address(row.email, kept.email)
    is_new = (
        address is not None
        or (row.locale is not None and row.locale != kept.locale)
        or (row.time_zone is not None and row.time_zone != kept.time_zone)
        or (row.tags is not None and row.tags != kept.tags)
        or (row.attributes is not None and row.attributes != kept.attributes)
        or (row.quiet_hours is not None and row.quiet_hours != (kept.quiet_hours or _NO_QUIET_HOURS))
        or (row.consent is not None and not _agrees(row.consent, kept.consent))
    )
    return News(row._replace(email=address), is_damaged) if is_new else _NONE


def without_address(row: Row) -> Row:
    """To be written for the sake of something else."""
    return row._replace(email=None)


def surplus_attributes(row: Row, kept: Person) -> str | None:
    """The names of those that are said no more, as an array of PostgreSQL's: the merge takes attributes one by one."""
    if row.attributes is None:
        return None
    gone = json.loads(kept.attributes).keys() - json.loads(row.attributes).keys()
    return '{"' + '","'.join(gone) + '"}' if gone else None


def _address(told: str, kept: bytes) -> tuple[str | None, bool]:
    try:
        return (None if encryption.decrypt(kept, _EMAIL) == told else told), False
    except encryption.Tampered:
        return told, True
    except encryption.UnknownKey:
        return told, False


@lru_cache(maxsize=4_096)
def _agrees(told: str, kept: str) -> bool:
    """Whether each agreement and objection that is said stands there already. People say much the same."""
    before = orjson.loads(kept)
    return all(before.get(key) is agreed for key, agreed in orjson.loads(told).items())
