"""The stop switch: from its commit on nothing of its scope is claimed. Change and audit event are one transaction."""

import re
from datetime import datetime

from django.db import transaction

from audit import trail
from audit.models import Action
from schedules.models import Channel, Schedule, StopSwitch
from schedules.problems import say

_SCOPE = re.compile(rf"all|channel:({'|'.join(Channel.values)})|schedule:([1-9][0-9]{{0,18}})")
_LONGEST_REASON = 500
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


class InvalidScope(ValueError):
    """There is nothing of that kind to stop."""

    def __init__(self, scope: str) -> None:
        super().__init__(say("%(scope)s can't be stopped: use all, channel:NAME or schedule:ID.", scope=f"{scope!r}"))


class NoSuchSchedule(LookupError):
    """A schedule that does not exist can't be stopped: whoever mistypes an id must not believe that it is."""

    def __init__(self, schedule_id: int) -> None:
        super().__init__(
            say(
                "There is no schedule %(schedule_id)s, so nothing was stopped: look its id up in the list.",
                schedule_id=str(schedule_id),
            )
        )


class InvalidReason(ValueError):
    """The words given as a reason can't be kept."""


@transaction.atomic
def stop_sending(*, scope: str, by: str, now: datetime, reason: str = "") -> StopSwitch:
    """No claim within ``scope`` (``all``, ``channel:NAME``, ``schedule:ID``) succeeds from the commit on.

    Raises ``InvalidScope``, ``InvalidReason`` and, for a schedule that there isn't, ``NoSuchSchedule``.
    """
    found = _SCOPE.fullmatch(scope)
    if not found:
        raise InvalidScope(scope)
    refuse_reason(reason)
    schedule_id = found.group(2)
    if schedule_id and not Schedule.objects.filter(pk=int(schedule_id)).exists():
        raise NoSuchSchedule(int(schedule_id))
    switch, created = StopSwitch.objects.get_or_create(
        scope=scope, defaults={"reason": reason, "created_by": by, "created_at": now}
    )
    if created:
        changes = {"scope": [None, scope], "reason": [None, reason]}
        trail.record(action=Action.SENDING_STOP, by=by, now=now, changes=changes)
    return switch


@transaction.atomic
def go_sending(*, scope: str, by: str, now: datetime) -> bool:
    """Take the stop of ``scope`` back; false where there was none. Other scopes stay stopped."""
    deleted, _ = StopSwitch.objects.filter(scope=scope).delete()
    if deleted:
        trail.record(action=Action.SENDING_GO, by=by, now=now, changes={"scope": [scope, None]})
    return bool(deleted)


def over(schedule: Schedule) -> StopSwitch | None:
    """The stop that a schedule's messages fall under; of several the first."""
    scopes = [StopSwitch.ALL, f"channel:{schedule.channel}", f"schedule:{schedule.pk}"]
    return StopSwitch.objects.filter(scope__in=scopes).order_by("id").first()


def refuse_reason(reason: str) -> None:
    """Raises ``InvalidReason`` for words that can't be kept, of a stop as of a pause."""
    if len(reason) > _LONGEST_REASON:
        raise InvalidReason(
            say("The reason has %(size)s characters: use at most %(most)s.", size=len(reason), most=_LONGEST_REASON)
        )
    if _UNKEEPABLE.search(reason):
        raise InvalidReason(say("The reason holds a NUL or half a surrogate pair, which can't be kept: remove it."))
