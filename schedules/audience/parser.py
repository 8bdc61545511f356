"""Reads an audience query from JSON, and says all that is wrong with it at once.

    {"all": [{"field": "attributes.plan", "op": "eq", "value": "pro"},
             {"any": [{"field": "locale", "op": "starts_with", "value": "de"}, {"not": {...}}]}]}

`{"all": []}` means everyone. `{}` is refused, so that a forgotten query doesn't write to everyone, and so is
an empty `any`. A clause alone has depth 1; each group around it adds one.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schedules.audience.tree import RULES, AllOf, AnyOf, Clause, Field, Kind, Node, Not, Operator
from schedules.audience.values import BadValue, read_value
from schedules.problems import say

MAX_DEPTH = 5
MAX_NODES = 50
MAX_PROBLEMS = 50

ATTRIBUTE_NAME = re.compile(r"[\w-]{1,64}")  # letters of any script, digits, _ and -

_GROUPS = ("all", "any", "not")
_CLAUSE = ("field", "op", "value")
_PREFIX = f"{Field.ATTRIBUTE}."
_COLUMNS = [str(field) for field in Field if field is not Field.ATTRIBUTE]
_FIELD_NAMES = [*_COLUMNS, f"{_PREFIX}<name>"]
_IDENTIFIERS = frozenset(
    ("address", "device", "devices", "devicetoken", "email", "emailaddress", "phone", "phonenumber", "token")
)


@dataclass(frozen=True, slots=True)
class Problem:
    """`pointer` is a JSON pointer (RFC 6901), `""` for the whole query; `message` names the remedy."""

    pointer: str
    code: str
    message: str


class InvalidAudience(ValueError):
    """The query can't be used. `problems` holds everything found, MAX_PROBLEMS at most, in reading order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{each.pointer or 'query'}: {each.message}" for each in self.problems))


def parse(data: object) -> Node:
    """The tree of a decoded JSON query. Raises InvalidAudience; `data` may be of any type, depth and size."""
    reader = _Reader()
    node = reader.node(data, pointer="", depth=1)
    if node is None or reader.problems:
        raise InvalidAudience(reader.problems)
    return node


def parse_text(text: str | bytes) -> Node:
    """As `parse`, from JSON text. A key given twice is refused, since JSON would silently drop the first."""
    try:
        data = json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise InvalidAudience([_too_deep("")]) from None
    except ValueError as error:  # of json, of unicode, and of integers with thousands of digits
        message = say("This is no JSON: %(error)s.", error=str(error))
        raise InvalidAudience([Problem("", "invalid_json", message)]) from None
    return parse(data)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError(say("a key stands twice in one object"))
    return read


def _too_deep(pointer: str) -> Problem:
    return Problem(
        pointer,
        "too_deep",
        say("The query is nested more than %(most)s levels deep; merge groups of the same kind.", most=MAX_DEPTH),
    )


class _Reader:
    """Collects the problems of one query. Recursion ends at MAX_DEPTH, work at MAX_NODES."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._nodes = 0

    def node(self, data: object, *, pointer: str, depth: int) -> Node | None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._add_too_large()
        elif depth > MAX_DEPTH:
            self._add(_too_deep(pointer))
        elif not isinstance(data, dict):
            self._report(
                pointer, "wrong_type", say('An object is needed: a clause, or a group such as {"all": [...]}.')
            )
        elif not data:
            self._report(pointer, "empty_query", say('The object is empty; for everyone write {"all": []}.'))
        elif any(key in data for key in _GROUPS):
            return self._group(data, pointer, depth)
        else:
            return self._clause(data, pointer)
        return None

    def _group(self, data: Mapping[object, object], pointer: str, depth: int) -> Node | None:
        key = next(key for key in _GROUPS if key in data)
        if len(data) > 1:
            self._report(
                pointer,
                "unknown_key",
                say('"%(key)s" must be the only key of its object; put the others in a group of theirs.', key=key),
            )
        if key == "not":
            part = self.node(data[key], pointer=f"{pointer}/not", depth=depth + 1)
            return Not(part) if part else None
        parts = self._parts(data[key], f"{pointer}/{key}", depth)
        if parts is None:
            return None
        if key == "any" and not parts:
            self._report(
                f"{pointer}/any",
                "empty_any",
                say('An empty "any" fits nobody; name a clause, or remove the group.'),
            )
            return None
        return AllOf(parts) if key == "all" else AnyOf(parts)

    def _parts(self, data: object, pointer: str, depth: int) -> tuple[Node, ...] | None:
        if not isinstance(data, list):
            self._report(pointer, "wrong_type", say("A list of clauses and groups is needed."))
            return None
        parts = []
        for index, each in enumerate(data):
            parts.append(self.node(each, pointer=f"{pointer}/{index}", depth=depth + 1))
            if self._nodes > MAX_NODES:
                break
        whole = tuple(part for part in parts if part)
        return whole if len(whole) == len(parts) else None

    def _clause(self, data: Mapping[object, object], pointer: str) -> Clause | None:
        for key in data:
            if key not in _CLAUSE:
                self._report(
                    pointer,
                    "unknown_key",
                    say(
                        'Unknown key "%(shown)s"; a clause has field, op, value, a group all, any or not.',
                        shown=_shown(key),
                    ),
                )
        missing = [key for key in _CLAUSE if key not in data]
        if len(missing) < len(_CLAUSE):  # else it was meant as a group, and its key is what is wrong
            for key in missing:
                self._report(
                    pointer, "missing_key", say('"%(key)s" is missing; a clause has field, op and value.', key=key)
                )
        field = self._field(data["field"], f"{pointer}/field") if "field" in data else None
        operator = self._operator(data["op"], f"{pointer}/op") if "op" in data else None
        if not field or not operator:
            return None
        kind = self._kind(field[0], operator, f"{pointer}/op")
        if not kind or "value" not in data:
            return None
        try:
            return Clause(field[0], operator, read_value(kind, data["value"]), field[1])
        except BadValue as bad:
            for below, code, message in bad.faults:
                self._report(f"{pointer}/value{below}", code, message)
        return None

    def _field(self, name: object, pointer: str) -> tuple[Field, str] | None:
        """The field and, for an attribute, its name."""
        if not isinstance(name, str):
            self._report(
                pointer, "wrong_type", say("A field's name is needed: %(known)s.", known=", ".join(_FIELD_NAMES))
            )
            return None
        if _is_identifier(name):
            self._report(
                pointer,
                "identifier_field",
                say(
                    "Addresses and device tokens can't be queried, so that none is kept in a schedule's history; "
                    "ask by external_id, or for who has one by channels, op contains."
                ),
            )
            return None
        if name.startswith(_PREFIX):
            return self._attribute(name.removeprefix(_PREFIX), pointer)
        if name in _COLUMNS:
            return Field(name), ""
        message = say('Unknown field "%(shown)s"; %(hint)s.', shown=_shown(name), hint=_hint(name, _FIELD_NAMES))
        self._report(pointer, "unknown_field", message)
        return None

    def _attribute(self, name: str, pointer: str) -> tuple[Field, str] | None:
        if ATTRIBUTE_NAME.fullmatch(name):
            return Field.ATTRIBUTE, name
        self._report(
            pointer,
            "invalid_attribute",
            say("An attribute's name has 1 to 64 letters, digits, _ or -; values within values can't be queried."),
        )
        return None

    def _operator(self, name: object, pointer: str) -> Operator | None:
        names = [str(operator) for operator in Operator]
        if isinstance(name, str) and name in names:
            return Operator(name)
        if isinstance(name, str):
            message = say('Unknown operator "%(shown)s"; %(hint)s.', shown=_shown(name), hint=_hint(name, names))
            self._report(pointer, "unknown_operator", message)
        else:
            self._report(pointer, "wrong_type", say("An operator's name is needed: %(known)s.", known=", ".join(names)))
        return None

    def _kind(self, field: Field, operator: Operator, pointer: str) -> Kind | None:
        fitting = RULES[field]
        if operator not in fitting:
            self._report(
                pointer,
                "operator_not_for_field",
                say(
                    "%(operator)s doesn't fit %(field)s; use one of %(known)s.",
                    operator=operator,
                    field=field,
                    known=", ".join(fitting),
                ),
            )
        return fitting.get(operator)

    def _add_too_large(self) -> None:
        message = say("The query has more than %(most)s parts; join values with in, or use a tag.", most=MAX_NODES)
        problem = Problem("", "too_many_nodes", message)
        if problem not in self.problems:
            self._add(problem)

    def _report(self, pointer: str, code: str, message: str) -> None:
        self._add(Problem(pointer, code, message))

    def _add(self, problem: Problem) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def _is_identifier(name: str) -> bool:
    """Whether a field names an address or a token, however it is spelled, as an attribute or not."""
    plain = name[:100].removeprefix(_PREFIX).casefold()
    return any(part.replace("_", "").replace("-", "") in _IDENTIFIERS for part in (plain, plain.partition(".")[0]))


def _shown(name: object) -> str:
    """The start of a wrong name, fit for any answer and log."""
    return name[:40].encode("utf-8", "replace").decode() if isinstance(name, str) else type(name).__name__


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name[:40], known, n=1)
    if close:
        return say('did you mean "%(name)s"', name=close[0])
    return say("known are %(known)s", known=", ".join(known))
