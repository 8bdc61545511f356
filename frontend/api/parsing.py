"""Bodies as JSON, read strictly; see RFC 8259 and RFC 7493 for what is refused and why."""

import json
from collections.abc import Mapping
from itertools import islice
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser

from frontend.api.bodies import check_whole
from frontend.api.problems import TOO_LARGE, UNREADABLE, Refused
from schedules import storable

MAX_BODY = 1024 * 1024  # bytes
_MOST_TOLD = 20  # of what can't be kept in one body


class StrictJSONParser(BaseParser):
    """UTF-8 JSON without NaN, doubled keys, half surrogate pairs or NUL, of at most ``MAX_BODY`` bytes."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        data = stream.read(MAX_BODY + 1)
        if len(data) > MAX_BODY:
            raise Refused(TOO_LARGE, f"The body has more than {MAX_BODY:,} bytes: send less at once.")
        check_whole((parser_context or {})["request"], len(data))
        try:
            value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_no_constant)
        except UnicodeDecodeError:
            raise ParseError("The body is no UTF-8.") from None
        except RecursionError:
            raise ParseError("The body is nested too deep.") from None
        except json.JSONDecodeError as error:
            raise ParseError(f"{error.msg}: line {error.lineno}, column {error.colno}.") from None
        except ValueError:  # Python's bound of int()
            raise ParseError("A number has too many digits: use a text instead.") from None
        if wrong := [*islice(storable.json_problems(value), _MOST_TOLD)]:
            raise Refused(UNREADABLE, wrong[0].message, pointed=wrong)
        return value


class OnlyJSON(BaseContentNegotiation):
    """Answers are JSON whatever ``Accept`` says, which RFC 9110 (12.4.1) allows and curl's users expect."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return next((each for each in parsers if base_type(request.content_type) == each.media_type), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


def base_type(content_type: str | None) -> str:
    """Without its parameters."""
    return (content_type or "").partition(";")[0].strip().lower()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ParseError(f"The key {twice[:40]!r} stands twice in one object: keep one.")
    return found


def _no_constant(name: str) -> Any:
    raise ParseError(f"{name} is no number of JSON.")
