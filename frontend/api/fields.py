"""Reading bodies and queries strictly: every problem at once, each with its JSON pointer, and nothing coerced.

DRF's serializers describe the fields (and so the OpenAPI document); ``StrictSerializer.read`` goes through them. A text
is no number and a number no text, an unknown field is refused by its name, and an instant says its offset (RFC 3339).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import SkipField, empty
from rest_framework.request import Request
from rest_framework.settings import api_settings

from frontend.api.problems import InParameter, invalid
from frontend.instants import instant
from schedules import storable
from schedules.problems import Problem
from schedules.recurrence import windows

# What every strict field says of a value that is not there.
_ABSENT = {"required": "It is missing.", "null": "It can't be null."}
_DIGITS = re.compile("-?[0-9]{1,20}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d:\d\d)")
# From which on PostgreSQL refuses an offset; RFC 3339 goes up to 23:59.
_LARGEST_OFFSET = timedelta(hours=16)


@dataclass
class Read:
    """What could be read: ``values`` by the serializer's source names, and what could not."""

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def checked(self) -> dict[str, Any]:
        """``values``. Raises ``Refused`` (400) with every problem."""
        if self.problems:
            raise invalid(self.problems)
        return self.values


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses what it does not know."""

    # What the answer has and a request may not set.
    read_only_names: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def read(cls, data: Any, *, partial: bool = False, at: str = "") -> Read:
        """Read ``data``; with ``partial`` what is missing stays missing. ``at``: pointer of ``data`` itself."""
        serializer = _made(cls, partial)
        if not isinstance(data, Mapping):
            return Read(problems=[Problem(at, "wrong_type", "Send an object.")])
        found = Read(problems=serializer._unknown(data, at))
        for name, each in serializer.fields.items():
            if not each.read_only:
                _read_field(each, name, data, found, at=at, partial=partial)
        return found

    def _unknown(self, data: Mapping[str, Any], at: str) -> list[Problem]:
        known = {name for name, each in self.fields.items() if not each.read_only}
        problems = []
        for name in data:
            if name in known:
                continue
            if name in self.read_only_names or name in self.fields:
                problems.append(Problem(_under(at, name), "read_only", "It can't be set: leave it out."))
            else:
                message = f"There is no such field; use some of: {', '.join(sorted(known))}."
                problems.append(Problem(_under(at, name), "unknown", message))
        return problems


@cache
def _made(kind: type[StrictSerializer], partial: bool) -> StrictSerializer:
    """Once for all requests: an instance copies every field, which takes longer than reading them. It keeps nothing."""
    return kind(partial=partial)


def _read_field(
    each: serializers.Field[Any, Any, Any, Any],
    name: str,
    data: Mapping[str, Any],
    found: Read,
    *,
    at: str,
    partial: bool,
) -> None:
    here = _under(at, name)
    given = data.get(name, empty)
    if isinstance(each, StrictSerializer) and isinstance(given, Mapping):
        _take(each.read(given, partial=partial, at=here), each.source, found)
        return
    if isinstance(each, serializers.ListSerializer) and isinstance(given, list):
        _take(_read_list(each, given, here), each.source, found)
        return
    if given is empty and (partial or not each.required):
        if not partial and each.default is not empty:
            found.values[str(each.source)] = each.get_default()
        return
    try:
        found.values[str(each.source)] = each.run_validation(given)
    except SkipField:
        return
    except serializers.ValidationError as error:
        found.problems += _problems(error.detail, here)


def _take(inner: Read, source: str | None, found: Read) -> None:
    found.values[str(source)] = inner.values.get("[]", inner.values)
    found.problems += inner.problems


def _read_list(each: Any, given: list[Any], at: str) -> Read:
    found = Read(values={"[]": []})
    if each.max_length is not None and len(given) > each.max_length:
        found.problems.append(Problem(at, "too_long", f"At most {each.max_length} are allowed."))
        return found
    if not given and not each.allow_empty:
        found.problems.append(Problem(at, "empty", "Give at least one."))
    for index, item in enumerate(given):
        inner = each.child.read(item, at=f"{at}/{index}")
        found.values["[]"].append(inner.values)
        found.problems += inner.problems
    return found


def _problems(detail: Any, at: str) -> list[Problem]:
    """DRF's nested error details, flattened."""
    if isinstance(detail, dict):
        whole = api_settings.NON_FIELD_ERRORS_KEY
        return [
            problem
            for key, inner in detail.items()
            for problem in _problems(inner, at if key == whole else _under(at, str(key)))
        ]
    if isinstance(detail, list):
        return [problem for inner in detail for problem in _problems(inner, at)]
    return [Problem(at, getattr(detail, "code", "invalid"), str(detail))]


def _under(at: str, name: object) -> str:
    return f"{at}/{storable.step(name)}"


class NoBody(StrictSerializer):
    """Nothing needs to be sent."""


class QuerySerializer(StrictSerializer):
    """The query of an address: every value is a text, so that numbers are read from texts here alone."""

    @classmethod
    def of(cls, request: Request) -> dict[str, Any]:
        """The parameters of ``request``. Raises ``Refused`` (400)."""
        given = request.query_params
        found = cls.read(given.dict())
        found.problems = [InParameter(_parameter(each.field), each.code, each.message) for each in found.problems]
        found.problems += [
            InParameter(name[:80], "repeated", "Give it once.") for name in given if len(given.getlist(name)) > 1
        ]
        return found.checked()


def _parameter(pointer: str) -> str:
    """The name in a JSON pointer of one step."""
    return pointer.removeprefix("/").replace("~1", "/").replace("~0", "~")


class QueryNumberField(serializers.IntegerField):
    """A whole number in a query: digits and nothing else, where Python would take ``1_0`` for one, too."""

    default_error_messages = {"invalid": "Use a whole number in digits.", **_ABSENT}

    def to_internal_value(self, data: Any) -> int:
        if not _DIGITS.fullmatch(data):
            self.fail("invalid")
        return int(data)


class StrictCharField(serializers.CharField):
    default_error_messages = {"invalid": "Use a text.", **_ABSENT}

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if fault := storable.text_fault(data):
            raise serializers.ValidationError(fault, code="invalid")
        return data


class StrictIntegerField(serializers.IntegerField):
    default_error_messages = {"invalid": "Use a whole number, without quotes.", **_ABSENT}

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        if abs(data) > storable.MAX_INTEGER:
            raise serializers.ValidationError("The number is too large.", code="out_of_range")
        return data


class StrictBooleanField(serializers.BooleanField):
    default_error_messages = {"invalid": "Use true or false, without quotes.", **_ABSENT}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class StrictChoiceField(serializers.ChoiceField):
    default_error_messages = {**_ABSENT}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str) or data not in self.choices:
            words = f"Use one of: {', '.join(map(str, self.choices))}."
            raise serializers.ValidationError(words, code="unknown")
        return data


class InstantField(serializers.DateTimeField):
    """RFC 3339 with its offset as given, in, but in UTC where no clock has such a one; in UTC with ``Z``, out."""

    default_error_messages = {
        "invalid": "Use an instant such as 2026-12-01T09:00:00Z.",
        "naive": "It says no offset: end it in Z or in one such as +01:00.",
        **_ABSENT,
    }

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, str):
            self.fail("invalid")
        if not _INSTANT.fullmatch(data):
            self.fail("naive" if _INSTANT.fullmatch(f"{data}Z") else "invalid")
        try:
            given = datetime.fromisoformat(data.upper())
            is_far = abs(given.utcoffset() or timedelta()) >= _LARGEST_OFFSET
            return given.astimezone(UTC) if is_far else given
        except (ValueError, OverflowError):
            self.fail("invalid")

    def to_representation(self, value: Any) -> str:
        return instant(value) or ""


@extend_schema_field({"type": "object", "additionalProperties": True})
class ObjectField(serializers.JSONField):
    """A JSON object that PostgreSQL can keep."""

    default_error_messages = {"invalid": "Use an object.", **_ABSENT}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        if fault := storable.json_fault(data):
            raise serializers.ValidationError(fault, code="invalid")
        return data


_CLOCK = {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"}


@extend_schema_field(
    {
        "type": "object",
        "properties": {"from": _CLOCK, "to": _CLOCK},
        "required": ["from", "to"],
        "additionalProperties": False,
        "example": {"from": "22:00", "to": "07:00"},
    }
)
class QuietHoursField(ObjectField):
    """From when until when; what of them is wrong ``schedules.quiet_hours`` says."""


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "days": {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"enum": list(windows.DAYS)}},
            "from": _CLOCK,
            "to": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$"},
        },
        "required": ["days", "from", "to"],
        "additionalProperties": False,
        "example": {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "20:00"},
    }
)
class SendWindowField(ObjectField):
    """Days and hours; what of them is wrong the definition says, member by member."""
