"""What one value of a file may be, and how it is kept.

Readers give JSON text for what goes into a JSON column. Values are never repeated in a message: they are somebody's
data, and messages end in logs.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Final

from schedules import consents, quiet_hours
from schedules.audience.parser import ATTRIBUTE_NAME
from schedules.models import Channel, Device, Recipient
from schedules.problems import Problem, say

MAX_ATTRIBUTE: Final = 16 * 1024  # characters of one value as JSON; templates print no more
MAX_ATTRIBUTES: Final = 64 * 1024  # of all of a person's: 500 people are in memory at once
MAX_DEPTH: Final = 32  # of lists and objects within each other, as in templates
MAX_TAG: Final = 256  # characters, as in audience queries
MAX_TAGS: Final = 200
MAX_DEVICES: Final = 50

BOOLEANS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "yes", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "n", "f", "0"), False),
}
CHANNELS: Final = tuple(Channel.values)
PLATFORMS: Final = ("android", "ios", "web")
_DEVICE: Final = frozenset(("platform", "token"))

_LONGEST = {
    field: int(getattr(Recipient._meta.get_field(field), "max_length", 0))
    for field in ("external_id", "email", "locale", "time_zone")
}
LONGEST_TOKEN: Final = int(Device._meta.get_field("token").max_length or 0)
_TOKEN = re.compile(rf"\S{{1,{LONGEST_TOKEN}}}")

# One address and nothing else: no second one, no display name, nothing that ends a header's line.
_EMAIL = re.compile(r"[^\s@,;:<>()\[\]\\\"\x00-\x1f\x7f]+@[^\s@,;:<>()\[\]\\\"\x00-\x1f\x7f]+")
_PLAIN_ID = re.compile(r"[!-~]{1,200}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMBER = re.compile(r"([+-]?)0*([0-9]{1,17}(?:\.[0-9]{1,17})?)")
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?")
_SPELT = re.compile(r"-?[0-9]{1,400}\.[0-9]{1,400}")  # as PostgreSQL prints what is no whole number
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")  # escapes of NUL and of surrogates, maybe whole pairs
PUBLIC = {"external_id": "externalId", "time_zone": "timeZone", "quiet_hours": "quietHours"}
_WORDS = {"true": "true", "false": "false"}
_WORD = {True: "true", False: "false"}
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Refused(ValueError):
    """A value can't be kept. ``reason`` completes “The field …” and names the remedy."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


class UnknownField(Refused):
    """``field`` is a name as it was sent, and none of ours."""


def problem_of(field: str, reason: str) -> Problem:
    """A refusal as the API says it: by the public name, or the JSON pointer within it."""
    head, dot, rest = field.partition(".")
    if dot and head in ("attributes", "consent"):
        name = f"{head}/{rest}"
    else:
        name = PUBLIC.get(field) or field.replace("~", "~0").replace("/", "~1")
    are_many = reason.startswith("are ")
    words = say("They %(reason)s.", reason=reason) if are_many else say("It %(reason)s.", reason=reason)
    return Problem(name, "invalid", words)


def read_text(field: str, text: str) -> str:
    """Text for one of our columns, trimmed."""
    text = text.strip()
    if len(text) > _LONGEST[field]:
        raise Refused(
            field, say("has %(size)s characters; at most %(most)s are allowed", size=len(text), most=_LONGEST[field])
        )
    return text


def read_external_id(text: str) -> str:
    if _PLAIN_ID.fullmatch(text):  # almost every one
        return text
    found = read_text("external_id", text)
    if not found:
        raise Refused("external_id", say("is empty: every person needs one"))
    if not found.isprintable() and _CONTROL.search(found):
        raise Refused("external_id", say("holds a line break or another control character: remove it"))
    return found


def read_email(text: str) -> str:
    text = text.strip()
    if text and not _EMAIL.fullmatch(text):
        raise Refused("email", say("is no e-mail address: write one such as name@example.com, or leave it empty"))
    return read_text("email", text)


def read_consent_cell(column: str, key: str, cell: str) -> str:
    """A member of the JSON object; empty for an empty cell, which says nothing."""
    word = cell.strip().casefold()
    if word and word not in BOOLEANS:
        raise Refused(column, say("is none of true, false, yes, no, 1, 0: use one, or leave it empty"))
    return f'"{key}":{_WORD[BOOLEANS[word]]}' if word else ""


def read_consent(value: object) -> str:
    """From ``{key: true, false or null}``, keys as in ``schedules.consents``; null says nothing."""
    if not isinstance(value, dict):
        raise Refused("consent", say('is no object: write one such as {"email": true, "push": false}'))
    if fault := consents.fault(value):
        raise Refused("consent", fault)
    for key, agreed in value.items():
        if agreed is not None and not isinstance(agreed, bool):
            raise Refused(f"consent.{key}", say("is neither true nor false"))
    agreements = (f'"{key}":{_WORD[agreed]}' for key, agreed in value.items() if agreed is not None)
    return "{" + ",".join(agreements) + "}"


def read_quiet_hours_cell(cell: str) -> str:
    """From ``22:00-07:00``; an empty cell takes them away."""
    return read_quiet_hours(quiet_hours.read_spelt(cell))


def read_quiet_hours(value: object) -> str:
    """From ``{"from": "22:00", "to": "07:00"}``, or null for none; as PostgreSQL prints it."""
    if fault := quiet_hours.fault(value):
        raise Refused("quiet_hours", fault)
    return f'{{"to": "{value["to"]}", "from": "{value["from"]}"}}' if isinstance(value, dict) else "null"


def read_tags_cell(cell: str) -> str:
    """From ``a|b|c`` or a JSON list."""
    cell = cell.strip()
    return read_tags(read_json("tags", cell) if cell.startswith("[") else cell.split("|"))


def read_tags(value: object) -> str:
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise Refused("tags", say('is no list of texts: write one such as ["news", "beta"]'))
    return _tags(tuple(value))


@lru_cache(maxsize=256)
def _tags(named: tuple[str, ...]) -> str:
    """People have much the same tags."""
    tags = list(dict.fromkeys(tag.strip() for tag in named if tag.strip()))
    if len(tags) > MAX_TAGS:
        raise Refused("tags", say("holds %(size)s tags; at most %(most)s are allowed", size=len(tags), most=MAX_TAGS))
    if any(len(tag) > MAX_TAG for tag in tags):
        raise Refused("tags", say("holds a tag of more than %(most)s characters: shorten it", most=MAX_TAG))
    return "[" + ", ".join(map(quote, tags)) + "]"  # as PostgreSQL prints it


def read_devices_cell(cell: str) -> str:
    """From ``platform:token|platform:token``; a token may hold colons itself. Or from a JSON list."""
    if cell.lstrip().startswith("["):
        return read_devices(read_json("devices", cell))
    pairs = (part.strip().partition(":") for part in cell.split("|") if part.strip())
    return _devices((platform, token) for platform, _, token in pairs)


def read_devices(value: object) -> str:
    if not isinstance(value, list) or not all(map(_is_object, value)):
        raise Refused("devices", say('is no list of objects: write one such as [{"platform": "ios", "token": "..."}]'))
    if not all(map(_DEVICE.issuperset, value)):
        raise Refused("devices", say("has an unknown key: a device has platform and token"))
    return _devices((device.get("platform"), device.get("token")) for device in value)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _devices(pairs: Iterable[tuple[object, object]]) -> str:
    platforms: dict[str, str] = {}
    for platform, token in pairs:
        known = platform.strip().lower() if isinstance(platform, str) else ""
        if known not in PLATFORMS:
            raise Refused(
                "devices",
                say("has an unknown platform: write platform:token, with %(known)s", known=", ".join(PLATFORMS)),
            )
        token = token.strip() if isinstance(token, str) else ""
        if not is_token(token):
            raise Refused(
                "devices", say("has a token that isn't 1 to %(most)s characters without spaces", most=LONGEST_TOKEN)
            )
        if platforms.setdefault(token, known) != known:
            raise Refused("devices", say("gives one token two platforms: keep the right one"))
    if len(platforms) > MAX_DEVICES:
        raise Refused(
            "devices",
            say("holds %(size)s devices; at most %(most)s are allowed", size=len(platforms), most=MAX_DEVICES),
        )
    listed = (f'{{"platform":"{platform}","token":{quote(token)}}}' for token, platform in platforms.items())
    return "[" + ",".join(listed) + "]"


def is_token(token: str) -> bool:
    return _TOKEN.fullmatch(token) is not None


# Attributes


def read_attribute_names(value: object) -> dict[str, Any]:
    """``value`` itself, when it is an object whose names can all be asked for in an audience query."""
    if not isinstance(value, dict):
        raise Refused("attributes", say('is no object: write one such as {"plan": "pro", "age": 30}'))
    if not _can_be_asked(tuple(value)):
        raise Refused("attributes", say("has a name that can't be queried: use 1 to 64 letters, digits, _ or -"))
    return value


@lru_cache(maxsize=256)
def _can_be_asked(names: tuple[str, ...]) -> bool:
    return all(ATTRIBUTE_NAME.fullmatch(name) for name in names)


def read_attribute(name: str, value: object) -> str:
    """Any JSON value as JSON text."""
    if isinstance(value, str):
        return _sized(name, quote(value))
    if isinstance(value, bool):
        return _WORD[value]
    if isinstance(value, int):
        return _sized(name, str(value))
    if isinstance(value, Decimal):
        return _sized(name, format(value, "f"))
    if _is_deeper(value, MAX_DEPTH):
        raise Refused(f"attributes.{name}", say("is nested more than %(most)s levels deep", most=MAX_DEPTH))
    try:
        text = _encode(value)
    except ValueError:
        raise Refused(f"attributes.{name}", say("holds NaN or Infinity, which JSON has not")) from None
    except TypeError:
        text = _spelt(value)
    return _sized(name, text)


def _spelt(value: object) -> str:
    """JSON of a value with a number in it that no float keeps."""
    match value:
        case Decimal():
            return format(value, "f")
        case dict():
            return "{" + ",".join(f"{quote(name)}:{_spelt(each)}" for name, each in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_spelt, value)) + "]"
    return _encode(value)


def as_text(name: str, cell: str) -> str:
    return _sized(name, quote(cell.strip()))


def quote(text: str) -> str:
    """A JSON string, with letters of any script as they are."""
    return encode_basestring(text)


def as_number(name: str, cell: str) -> str:
    found = _NUMBER.fullmatch(cell.strip())
    if not found:
        raise Refused(f"attributes.{name}", say("is no number: write it such as 1234.5, without separators or units"))
    return ("-" if found[1] == "-" else "") + found[2]


def as_boolean(name: str, cell: str) -> str:
    word = cell.strip().casefold()
    if word not in BOOLEANS:
        raise Refused(f"attributes.{name}", say("is none of true, false, yes, no, 1, 0: use one, or leave it empty"))
    return _WORD[BOOLEANS[word]]


def as_json(name: str, cell: str) -> str:
    return read_attribute(name, read_json(f"attributes.{name}", cell, is_exact=True))


def as_inferred(name: str, cell: str) -> str:
    """A number where the cell is written as JSON writes it (so 007 and +43 stay texts), true, false, else a text."""
    text = cell.strip()
    return text if is_number(text) else _WORDS.get(text.casefold()) or as_text(name, text)


def is_number(text: str) -> bool:
    return _PLAIN_NUMBER.fullmatch(text) is not None


AttributeReader = Callable[[str, str], str]
TYPES: Final[Mapping[str, AttributeReader]] = {
    "text": as_text,
    "number": as_number,
    "boolean": as_boolean,
    "json": as_json,
}


def read_json(field: str, text: str, *, is_exact: bool = False) -> Any:
    """A decoded JSON value, all of whose texts can be kept. ``is_exact``: a number that a float would change is a
    ``Decimal``."""
    try:
        value = json.loads(text, parse_float=_number if is_exact else None)
    except RecursionError:
        raise Refused(field, say("is nested too deep")) from None
    except json.JSONDecodeError as error:
        place = (
            say("line %(line)s, column %(column)s", line=error.lineno, column=error.colno)
            if error.lineno > 1
            else say("character %(number)s", number=error.pos + 1)
        )
        raise Refused(field, say("is no JSON (%(msg)s, %(place)s)", msg=error.msg, place=place)) from None
    except ValueError:
        raise Refused(field, say("holds a number of thousands of digits: shorten it, or write it as a text")) from None
    if "\\u" in text and SUSPICIOUS.search(text):
        _refuse_unkeepable(field, value)
    return value


def _number(text: str) -> float | Decimal:
    """PostgreSQL keeps each digit of ``1.50``, and who exports it and imports it again shall find them."""
    value = float(text)
    return Decimal(text) if repr(value) != text and _SPELT.fullmatch(text) else value


def _refuse_unkeepable(field: str, value: object) -> None:
    """PostgreSQL keeps neither NUL nor half a surrogate pair, and JSON's escapes can write both."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if _NUL.search(text):
        raise Refused(field, say("holds a NUL character (\\u0000): remove it"))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(field, say("holds half a surrogate pair (\\ud800 to \\udfff): write whole characters")) from None


def _sized(name: str, text: str) -> str:
    if len(text) > MAX_ATTRIBUTE:
        raise Refused(f"attributes.{name}", say("is longer than %(most)s characters: shorten it", most=MAX_ATTRIBUTE))
    return text


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)
