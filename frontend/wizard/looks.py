"""What stands beside a step as it is filled in: who it would be, how it reads, when it goes out, what it would do.

Each answers for what has been typed, saved or not, and changes nothing; the numbers are those of the API's previews.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from delivery import forecast as forecasts
from delivery import previews
from delivery.forecast import Forecast
from delivery.previews import Preview
from frontend.wizard import waves
from frontend.wizard.audience_form import AudienceForm
from frontend.wizard.drafts import merged
from frontend.wizard.forms import Around, MessageForm, StepForm
from frontend.wizard.when_form import WhenForm
from frontend.wording import number, timings
from frontend.wording.audiences import query_in_words
from frontend.wording.problems import problem_in_words
from frontend.wording.sayings import translated
from frontend.wording.schedules import CHANNELS
from schedules.audience.parser import InvalidAudience, parse
from schedules.audience.preview import preview as preview_audience
from schedules.audience.sources import AudienceTooSlow, LocalSource
from schedules.consents import asked_by
from schedules.definition import Definition, InvalidDefinition
from schedules.listing import spoken
from schedules.models import MessageTemplate, Recipient, Schedule, ScheduleType, TimeZoneMode
from schedules.occurrences import last_opened
from schedules.permissions import Ability, can, masked, shown_address
from schedules.recurrence import Firing, InvalidTiming, check, next_runs, notes
from schedules.templates import InvalidTemplate
from schedules.user_service import counting

RUNS_SHOWN = 5
TEMPLATES_SHOWN = 20
READERS = 20
SAMPLED = 5
PLACES_SHOWN = 5

Look = Callable[[HttpRequest, Schedule, StepForm, Around], dict[str, Any]]


def after(form: StepForm, schedule: Schedule) -> Definition:
    """The schedule's definition with what the form says, as far as it can be read."""
    form.is_valid()
    return merged(Definition.of(schedule), form.changes())


# Who


def audience(request: HttpRequest, schedule: Schedule, form: StepForm, around: Around) -> dict[str, Any]:
    assert isinstance(form, AudienceForm)
    query = form.query if form.is_bound else dict(schedule.audience_query) or None
    if query is None:
        return {"missing": True}
    try:
        asked = asked_by(channel=schedule.channel, topic=schedule.topic, purpose=schedule.purpose)
        told = preview_audience(node=parse(query), asked=asked, sample=SAMPLED, now=around.now)
    except InvalidAudience:
        return {"missing": True}
    except AudienceTooSlow:
        return {"too_slow": settings.AUDIENCE_STATEMENT_TIMEOUT / 1000, "words": query_in_words(query)}
    return {
        "said": ngettext("%(n)s person", "%(n)s people", told.count) % {"n": number(told.count)},
        "words": query_in_words(query),
        "told": told,
        "is_nobody_there": not told.count and not Recipient.objects.exists(),
        "served": counting.served(query, now=around.now),
        "reached": told.count - (told.suppressed or 0) - (told.unaddressable or 0),
        "zones_told": told.zones[:PLACES_SHOWN],
        "zones_more": max(len(told.zones) - PLACES_SHOWN, 0),
        "locales_told": told.locales[:PLACES_SHOWN],
        "locales_more": max(len(told.locales) - PLACES_SHOWN, 0),
        "sample": [(person, masked(person.email)) for person in told.sample],
    }


# How it reads


@dataclass(frozen=True)
class Offered:
    """A template, and in which channels (in words) it speaks which languages."""

    pk: int
    name: str
    is_remote: bool
    channels: Mapping[str, list[str]]
    speaks: bool


def offered(schedule: Schedule, form: MessageForm) -> dict[str, Any]:
    """The templates to choose from, as the step shows them."""
    search = str(form.data.get("search", ""))[:200] if form.is_bound else ""
    found, more = templates(channel=schedule.channel, search=search, chosen=form.chosen)
    return {"offered": found, "has_more": more, "chosen": form.chosen, "channel": CHANNELS[schedule.channel]}


def templates(*, channel: str, search: str, chosen: int | None) -> tuple[list[Offered], bool]:
    """The chosen one and those that match, what speaks in the channel first; whether there are more."""
    kept = MessageTemplate.objects.live().filter(version__gt=0)
    found = list(kept.filter(name__icontains=search).order_by("name")[: TEMPLATES_SHOWN + 1])
    more = len(found) > TEMPLATES_SHOWN
    found = found[:TEMPLATES_SHOWN]
    if chosen and not any(each.pk == chosen for each in found):
        found = [*kept.filter(pk=chosen), *found]
    contents: dict[int, dict[str, list[str]]] = {each.pk: {} for each in found}
    for pk, says in spoken(found).items():
        for where, locale in says:
            contents[pk].setdefault(where, []).append(locale)
    offered = [
        Offered(
            each.pk,
            each.name,
            each.is_remote,
            {str(CHANNELS[where]): locales for where, locales in contents[each.pk].items()},
            channel in contents[each.pk],
        )
        for each in found
    ]
    return sorted(offered, key=lambda each: not each.speaks), more


def message(request: HttpRequest, schedule: Schedule, form: StepForm, around: Around) -> dict[str, Any]:
    assert isinstance(form, MessageForm)
    asked = request.POST or request.GET
    template_id = form.chosen
    if template_id is None:
        return {"missing": True}
    readers = _readers(schedule, around)
    verb, _colon, turned = asked.get("do", "").partition(":")
    raw_index = turned if verb == "reader" else asked.get("reader", "0")
    index = int(raw_index) % len(readers) if raw_index.isdecimal() and len(raw_index) < 9 and readers else 0
    locale = asked.get("locale", "")[:35]
    reader = readers[index] if readers else None
    context = {
        "template_id": template_id,
        "reader": reader,
        "index": index,
        "readers": len(readers),
        "previous": (index - 1) % len(readers) if readers else 0,
        "next": (index + 1) % len(readers) if readers else 0,
        "locale": locale,
        "locales": sorted(
            locale
            for says in spoken(MessageTemplate.objects.filter(pk=template_id)).values()
            for channel, locale in says
            if channel == schedule.channel
        ),
    }
    try:
        told = rendered(
            request, template_id=template_id, channel=schedule.channel, reader=reader, locale=locale, now=around.now
        )
    except InvalidTemplate as error:
        problems = [problem_in_words(problem) for problem in error.problems]
        return {**context, "problems": problems, "said": " ".join(problems)}
    missing = sorted(told.rendered.missing_tokens)
    said = [_("As %(id)s reads it") % {"id": reader}] if reader else []
    said += [f"{_('Without a value for this person:')} {', '.join(missing)}"] if missing else []
    return {**context, "told": told, "missing_tokens": missing, "said": ". ".join(said)}


def rendered(
    request: HttpRequest, *, template_id: int, channel: str, reader: str | None, locale: str, now: datetime
) -> Preview:
    """The message as that reader would get it. Raises ``InvalidTemplate``."""
    person = previews.reader(external_id=reader, locale=locale or None)
    in_clear = can(request.user, Ability.SEE_ADDRESSES)
    return previews.preview(
        said=previews.kept(template_id=template_id, version=None),
        channel=channel,
        person=person,
        locale=locale or None,
        address=shown_address(person.email, in_clear=in_clear) if person else "",
        now=now,
    )


def _readers(schedule: Schedule, around: Around) -> list[str]:
    """External ids of the first of the audience; of anybody where there is none yet."""
    try:
        ids = LocalSource().page(parse(schedule.audience_query), now=around.now, limit=READERS)
    except (InvalidAudience, AudienceTooSlow):
        ids = []
    anybody = Q(pk__in=ids) if ids else Q()
    return list(Recipient.objects.filter(anybody).order_by("pk").values_list("external_id", flat=True)[:READERS])


# When


@dataclass(frozen=True)
class Run:
    """One of the next runs: its instant, or in user-local mode its reading on everybody's clock and its first and last
    moment."""

    firing: Firing
    wall: str


def when(request: HttpRequest, schedule: Schedule, form: StepForm, around: Around) -> dict[str, Any]:
    assert isinstance(form, WhenForm)
    definition = after(form, schedule) if form.is_bound else Definition.of(schedule)
    timing = definition.timing()
    problems = check(timing, now=around.now)
    if problems:
        is_typed = form.is_bound and not {problem.code for problem in problems} <= {"required"}
        told = [problem_in_words(each) for each in problems] if is_typed else []
        return {"missing": True, "problems": told, "said": " ".join(told)}
    try:
        # A repeating one that runs already goes on after those that have begun.
        last = last_opened(schedule) if definition.schedule_type == ScheduleType.CRON else None
        firings = next_runs(timing, now=around.now, count=RUNS_SHOWN, after=last)
        told = [translated(note.message) for note in notes(timing, firings)]
    except (InvalidTiming, ValueError):
        return {"missing": True}
    is_local = definition.time_zone_mode == TimeZoneMode.USER_LOCAL
    sentence = timings.of_definition(definition)
    return {
        "said": sentence,
        "sentence": sentence,
        "definition": definition,
        "is_local": is_local,
        "runs": [Run(each, f"{each.occurrence_at:%Y-%m-%d %H:%M}") for each in firings],
        "zone": definition.time_zone,
        "mine": around.zones.mine,
        "notes": [*filter(None, [form.gap_note]), *told],
        "past": _past(definition, firings, around) if is_local else None,
    }


def _past(definition: Definition, firings: list[Firing], around: Around) -> dict[str, Any] | None:
    """People for whom the next run's hour has passed already; asked only where that can be."""
    if not firings or firings[0].opens_at >= around.now:
        return None
    try:
        zones = forecasts.past_zones(definition=definition, now=around.now)
    except (InvalidAudience, InvalidDefinition):
        return {"unknown": _("Say who gets it, and the people concerned are counted here.")}
    except AudienceTooSlow:
        return {"unknown": _("Counting the people concerned takes too long.")}
    return {"people": sum(share.people for share in zones), "zones": zones, "on_past": definition.on_past}


# All of it


def forecast(definition: Definition, schedule: Schedule, around: Around) -> dict[str, Any]:
    """What the draft would do, were it activated now; ``definition`` is whole."""
    try:
        told = forecasts.forecast(definition=definition, now=around.now, editing=schedule.pk)
    except InvalidDefinition as error:
        problems = [problem_in_words(problem) for problem in error.problems]
        return {"problems": problems, "said": " ".join(problems)}
    except AudienceTooSlow:
        return {"too_slow": settings.AUDIENCE_STATEMENT_TIMEOUT / 1000}
    said = ngettext("%(n)s person would get it.", "%(n)s people would get it.", told.attempted)
    return {
        "said": said % {"n": number(told.attempted)},
        "told": told,
        "served": counting.served(definition.audience_query, now=around.now),
        "picture": waves.picture(told),
        "past_people": sum(share.people for share in told.past),
        "largest": _largest(told),
        "duration": timedelta(seconds=round(told.duration.seconds)),
        "zone": definition.time_zone,
        "is_local": definition.time_zone_mode == TimeZoneMode.USER_LOCAL,
        "wall": told.firing.occurrence_at.astimezone(UTC),
    }


def _largest(told: Forecast) -> int:
    return max((wave.people for wave in told.waves), default=0)


LOOKS: Mapping[str, Look] = {"audience": audience, "message": message, "when": when}
