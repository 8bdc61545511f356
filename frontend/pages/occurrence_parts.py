"""What the page of a run shows: how far it is, its waves, its books, who waits and who did not get it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from babel.numbers import format_percent
from django.db.models import Count, Max, Min, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from delivery import feedback, progress, punctuality
from delivery.books import Books
from delivery.feedback import Heard
from delivery.models import OUTCOME_UNKNOWN, Delivery, FailedAttempt, State
from delivery.punctuality import Start
from frontend.pages.decisions import Again, is_reopenable
from frontend.wording import STATES, number, reason, remedy
from frontend.wording.timings import locale
from schedules.models import Channel, Occurrence, OccurrenceState, Resolution, TimeZoneMode
from schedules.recurrence import zone

_OPEN = (State.PENDING, State.SENDING, State.UNKNOWN)


# --- How far it is ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """``elapsed``: seconds since the first call for anyone, or as long as it took; ``said``: coarse, to be read out.

    ``heard``: what the provider told of those sent to, where it tells anything.
    """

    counted: Mapping[str, int]
    targeted: int
    done: int
    eta: datetime | None
    rate: str
    elapsed: float | None
    said: str
    heard: Heard | None = None

    @property
    def sent(self) -> int:
        return self.counted["sent"]

    @property
    def failed(self) -> int:
        return self.counted["failed"]

    @property
    def open(self) -> int:
        return sum(self.counted[state.label] for state in _OPEN)

    @property
    def left_out(self) -> int:
        return self.done - self.sent - self.failed

    @property
    def awaited(self) -> int:
        """People sent to of whom nothing final was told yet."""
        return self.heard.awaited(self.sent) if self.heard else 0

    @property
    def percent(self) -> str:
        """“45%”, as the viewer's language writes it; full is only what is."""
        whole = 100 * self.done // self.targeted if self.targeted else 0
        return str(format_percent(whole / 100, locale=locale()))


def figures(found: Occurrence, *, counted: Mapping[str, int], resolving: Resolution | None, now: datetime) -> Figures:
    made = progress.of(found, counted=counted, now=now)
    until = found.closed_at or now
    elapsed = (until - found.begun_at).total_seconds() if found.begun_at else None
    said = _said(found, made.done, resolving)
    heard = feedback.of_occurrences([found.pk])[found.pk] if found.schedule.channel == Channel.EMAIL else None
    return Figures(
        counted,
        made.targeted,
        made.done,
        made.eta,
        _rate(made.per_second),
        elapsed,
        said,
        heard if heard and heard.is_any else None,
    )


def _rate(per_second: float) -> str:
    if per_second >= 1:
        return _("%(n)s people a second") % {"n": number(round(per_second))}
    per_minute = round(per_second * 60)
    if not per_minute:
        return ""
    return ngettext("%(n)s person a minute", "%(n)s people a minute", per_minute) % {"n": per_minute}


def _said(found: Occurrence, done: int, resolving: Resolution | None) -> str:
    if resolving and resolving.people:
        people = ngettext(
            "So far the user service has named %(people)s person.",
            "So far the user service has named %(people)s people.",
            resolving.people,
        )
        return people % {"people": number(resolving.people)}
    if found.state == OccurrenceState.MATERIALISING:
        return _("The run is finding its people.")
    if found.closed_at is not None:
        return _("The run is over: %(done)s people have their outcome.") % {"done": number(done)}
    tenths = 10 * done // found.targeted if found.targeted else 0
    return _("The run is %(percent)s per cent done.") % {"percent": 10 * tenths}


# --- Its waves --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """A stretch of the picture, in its own units, written with a point."""

    css: str
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Wave:
    """The people due at one instant. ``zones``: the most frequent first; ``local``: what their clocks show then."""

    at: datetime
    zones: Sequence[str]
    local: datetime
    people: int
    sent: int
    open: int
    late: float | None
    css: str
    status: str
    bars: Sequence[Bar] = ()

    @property
    def shown(self) -> Sequence[str]:
        return self.zones[:3]

    @property
    def more(self) -> Sequence[str]:
        return self.zones[3:]

    @property
    def own(self) -> str:
        return self.zones[0] if self.zones else ""


# The picture is so wide and so high, in its own units.
_WIDE, _HIGH = 100.0, 24.0


def waves(found: Occurrence, *, now: datetime, waits: bool) -> list[Wave]:
    """From the batches, however many people. ``waits``: something keeps the whole run from being sent."""
    starts = punctuality.starts(found)
    is_local = found.schedule.time_zone_mode == TimeZoneMode.USER_LOCAL
    names = punctuality.zones(found) if is_local else {}
    bars = _bars(starts) if len(starts) > 1 else [()] * len(starts)
    return [
        _wave(start, names.get(start.wave_at, []), bar, found, now=now, waits=waits)
        for start, bar in zip(starts, bars, strict=True)
    ]


def _wave(
    start: Start, names: Sequence[str], bars: Sequence[Bar], found: Occurrence, *, now: datetime, waits: bool
) -> Wave:
    local = start.wave_at.astimezone(zone(names[0])) if names else start.wave_at
    alike = [name for name in names if start.wave_at.astimezone(zone(name)).utcoffset() == local.utcoffset()]
    if not start.open:
        css, status = ("finished", _("done")) if start.sent else ("expired", _("not sent"))
    elif start.wave_at > now:
        css, status = "pending", _("ahead")
    elif waits or found.state == OccurrenceState.CANCELLED:
        css, status = "paused", _("waits")
    else:
        css, status = "running", _("being sent")
    return Wave(start.wave_at, alike, local, start.people, start.sent, start.open, start.late_s, css, status, bars)


def _bars(starts: Sequence[Start]) -> list[Sequence[Bar]]:
    first, last = starts[0].wave_at, starts[-1].wave_at
    span = (last - first).total_seconds() or 1.0
    most = max(start.people for start in starts)
    width = max(0.8, min(4.0, 0.6 * _WIDE / len(starts)))
    found: list[Sequence[Bar]] = []
    for start in starts:
        x = (start.wave_at - first).total_seconds() / span * (_WIDE - width)
        y, stack = _HIGH, []
        others = start.people - start.sent - start.open
        for css, people in (("sent", start.sent), ("left_out", others), ("open", start.open)):
            height = people / most * _HIGH
            y -= height
            if people:
                stack.append(Bar(css, f"{x:.2f}", f"{y:.2f}", f"{width:.2f}", f"{height:.2f}"))
        found.append(stack)
    return found


# --- Its books --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One state in the books; ``rows`` is none where the rows have not been read."""

    state: int
    name: str
    words: str
    counted: int
    rows: int | None

    @property
    def agrees(self) -> bool:
        return self.rows is None or self.rows == self.counted


@dataclass(frozen=True)
class Sum:
    """The books as a closed sum; ``rows_total`` is none where the rows have not been read."""

    targeted: int
    lines: Sequence[Line]
    total: int
    rows_total: int | None
    differences: Sequence[str]

    @property
    def closes(self) -> bool:
        return not self.differences

    @property
    def parts(self) -> Sequence[Line]:
        return [line for line in self.lines if line.counted or line.rows]


def books_sum(targeted: int, counted: Mapping[str, int], read: Books | None) -> Sum:
    total = sum(counted.values())
    lines = [
        Line(int(item), item.label, str(STATES[item]), counted[item.label], read.rows[item.label] if read else None)
        for item in State
    ]
    known = [] if total == targeted else [f"targeted {targeted}, counted {total}"]
    differences = read.differences if read else known
    return Sum(targeted, lines, total, sum(read.rows.values()) if read else None, differences)


# --- Who waits, who did not get it ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cause:
    """People who did not get it, by state and reason; ``again`` tries those who failed by it again."""

    state: int
    name: str
    words: str
    slug: str
    reason: str
    remedy: str
    people: int
    again: Again | None


@dataclass(frozen=True)
class Waiting:
    """People who still wait, by why. ``first`` and ``last``: when the next of them is tried, and the last."""

    state: int
    name: str
    words: str
    slug: str
    reason: str
    people: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class InVain:
    """Provider calls of one reason that did not end in ``sent``."""

    reason: str
    attempts: int
    people: int


def _rows(found: Occurrence) -> QuerySet[Delivery]:
    return Delivery.objects.filter(day=found.day, occurrence_id=found.pk)


def causes(found: Occurrence) -> list[Cause]:
    """What kept people from getting it: failures first, then the most frequent first."""
    rows = _rows(found).exclude(reason="").exclude(state__in=(*_OPEN, State.SENT))
    grouped = rows.values_list("state", "reason").annotate(people=Count("recipient_id")).order_by("-people", "reason")
    offers = is_reopenable(found)
    told = [
        Cause(
            value,
            State(value).label,
            str(STATES[State(value)]),
            slug,
            reason(slug, value),
            remedy(slug),
            people,
            _again(found, people, slug) if offers and value == State.FAILED else None,
        )
        for value, slug, people in grouped
    ]
    return sorted(told, key=lambda cause: cause.state != State.FAILED)


def _again(found: Occurrence, people: int, slug: str) -> Again:
    label = ngettext("Retry this one", "Retry these %(people)s", people) % {"people": number(people)}
    return Again(found.pk, people, people if slug == OUTCOME_UNKNOWN else 0, label, reason=slug)


def all_again(found: Occurrence, failed: int, told: Sequence[Cause]) -> Again | None:
    """Everybody who failed, whatever the reason; where there is one reason alone its own button does."""
    offered = [cause for cause in told if cause.again]
    if not failed or len(offered) == 1 or not is_reopenable(found):
        return None
    maybe = sum(cause.people for cause in offered if cause.slug == OUTCOME_UNKNOWN)
    return Again(found.pk, failed, maybe, _("Retry all %(people)s that failed") % {"people": number(failed)})


def waiting(found: Occurrence) -> list[Waiting]:
    """Who still waits, and why, the most first."""
    rows = _rows(found).filter(state__in=_OPEN).values_list("state", "reason")
    grouped = rows.annotate(people=Count("recipient_id"), first=Min("due_at"), last=Max("due_at"))
    return [
        Waiting(
            value,
            State(value).label,
            str(STATES[State(value)]),
            slug,
            _why_waiting(State(value), slug),
            people,
            first,
            last,
        )
        for value, slug, people, first, last in grouped.order_by("-people", "reason")
    ]


def _why_waiting(state: State, slug: str) -> str:
    if slug:
        return reason(slug, state)
    return _("Being sent at this moment.") if state is State.SENDING else _("Waits for its time or its turn.")


def in_vain(found: Occurrence) -> list[InVain]:
    kept = FailedAttempt.objects.filter(day=found.day, occurrence_id=found.pk).values_list("reason")
    grouped = kept.annotate(attempts=Count("at"), people=Count("recipient_id", distinct=True))
    return [InVain(reason(slug), *counts) for slug, *counts in grouped.order_by("-attempts", "reason")]
