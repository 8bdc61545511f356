"""``/schedules/<id>/``: one schedule: what, to whom, when, within which limits, how it stands and how it went."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from delivery import books
from delivery.forecast import Forecast
from delivery.forecast import forecast as foretell
from frontend import actors, keysets, notices
from frontend.access import needs
from frontend.keysets import BrokenCursor, by_instant
from frontend.pages.frame import framed, is_htmx
from frontend.pages.schedules.actions import find
from frontend.pages.schedules.verbs import EDITABLE, offers
from frontend.wording import RUN_STATES, number, reason, timings
from frontend.wording.audiences import query_in_words
from frontend.wording.problems import problem_in_words
from frontend.wording.schedules import CHANNELS, ON_PAST, STATUSES, hours_in_words, minutes
from frontend.zones import Zones, zones_of
from schedules import clock
from schedules import definition as definitions
from schedules.audience.sources import AudienceTooSlow
from schedules.definition import Definition, InvalidDefinition
from schedules.models import Occurrence, Schedule, ScheduleStatus, ScheduleType, TimeZoneMode
from schedules.occurrences import upcoming
from schedules.permissions import Ability, can
from schedules.recurrence import Firing, InvalidTiming, Note, notes
from schedules.user_service import counting

NEXT_RUNS = 5
RUNS = 10
# What stands on the page itself; the rest is behind “More”.
_FIRST = ("edit", "activate", "pause", "resume")
_NEWEST = by_instant("occurrence_at", descending=True)


@dataclass(frozen=True)
class Planned:
    """A run ahead. ``wall``: what each person's own clock shows at it, empty where all get it at one moment."""

    firing: Firing
    wall: str
    notes: Sequence[Note]


@dataclass(frozen=True)
class Run:
    occurrence: Occurrence
    counted: Mapping[str, int]
    wall: str

    @property
    def state(self) -> str:
        return str(RUN_STATES[self.occurrence.state])

    @property
    def reason(self) -> str:
        return reason(self.occurrence.reason) if self.occurrence.reason else ""


@needs(Ability.READ)
def detail(request: HttpRequest, schedule_id: int) -> HttpResponse:
    schedule = find(schedule_id)
    try:
        runs, following = _runs(schedule, cursor=request.GET.get("before"))
    except BrokenCursor:
        return HttpResponseRedirect(reverse("schedule", args=[schedule_id]))
    may_edit = can(request.user, Ability.EDIT_SCHEDULES)
    versions = schedule.versions.order_by("-version").values_list("created_by", "created_at")[:1]
    changed_by, changed_at = versions[0] if versions else (schedule.created_by, schedule.updated_at)
    offered = offers(schedule) if may_edit else []
    own_clock = schedule.time_zone_mode == TimeZoneMode.USER_LOCAL
    who = actors.names([schedule.created_by, changed_by])
    context = {
        "title": schedule.name,
        "crumbs": [(_("Schedules"), reverse("schedules"))],
        "schedule": schedule,
        "status": STATUSES[schedule.status],
        "state": _state(schedule),
        "missing": _missing(schedule) if schedule.status in (ScheduleStatus.DRAFT, ScheduleStatus.BROKEN) else [],
        "channel": CHANNELS[schedule.channel],
        "audience": query_in_words(schedule.audience_query),
        "audience_json": json.dumps(schedule.audience_query, indent=2, ensure_ascii=False),
        "timing": timings.of(schedule),
        "planned": _planned(schedule),
        "clocks": _clocks(schedule, zones_of(request), own_clock=own_clock),
        "limits": _limits(schedule),
        "may_edit": may_edit,
        "offers": [offer for offer in offered if offer.name in _FIRST],
        "further": [offer for offer in offered if offer.name not in _FIRST],
        "runs": runs,
        "is_first": "before" not in request.GET,
        "following": f"?before={following}#runs" if following else "",
        "made_by": who[schedule.created_by],
        "changed_by": who[changed_by],
        "changed_at": changed_at,
        "held_runs": notices.held(schedule_id=schedule.pk, zones=zones_of(request)),
        "hides_held": True,
        "can_count": bool(schedule.audience_query) and _may_run(schedule),
    }
    return framed(request, "frontend/schedules/detail.html", context)


def _may_run(schedule: Schedule) -> bool:
    """Whether a run lies ahead, or may once it is complete."""
    is_ahead = schedule.next_run_at is not None or schedule.status in (ScheduleStatus.DRAFT, ScheduleStatus.BROKEN)
    return is_ahead and schedule.status in EDITABLE


def _runs(schedule: Schedule, *, cursor: str | None) -> tuple[list[Run], str | None]:
    found, following = keysets.read(Occurrence.objects.filter(schedule=schedule), _NEWEST, cursor=cursor, limit=RUNS)
    counted = books.counted(found) if found else {}
    return [
        Run(each, counted[each.pk], timings.wall(each.occurrence_at, schedule.time_zone_mode)) for each in found
    ], following


def _planned(schedule: Schedule) -> list[Planned]:
    """The next runs, told by the code that fires them; none of a schedule that is over or not complete."""
    if schedule.status not in EDITABLE:
        return []
    try:
        firings = upcoming(schedule, now=clock.now(), count=NEXT_RUNS)
        told = notes(Definition.of(schedule).timing(), firings)
    except (InvalidTiming, ValueError):
        return []
    return [
        Planned(
            firing,
            timings.wall(firing.occurrence_at, schedule.time_zone_mode),
            [note for note in told if note.occurrence_at == firing.occurrence_at],
        )
        for firing in firings
    ]


def _state(schedule: Schedule) -> str:
    """What its status means, and what one can do."""
    match schedule.status:
        case ScheduleStatus.DRAFT:
            return _("A draft sends nothing. It runs once somebody activates it.")
        case ScheduleStatus.ACTIVE if schedule.next_run_at:
            return _("It runs by itself at the times below.")
        case ScheduleStatus.ACTIVE:
            return _("Its last run is going on; then it is finished.")
        case ScheduleStatus.PAUSED:
            return _("Nothing is sent until somebody resumes it. Whoever has not got a run that had begun waits.")
        case ScheduleStatus.FINISHED:
            return _("It has run as often as it was meant to. Duplicate it to send again.")
        case ScheduleStatus.CANCELLED:
            return _("It was ended by somebody: nothing is sent any more. Duplicate it to send again.")
        case ScheduleStatus.BROKEN:
            return _(
                "Its next run could not be worked out, so it stands still; other schedules are not concerned. Correct"
                " what is named here with “Edit”, then choose “Activate”."
            )
    return ""


def _clocks(schedule: Schedule, zones: Zones, *, own_clock: bool) -> tuple[str, str]:
    """What the two columns of the next runs show; the second is empty where it would repeat the first."""
    if own_clock:
        return _("On each person's own clock"), _("The first people get it, in your zone")
    return _("In the schedule's zone"), "" if zones.mine == schedule.time_zone else _("In your zone")


def _missing(schedule: Schedule) -> list[str]:
    """What stands in the way of activating it."""
    problems = definitions.check(Definition.of(schedule), now=clock.now())
    return [problem_in_words(problem) for problem in problems]


def _limits(schedule: Schedule) -> list[str]:
    told = []
    for most, per_day in ((schedule.max_per_user_per_day, True), (schedule.max_per_user_per_week, False)):
        if most is None:
            continue
        if per_day:
            words = ngettext(
                "A person who has got %(n)s message in the last 24 hours is left out.",
                "A person who has got %(n)s messages in the last 24 hours is left out.",
                most,
            )
        else:
            words = ngettext(
                "A person who has got %(n)s message in the last 7 days is left out.",
                "A person who has got %(n)s messages in the last 7 days is left out.",
                most,
            )
        told.append(words % {"n": number(most)})
    if not told:
        told.append(_("No limit of messages per person."))
    told.append(
        _("Its messages count toward the limits of other schedules.")
        if schedule.counts_toward_caps
        else _("Its messages do not count toward the limits of other schedules.")
    )
    told += [f"{words}." for words in hours_in_words(Definition.of(schedule))]
    late = minutes(schedule.misfire_grace_minutes)
    told.append(
        _("It may start %(minutes)s late; whoever could not be started by then is left out.") % {"minutes": late}
    )
    if schedule.time_zone_mode == TimeZoneMode.USER_LOCAL:
        told.append(_("People whose local time has passed: %(what)s.") % {"what": ON_PAST[schedule.on_past]})
    if Definition.of(schedule).rechecks_audience:
        told.append(_("Right before sending it is asked again whether the person still fits the audience."))
    return told


# --- What it would do -------------------------------------------------------------------------------------------------


@needs(Ability.READ)
def forecast(request: HttpRequest, schedule_id: int) -> HttpResponse:
    """Whom the next run would reach if it were worked out now: a part of the page, or a page of its own."""
    schedule = find(schedule_id)
    context: dict[str, Any] = {
        "title": _("Whom it would reach now"),
        "crumbs": [(_("Schedules"), reverse("schedules")), (schedule.name, reverse("schedule", args=[schedule_id]))],
        "schedule": schedule,
        **_foretold(schedule),
    }
    template = "forecast_body.html" if is_htmx(request) else "forecast.html"
    return framed(request, f"frontend/schedules/{template}", context)


def _foretold(schedule: Schedule) -> dict[str, Any]:
    definition, now = Definition.of(schedule), clock.now()
    problems = definitions.check(definition, now=now, timing_is_new=schedule.status == ScheduleStatus.DRAFT)
    if problems:
        return {"trouble": [problem_in_words(problem) for problem in problems]}
    try:
        # Of one that repeats, the run after those that have begun already.
        ahead = upcoming(schedule, now=now, count=1) if schedule.schedule_type == ScheduleType.CRON else []
        at = ahead[0].occurrence_at if ahead else None
        told: Forecast = foretell(definition=definition, now=now, occurrence_at=at, editing=schedule.pk)
    except InvalidDefinition as error:
        return {"trouble": [problem_in_words(problem) for problem in error.problems]}
    except AudienceTooSlow:
        return {"trouble": [_("Counting the audience takes too long at this moment. Try again later.")]}
    skipped = 0 if told.on_past == "send_now" else sum(share.people for share in told.past)
    lines = [
        (_("opted out of this channel"), told.suppressed),
        (_("have no address in this channel"), told.unaddressable),
        (_("are at their limit of messages"), told.capped.people),
        (_("whose local time has passed"), skipped),
        (_("would wait too long for an hour at which it may reach them"), told.expiring),
    ]
    return {
        "forecast": told,
        "served": counting.served(definition.audience_query, now=now),
        "left_out": [(words, people) for words, people in lines if people],
    }
