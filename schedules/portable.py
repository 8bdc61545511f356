"""A schedule as files have it: what the API's definition says, with its template by name instead of by number.

``{"key": "spring-sale", "status": "active", "name": ..., "template": "welcome", ...}``: ``key`` is how a schedule is
known again in whichever database, and ``status`` what it would be there, one of ``STATUSES``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schedules import storable
from schedules.definition import INSTANTS, WIRE, Definition, check_changes
from schedules.models import LONGEST_SCHEDULE_KEY, Schedule, ScheduleStatus
from schedules.problems import Problem, say

# What runs no more, or can't, is a draft where it is brought: somebody decides anew.
STATUSES: Final = (ScheduleStatus.DRAFT.value, ScheduleStatus.ACTIVE.value, ScheduleStatus.PAUSED.value)
_BY_NUMBER: Final = "templateId"
_TEMPLATE: Final = "template"
_NAMES: Final[Mapping[str, str]] = {_TEMPLATE if key == _BY_NUMBER else key: name for name, key in WIRE.items()}
_MEMBERS: Final = ("key", "status", *_NAMES)
_NEEDED: Final = tuple(key for key, name in _NAMES.items() if name in ("name", "channel", "schedule_type"))
_KEY: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_SCHEDULE_KEY - 1}}}", re.ASCII)
# RFC 3339; Python alone would take more for an instant.
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LARGEST_OFFSET: Final = timedelta(hours=16)  # from which on PostgreSQL refuses one


@dataclass(frozen=True)
class Portable:
    """``key`` is empty where the file gives none."""

    key: str
    status: str
    definition: Definition


def written(schedule: Schedule) -> dict[str, Any]:
    """``schedule`` as files have it; its template is read with it. One that is deleted can't be named any more."""
    wire = Definition.of(schedule).to_json()
    template = schedule.template if schedule.template and not schedule.template.deleted_at else None
    wire[_BY_NUMBER] = template.name if template else None
    said = {key: wire[_BY_NUMBER if key == _TEMPLATE else key] for key in _NAMES}
    status = schedule.status if schedule.status in STATUSES else ScheduleStatus.DRAFT.value
    return {"key": schedule.key, "status": status, **said}


def read(said: Mapping[str, Any], *, template_id: Callable[[str], int | None]) -> tuple[Portable, list[Problem]]:
    """What ``said`` gives, and everything that keeps it from being a definition at all; the rest is for
    ``definition.check``. A problem's field is a JSON pointer without its first slash.

    ``template_id`` is asked for the number of a template by its name. What can't be read stands at its default.
    """
    problems = [
        Problem(storable.step(key), "unknown", say("There is no such field; use some of: %(known)s.", known=_members()))
        for key in said
        if key not in _MEMBERS
    ]
    problems += [Problem(key, "required", say("It is missing.")) for key in _NEEDED if key not in said]
    values = {name: _value(name, said[key]) for key, name in _NAMES.items() if key in said and key != _TEMPLATE}
    wrong = check_changes(values)
    named = said.get(_TEMPLATE)
    if isinstance(named, str):
        values["template_id"] = template_id(named)
        if values["template_id"] is None:
            words = say("There is no template called “%(name)s”: import it first.", name=named[:200])
            wrong.append(Problem(_TEMPLATE, "not_found", words))
    elif named is not None:
        wrong.append(Problem(_TEMPLATE, "wrong_type", say("Use the name of a template, or null.")))
    status = said.get("status", ScheduleStatus.DRAFT.value)
    if status not in STATUSES:
        wrong.append(Problem("status", "unknown", say("Use one of: %(known)s.", known=", ".join(STATUSES))))
    key = said.get("key", "")
    if key != "" and not (isinstance(key, str) and _KEY.fullmatch(key)):
        words = say(
            "Use 1 to %(most)s letters, digits, dots, - and _, beginning with a letter or digit.",
            most=LONGEST_SCHEDULE_KEY,
        )
        wrong.append(Problem("key", "invalid", words))
    told = {problem.field for problem in wrong}
    good = {name: value for name, value in values.items() if WIRE[name] not in told}
    return Portable(str(key), str(status), Definition(**{**_blank(), **good})), problems + wrong


def pointed(problem: Problem) -> Problem:
    """A problem of the definition, where a file has what it is about."""
    head, slash, rest = problem.field.partition("/")
    return Problem(f"{_TEMPLATE}{slash}{rest}", problem.code, problem.message) if head == _BY_NUMBER else problem


def _blank() -> dict[str, Any]:
    """What no definition is without."""
    return {"template_id": None} | {
        item.name: ""
        for item in fields(Definition)
        if item.default is item.default_factory is MISSING and item.name != "template_id"
    }


def _value(name: str, value: object) -> object:
    """An instant as one; what is none stays as it is, for ``check_changes`` to refuse."""
    if name not in INSTANTS or not isinstance(value, str) or not _INSTANT.fullmatch(value):
        return value
    try:
        instant = datetime.fromisoformat(value.upper())
        return instant.astimezone(UTC) if abs(instant.utcoffset() or timedelta()) >= _LARGEST_OFFSET else instant
    except (ValueError, OverflowError):
        return value


def _members() -> str:
    return ", ".join(_MEMBERS)
