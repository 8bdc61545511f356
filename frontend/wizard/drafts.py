"""What somebody typed on the way: kept in the draft as far as it can be, and else in his session.

A draft holds whatever its columns hold, right or wrong. What can't be read as a value at all (half a query, a day that
is none) stays in the session, so that going back and forth loses nothing; it is shown again with what is wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from django.http import HttpRequest, QueryDict
from django.utils import timezone
from django.utils.translation import gettext_lazy

from frontend import actors
from frontend.access import actor
from frontend.erasing import UNSAVED_STEPS
from frontend.models import IdempotencyKey
from frontend.wizard.audience_form import AudienceForm
from frontend.wizard.forms import Around, BasicsForm, MessageForm, StepForm
from frontend.wizard.limits_form import LimitsForm
from frontend.wizard.when_form import WhenForm
from frontend.wording.schedules import FIELDS, value_in_words
from frontend.zones import zones_of
from schedules import clock, operations
from schedules import definition as definitions
from schedules.definition import WIRE, Definition
from schedules.models import MessageTemplate, Schedule, ScheduleType, ScheduleVersion
from schedules.operations import VersionConflict
from schedules.problems import Problem

FORMS: Mapping[str, type[StepForm]] = {
    "basics": BasicsForm,
    "audience": AudienceForm,
    "message": MessageForm,
    "when": WhenForm,
    "limits": LimitsForm,
}
STEPS = (*FORMS, "review")
TITLES = {
    "basics": gettext_lazy("Basics"),
    "audience": gettext_lazy("Audience"),
    "message": gettext_lazy("Message"),
    "when": gettext_lazy("When"),
    "limits": gettext_lazy("Limits"),
    "review": gettext_lazy("Review"),
}
_LIMITS_SEEN = "limits_seen"
_MOST_DRAFTS = 20


def around(request: HttpRequest, *, locked: Iterable[str] = ()) -> Around:
    return Around(clock.now(), zones_of(request), frozenset(locked))


def blank(around: Around) -> Definition:
    """Where a new schedule begins: on the viewer's own clock."""
    return Definition("", "email", None, ScheduleType.ONCE, time_zone=around.zones.mine)


def own_changes(form: StepForm, base: Definition) -> dict[str, Any]:
    """What this form says otherwise than ``base``, the definition that its reader saw."""
    return {name: value for name, value in form.changes().items() if value != getattr(base, name)}


def problems_by_step(definition: Definition, around: Around) -> dict[str, list[Problem]]:
    """What still keeps a draft from running, by the step at which it is mended."""
    found: dict[str, list[Problem]] = {}
    steps = {WIRE[name]: step for step, form in FORMS.items() for name in form.covers}
    for problem in definitions.check(definition, now=around.now):
        wire = problem.field.partition("/")[0]
        found.setdefault(steps.get(wire, "basics"), []).append(problem)
    return found


def merged(definition: Definition, changes: Mapping[str, Any]) -> Definition:
    return replace(definition, **changes)


def make_once(request: HttpRequest, definition: Definition) -> tuple[int, bool]:
    """The id of the draft that the form's token stands for, and whether it was made now.

    Of two requests with the same token the second waits at the key's unique constraint until the first has committed.
    Raises ``InvalidDefinition``.
    """
    by, now = actor(request.user), clock.now()
    token = request.POST.get("token", "")[:100]
    if not token:
        return operations.create(definition=definition, by=by, now=now, draft=True).pk, True
    with transaction.atomic():
        key, is_new = IdempotencyKey.objects.get_or_create(
            client=by[:100],
            key=f"wizard:{token}",
            defaults={"fingerprint": "", "status": 302, "body": "", "created_at": timezone.now()},
        )
        if not is_new:
            return int(key.body), False
        schedule = operations.create(definition=definition, by=by, now=now, draft=True)
        key.body = str(schedule.pk)
        key.save(update_fields=["body"])
    return schedule.pk, True


# Limits, which are complete from the start, since a schedule needs none


def note_limits(request: HttpRequest, schedule_id: int) -> None:
    """Somebody has seen the limits of this draft and gone on."""
    seen = [each for each in request.session.get(_LIMITS_SEEN, []) if each != schedule_id]
    request.session[_LIMITS_SEEN] = [*seen, schedule_id][-_MOST_DRAFTS:]


def are_limits_chosen(request: HttpRequest, schedule: Schedule, around: Around) -> bool:
    """Whether they were seen, or are other than a new draft's."""
    if schedule.pk in request.session.get(_LIMITS_SEEN, []):
        return True
    usual = blank(around)
    return any(getattr(schedule, name) != getattr(usual, name) for name in LimitsForm.covers)


# What could not be saved


def keep_unsaved(request: HttpRequest, schedule_id: int, step: str) -> None:
    kept = request.session.setdefault(UNSAVED_STEPS, {})
    drafts = kept.setdefault(str(schedule_id), {})
    drafts[step] = request.POST.urlencode()
    for oldest in list(kept)[: max(len(kept) - _MOST_DRAFTS, 0)]:
        del kept[oldest]
    request.session.modified = True


def forget_unsaved(request: HttpRequest, schedule_id: int, step: str | None = None) -> None:
    kept = request.session.get(UNSAVED_STEPS, {})
    drafts = kept.get(str(schedule_id))
    if drafts is None:
        return
    if step is None:
        del kept[str(schedule_id)]
    else:
        drafts.pop(step, None)
    request.session.modified = True


def unsaved(request: HttpRequest, schedule_id: int) -> dict[str, QueryDict]:
    kept = request.session.get(UNSAVED_STEPS, {}).get(str(schedule_id), {})
    return {step: QueryDict(posted) for step, posted in kept.items() if step in FORMS}


# Two people


@dataclass(frozen=True)
class Change:
    """One field of a definition before and after, in words."""

    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Meanwhile:
    """What somebody else has changed since a page was opened."""

    who: str
    is_you: bool
    at: Any
    version: int
    changes: list[Change]


def changes_in_words(before: Definition, after: Definition) -> list[Change]:
    old, new = before.to_json(), after.to_json()
    ids = {each["templateId"] for each in (old, new)} - {None}
    names = dict(MessageTemplate.objects.filter(pk__in=ids).values_list("pk", "name"))
    return [
        Change(
            str(label),
            value_in_words(wire, old[wire], definition=old, templates=names),
            value_in_words(wire, new[wire], definition=new, templates=names),
        )
        for wire, label in FIELDS.items()
        if old[wire] != new[wire]
    ]


def definition_at(schedule: Schedule, version: int | None) -> Definition:
    """The definition as a reader of that version saw it; an unknown version is the present one."""
    if version is None or version == schedule.version:
        return Definition.of(schedule)
    kept = ScheduleVersion.objects.filter(schedule=schedule, version=version).first()
    return Definition.from_json(kept.definition) if kept else Definition.of(schedule)


def rebased(form: StepForm, seen: Definition, current: Schedule, version: int | None) -> tuple[StepForm, int | None]:
    """The form with its reader's own changes on top of what stands now, and the version that it then speaks of.

    One that can't be read yet stays as it was typed, of the version that its reader saw.
    """
    if form.errors:
        return form, version
    own = merged(Definition.of(current), own_changes(form, seen))
    return type(form)(None, definition=own, around=form.around), current.version


def meanwhile(request: HttpRequest, conflict: VersionConflict, *, seen: Definition, current: Definition) -> Meanwhile:
    return Meanwhile(
        who=actors.name(conflict.by),
        is_you=conflict.by == actor(request.user),
        at=conflict.at,
        version=conflict.current,
        changes=changes_in_words(seen, current),
    )
