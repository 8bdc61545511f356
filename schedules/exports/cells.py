"""A person as a line of CSV or NDJSON. JSON columns come as PostgreSQL prints them, so that no number is read and
written another way."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import orjson

from schedules.imports.values import quote
from schedules.quiet_hours import QuietHours, spelt
from schedules.spreadsheets import guarded, guarded_json

HEADER: Final = (
    "external_id", "email", "locale", "time_zone", "quiet_hours", "tags", "consent", "attributes", "devices"
)  # fmt: skip
# What a cell may list with bars between: neither bars nor what a spreadsheet would take for something.
_PLAIN_TAG: Final = re.compile(r"\w(?:[\w .:/-]*[\w.:/-])?")
_PLAIN_TOKEN: Final = re.compile(r"[\w:.-]+", re.ASCII)


class Person(NamedTuple):
    """``tags``, ``consent`` and ``attributes`` are JSON. ``devices``: platform and token, those that are in use."""

    external_id: str
    email: str
    locale: str
    time_zone: str
    quiet_hours: QuietHours | None
    tags: str
    consent: str
    attributes: str
    devices: list[tuple[str, str]]


class _Line:
    """Stands for a file: what csv writes is handed on."""

    def write(self, text: str) -> str:
        return text


def csv_lines(people: Iterable[Person]) -> Iterator[str]:
    """The heading, then a line for each. No cell is one that a spreadsheet would compute."""
    writer = csv.writer(_Line())
    # The mark by which spreadsheets know that it is UTF-8.
    yield f"\ufeff{writer.writerow(HEADER)}"
    for person in people:
        texts = (guarded(text) for text in person[:4])
        cells = (_tags(person.tags), guarded_json(person.consent), guarded_json(person.attributes))
        yield str(writer.writerow([*texts, spelt(person.quiet_hours), *cells, _devices(person.devices)]))


def ndjson_lines(people: Iterable[Person]) -> Iterator[str]:
    for person in people:
        external_id, email, locale, time_zone = map(quote, person[:4])
        yield (
            f'{{"externalId": {external_id}, "email": {email}, "locale": {locale}, "timeZone": {time_zone},'
            f' "quietHours": {_quiet(person.quiet_hours)}, "tags": {person.tags}, "consent": {person.consent},'
            f' "attributes": {person.attributes}, "devices": {_json_of(person.devices)}}}\n'
        )


def _quiet(hours: QuietHours | None) -> str:
    return f'{{"from": "{hours["from"]}", "to": "{hours["to"]}"}}' if hours else "null"


def _tags(listed: str) -> str:
    """``a|b`` where every tag can be written so, else the JSON list."""
    tags: list[str] = orjson.loads(listed)
    return "|".join(tags) if all(map(_PLAIN_TAG.fullmatch, tags)) else guarded_json(listed)


def _devices(devices: list[tuple[str, str]]) -> str:
    """``ios:TOKEN|web:TOKEN`` where every token can be written so, else a JSON list."""
    if all(_PLAIN_TOKEN.fullmatch(token) for _, token in devices):
        return "|".join(f"{platform}:{token}" for platform, token in devices)
    return guarded_json(_json_of(devices))


def _json_of(devices: list[tuple[str, str]]) -> str:
    listed = (f'{{"platform": {quote(platform)}, "token": {quote(token)}}}' for platform, token in devices)
    return f"[{', '.join(listed)}]"
