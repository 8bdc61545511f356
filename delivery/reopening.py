"""Trying again what has failed: the one way back from an outcome, and only from ``failed``."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from audit import trail
from audit.models import Action
from delivery import ledger
from delivery.ledger import Tally
from delivery.models import Batch
from schedules.models import Occurrence, OccurrenceState, Schedule, ScheduleStatus
from schedules.problems import say

_LIVE = (ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED, ScheduleStatus.BROKEN, ScheduleStatus.FINISHED)


# As its sentences name them; a schedule's statuses are sayings of others.
_STATES = (say("waiting"), say("materialising"), say("cancelled"), say("missed"))


class NotReopened(Exception):
    """These failures can't be tried again; the text says why and what to do instead."""


@dataclass(frozen=True)
class Reopened:
    """``people`` are pending again."""

    people: int


@transaction.atomic
def retry_failed(
    *,
    occurrence_id: int,
    by: str,
    now: datetime,
    recipient_ids: Sequence[int] | None = None,
    reason: str = "",
) -> Reopened:
    """Make failed deliveries pending, due at once and with fresh attempts: of these recipients, of this reason, or all.

    A closed occurrence runs again until they are settled. Whoever is meant but has not failed stays as he is. What may
    have arrived (``outcome_unknown``) may arrive twice: whoever asks for it has decided so. Raises ``NotReopened`` and
    ``Occurrence.DoesNotExist``; then nothing has changed.
    """
    schedule_id = Occurrence.objects.values_list("schedule_id", flat=True).get(pk=occurrence_id)
    schedule = Schedule.objects.select_for_update(no_key=True).get(pk=schedule_id)
    occurrence = Occurrence.objects.select_for_update(no_key=True).get(pk=occurrence_id)
    _check(schedule, occurrence, now=now)
    tally = Tally(is_holder=False)
    people = 0
    for batch in Batch.objects.filter(occurrence=occurrence, failed__gt=0).order_by("id"):
        people += ledger.reopen_batch(
            batch.pk, day=occurrence.day, recipient_ids=recipient_ids, reason=reason, now=now, tally=tally
        )
    tally.flush()
    if people:
        _run_again(schedule, occurrence)
        changes = {"occurrence": occurrence_id, "reason": reason, "people": people}
        trail.record(action=Action.DELIVERY_RETRY, by=by, now=now, schedule_id=schedule.pk, changes=changes)
    return Reopened(people)


def _check(schedule: Schedule, occurrence: Occurrence, *, now: datetime) -> None:
    if schedule.status not in _LIVE:
        raise NotReopened(
            say("The schedule is %(status)s: duplicate it to send again.", status=say(str(schedule.status)))
        )
    if occurrence.state not in (OccurrenceState.RUNNING, OccurrenceState.FINISHED):
        raise NotReopened(
            say("The occurrence is %(state)s, so nothing of it can be tried again.", state=say(str(occurrence.state)))
        )
    if occurrence.ends_at <= now or occurrence.outcomes is not None:
        raise NotReopened(
            say("The occurrence has reached the end of its seven days: duplicate the schedule to send again.")
        )


def _run_again(schedule: Schedule, occurrence: Occurrence) -> None:
    if occurrence.state == OccurrenceState.FINISHED:
        occurrence.state, occurrence.closed_at = OccurrenceState.RUNNING, None
        occurrence.save(update_fields=["state", "closed_at"])
    if schedule.status == ScheduleStatus.FINISHED:  # so that it can be paused; it finishes again with the occurrence
        schedule.status = ScheduleStatus.ACTIVE
        schedule.save(update_fields=["status"])
