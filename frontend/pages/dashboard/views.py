"""The dashboard's doors."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from delivery import health, timeline
from delivery.figures import Why
from delivery.models import State
from delivery.timeline import Timeline, Window
from frontend.access import needs
from frontend.instants import show_seconds
from frontend.pages.csv_file import streamed
from frontend.pages.dashboard.charts import TITLES, charts, totals
from frontend.pages.dashboard.files import What, rows
from frontend.pages.dashboard.signs import queues, signs
from frontend.pages.frame import framed
from frontend.wording import number, reason, remedy, state
from frontend.wording.schedules import CHANNELS
from frontend.zones import zones_of
from schedules import clock
from schedules.permissions import Ability

# Reasons told; the file has all of them.
_TOP = 10


@dataclass(frozen=True)
class Tile:
    """An outcome's sum, with the way to its rows."""

    css: str
    words: str
    people: str
    link: str


@dataclass(frozen=True)
class Reason:
    """``share``: per cent of the people of the most frequent one."""

    words: str
    outcome: str
    css: str
    channel: str
    people: str
    share: str
    remedy: str
    link: str


@dataclass(frozen=True)
class Late:
    channel: str
    people: str
    p50: str
    p95: str
    p99: str


@needs(Ability.READ)
def dashboard(request: HttpRequest) -> HttpResponse:
    """The figures of a window, and how the service is."""
    window = _window(request)
    now, zone_name = clock.now(), zones_of(request).of()
    found = timeline.read(window, zone_name=zone_name, now=now)
    begins, counted = found.stretches[0].begins, totals(found)
    failures = [why for why in found.reasons if why.state is State.FAILED]
    others = [why for why in found.reasons if why.state not in (State.FAILED, State.SENT)]
    context = {
        "title": _("Dashboard"),
        "window": window,
        "windows": [(each, TITLES[each], f"{reverse('dashboard')}?window={each}") for each in Window],
        "begins": begins,
        "now": now,
        "zone_name": zone_name,
        "total": number(sum(counted.values())),
        "tiles": [Tile(item.label, state(item), number(people), _ledger(item)) for item, people in counted.items()],
        "charts": charts(found, window, zone_name=zone_name),
        "idle": [CHANNELS[each] for each in CHANNELS if each not in {sum_.channel for sum_ in found.sums}],
        "lateness": [_late(each) for each in found.lateness],
        "failures": _reasons(failures),
        "others": _reasons(others),
        "behind": number(found.behind) if found.behind else "",
        "file": f"?window={window}",
        **_health(),
    }
    return framed(request, "frontend/dashboard/page.html", context)


@needs(Ability.READ)
def dashboard_health(request: HttpRequest) -> HttpResponse:
    """How the service is, for the page that shows it to ask again."""
    return render(request, "frontend/dashboard/health.html", _health())


@needs(Ability.READ)
def dashboard_csv(request: HttpRequest, what: str) -> HttpResponseBase:
    """The figures of a window, of one channel where it is named."""
    channel = request.GET.get("channel", "")
    if what not in list(What) or (channel and channel not in CHANNELS):
        raise Http404(_("There is no such file."))
    window, zone_name = _window(request), zones_of(request).of()
    found: Timeline = timeline.read(window, zone_name=zone_name, now=clock.now())
    # Few lines, and read already: written in the viewer's language, which is active no more while a file is sent.
    lines = list(rows(What(what), found, channel=channel, zone_name=zone_name))
    return streamed(request, lines, name="-".join(filter(None, [what, channel, window])))


def _window(request: HttpRequest) -> Window:
    asked = request.GET.get("window", "")
    return Window(asked) if asked in list(Window) else Window.DAY


def _health() -> dict[str, Any]:
    found = health.read(now=clock.now())
    return {"signs": signs(found), "queues": queues(found)}


def _reasons(found: Iterable[Why]) -> list[Reason]:
    ordered = sorted(found, key=lambda why: (-why.people, why))[:_TOP]
    most = ordered[0].people if ordered else 1
    return [
        Reason(
            reason(each.reason, each.state),
            state(each.state),
            each.state.label,
            str(CHANNELS[each.channel]),
            number(each.people),
            f"{100 * each.people / most:.1f}",
            remedy(each.reason),
            _ledger(each.state, each.reason),
        )
        for each in ordered
    ]


def _late(each: timeline.Percentiles) -> Late:
    shown = (show_seconds(seconds) for seconds in (each.p50, each.p95, each.p99))
    return Late(str(CHANNELS[each.channel]), number(each.people), *shown)


def _ledger(item: State, slug: str = "") -> str:
    asked = {"state": int(item), **({"reason": slug} if slug else {})}
    return f"{reverse('ledger')}?{urlencode(asked)}"
