"""A restored database, before it sends again: what was sent after the backup is told by others, and nothing is guessed.

While it waits for this nothing is claimed, opened or swept, so the ledger stands still. Occurrences that the lost time
had opened are opened again, by their identity; who was sent to is told by the provider's events; who may have been is
failed as ``outcome_unknown``, which a person may have tried again (docs/runbooks/database-restored.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import Min

from audit import trail
from audit.lost import LostEvent
from audit.models import Action
from delivery import caps, continuity, dispatch, ledger, materialise
from delivery.events import settling
from delivery.events.base import ProviderEvent
from delivery.ledger import Tally
from delivery.models import OUTCOME_UNKNOWN, Continuity, State
from schedules import recipients, stops
from schedules.models import Channel, Occurrence, OccurrenceState, Schedule, ScheduleStatus, StopSwitch
from schedules.preferences import PERSON
from schedules.recipients import NoSuchRecipient

# As ``dispatch.MATERIALISED``.
_MATERIALISED: Final = (ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED, ScheduleStatus.BROKEN)
# Batches settled in one transaction.
CHUNK: Final = 100


class NotRestored(Exception):
    """There is nothing to settle."""


class NotSettled(Exception):
    """The database was restored, and nobody has settled what was sent since the backup; the text says what to do."""

    def __init__(self) -> None:
        super().__init__(
            "This database was restored, and nobody has settled what was sent after the backup: run manage.py"
            " settle_restored first (docs/runbooks/database-restored.md). Who goes on without writes to people twice."
        )


class NotMaterialised(Exception):
    """The people of some occurrences could not be found; whatever was settled stays so, and it may be run again."""

    def __init__(self, occurrence_ids: Sequence[int]) -> None:
        numbers = ", ".join(map(str, occurrence_ids[:10]))
        super().__init__(
            f"The people of {len(occurrence_ids)} runs could not be found ({numbers}): the log says why. Run this again"
            " once that is mended, or cancel their schedules."
        )


@dataclass
class Settlement:
    """``opened`` counts occurrences; ``unmatched`` the ``events`` of messages of which this database knows nothing.

    People: ``told`` of by the provider, ``unclear`` (failed, ``outcome_unknown``), ``erased`` again, ``silenced`` since
    they said something by a link that nobody knows any more.
    """

    opened: int = 0
    events: int = 0
    unmatched: int = 0
    told: int = 0
    unclear: int = 0
    erased: int = 0
    silenced: int = 0


def go(*, scope: str, by: str, now: datetime, settled_otherwise: bool = False) -> bool:
    """``stops.go_sending``, but not of all in a restored database that nobody has settled. Raises ``NotSettled``.

    ``settled_otherwise``: somebody answers for it that nobody was written to since, or may be written to twice.
    """
    kept = continuity.restored()
    if kept is None or scope != StopSwitch.ALL:
        return stops.go_sending(scope=scope, by=by, now=now)
    if not settled_otherwise:
        raise NotSettled
    with transaction.atomic():
        went = stops.go_sending(scope=scope, by=by, now=now)
        _finish(kept, by=by, now=now, figures={})
    return went


def settle(
    *,
    events: Iterable[Sequence[ProviderEvent]],
    by: str,
    now: datetime,
    until: datetime | None = None,
    is_complete: bool = False,
    gone: Iterable[LostEvent] = (),
    erase: Callable[[int], object],
) -> Settlement:
    """Settle what happened between the backup and ``until``, when the last call may have begun (business time).

    ``events`` of the provider, some at a time. ``is_complete``: they tell of every message that was taken, so whoever
    is not among them was not written to. ``gone``: what the exported audit tells of the time since the backup; whoever
    was erased then is given to ``erase``, by the number that people have here too. May be run again after any error;
    what is told twice changes nothing. Raises ``NotRestored``, ``NotMaterialised``, and what reading ``events`` does.
    """
    kept = continuity.restored()
    if kept is None:
        raise NotRestored
    assert kept.restored_to is not None
    last = until or continuity.until(kept)
    done = Settlement()
    _done_again(gone, erase, done, now=now)
    done.opened = _open_again(since=kept.restored_to, until=max(min(last, now), kept.restored_to))
    for some in events:
        settled = settling.settle(some, now=now)
        done.events += len(some)
        done.unmatched += settled.unmatched
        done.told += settled.corrected
    _settle_batches(done, kept, until=last, is_complete=is_complete, now=now)
    with transaction.atomic():
        _finish(kept, by=by, now=now, figures=vars(done))
    return done


def _finish(kept: Continuity, *, by: str, now: datetime, figures: Mapping[str, int]) -> None:
    changes: dict[str, Any] = {"restored_to": _text(kept.restored_to), "last_seen_at": _text(kept.last_seen_at)}
    trail.record(action=Action.SENDING_SETTLE, by=by, now=now, changes={**changes, **figures})
    continuity.settled(now=now)


def _text(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _done_again(gone: Iterable[LostEvent], erase: Callable[[int], object], done: Settlement, *, now: datetime) -> None:
    """Who was erased is; who said by a link what to be sent gets nothing: the audit knows who did, and not what."""
    for event in gone:
        person = event.changes.get("recipient")
        if not isinstance(person, int):
            continue
        try:
            if event.action == Action.RECIPIENT_ERASE:
                erase(person)
                done.erased += 1
            elif is_said_by_person(event):
                no = dict.fromkeys(Channel.values, False)
                recipients.update(recipient_id=person, changes={"consent": no}, by=continuity.BY, now=now)
                done.silenced += 1
        except NoSuchRecipient:
            continue  # made after the backup, or erased already


def is_said_by_person(event: LostEvent) -> bool:
    """Whether somebody set by a link in a message what to be sent; most do it to unsubscribe."""
    return (event.action, event.actor_id) == (Action.RECIPIENT_SAVE, PERSON) and "consent" in event.changes


def _open_again(*, since: datetime, until: datetime) -> int:
    """Open what the lost time had opened, each at its own instant: who may have got it needs a row to be told of.

    At its end alone all that was due an hour before would be missed. Raises ``NotMaterialised``.
    """
    opened = 0
    while first := Schedule.objects.due(by=until).aggregate(first=Min("next_run_at"))["first"]:
        opened += len(dispatch.open_due(now=max(first, since)).occurrence_ids)
    Occurrence.objects.filter(state=OccurrenceState.MATERIALISING).update(
        materialise_queued_at=None, materialise_lease_until=None
    )
    while waiting := dispatch.to_materialise():
        for occurrence in Occurrence.objects.filter(pk__in=waiting).order_by("opens_at", "pk"):
            at = min(max(occurrence.opens_at, since), until)
            materialise.attempt(occurrence_id=occurrence.pk, now=at)
    left = Occurrence.objects.filter(state=OccurrenceState.MATERIALISING, schedule__status__in=_MATERIALISED)
    if numbers := list(left.order_by("pk").values_list("pk", flat=True)):
        raise NotMaterialised(numbers)
    return opened


_OPEN = """
SELECT id, day, channel, occurrence_id > %(runs_from)s FROM delivery_batch
WHERE (pending > 0 OR sending > 0 OR unknown > 0) AND id > %(after)s ORDER BY id LIMIT %(chunk)s
"""


def _settle_batches(done: Settlement, kept: Continuity, *, until: datetime, is_complete: bool, now: datetime) -> None:
    after = 0
    while True:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(_OPEN, {"runs_from": kept.runs_from, "after": after, "chunk": CHUNK})
                batches = cursor.fetchall()
            if not batches:
                return
            tally = Tally(is_holder=False)
            told, released = ledger.correct_restored([(pk, day) for pk, day, _, _ in batches], now=now, tally=tally)
            done.told += told
            for pk, day, channel, is_new in batches:
                done.unclear += sum(
                    ledger.settle_batch(
                        pk,
                        day=day,
                        source=source,
                        target=State.FAILED,
                        reason=OUTCOME_UNKNOWN,
                        now=now,
                        tally=tally,
                        condition=condition,
                        parameters={"until": until},
                    )
                    for source, condition in _unclear(channel, is_new=is_new, is_complete=is_complete)
                )
            tally.flush()
        caps.give_back(released)
        after = batches[-1][0]


_MAY_HAVE_BEEN_SENT = "d.due_at <= %(until)s"


def _unclear(channel: str, *, is_new: bool, is_complete: bool) -> list[tuple[State, str]]:
    """Which rows, by state and SQL, may have been sent to in the lost time, so that another call may be one too many.

    In the app a message is in this database or nowhere. A push repeats under its collapse id, but for occurrences that
    were opened anew (``is_new``): theirs is another than the one on the device.
    """
    if channel == Channel.IN_APP or (channel == Channel.PUSH and not is_new):
        return []
    waited = [] if is_complete and channel == Channel.EMAIL else [(State.PENDING, _MAY_HAVE_BEEN_SENT)]
    return [*waited, (State.SENDING, "TRUE")] if channel == Channel.EMAIL else waited
