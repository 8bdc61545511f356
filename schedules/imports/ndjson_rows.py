"""People from NDJSON: one JSON object a line."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

from schedules.imports import values
from schedules.imports.columns import field_of
from schedules.imports.objects import lines_of, read_object
from schedules.imports.rows import BadLine, Column, Row, attributes_of
from schedules.imports.values import Refused, UnknownField, quote
from schedules.problems import say

# Characters of a text that is short enough as an attribute however it is quoted.
_SHORT = values.MAX_ATTRIBUTE // 8

_SUCH_AS = say('is no JSON object: write one such as {"external_id": "42", "email": "..."}')
_SUCH_AS_PUBLIC = 'is no JSON object: write one such as {"externalId": "42", "email": "..."}'

BadPerson = Callable[[int, Mapping[str, Any], list[Refused]], None]


class NdjsonRows:
    """The people of an NDJSON file; see ``rows.Rows``. Raises ``Unreadable`` when the file is one JSON list.

    A bad line tells its first fault; ``on_bad_person`` is told every one of a line that is an object, and what could
    be read of it. With ``is_public`` fields have the API's names and no others; files may spell them as they like.
    """

    columns: tuple[Column, ...] = ()
    renamed: dict[str, str] = {}
    number_like: tuple[str, ...] = ()

    def __init__(
        self,
        stream: BinaryIO,
        *,
        encoding: str,
        on_bad_person: BadPerson | None = None,
        is_public: bool = False,
    ) -> None:
        self._encoding = encoding
        self._is_public = is_public
        self._on_bad_person = on_bad_person
        self._lines = lines_of(stream, encoding=encoding)

    def __iter__(self) -> Iterator[Row | BadLine]:
        # A caller of the API is told in English whoever asks.
        such_as = _SUCH_AS_PUBLIC if self._is_public else _SUCH_AS
        for number, line in self._lines:
            try:
                person = read_object(line, encoding=self._encoding, such_as=such_as, is_exact=True)
            except Refused as refused:
                yield BadLine(number, refused.field, refused.reason)
                continue
            found, faults = read_person(person, field=public_field if self._is_public else _field)
            if not faults:
                yield row_of(number, found)
                continue
            if self._on_bad_person:
                self._on_bad_person(number, found, faults)
            yield BadLine(number, faults[0].field, faults[0].reason)


def read_person(
    person: Mapping[str, Any], *, field: Callable[[str], str] | None = None
) -> tuple[dict[str, Any], list[Refused]]:
    """What can be kept, by the names and in the form of ``Row``, and every fault. Needs an external id.

    ``attributes`` becomes the pair of ``rows.attributes_of``. ``field``: ours of a name that was sent.
    """
    field = field or _field
    found: dict[str, Any] = {}
    faults: list[Refused] = []
    for key, value in person.items():
        try:
            name = field(key)
            if name in found:
                raise Refused(name, say("is given twice, by names that mean the same: keep one of them"))
            found[name] = _READERS[name](value)
        except Refused as refused:
            faults.append(refused)
    if "external_id" not in found and not any(fault.field == "external_id" for fault in faults):
        faults.append(Refused("external_id", say("is missing: every person needs one")))
    return found, faults


def _field(key: str) -> str:
    field = key if key in _READERS else field_of(key)
    return field if field in _READERS else _refuse(key, _READERS)


def public_field(key: str) -> str:
    """Ours of a name of the API's. Raises ``UnknownField``."""
    return _OF_PUBLIC.get(key) or _refuse(key, _OF_PUBLIC)


def _refuse(key: str, known: Iterable[str]) -> NoReturn:
    words = say("is no field: use %(known)s, and put what is your own into attributes", known=", ".join(known))
    raise UnknownField(key[:40], words)


def row_of(line: int, found: dict[str, Any]) -> Row:
    """From what ``read_person`` found, where it found no fault."""
    attributes, dropped = found.pop("attributes", (None, None))
    return Row(line=line, attributes=attributes, dropped=dropped, **found)


def _external_id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused("external_id", say("is neither a text nor a whole number"))
    return values.read_external_id(str(value))


def _text(field: str, read: Callable[[str], str]) -> Callable[[object], str]:
    def read_value(value: object) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Refused(field, say("is no text: write it in quotes, or null for none"))
        return read(value)

    return read_value


def _attributes(value: object) -> tuple[str | None, str | None]:
    """As PostgreSQL prints them, so that those that are kept already are known again without being read."""
    named = values.read_attribute_names({} if value is None else value)
    kept = [
        head + (quote(each) if type(each) is str and len(each) < _SHORT else values.read_attribute(name, each))
        for name, head in _heads(tuple(named))
        if (each := named[name]) is not None
    ]
    return attributes_of(kept, [name for name, each in named.items() if each is None])


@lru_cache(maxsize=256)
def _heads(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each with the beginning of its member, the shortest first: people have much the same attributes."""
    ordered = sorted((len(encoded := name.encode()), encoded, name) for name in names)
    return [(name, f"{quote(name)}: ") for _, _, name in ordered]


_READERS: dict[str, Callable[[Any], Any]] = {
    "external_id": _external_id,
    "email": _text("email", values.read_email),
    "locale": _text("locale", lambda text: values.read_text("locale", text)),
    "time_zone": _text("time_zone", lambda text: values.read_text("time_zone", text)),
    "tags": lambda value: values.read_tags([] if value is None else value),
    "consent": lambda value: values.read_consent({} if value is None else value),
    "quiet_hours": values.read_quiet_hours,
    "attributes": _attributes,
    "devices": lambda value: values.read_devices([] if value is None else value),
}
_OF_PUBLIC: Mapping[str, str] = {values.PUBLIC.get(field, field): field for field in _READERS}
