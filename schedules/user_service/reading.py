"""From the body of an answer to people. Of a body that can't be used it is said where the fault is, not what is there.

A page is used as a whole or not at all, but for people: what is wrong with one of them is no concern of the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple

from schedules import consents
from schedules.audience.tree import Kind
from schedules.audience.values import BadValue, read_value
from schedules.imports import values
from schedules.imports.ndjson_rows import public_field, read_person, row_of
from schedules.imports.rows import BadLine, Row
from schedules.remote.reading import misshapen, next_cursor, object_of, text_of, whole_number
from schedules.user_service.errors import Unavailable

_UPDATED: Final = "updatedAt"
_CONSENT_UPDATED: Final = "consentUpdatedAt"
_QUIET_UPDATED: Final = "quietHoursUpdatedAt"
_INSTANTS: Final = frozenset((_UPDATED, _CONSENT_UPDATED, _QUIET_UPDATED))


class Profiles(NamedTuple):
    """``rows``: in the order in which they came; ``line`` is a profile's place among them, from 1 on. ``updated``: when
    the service says that it last changed the person, by line. ``consented``: the same of the consent in it, of those of
    whom it says anything about that: None where it names no instant, or none that can be read. ``quieted``: the same of
    their quiet hours."""

    rows: tuple[Row | BadLine, ...]
    updated: Mapping[int, datetime]
    consented: Mapping[int, datetime | None]
    quieted: Mapping[int, datetime | None]


class Page(NamedTuple):
    """``rows``, ``updated``, ``consented``, ``quieted``: as in ``Profiles``. ``next_cursor``: None on the last page.
    ``total``: how many people all pages hold together, where the service says so; it may be off."""

    rows: tuple[Row | BadLine, ...]
    updated: Mapping[int, datetime]
    consented: Mapping[int, datetime | None]
    quieted: Mapping[int, datetime | None]
    next_cursor: str | None
    total: int | None


class Envelope(NamedTuple):
    """A page before its people are looked at: they may be anything. ``counted``: what it says that it holds;
    ``is_clean``: none of its texts holds what PostgreSQL can't keep."""

    profiles: Sequence[object]
    counted: int
    next_cursor: str | None
    total: int | None
    is_clean: bool


def read_page_body(body: bytes, *, limit: int) -> Page:
    """Raises ``Unavailable``."""
    envelope = read_envelope(body)
    found = len(envelope.profiles)
    if envelope.counted != found:
        raise Unavailable("wrong_count", f"says that its page holds {envelope.counted}, and it holds {found}")
    if found > limit:
        raise Unavailable("too_many", f"sent {found} people where at most {limit} were asked for")
    if not found and envelope.next_cursor is not None:
        raise Unavailable("empty_page", "sent a page without anybody, and a cursor for another one")
    profiles = read_profiles(envelope.profiles, is_clean=envelope.is_clean)
    return Page(*profiles, envelope.next_cursor, envelope.total)


def read_count_body(body: bytes) -> int:
    """Raises ``Unavailable``."""
    return whole_number(object_of(text_of(body, Unavailable), Unavailable), "count", Unavailable)


def read_envelope(body: bytes) -> Envelope:
    """Raises ``Unavailable`` with the code no_json or wrong_shape."""
    text = text_of(body, Unavailable)
    content = object_of(text, Unavailable)
    profiles = content.get("profiles")
    if not isinstance(profiles, list):
        raise misshapen("profiles", "a list", Unavailable)
    total = None if content.get("total") is None else whole_number(content, "total", Unavailable)
    is_clean = "\\u" not in text or not values.SUSPICIOUS.search(text)
    counted = whole_number(content, "count", Unavailable)
    return Envelope(profiles, counted, next_cursor(content, Unavailable), total, is_clean)


def read_profiles(profiles: Sequence[object], *, is_clean: bool = False) -> Profiles:
    """People as the contract has them.

    Of a person with a member that can't be used there is a ``BadLine``, and a ``Row`` without that member: who is named
    belongs to the audience all the same. Of a ``consent`` that can't be used the objections stay, as far as they can be
    read. Of one whose external id can't be read there is the ``BadLine`` alone.
    ``is_clean``: it is known that no text of theirs holds a NUL or half a surrogate pair.
    """
    rows: list[Row | BadLine] = []
    updated: dict[int, datetime] = {}
    consented: dict[int, datetime | None] = {}
    quieted: dict[int, datetime | None] = {}
    for line, profile in enumerate(profiles, start=1):
        if not isinstance(profile, dict):
            rows.append(BadLine(line, "", 'is no JSON object: send one such as {"externalId": "42", "email": "..."}'))
            continue
        person, faults = (profile, []) if is_clean else _keepable(profile)
        # Also where it can't be kept: what was said here stands rather than falls.
        if _CONSENT_UPDATED in profile:
            consented[line] = None
        if _QUIET_UPDATED in profile:
            quieted[line] = None
        if not _INSTANTS.isdisjoint(person):
            person = dict(person)
            if at := _read_instant(_UPDATED, person.pop(_UPDATED, None), faults):
                updated[line] = at
            if at := _read_instant(_CONSENT_UPDATED, person.pop(_CONSENT_UPDATED, None), faults):
                consented[line] = at
            if at := _read_instant(_QUIET_UPDATED, person.pop(_QUIET_UPDATED, None), faults):
                quieted[line] = at
        found, more = read_person(person, field=public_field)
        if "consent" not in found and (objections := _objections(profile)):
            found["consent"] = values.read_consent(objections)
        if "external_id" in found:
            rows.append(row_of(line, found))
        if faults := [*faults, *more]:
            rows.append(BadLine(line, faults[0].field, faults[0].reason))
    return Profiles(tuple(rows), updated, consented, quieted)


def _objections(profile: Mapping[str, Any]) -> dict[str, bool]:
    """By channel and topic: what stands beside an objection, such as a channel that is none of ours, takes nothing from
    it.
    """
    consent = profile.get("consent")
    said = consent if isinstance(consent, dict) else {}
    return {key: False for key, agreed in said.items() if agreed is False and consents.parted(key)[1]}


def _read_instant(name: str, value: object, faults: list[values.Refused]) -> datetime | None:
    if value is None:
        return None
    with suppress(BadValue):
        instant = read_value(Kind.INSTANT, value)
        if isinstance(instant, datetime):
            return instant
    words = 'is no instant with its offset: write one such as "2026-03-01T09:00:00Z"'
    faults.append(values.Refused(name, words))
    return None


def _keepable(profile: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[values.Refused]]:
    """Those members that PostgreSQL can keep, and what is wrong with the others."""
    kept: dict[str, Any] = {}
    faults: list[values.Refused] = []
    for name, value in profile.items():
        try:
            text = json.dumps([name, value])
            if values.SUSPICIOUS.search(text):
                values.read_json(name[:40].encode("ascii", "replace").decode(), text)
            kept[name] = value
        except values.Refused as refused:
            faults.append(refused)
        except RecursionError:
            faults.append(values.Refused("", "is nested too deep"))
    return kept, faults
