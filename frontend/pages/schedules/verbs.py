"""What can be done with a schedule, in words: what it is called, what it does, what to say when it is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from schedules import operations
from schedules.models import Schedule, ScheduleStatus, ScheduleType

Words = str | Promise

_S = ScheduleStatus
EDITABLE = frozenset({_S.DRAFT, _S.ACTIVE, _S.PAUSED, _S.BROKEN})
LIVE = frozenset(_S) - {_S.DELETED}


@dataclass(frozen=True)
class Verb:
    """``means`` is told before anybody says yes, ``done`` (with ``%(name)s``) afterwards.

    ``takes_version``: it is refused where somebody else has changed the schedule since it was asked.
    """

    name: str
    label: Words
    title: Words
    means: Words
    yes: Words
    done: Words
    operation: Callable[..., Any]
    states: frozenset[ScheduleStatus]
    is_dangerous: bool = False
    takes_reason: bool = False
    takes_version: bool = False
    in_bulk: Words = ""


VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            "activate",
            _("Activate"),
            _("Activate “%(name)s”?"),
            _("It is checked as a whole and then runs at its time. Nothing is sent before that."),
            _("Yes, activate it"),
            _("“%(name)s” is active and runs at its time."),
            operations.activate,
            frozenset({_S.BROKEN}),  # a draft is activated at the end of the wizard, which asks more
            takes_version=True,
        ),
        Verb(
            "pause",
            _("Pause"),
            _("Pause “%(name)s”?"),
            _(
                "Nothing more is sent from now on; messages being handed over at this very moment still arrive. Whoever"
                " has not got it waits. Runs that fall due during the pause are not made up for if it lasts longer than"
                " the schedule may be late."
            ),
            _("Yes, pause it"),
            _("“%(name)s” is paused. Whoever is left waits until it is resumed."),
            operations.pause,
            frozenset({_S.ACTIVE}),
            takes_reason=True,
            in_bulk=_("Pause"),
        ),
        Verb(
            "resume",
            _("Resume"),
            _("Resume “%(name)s”?"),
            _(
                "It goes on where it stopped: whoever waits gets it now, and nobody gets anything twice. Runs whose"
                " time has passed meanwhile are not made up for."
            ),
            _("Yes, resume it"),
            _("“%(name)s” goes on where it stopped."),
            operations.resume,
            frozenset({_S.PAUSED}),
            in_bulk=_("Resume"),
        ),
        Verb(
            "run-now",
            _("Run now"),
            _("Run “%(name)s” now?"),
            _(
                "Everybody in the audience gets it at this moment, whatever the time is where they are. The runs that"
                " are planned stay as they are."
            ),
            _("Yes, send it now"),
            _("“%(name)s” is being sent now."),
            operations.run_now,
            frozenset({_S.ACTIVE}),
            is_dangerous=True,
        ),
        Verb(
            "duplicate",
            _("Duplicate"),
            _("Duplicate “%(name)s”?"),
            _("A draft with the same content is made, without the time of a single run. It sends nothing by itself."),
            _("Yes, make a copy"),
            _("This is the copy of “%(name)s”: a draft, which sends nothing before it is activated."),
            operations.duplicate,
            LIVE,
        ),
        Verb(
            "cancel",
            _("Cancel the schedule"),
            _("Cancel “%(name)s” for good?"),
            _(
                "The schedule ends and so does every run of it that is going on: whoever has not got it gets nothing."
                " What was sent stays sent. There is no way back; a copy can be made."
            ),
            _("Yes, cancel it for good"),
            _("“%(name)s” is cancelled. What was sent stays sent."),
            operations.cancel,
            EDITABLE,
            is_dangerous=True,
            in_bulk=_("Cancel for good"),
        ),
        Verb(
            "delete",
            _("Delete"),
            _("Delete “%(name)s”?"),
            _(
                "It is cancelled and leaves every list: whoever has not got it gets nothing. What was sent stays sent,"
                " and ledger and audit keep what they know. There is no way back."
            ),
            _("Yes, delete it"),
            _("“%(name)s” is deleted. Ledger and audit keep what they know."),
            operations.delete,
            LIVE,
            is_dangerous=True,
            takes_version=True,
            in_bulk=_("Delete"),
        ),
    )
}
RUN_A_ONE_OFF_NOW = _(
    "Everybody in the audience gets it at this moment, whatever the time is where they are, and not again at the time"
    " that was planned."
)


@dataclass(frozen=True)
class Offer:
    """A way to do something: a link to where it is asked once more, or to a page of its own."""

    name: str
    label: Words
    link: str
    in_modal: bool = True
    is_dangerous: bool = False


def is_offered(verb: Verb, schedule: Schedule) -> bool:
    """Whether the schedule's state admits it; the operation has the last word."""
    if verb.name == "run-now" and schedule.schedule_type == ScheduleType.ONCE and schedule.runs:
        return False
    return schedule.status in verb.states


def offers(schedule: Schedule) -> Sequence[Offer]:
    """What may be done with it as it stands, the mild before the harsh."""
    found = [
        Offer(verb.name, verb.label, reverse("schedule-do", args=[schedule.pk, verb.name]), True, verb.is_dangerous)
        for verb in VERBS.values()
        if is_offered(verb, schedule)
    ]
    if schedule.status == ScheduleStatus.DRAFT:
        review = reverse("wizard-step", args=[schedule.pk, "review"])
        found.insert(0, Offer("activate", _("Review and activate"), review, in_modal=False))
    if schedule.status in EDITABLE:
        found.insert(0, Offer("edit", _("Edit"), reverse("schedule-edit", args=[schedule.pk]), in_modal=False))
    return found


def means(verb: Verb, schedule: Schedule) -> str:
    is_once = schedule.schedule_type == ScheduleType.ONCE
    return str(RUN_A_ONE_OFF_NOW if verb.name == "run-now" and is_once else verb.means)
