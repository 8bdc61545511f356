"""Whom a change of a schedule touches: per open occurrence, people already done with which version, and the rest."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Count, Sum

from delivery.models import Batch, Delivery, State
from schedules import operations
from schedules.models import Occurrence, Schedule
from schedules.occurrences import ApplyTo, Effect

_OPEN = tuple(state.label for state in State if not state.is_outcome)


@dataclass(frozen=True)
class Touch:
    """One open occurrence after the change. ``done`` maps a version of the schedule to the people it has served;
    ``left`` have no outcome yet, and whoever of them still gets it gets ``version``. Nobody is in both.
    """

    occurrence_id: int
    occurrence_at: datetime
    state: str
    effect: str
    version: int
    left: int
    done: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tried:
    """What an edit did, or would do: the schedule as it is after it, and its open occurrences."""

    schedule: Schedule
    touched: list[Touch]


def try_update(
    *,
    schedule_id: int,
    changes: Mapping[str, Any],
    by: str,
    now: datetime,
    expected_version: int | None = None,
    apply_to: ApplyTo = ApplyTo.NEXT,
) -> Tried:
    """What ``operations.update`` would do: it is done and taken back, so that preview and edit can't disagree.

    Raises what it raises. The schedule's row is locked for as long as this takes.
    """
    with transaction.atomic():
        edit = operations.update(
            schedule_id=schedule_id,
            changes=changes,
            by=by,
            now=now,
            expected_version=expected_version,
            apply_to=apply_to,
        )
        touched = of_edit(edit)
        transaction.set_rollback(True)
    return Tried(edit.schedule, touched)


def of_edit(edit: operations.Edit) -> list[Touch]:
    """``of`` the schedule after an edit that has just been made."""
    effects = {each.occurrence_id: each.effect.value for each in edit.touched}
    return of(schedule_id=edit.schedule.pk, effects=effects, otherwise=Effect.UNTOUCHED.value)


def of(*, schedule_id: int, effects: Mapping[int, str], otherwise: str) -> list[Touch]:
    """The open occurrences of a schedule, the latest first; ``effects`` by occurrence id, ``otherwise`` of the rest.

    Three statements, however many occurrences are open.
    """
    occurrences = Occurrence.objects.open_of(schedule_id)
    if not occurrences:
        return []
    occurrences.sort(key=lambda each: (each.occurrence_at, each.pk), reverse=True)
    left = _left(occurrences)
    done = _done([each for each in occurrences if each.begun_at])
    return [
        Touch(
            each.pk,
            each.occurrence_at,
            each.state,
            effects.get(each.pk, otherwise),
            each.version,
            left.get(each.pk, 0),
            done.get(each.pk, {}),
        )
        for each in occurrences
    ]


def _left(occurrences: list[Occurrence]) -> dict[int, int]:
    sums = Batch.objects.filter(occurrence__in=occurrences).values_list("occurrence_id")
    return {pk: sum(counted) for pk, *counted in sums.annotate(**{name: Sum(name) for name in _OPEN}).order_by()}


def _done(begun: list[Occurrence]) -> dict[int, dict[int, int]]:
    """By the rows: the batches' counters know no versions. A row keeps the version of its last claim."""
    if not begun:
        return {}
    rows = Delivery.objects.filter(
        day__in={each.day for each in begun}, occurrence_id__in=[each.pk for each in begun], state__gte=State.SENT
    )
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for pk, version, people in (
        rows.values_list("occurrence_id", "version").annotate(people=Count("recipient_id")).order_by()
    ):
        found[pk][version] = people
    return found
