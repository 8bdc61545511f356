"""What the audit keeps, told: each event as a sentence, with what it changed.

A page of events costs the same few statements however many they are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.contrib.auth.models import User
from django.urls import reverse
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from audit.models import Action, AuditEvent
from frontend import actors
from frontend.instants import show
from frontend.wording.actions import PARTS, ROLES, SENTENCES
from frontend.wording.changes import Change, Clock, changes
from frontend.wording.reasons import number
from frontend.wording.schedules import scope_in_words
from frontend.wording.timings import kept_interval
from schedules.models import MessageTemplate, Occurrence, Recipient, Schedule, ScheduleVersion
from schedules.permissions import Role

_INSTANTS = frozenset({"runAt", "startAt", "endAt"})
# Of the schedules of a page so many are looked at, the latest first; before them today's clock stands in.
_VERSIONS = 1000


@dataclass(frozen=True)
class Told:
    """An event for people. ``sentence`` holds links, ``plain`` none."""

    event: AuditEvent
    sentence: SafeString
    plain: str
    changes: list[Change]
    schedule: str


def tell(events: Iterable[AuditEvent]) -> list[Told]:
    """The events in words, in the viewer's language."""
    events = list(events)
    company = _company(events)
    return [_tell(event, company) for event in events]


def actor_name(actor: str) -> str:
    """Of one who need not have an account any more."""
    return str(PARTS.get(actor) or capfirst(actors.name(actor)))


def schedule_page(schedule_id: int) -> str:
    return reverse("schedule", args=[schedule_id])


@dataclass(frozen=True)
class _Company:
    """What the events name by ids, each kind looked up once. ``actors``: people and programs that are still there."""

    actors: Mapping[str, str]
    roles: Mapping[str, str]
    schedules: Mapping[int, tuple[str, str, str]]
    clocks: Mapping[int, Clock]
    templates: Mapping[int, str]
    people: Mapping[int, str]
    runs: Mapping[int, Any]

    def clock_of(self, event: AuditEvent) -> Clock:
        known = self.schedules.get(event.schedule_id or 0)
        return self.clocks.get(event.pk) or (known[1:] if known else ("UTC", "fixed"))


def _company(events: list[AuditEvent]) -> _Company:
    who = {event.actor_id for event in events}
    schedules = Schedule.objects.filter(pk__in={event.schedule_id for event in events if event.schedule_id})
    templates, people, runs = (
        _ids(events, *keys) for keys in (("template", "templateId"), ("recipient",), ("occurrence",))
    )
    return _Company(
        actors.known(who),
        _roles(who),
        {row[0]: row[1:] for row in schedules.values_list("pk", "name", "time_zone", "time_zone_mode")},
        _clocks(events),
        _looked_up(MessageTemplate, "name", templates),
        _looked_up(Recipient, "external_id", people),
        _looked_up(Occurrence, "occurrence_at", runs),
    )


def _clocks(events: Iterable[AuditEvent]) -> Mapping[int, Clock]:
    """Zone and mode of a schedule at the time, by the id of each event that tells of an instant of it."""
    timed = [event for event in events if event.schedule_id and _INSTANTS & event.payload_diff.keys()]
    if not timed:
        return {}
    kept = ScheduleVersion.objects.filter(schedule__in={event.schedule_id for event in timed}).order_by("-version")
    clocks = kept.values_list("schedule", "created_at", "definition__timeZone", "definition__timeZoneMode")
    versions = list(clocks[:_VERSIONS])
    found = {}
    for event in timed:
        then = (
            (zone_name, mode)
            for schedule_id, at, zone_name, mode in versions
            if schedule_id == event.schedule_id and at <= event.created_at
        )
        found[event.pk] = next(then, None)
    return {pk: clock for pk, clock in found.items() if clock}


def _looked_up(model: Any, field: str, ids: set[int]) -> Mapping[int, Any]:
    return dict(model.objects.filter(pk__in=ids).values_list("pk", field)) if ids else {}


def _ids(events: Iterable[AuditEvent], *keys: str) -> set[int]:
    values = [event.payload_diff.get(key) for event in events for key in keys]
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return {each for each in flat if isinstance(each, int) and not isinstance(each, bool)}


def _roles(who: Iterable[str]) -> Mapping[str, str]:
    ids = [int(actor[5:]) for actor in who if actor.startswith("user:") and actor[5:].isdigit() and len(actor) < 20]
    found: dict[str, str] = {}
    if ids:
        for pk, is_superuser, group in User.objects.filter(pk__in=ids).values_list(
            "pk", "is_superuser", "groups__name"
        ):
            role = Role.ADMIN if is_superuser else group
            if role in ROLES:
                found[f"user:{pk}"] = str(ROLES[role])
    return found


def _tell(event: AuditEvent, company: _Company) -> Told:
    action = Action(event.action) if event.action in Action.values else None
    template = str(SENTENCES[action]) if action else _("{actor} did something this page has no words for")
    parts = _parts(event, company)
    # Only what is said of the event is quoted; the words around it are ours.
    sentence = format_html(template, **{name: part.html for name, part in parts.items()})
    plain = template.format(**{name: part.plain for name, part in parts.items()})
    return Told(
        event,
        sentence,
        plain,
        changes(event, clock=company.clock_of(event), templates=company.templates),
        company.schedules.get(event.schedule_id or 0, ("",))[0],
    )


class _Part(NamedTuple):
    """A place in a sentence, without and with its link."""

    plain: str
    link: str = ""

    @property
    def html(self) -> SafeString:
        return (
            format_html('<a href="{}">{}</a>', self.link, self.plain) if self.link else conditional_escape(self.plain)
        )


def _parts(event: AuditEvent, company: _Company) -> Mapping[str, _Part]:
    changed = event.payload_diff
    people = _after(changed.get("people", 0))
    version = _after(changed.get("version"))
    return {
        "actor": _actor(event, company),
        "what": _what(event, company),
        "whom": _whom(_after(changed.get("recipient")), company),
        "run": _run(_after(changed.get("occurrence")), company),
        "people": _Part(ngettext("%(n)s person", "%(n)s people", people) % {"n": number(people)}),
        "version": _Part(_("version %(n)s") % {"n": version} if version else _("a version")),
    }


def _actor(event: AuditEvent, company: _Company) -> _Part:
    """By the name at the time; with today's, where that is another, and with today's role."""
    actor, then = event.actor_id, event.actor_label
    today = company.actors.get(actor, "")
    if actor.startswith("system:") or not (then or today):
        return _Part(capfirst(str(PARTS.get(actor) or actors.stand_in(actor))))
    if not today:
        return _Part(_("%(name)s (no longer there)") % {"name": then})
    told = [_("today %(name)s") % {"name": today}] if then and then != today else []
    if role := company.roles.get(actor):
        told.append(role)
    name = then or today
    return _Part(_("%(name)s (%(role)s)") % {"name": name, "role": ", ".join(told)} if told else name)


def _schedule(schedule_id: int, company: _Company) -> _Part:
    known = company.schedules.get(schedule_id)
    if known is None:
        return _Part(_("a schedule that is gone (#%(id)s)") % {"id": schedule_id})
    return _Part(_quoted(known[0]) if known[0] else _("a schedule without a name"), schedule_page(schedule_id))


def _what(event: AuditEvent, company: _Company) -> _Part:
    changed, kind = event.payload_diff, event.action.partition(".")[0]
    if event.schedule_id:
        return _schedule(event.schedule_id, company)
    match kind:
        case "template":
            name = company.templates.get(changed.get("template", 0)) or _before(changed.get("name"))
            return _Part(_quoted(name) if name else _("that is gone (#%(id)s)") % {"id": changed.get("template", "?")})
        case "topic":
            key = str(changed.get("topic", ""))
            return _Part(_quoted(key), reverse("topic", args=[key]) if key else "")
        case "endpoint":
            return _endpoint(event)
        case "catalogue":
            return _Part(str(changed.get("locale", "")))
        case "client":
            name = changed.get("name")
            return _Part(_quoted(str((_after(name) or _before(name)) if isinstance(name, list) else name)))
        case "circuit":
            return _circuit(changed, company)
        case "account":
            pk = changed.get("account")
            return _Part(actors.name(f"user:{pk}") if pk else _("an unknown account"))
        case "clock":
            return _Part(_quoted(changed.get("entry") or kept_interval(str(_after(changed.get("interval"))))))
        case "export":
            return _Part(_quoted(f"{changed.get('file')}.csv"))
        case "sending":
            return _Part(scope_in_words(str(_after(changed.get("scope")) or _before(changed.get("scope")))))
    return _Part(_("something"))


def _circuit(changed: Mapping[str, Any], company: _Company) -> _Part:
    if template := changed.get("template"):
        name = company.templates.get(template)
        return _Part(_("template %(name)s") % {"name": _quoted(name) if name else f"#{template}"})
    words, provider = scope_in_words(f"channel:{changed.get('channel')}"), changed.get("provider")
    return _Part(_("%(channel)s by %(provider)s") % {"channel": words, "provider": provider} if provider else words)


def _endpoint(event: AuditEvent) -> _Part:
    pk, name = event.payload_diff.get("endpoint", 0), str(event.payload_diff.get("name", ""))
    is_there = event.action != Action.ENDPOINT_DELETE
    return _Part(_quoted(name) if name else f"#{pk}", reverse("endpoint", args=[pk]) if is_there else "")


def _whom(pk: Any, company: _Company) -> _Part:
    if pk in company.people:
        return _Part(str(company.people[pk]))
    return _Part(_("a person since erased (#%(id)s)") % {"id": pk} if pk else _("a person"))


def _run(pk: Any, company: _Company) -> _Part:
    if pk in company.runs:
        at = show(company.runs[pk])
        return _Part(_("the run of %(at)s") % {"at": at}, reverse("occurrence", args=[pk]))
    return _Part(_("a run"))


def _quoted(name: str) -> str:
    return _("“%(name)s”") % {"name": name}


def _before(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 2 else None


def _after(value: Any) -> Any:
    return value[1] if isinstance(value, list) and len(value) == 2 else value
