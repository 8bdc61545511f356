"""What the audit keeps, told: each event as a sentence, and what it changed by the names of the fields.

A page of events costs the same few statements however many they are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.contrib.auth.models import User
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from audit.models import Action, AuditEvent
from frontend import actors
from frontend.instants import show
from frontend.wording.reasons import HELD, number, reason
from frontend.wording.schedules import CHANNELS, FIELDS, STATUSES, value_in_words
from schedules.models import MessageTemplate, Occurrence, Recipient, Schedule, ScheduleVersion
from schedules.permissions import Role, Scope

Words = str | Promise

ROLES: Mapping[str, Words] = {
    Role.MARKETER: gettext_lazy("marketer"),
    Role.ADMIN: gettext_lazy("admin"),
    Role.ANALYST: gettext_lazy("analyst"),
}
# The parts of the service that act by themselves.
PARTS: Mapping[str, Words] = {
    "system:tick": gettext_lazy("the service"),
    "system:brake": gettext_lazy("the failure brake"),
    "system:user_service": gettext_lazy("the user service"),
    "system:circuit": gettext_lazy("the service"),
    "system:sign_in": gettext_lazy("the sign-in"),
    "system:shell": gettext_lazy("a command on the server"),
    "system:import_recipients": gettext_lazy("an import on the server"),
    "system:import_templates": gettext_lazy("an import on the server"),
}
ACTIONS: Mapping[Action, Words] = {
    Action.SCHEDULE_CREATE: gettext_lazy("Schedule made"),
    Action.SCHEDULE_UPDATE: gettext_lazy("Schedule changed"),
    Action.SCHEDULE_DELETE: gettext_lazy("Schedule deleted"),
    Action.SCHEDULE_ACTIVATE: gettext_lazy("Schedule activated"),
    Action.SCHEDULE_PAUSE: gettext_lazy("Schedule paused"),
    Action.SCHEDULE_RESUME: gettext_lazy("Schedule resumed"),
    Action.SCHEDULE_CANCEL: gettext_lazy("Schedule cancelled"),
    Action.SCHEDULE_RUN_NOW: gettext_lazy("Schedule run at once"),
    Action.SCHEDULE_TEST_SEND: gettext_lazy("Test sent"),
    Action.SCHEDULE_BREAK: gettext_lazy("Schedule broken"),
    Action.SCHEDULE_FINISH: gettext_lazy("Schedule finished"),
    Action.SCHEDULE_BULK: gettext_lazy("Several schedules at once"),
    Action.OCCURRENCE_HOLD: gettext_lazy("Run held"),
    Action.OCCURRENCE_RELEASE: gettext_lazy("Run let go on"),
    Action.OCCURRENCE_MISS: gettext_lazy("Run missed"),
    Action.OCCURRENCE_FINISH: gettext_lazy("Run finished"),
    Action.DELIVERY_RETRY: gettext_lazy("Failures tried again"),
    Action.TEMPLATE_PUBLISH: gettext_lazy("Template published"),
    Action.TEMPLATE_DELETE: gettext_lazy("Template deleted"),
    Action.CATALOGUE_SAVE: gettext_lazy("Translations changed"),
    Action.CATALOGUE_DELETE: gettext_lazy("Translations deleted"),
    Action.CLIENT_CREATE: gettext_lazy("Program let in"),
    Action.CLIENT_REVOKE: gettext_lazy("Program signed out"),
    Action.CLIENT_DELETE: gettext_lazy("Program removed"),
    Action.RECIPIENT_SAVE: gettext_lazy("Person changed"),
    Action.RECIPIENT_ERASE: gettext_lazy("Person erased"),
    Action.RECIPIENT_IMPORT: gettext_lazy("People imported"),
    Action.SENDING_STOP: gettext_lazy("Sending stopped"),
    Action.SENDING_GO: gettext_lazy("Sending let go on"),
    Action.CIRCUIT_OPEN: gettext_lazy("Provider refuses"),
    Action.CIRCUIT_CLOSE: gettext_lazy("Provider takes messages again"),
    Action.ACCOUNT_CREATE: gettext_lazy("Account made"),
    Action.ACCOUNT_UPDATE: gettext_lazy("Account changed"),
    Action.ACCOUNT_ROLES: gettext_lazy("Roles changed"),
    Action.ACCOUNT_DELETE: gettext_lazy("Account deleted"),
    Action.ACCOUNT_SIGN_IN: gettext_lazy("Signed in"),
    Action.ACCOUNT_REFUSE: gettext_lazy("Sign-in refused"),
    Action.ACCOUNT_FACTOR_ON: gettext_lazy("Second factor turned on"),
    Action.ACCOUNT_FACTOR_OFF: gettext_lazy("Second factor turned off"),
    Action.ACCOUNT_FACTOR_RESET: gettext_lazy("Second factor reset"),
    Action.ACCOUNT_FACTOR_REFUSE: gettext_lazy("Code refused"),
    Action.ACCOUNT_END_SESSIONS: gettext_lazy("Signed out everywhere"),
    Action.CLOCK_UPDATE: gettext_lazy("Clock changed"),
    Action.CLOCK_CREATE: gettext_lazy("Interval of the clock made"),
    Action.EXPORT_FILE: gettext_lazy("File taken"),
}
_SENTENCES: Mapping[Action, Words] = {
    Action.SCHEDULE_CREATE: gettext_lazy("{actor} made the schedule {what}"),
    Action.SCHEDULE_UPDATE: gettext_lazy("{actor} changed {what}"),
    Action.SCHEDULE_DELETE: gettext_lazy("{actor} deleted {what}"),
    Action.SCHEDULE_ACTIVATE: gettext_lazy("{actor} activated {what}"),
    Action.SCHEDULE_PAUSE: gettext_lazy("{actor} paused {what}"),
    Action.SCHEDULE_RESUME: gettext_lazy("{actor} resumed {what}"),
    Action.SCHEDULE_CANCEL: gettext_lazy("{actor} cancelled {what}"),
    Action.SCHEDULE_RUN_NOW: gettext_lazy("{actor} let {what} run at once"),
    Action.SCHEDULE_TEST_SEND: gettext_lazy("{actor} sent a test of {what} to {whom}"),
    Action.SCHEDULE_BREAK: gettext_lazy("{actor} could not tell the next run of {what}, and stopped planning it"),
    Action.SCHEDULE_FINISH: gettext_lazy("{actor} finished {what}: it has no more runs"),
    Action.SCHEDULE_BULK: gettext_lazy("{actor} did the same for several schedules"),
    Action.OCCURRENCE_HOLD: gettext_lazy("{actor} held {run} of {what}"),
    Action.OCCURRENCE_RELEASE: gettext_lazy("{actor} let {run} of {what} go on"),
    Action.OCCURRENCE_MISS: gettext_lazy("{actor} found {run} of {what} too late for everyone"),
    Action.OCCURRENCE_FINISH: gettext_lazy("{actor} finished {run} of {what}"),
    Action.DELIVERY_RETRY: gettext_lazy("{actor} tried again, in {run} of {what}, for {people} where it had failed"),
    Action.TEMPLATE_PUBLISH: gettext_lazy("{actor} published {version} of the template {what}"),
    Action.TEMPLATE_DELETE: gettext_lazy("{actor} deleted the template {what}"),
    Action.CATALOGUE_SAVE: gettext_lazy("{actor} changed the translations for {what}"),
    Action.CATALOGUE_DELETE: gettext_lazy("{actor} deleted the translations for {what}"),
    Action.CLIENT_CREATE: gettext_lazy("{actor} let the program {what} in"),
    Action.CLIENT_REVOKE: gettext_lazy("{actor} signed the program {what} out"),
    Action.CLIENT_DELETE: gettext_lazy("{actor} removed the program {what}"),
    Action.RECIPIENT_SAVE: gettext_lazy("{actor} changed the profile of {whom}"),
    Action.RECIPIENT_ERASE: gettext_lazy("{actor} erased a person"),
    Action.RECIPIENT_IMPORT: gettext_lazy("{actor} imported profiles"),
    Action.SENDING_STOP: gettext_lazy("{actor} stopped {what}"),
    Action.SENDING_GO: gettext_lazy("{actor} let {what} go on"),
    Action.CIRCUIT_OPEN: gettext_lazy("{actor} holds {what}, as its provider refuses all of it"),
    Action.CIRCUIT_CLOSE: gettext_lazy("{actor} lets {what} go on, as its provider takes messages again"),
    Action.ACCOUNT_CREATE: gettext_lazy("{actor} made an account for {what}"),
    Action.ACCOUNT_UPDATE: gettext_lazy("{actor} changed the account of {what}"),
    Action.ACCOUNT_ROLES: gettext_lazy("{actor} changed the roles of {what}"),
    Action.ACCOUNT_DELETE: gettext_lazy("{actor} deleted the account of {what}"),
    Action.ACCOUNT_SIGN_IN: gettext_lazy("{actor} signed in"),
    Action.ACCOUNT_REFUSE: gettext_lazy("{actor} refused to sign {what} in"),
    Action.ACCOUNT_FACTOR_ON: gettext_lazy("{actor} turned the second factor of {what} on"),
    Action.ACCOUNT_FACTOR_OFF: gettext_lazy("{actor} turned the second factor of {what} off"),
    Action.ACCOUNT_FACTOR_RESET: gettext_lazy("{actor} reset the second factor of {what}"),
    Action.ACCOUNT_FACTOR_REFUSE: gettext_lazy("{actor} refused a wrong code for {what}"),
    Action.ACCOUNT_END_SESSIONS: gettext_lazy("{actor} signed {what} out everywhere"),
    Action.CLOCK_UPDATE: gettext_lazy("{actor} changed the clock's entry {what}"),
    Action.CLOCK_CREATE: gettext_lazy("{actor} made the interval {what} for the clock"),
    Action.EXPORT_FILE: gettext_lazy("{actor} took the file {what}"),
}
# What the sentence has said already.
_TOLD: Mapping[Action, frozenset[str]] = {
    Action.SCHEDULE_CREATE: frozenset({"name"}),
    Action.SCHEDULE_TEST_SEND: frozenset({"recipient", "test_send"}),
    Action.DELIVERY_RETRY: frozenset({"people"}),
    Action.TEMPLATE_PUBLISH: frozenset({"version"}),
    Action.TEMPLATE_DELETE: frozenset({"name", "version"}),
    Action.CLIENT_CREATE: frozenset({"name"}),
    Action.CLIENT_REVOKE: frozenset({"name"}),
    Action.CLIENT_DELETE: frozenset({"name"}),
    Action.RECIPIENT_SAVE: frozenset({"recipient"}),
    Action.RECIPIENT_ERASE: frozenset({"recipient", "receipt"}),
    Action.SENDING_STOP: frozenset({"scope"}),
    Action.SENDING_GO: frozenset({"scope"}),
    Action.CIRCUIT_OPEN: frozenset({"channel"}),
    Action.CIRCUIT_CLOSE: frozenset({"channel"}),
    Action.CLOCK_UPDATE: frozenset({"entry"}),
    Action.CLOCK_CREATE: frozenset({"interval"}),
    Action.EXPORT_FILE: frozenset({"file"}),
}
_ALWAYS_TOLD = frozenset({"template", "occurrence", "client", "locale", "account"})
_LABELS: Mapping[str, Words] = {
    **FIELDS,
    "status": gettext_lazy("State"),
    "reason": gettext_lazy("Reason"),
    "held_reason": gettext_lazy("Held because"),
    "failed": gettext_lazy("Failed so far"),
    "targeted": gettext_lazy("People found"),
    "to_other_address": gettext_lazy("To another address"),
    "default_locale": gettext_lazy("Language where none fits"),
    "kind": gettext_lazy("Kind"),
    "scopes": gettext_lazy("May"),
    "redirect_uris": gettext_lazy("Returns to"),
    "tokens": gettext_lazy("Tokens"),
    "pending": gettext_lazy("Messages still to come"),
    "lines": gettext_lazy("Lines"),
    "skipped": gettext_lazy("Lines left out"),
    "created": gettext_lazy("New people"),
    "updated": gettext_lazy("People changed"),
    "unchanged": gettext_lazy("People as they were"),
    "devices_added": gettext_lazy("New devices"),
    "devices_moved": gettext_lazy("Devices that went to another person"),
    "devices_renewed": gettext_lazy("Devices in use again"),
    "left_out": gettext_lazy("People left out, since they were erased before"),
    "external_id": gettext_lazy("External id"),
    "email": gettext_lazy("E-mail address"),
    "locale": gettext_lazy("Language"),
    "time_zone": gettext_lazy("Time zone"),
    "attributes": gettext_lazy("Attributes"),
    "tags": gettext_lazy("Tags"),
    "consent": gettext_lazy("Consent"),
    "devices": gettext_lazy("Devices"),
    "openings": gettext_lazy("Refusals in a row"),
    "roles": gettext_lazy("Roles"),
    "password": gettext_lazy("Password"),
    "is_active": gettext_lazy("May sign in"),
    "by_code": gettext_lazy("Second factor"),
    "sessions": gettext_lazy("Sessions ended"),
    "interval": gettext_lazy("Interval"),
    "enabled": gettext_lazy("Switched on"),
    "expire_seconds": gettext_lazy("Seconds until it expires"),
    "verb": gettext_lazy("What was done"),
    "schedules": gettext_lazy("Schedules"),
    "done": gettext_lazy("Done for"),
}
_KINDS: Mapping[str, Words] = {
    "client-credentials": gettext_lazy("a service with a secret of its own"),
    "authorization-code": gettext_lazy("an app through which people sign in"),
}
_SCOPES: Mapping[str, Words] = {
    Scope.READ: gettext_lazy("read"),
    Scope.WRITE: gettext_lazy("read and change"),
    Scope.INBOX: gettext_lazy("read a person's own inbox"),
}
_CODES: Mapping[str, Words] = {
    "app": gettext_lazy("a code of the app"),
    "recovery": gettext_lazy("a recovery code"),
}
_PARTS_OF_CONTENT: Mapping[str, Words] = {
    "subject": gettext_lazy("subject"),
    "text": gettext_lazy("text"),
    "html": gettext_lazy("HTML"),
}
_INSTANTS = frozenset({"runAt", "startAt", "endAt"})
# Of the schedules of a page so many are looked at, the latest first; before them today's clock stands in.
_VERSIONS = 1000
# Of a longer text so many characters are shown.
_LONGEST = 400


class Change(NamedTuple):
    """A field by its label; ``before`` is None where there is nothing to compare with."""

    label: str
    before: str | None
    after: str


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
    clocks: Mapping[int, tuple[str, str]]
    templates: Mapping[int, str]
    people: Mapping[int, str]
    runs: Mapping[int, Any]


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


def _clocks(events: Iterable[AuditEvent]) -> Mapping[int, tuple[str, str]]:
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
    template = str(_SENTENCES[action]) if action else _("{actor} did something this page has no words for")
    parts = _parts(event, company)
    # Only what is said of the event is quoted; the words around it are ours.
    sentence = format_html(template, **{name: part.html for name, part in parts.items()})
    plain = template.format(**{name: part.plain for name, part in parts.items()})
    return Told(
        event,
        sentence,
        plain,
        _changes(event, action, company),
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


def _what(event: AuditEvent, company: _Company) -> _Part:
    changed, kind = event.payload_diff, event.action.partition(".")[0]
    if event.schedule_id:
        known = company.schedules.get(event.schedule_id)
        if known is None:
            return _Part(_("a schedule that is gone (#%(id)s)") % {"id": event.schedule_id})
        return _Part(
            _quoted(known[0]) if known[0] else _("a schedule without a name"), schedule_page(event.schedule_id)
        )
    match kind:
        case "template":
            name = company.templates.get(changed.get("template", 0)) or _before(changed.get("name"))
            return _Part(_quoted(name) if name else _("that is gone (#%(id)s)") % {"id": changed.get("template", "?")})
        case "catalogue":
            return _Part(str(changed.get("locale", "")))
        case "client":
            name = changed.get("name")
            return _Part(_quoted(str((_after(name) or _before(name)) if isinstance(name, list) else name)))
        case "circuit":
            return _Part(_scope(f"channel:{changed.get('channel')}"))
        case "account":
            pk = changed.get("account")
            return _Part(actors.name(f"user:{pk}") if pk else _("an unknown account"))
        case "clock":
            return _Part(_quoted(str(changed.get("entry") or _after(changed.get("interval")))))
        case "export":
            return _Part(_quoted(f"{changed.get('file')}.csv"))
        case "sending":
            return _Part(_scope(str(_after(changed.get("scope")) or _before(changed.get("scope")))))
    return _Part(_("something"))


def _whom(pk: Any, company: _Company) -> _Part:
    if pk in company.people:
        return _Part(str(company.people[pk]))
    return _Part(_("a person since erased (#%(id)s)") % {"id": pk} if pk else _("a person"))


def _run(pk: Any, company: _Company) -> _Part:
    if pk in company.runs:
        at = show(company.runs[pk])
        return _Part(_("the run of %(at)s") % {"at": at}, reverse("occurrence", args=[pk]))
    return _Part(_("a run"))


def _scope(scope: str) -> str:
    kind, _colon, name = scope.partition(":")
    if kind == "channel":
        return _("sending by %(channel)s") % {"channel": CHANNELS.get(name, name)}
    return _("sending for schedule #%(id)s") % {"id": name} if kind == "schedule" else _("all sending")


def _quoted(name: str) -> str:
    return _("“%(name)s”") % {"name": name}


def _before(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 2 else None


def _after(value: Any) -> Any:
    return value[1] if isinstance(value, list) and len(value) == 2 else value


# --- What changed -----------------------------------------------------------------------------------------------------


def _changes(event: AuditEvent, action: Action | None, company: _Company) -> list[Change]:
    told = _ALWAYS_TOLD | (_TOLD.get(action, frozenset()) if action else frozenset())
    found: list[Change] = []
    for key, value in sorted(event.payload_diff.items(), key=lambda item: _place(item[0])):
        if key in told and not (key == "locale" and action == Action.RECIPIENT_SAVE):
            continue
        if key == "contents":
            found += _contents(value)
        elif action == Action.RECIPIENT_SAVE:
            found.append(Change(_label(key), None, _("changed")))
        else:
            found += _change(key, value, event, company)
    return found


def _change(key: str, value: Any, event: AuditEvent, company: _Company) -> list[Change]:
    words = _in_words(event, company)
    if not (isinstance(value, list) and len(value) == 2):
        return [Change(_label(key), None, words(key, value, 1))] if value not in (None, "") else []
    before, after = value
    if event.action.endswith((".create", ".delete")) or (before is None and event.schedule_id is None):
        one = after if before is None else before
        return [Change(_label(key), None, words(key, one, 1))] if one not in (None, "", [], {}) else []
    return [Change(_label(key), words(key, before, 0), words(key, after, 1))]


def _in_words(event: AuditEvent, company: _Company) -> Callable[[str, Any, int], str]:
    """Words for a value before (0) or after (1) the event."""
    today = company.schedules.get(event.schedule_id or 0, ("", "UTC", "fixed"))[1:]
    zone_name, mode = company.clocks.get(event.pk, today)

    def words(key: str, value: Any, side: int) -> str:
        if key in FIELDS:
            then = {
                name: pair[side]
                for name, pair in event.payload_diff.items()
                if isinstance(pair, list) and len(pair) == 2
            }
            definition = {"timeZone": zone_name, "timeZoneMode": mode, **then}
            return value_in_words(key, value, definition=definition, templates=company.templates)
        return _plain(key, value)

    return words


def _plain(key: str, value: Any) -> str:
    """A value that no schedule has; never as JSON."""
    match key, value:
        case _, None | "":
            return _("nothing")
        case _, bool():
            return _("yes") if value else _("no")
        case "status", str():
            return str(STATUSES.get(value, value))
        case "kind", str():
            return str(_KINDS.get(value, value))
        case "scopes", str():
            return ", ".join(str(_SCOPES.get(scope, scope)) for scope in value.split())
        case "by_code", str():
            return str(_CODES.get(value, value))
        case "held_reason", str():
            return str(HELD.get(value, value))
        case "reason", str() if value.isidentifier():
            return reason(value)
        case _, int():
            return number(value)
        case _, dict():
            return "; ".join(f"{name}: {_plain('', each)}" for name, each in value.items())
        case _, list():
            return ", ".join(_plain("", each) for each in value) or _("nothing")
    return _short(str(value))


def _contents(value: Any) -> list[Change]:
    """What a template says, per channel, language and part, where that has changed."""
    before, after = ({_place_of(each): each for each in side or ()} for side in value)
    found = []
    for channel, locale in dict.fromkeys([*before, *after]):
        for part, name in _PARTS_OF_CONTENT.items():
            was, is_now = ((side.get((channel, locale)) or {}).get(part, "") for side in (before, after))
            if was != is_now:
                label = _("%(channel)s, %(locale)s: %(part)s") % {
                    "channel": CHANNELS.get(channel, channel),
                    "locale": locale,
                    "part": name,
                }
                found.append(Change(label, _short(was) if was else None, _short(is_now) if is_now else _("nothing")))
    return found


def _place_of(content: Mapping[str, str]) -> tuple[str, str]:
    return content.get("channel", ""), content.get("locale", "")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()}…"


def _label(key: str) -> str:
    if key.startswith("messages/"):
        return _("Text “%(key)s”") % {"key": key.removeprefix("messages/")}
    return str(_LABELS.get(key) or capfirst(key.replace("_", " ")))


_ORDER = {key: place for place, key in enumerate(_LABELS)}


def _place(key: str) -> tuple[int, str]:
    return _ORDER.get(key, len(_ORDER)), key
