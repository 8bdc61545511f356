"""The one form field for JSON: refuses in words what Python would choke on or PostgreSQL can't keep."""

import json
import math
from typing import Any

from django import forms
from django.forms.fields import InvalidJSONInput

# Deeper than anything that is meant, shallow enough for every recursive reader after this field.
MAX_DEPTH = 50


class IndentedJSON(forms.JSONField):
    """JSON that one can read while one edits it.

    Refused, beside what is no JSON: texts and keys with NUL or half a surrogate pair, NaN and infinite numbers,
    numbers beyond a float's range or of thousands of digits, and more than ``MAX_DEPTH`` levels.
    """

    def to_python(self, value: Any) -> Any:
        if self.disabled:
            return value
        if value in self.empty_values:
            return None
        return _read(value) if isinstance(value, str) else value

    def bound_data(self, data: Any, initial: Any) -> Any:
        if self.disabled or data is None:
            return initial if self.disabled else None
        try:
            return _read(data)
        except forms.ValidationError:
            return InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, InvalidJSONInput):
            return value
        return json.dumps(value, indent=2, ensure_ascii=False)


def _refuse_unkeepable(value: Any) -> None:
    left = [(value, 1)]
    while left:
        item, depth = left.pop()
        if isinstance(item, dict):
            left += [(key, depth) for key in item]
        if isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                raise _too_deep()
            left += [(each, depth + 1) for each in (item.values() if isinstance(item, dict) else item)]
        elif isinstance(item, str):
            _refuse_text(item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise forms.ValidationError("Write finite numbers: NaN, Infinity and 1e999 are none.", code="not_finite")


def _read(text: str) -> Any:
    try:
        found = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        message = f"Enter a valid JSON. Line {error.lineno}, character {error.colno}: {error.msg}."
        raise forms.ValidationError(message, code="invalid") from None
    except ValueError:  # Python reads no integer of thousands of digits
        raise forms.ValidationError("A number is too long: use at most 4,000 digits.", code="too_long") from None
    _refuse_unkeepable(found)
    return found


def _refuse_text(text: str) -> None:
    if "\0" in text:
        raise forms.ValidationError("A text holds a NUL (\\u0000), which can't be kept: remove it.", code="nul")
    if any("\ud800" <= character <= "\udfff" for character in text):
        message = "A text holds half a surrogate pair (\\ud800 to \\udfff): write whole characters."
        raise forms.ValidationError(message, code="surrogate")


def _too_deep() -> forms.ValidationError:
    return forms.ValidationError(f"Nested too deep: use at most {MAX_DEPTH} levels.", code="too_deep")
