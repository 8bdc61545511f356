"""Importing schedules from NDJSON, as exports write them: all of them, or none."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import BinaryIO, Final, NamedTuple

from django.db import connection, transaction

from schedules import definition as definitions
from schedules import operations, portable
from schedules.definition import Definition, InvalidDefinition
from schedules.imports.objects import lines_of, read_object
from schedules.imports.values import Refused
from schedules.models import MessageTemplate, Schedule, ScheduleStatus
from schedules.operations import NotAllowed
from schedules.portable import Portable
from schedules.problems import Problem, say

MAX_KEPT: Final = 100  # problems in a report
_OVER: Final = (ScheduleStatus.FINISHED, ScheduleStatus.CANCELLED)
_SUCH_AS: Final = say('is no JSON object: write one such as {"key": "spring-sale", "name": "Spring sale", ...}')


class Became(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


class LineProblem(NamedTuple):
    """``pointer`` is a JSON pointer (RFC 6901) into the line, empty for the whole; ``message`` names the remedy."""

    line: int
    pointer: str
    code: str
    message: str


@dataclass(slots=True)
class SchedulesReport:
    """What an import did, or would have done; with problems it did nothing. ``running``: how many of those that are
    new or changed send from now on, at their times. ``problems`` holds the first ``MAX_KEPT`` of ``problem_count``."""

    lines: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    running: int = 0
    problem_count: int = 0
    problems: list[LineProblem] = field(default_factory=list)
    is_kept: bool = False

    def add(self, line: int, problems: list[Problem]) -> None:
        self.problem_count += len(problems)
        room = MAX_KEPT - len(self.problems)
        for problem in problems[: max(room, 0)]:
            pointer = f"/{problem.field}" if problem.field else ""
            self.problems.append(LineProblem(line, pointer, problem.code, problem.message))


def import_schedules(
    *, stream: BinaryIO, by: str, now: datetime, activate: bool = False, dry_run: bool = False
) -> SchedulesReport:
    """Keep the schedules of ``stream``, each checked as any other that is made or changed, in one transaction.

    Whose key is known is changed to what the file says; all others are made, in the order of the file. Unless
    ``activate``, nothing that is sent changes by it: what is new is a draft, and a change of one that runs is a
    problem. With it each becomes what its ``status`` says; what runs already is no draft again.
    Raises ``lines.Unreadable``; nothing is kept with any problem, nor after a ``dry_run``.
    """
    report = SchedulesReport()
    with transaction.atomic():
        _take_turn()
        template_id = lru_cache(maxsize=1_000)(_template_id)
        met: dict[str, int] = {}
        for number, line in lines_of(stream, encoding="utf-8"):
            report.lines += 1
            try:
                found, problems = portable.read(
                    read_object(line, encoding="utf-8", such_as=_SUCH_AS), template_id=template_id
                )
            except Refused as refused:
                report.add(number, [Problem("", "unreadable", say("The line %(what)s.", what=refused.reason))])
                continue
            if found.key and (first := met.setdefault(found.key, number)) != number:
                words = say("Its key stands on line %(line)s already: keep one of the two.", line=str(first))
                problems.append(Problem("key", "repeated", words))
            if problems:
                problems += _other_problems(found, problems, now=now, activate=activate)
            else:
                problems = _keep(found, report, by=by, now=now, activate=activate)
            report.add(number, problems)
        report.is_kept = not dry_run and not report.problem_count
        if not report.is_kept:
            transaction.set_rollback(True)
    return report


def _other_problems(found: Portable, known: list[Problem], *, now: datetime, activate: bool) -> list[Problem]:
    """Of fields that nothing is known against yet, so that all is told at once."""
    is_draft = not activate or found.status == ScheduleStatus.DRAFT
    check = definitions.check_draft(found.definition) if is_draft else definitions.check(found.definition, now=now)
    told = {problem.field.partition("/")[0] for problem in known}
    pointed = map(portable.pointed, check)
    return [problem for problem in pointed if problem.field.partition("/")[0] not in told]


def _keep(found: Portable, report: SchedulesReport, *, by: str, now: datetime, activate: bool) -> list[Problem]:
    """What is wrong with it; it is counted where nothing is."""
    try:
        with transaction.atomic():
            became, schedule = _bring(found, by=by, now=now, activate=activate)
    except InvalidDefinition as error:
        return [portable.pointed(problem) for problem in error.problems]
    except NotAllowed as error:
        return [Problem("status", "wrong_state", str(error))]
    setattr(report, became, getattr(report, became) + 1)
    report.running += became is not Became.UNCHANGED and schedule.status == ScheduleStatus.ACTIVE
    return []


def _bring(found: Portable, *, by: str, now: datetime, activate: bool) -> tuple[Became, Schedule]:
    """Raises ``InvalidDefinition`` and ``NotAllowed``."""
    standing = Schedule.objects.live().filter(key=found.key).first() if found.key else None
    wanted = found.status if activate else ScheduleStatus.DRAFT.value
    if standing is None:
        is_draft = wanted == ScheduleStatus.DRAFT
        made = operations.create(definition=found.definition, by=by, now=now, draft=is_draft, key=found.key)
        if wanted == ScheduleStatus.PAUSED:
            made = operations.pause(schedule_id=made.pk, by=by, now=now)
        return Became.CREATED, made
    wished = found.definition
    if wished.template_id is None and standing.template and standing.template.deleted_at:
        wished = replace(wished, template_id=standing.template_id)  # which no file can name
    is_other = Definition.of(standing) != wished
    if is_other:
        _refuse_change(standing, activate=activate)
        changes = vars(wished)
        standing = operations.update(schedule_id=standing.pk, changes=changes, by=by, now=now).schedule
    steps = list(_steps(standing.status, wanted))
    for step in steps:
        standing = step(schedule_id=standing.pk, by=by, now=now)
    return (Became.UPDATED if is_other or steps else Became.UNCHANGED), standing


def _refuse_change(standing: Schedule, *, activate: bool) -> None:
    if standing.status in _OVER:
        raise NotAllowed(
            say(
                "The schedule of this key is over (number %(number)s), and never changes: give the line another key.",
                number=str(standing.pk),
            )
        )
    if not activate and standing.status != ScheduleStatus.DRAFT:
        raise NotAllowed(
            say(
                "The schedule of this key runs, and this would change what it sends (number %(number)s): allow that "
                "changes take effect, or leave the line out.",
                number=str(standing.pk),
            )
        )


def _steps(status: str, wanted: str) -> Iterator[Callable[..., Schedule]]:
    """What makes a schedule what is wanted of it. Who runs, or is over, is no draft again."""
    if wanted == ScheduleStatus.DRAFT or status in _OVER:
        return
    if status in (ScheduleStatus.DRAFT, ScheduleStatus.BROKEN):
        yield operations.activate
        status = ScheduleStatus.ACTIVE
    if (status, wanted) == (ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED):
        yield operations.pause
    if (status, wanted) == (ScheduleStatus.PAUSED, ScheduleStatus.ACTIVE):
        yield operations.resume


def _take_turn() -> None:
    """Of two imports one waits until the other has ended: both may bring a key that is new."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('schedules.imports.schedules'))")


def _template_id(name: str) -> int | None:
    found: int | None = MessageTemplate.objects.live().filter(name=name).values_list("pk", flat=True).first()
    return found
