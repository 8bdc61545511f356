"""The service under check."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple

from schedules.audience.matching import Profile, reachable_channels
from schedules.imports.rows import BadLine, Row
from schedules.user_service.client import COUNT, PAGE, Answer, Client, check_status, written
from schedules.user_service.errors import Unavailable
from schedules.user_service.reading import Envelope, read_count_body, read_envelope, read_profiles

EVERYBODY: Final[Mapping[str, Any]] = {"all": []}
SAMPLE: Final = 25  # people
_SEEN: Final = 200  # people among whom the sample is taken
MOST_PAGES: Final = 4 * SAMPLE
_LONGEST: Final = 600  # characters of a request as it is told


class Sheet(NamedTuple):
    """A page as it came; ``ids`` are those that can be read, in its order."""

    envelope: Envelope
    rows: tuple[Row, ...]
    bad: tuple[BadLine, ...]
    size: int
    seconds: float

    @property
    def ids(self) -> list[str]:
        return [row.external_id for row in self.rows]


class Subject:
    """``shows_people``: values and ids stand in what is told, else only of what kind they are.

    ``as_of``: the instant of every request that names no other.
    """

    def __init__(self, client: Client, *, as_of: datetime, has_token: bool, shows_people: bool = False) -> None:
        self.client = client
        self.as_of = as_of
        self.has_token = has_token
        self.asked = ""
        self._shows_people = shows_people
        self._sample: tuple[Profile, ...] | None = None

    def post(self, path: str, said: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Answer:
        """Whatever status comes. Raises ``UserServiceError``."""
        self.asked = f"POST {path} {self._told(said)}"
        return self.client.send(path, json.dumps(said).encode(), headers=headers)

    def post_text(self, path: str, text: str) -> Answer:
        """As ``post``, with a body that needn't be JSON."""
        self.asked = f"POST {path} {text}"
        return self.client.send(path, text.encode())

    def page(
        self, audience: Mapping[str, Any], *, limit: int, cursor: str | None = None, as_of: datetime | None = None
    ) -> Sheet:
        """Raises ``UserServiceError``, also for a page that isn't shaped as one."""
        answer = self.post_page(audience, limit=limit, cursor=cursor, as_of=as_of)
        check_status(answer, has_cursor=cursor is not None)
        return _sheet(answer)

    def post_page(
        self, audience: Mapping[str, Any], *, limit: int, cursor: str | None = None, as_of: datetime | None = None
    ) -> Answer:
        instant = written(as_of or self.as_of)
        return self.post(PAGE, {"audience": audience, "asOf": instant, "limit": limit, "cursor": cursor})

    def post_count(self, audience: Mapping[str, Any], *, as_of: datetime | None = None, **options: Any) -> Answer:
        return self.post(COUNT, {"audience": audience, "asOf": written(as_of or self.as_of)}, **options)

    def count(self, audience: Mapping[str, Any], *, as_of: datetime | None = None) -> int:
        """Raises ``UserServiceError``."""
        answer = self.post_count(audience, as_of=as_of)
        check_status(answer)
        return read_count_body(answer.body)

    def pages(self, audience: Mapping[str, Any], *, limit: int) -> Iterator[Sheet]:
        """Each page of an answer, as long as there are any, or too many. Raises ``UserServiceError``."""
        cursor = None
        for _ in range(MOST_PAGES):
            sheet = self.page(audience, limit=limit, cursor=cursor)
            yield sheet
            cursor = sheet.envelope.next_cursor
            if cursor is None:
                return

    def sample(self) -> tuple[Profile, ...]:
        """Some of the people, those without a flaw if there are any, from all over the first page of everybody."""
        if self._sample is None:
            sheet = self.page(EVERYBODY, limit=_SEEN)
            flawed = {bad.line for bad in sheet.bad}
            rows = [row for row in sheet.rows if row.line not in flawed] or sheet.rows
            step = max(1, len(rows) // SAMPLE)
            self._sample = tuple(_profile(row, self.as_of) for row in rows[::step][:SAMPLE])
        return self._sample

    def sampled(self) -> dict[str, Any]:
        """The audience of the sample."""
        return {"field": "external_id", "op": "in", "value": [each.external_id for each in self.sample()]}

    @property
    def third(self) -> int:
        """A limit with which the sample takes three pages or more."""
        return max(1, len(self.sample()) // 3)

    def people(self, ids: Sequence[str] | set[str]) -> str:
        """So many, and who they are if that is to be told."""
        named = f" ({', '.join(sorted(ids)[:5])}{', …' if len(ids) > 5 else ''})" if self._shows_people and ids else ""
        return f"{len(ids)} {'person' if len(ids) == 1 else 'people'}{named}"

    def _told(self, said: Any) -> str:
        shown = said if self._shows_people else _without_values(said)
        text = json.dumps(shown, ensure_ascii=False)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _sheet(answer: Answer) -> Sheet:
    envelope = read_envelope(answer.body)
    found = read_profiles(envelope.profiles, is_clean=envelope.is_clean).rows
    rows = tuple(row for row in found if isinstance(row, Row))
    bad = tuple(row for row in found if isinstance(row, BadLine))
    return Sheet(envelope, rows, bad, len(answer.body), answer.seconds)


def problem_of(answer: Answer) -> Any:
    """The object of a refusal. Raises ``Unavailable``."""
    with suppress(ValueError, RecursionError):
        found = json.loads(answer.body)
        if isinstance(found, dict):
            return found
    raise Unavailable("wrong_shape", "sent a refusal that is no JSON object")


def _profile(row: Row, as_of: datetime) -> Profile:
    """``created_at`` is not known, and nothing asks for it."""
    has_device = bool(json.loads(row.devices or "[]"))
    consent = json.loads(row.consent or "{}")
    return Profile(
        external_id=row.external_id,
        locale=row.locale or "",
        time_zone=row.time_zone or "",
        created_at=as_of,
        tags=json.loads(row.tags or "[]"),
        channels=reachable_channels(has_email=bool(row.email), has_device=has_device, consent=consent),
        attributes=json.loads(row.attributes or "{}"),
    )


def _without_values(said: Any) -> Any:
    """Whatever stands as ``value`` or ``cursor``, by its kind alone."""
    if isinstance(said, list):
        return [_without_values(each) for each in said]
    if not isinstance(said, dict):
        return said
    return {name: _kind(each) if name in ("value", "cursor") else _without_values(each) for name, each in said.items()}


def _kind(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, list):
        return f"<{len(value)} values>"
    return "<a text>" if isinstance(value, str) else "<a number>"
