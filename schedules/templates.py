"""Changes of templates and catalogues: checked, versioned, audited, in one transaction each."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any

from django.db import IntegrityError, connection, transaction

from audit import trail
from audit.models import Action
from schedules.content import normalise_locale, validate_catalogue, validate_content
from schedules.models import (
    Catalogue,
    Channel,
    MessageTemplate,
    Schedule,
    ScheduleStatus,
    TemplateContent,
    TemplateVersion,
)
from schedules.problems import Problem, say

PARTS = ("channel", "locale", "subject", "text", "html")
LONGEST_LOCALE = 35  # as its columns
LONGEST_NAME = 200
_OVER = (ScheduleStatus.FINISHED, ScheduleStatus.CANCELLED, ScheduleStatus.DELETED)
# As the condition of schedule_template_live_idx.
_LIVE = "'draft', 'active', 'paused', 'broken'"
_NAMED = 5  # schedules that a refusal to delete names
_TAKEN = Problem(
    "name", "taken", say("There is a template of that name already: change that one, or choose another name.")
)


def users(template_ids: Collection[int], *, most: int = 1_000) -> dict[int, int]:
    """By template how many schedules that are not over use it, counted to ``most + 1``; 0 for none."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT t.id, (
                SELECT count(*) FROM (
                    SELECT 1 FROM schedules_schedule s WHERE s.template_id = t.id AND s.status IN ({_LIVE}) LIMIT %s
                ) using_it
            ) FROM unnest(%s::bigint[]) AS t(id)
            """,
            [most + 1, list(template_ids)],
        )
        return dict(cursor.fetchall())


class InvalidTemplate(ValueError):
    """The template or catalogue can't be kept; ``problems`` names each part, what is wrong and what to do.

    A problem's field is a JSON pointer without its first slash: ``contents/0/subject``, ``messages/hello``.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


class KeptElsewhere(InvalidTemplate):
    """A template service keeps it, so that nothing of it is changed here."""

    def __init__(self, template: MessageTemplate) -> None:
        words = say(
            "The template service keeps “%(name)s”: change it there. What it publishes is known here within a minute.",
            name=template.name,
        )
        super().__init__([Problem("name", "kept_elsewhere", words)])


class Superseded(Exception):
    """Somebody else changed it; ``current`` is the version that stands, made ``by`` whom ``at`` what time."""

    def __init__(self, *, current: int, by: str, at: datetime) -> None:
        super().__init__(f"It is at version {current} by now: read it again and repeat the change.")
        self.current = current
        self.by = by
        self.at = at


class TemplateInUse(Exception):
    """Schedules that are not over use the template; ``schedules`` holds the first few as (id, name)."""

    def __init__(self, *, schedules: Sequence[tuple[int, str]], count: int) -> None:
        named = ", ".join(f"{schedule_id} “{name}”" for schedule_id, name in schedules)
        more = f" and {count - len(schedules):,} more" if count > len(schedules) else ""
        whom = "schedule" if count == 1 else "schedules"
        super().__init__(f"{count:,} {whom} that may run still use it: {named}{more}. End them or give them another.")
        self.schedules = list(schedules)
        self.count = count


@transaction.atomic
def create(
    *, name: str, contents: Sequence[Mapping[str, str]], by: str, now: datetime, default_locale: str = "en"
) -> MessageTemplate:
    """Keep a new template and publish it; arguments as of ``save``. Raises ``InvalidTemplate``, for a used name too."""
    problems = _check_name(name)
    if not problems and MessageTemplate.objects.live().filter(name=name).exists():
        problems = [_TAKEN]
    _refuse(problems + check(contents, default_locale=default_locale))
    try:
        with transaction.atomic():
            template = MessageTemplate.objects.create(name=name, created_at=now)
    except IntegrityError:  # somebody took it since
        raise InvalidTemplate([_TAKEN]) from None
    return _say(template, contents, default_locale, by=by, now=now)


@transaction.atomic
def save(
    *, name: str, contents: Sequence[Mapping[str, str]], by: str, now: datetime, default_locale: str = "en"
) -> MessageTemplate:
    """Create or replace the template called ``name`` and publish it.

    ``contents``: {channel, locale, subject, text, html}, absent parts empty. Raises ``InvalidTemplate``.
    """
    _refuse(_check_name(name) + check(contents, default_locale=default_locale))
    live = MessageTemplate.objects.live().select_for_update()
    template, _ = live.get_or_create(name=name, defaults={"created_at": now})
    _refuse_remote(template)
    return _say(template, contents, default_locale, by=by, now=now)


@transaction.atomic
def change(
    *, template_id: int, changes: Mapping[str, Any], by: str, now: datetime, expected_version: int | None = None
) -> MessageTemplate:
    """Change ``contents``, as a whole, or ``default_locale``, and publish. The name is chosen once.

    Raises ``MessageTemplate.DoesNotExist``, ``Superseded`` and ``InvalidTemplate``; then nothing has changed.
    """
    template = _lock(template_id, expected_version)
    problems = []
    if changes.get("name", template.name) != template.name:
        message = say(
            "The name is chosen once, since imports know the template by it: leave it “%(name)s”.", name=template.name
        )
        problems.append(Problem("name", "immutable", message))
    contents = changes.get("contents", list(template.contents.values(*PARTS)))
    default_locale = changes.get("default_locale", template.default_locale)
    _refuse(problems + check(contents, default_locale=default_locale))
    return _say(template, contents, default_locale, by=by, now=now)


def duplicate(*, template_id: int, name: str, by: str, now: datetime) -> MessageTemplate:
    """A new template that says the same under ``name``, or the first “name 2”, “name 3” that is free.

    Raises ``MessageTemplate.DoesNotExist``, and ``KeptElsewhere`` where there is nothing here to be said again.
    """
    original = MessageTemplate.objects.live().get(pk=template_id)
    _refuse_remote(original)
    contents = list(original.contents.values(*PARTS))
    name = name[: LONGEST_NAME - 6].rstrip()
    taken = set(MessageTemplate.objects.live().filter(name__startswith=name).values_list("name", flat=True))
    free = next(each for each in _numbered(name) if each not in taken)
    return create(name=free, contents=contents, default_locale=original.default_locale, by=by, now=now)


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} {number}" for number in count(2))


@transaction.atomic
def delete(*, template_id: int, by: str, now: datetime, expected_version: int | None = None) -> None:
    """Take it out of every list. Its versions stay: they tell what past occurrences said, and those may be retried.

    Raises ``MessageTemplate.DoesNotExist``, ``KeptElsewhere``, ``Superseded`` and, while schedules may run with it,
    ``TemplateInUse``.
    """
    template = _lock(template_id, expected_version)
    using = Schedule.objects.filter(template=template).exclude(status__in=_OVER)
    if number := using.count():
        first = list(using.order_by("id").values_list("id", "name")[:_NAMED])
        raise TemplateInUse(schedules=first, count=number)
    template.deleted_at = template.updated_at = now
    template.save()
    changes = {"template": template_id, "name": [template.name, None], "version": [template.version, None]}
    trail.record(action=Action.TEMPLATE_DELETE, by=by, now=now, changes=changes)


def _lock(template_id: int, expected_version: int | None) -> MessageTemplate:
    template: MessageTemplate = MessageTemplate.objects.live().select_for_update().get(pk=template_id)
    _refuse_remote(template)
    if expected_version is not None and expected_version != template.version:
        last = template.versions.get(version=template.version)
        raise Superseded(current=last.version, by=last.created_by, at=last.created_at)
    return template


def _say(
    template: MessageTemplate, contents: Sequence[Mapping[str, str]], default_locale: str, *, by: str, now: datetime
) -> MessageTemplate:
    """Put checked contents in the place of the template's own, and publish."""
    template.default_locale = default_locale
    template.save()
    template.contents.all().delete()
    TemplateContent.objects.bulk_create(
        TemplateContent(template=template, **{part: content.get(part, "") for part in PARTS}) for content in contents
    )
    return publish(template_id=template.pk, by=by, now=now)


@transaction.atomic
def publish(*, template_id: int, by: str, now: datetime) -> MessageTemplate:
    """Make what the template's contents and default locale are now its next version, if anything is new.

    Occurrences opened from now on use it. Raises ``InvalidTemplate``: the caller's transaction is then rolled back.
    """
    template = MessageTemplate.objects.select_for_update().get(pk=template_id)
    _refuse_remote(template)
    contents = list(template.contents.values(*PARTS))
    _refuse(check(contents, default_locale=template.default_locale))
    last = template.versions.order_by("-version").first()
    if last and (last.contents, last.default_locale) == (contents, template.default_locale):
        return template
    template.version += 1
    template.updated_at = now
    template.save()
    said = {"contents": contents, "default_locale": template.default_locale, "version": template.version}
    TemplateVersion.objects.create(template=template, created_by=by, created_at=now, **said)
    before = {name: getattr(last, name, None) for name in said} | {"version": template.version - 1}
    changes = trail.diff(before, said)
    trail.record(action=Action.TEMPLATE_PUBLISH, by=by, now=now, changes={"template": template.pk, **changes})
    return template


def check(contents: Sequence[Mapping[str, str]], *, default_locale: str) -> list[Problem]:
    """Every problem of a template's contents; the field says where: ``contents/0/subject``, ``defaultLocale``."""
    if problems := [*_check_shape(contents), *_check_default_locale(default_locale)]:
        return problems
    problems = _repeated(contents)
    if not contents:
        problems.append(Problem("contents", "required", say("Add content for at least one channel.")))
    for index, content in enumerate(contents):
        place = f"contents/{index}"
        channel, locale = content.get("channel", ""), content.get("locale", "")
        if channel not in Channel.values:
            problems.append(
                Problem(f"{place}/channel", "unknown", say("Use one of: %(known)s.", known=", ".join(Channel.values)))
            )
            continue
        if locale != "default" and not _is_locale(locale):
            problems.append(Problem(f"{place}/locale", "invalid", say("Use a locale such as “de” or “de-AT”.")))
        parts = {part: content.get(part, "") for part in ("subject", "text", "html")}
        problems += [
            Problem(f"{place}/{problem.field}", problem.code, problem.message)
            for problem in validate_content(channel=channel, **parts)
        ]
    return problems + _without_default(contents, default_locale)


def _check_name(name: object) -> list[Problem]:
    if isinstance(name, str) and name.strip() and len(name) <= LONGEST_NAME and name.isprintable():
        return []
    return [Problem("name", "invalid", say("Give the template a name of at most 200 printable characters."))]


def _check_shape(contents: object) -> list[Problem]:
    """What keeps contents from being read at all: who sends them may send any JSON."""
    if not isinstance(contents, list | tuple):
        return [Problem("contents", "wrong_type", say("Give a list of contents, each an object."))]
    problems = []
    for index, content in enumerate(contents):
        place = f"contents/{index}"
        if not isinstance(content, Mapping):
            message = say("Give an object with some of: %(known)s.", known=", ".join(PARTS))
            problems.append(Problem(place, "wrong_type", message))
            continue
        for part in PARTS:
            value = content.get(part, "")
            if not isinstance(value, str):
                problems.append(Problem(f"{place}/{part}", "wrong_type", say("Give a text, or leave it out.")))
            elif part in ("channel", "locale") and not value.isprintable():
                problems.append(Problem(f"{place}/{part}", "invalid", say("Use printable characters alone.")))
    return problems


def _check_default_locale(locale: object) -> list[Problem]:
    if isinstance(locale, str) and _is_locale(locale):
        return []
    return [Problem("defaultLocale", "invalid", say("Use a locale such as “de” or “de-AT”."))]


def _is_locale(locale: str) -> bool:
    return len(locale) <= LONGEST_LOCALE and locale.isprintable() and bool(normalise_locale(locale))


def _without_default(contents: Sequence[Mapping[str, str]], default_locale: str) -> list[Problem]:
    fallbacks = {normalise_locale(default_locale), normalise_locale(default_locale).split("-")[0], ""}
    problems = []
    for channel in sorted({content.get("channel", "") for content in contents} & set(Channel.values)):
        spoken = [content.get("locale", "") for content in contents if content.get("channel") == channel]
        if not {normalise_locale(locale) for locale in spoken} & fallbacks:
            message = say(
                "Add %(channel)s content in %(default_locale)s: it serves everyone whose locale has none.",
                channel=channel,
                default_locale=default_locale,
            )
            problems.append(Problem("contents", "no_default", message))
    return problems


def _repeated(contents: Sequence[Mapping[str, str]]) -> list[Problem]:
    seen, problems = set(), []
    for index, content in enumerate(contents):
        key = (content.get("channel"), normalise_locale(content.get("locale", "")))
        if key in seen:
            message = say("This channel and locale stand twice: keep one of them.")
            problems.append(Problem(f"contents/{index}", "repeated", message))
        seen.add(key)
    return problems


@transaction.atomic
def save_catalogue(*, locale: str, messages: Mapping[str, Any], by: str, now: datetime) -> Catalogue:
    """Create or replace a locale's translations; the version rises if anything is new. Raises ``InvalidTemplate``."""
    _refuse(validate_catalogue(locale=locale, messages=messages))
    return _write_catalogue(_any_catalogue(locale, now), messages, by=by, now=now)


@transaction.atomic
def create_catalogue(*, locale: str, messages: Mapping[str, Any], by: str, now: datetime) -> Catalogue:
    """Keep a locale's first translations. Raises ``InvalidTemplate``; ``Superseded`` where there are some."""
    _refuse(validate_catalogue(locale=locale, messages=messages))
    catalogue = _any_catalogue(locale, now)
    if catalogue.deleted_at is None:
        raise Superseded(current=catalogue.version, by=catalogue.updated_by, at=catalogue.updated_at)
    return _write_catalogue(catalogue, messages, by=by, now=now)


@transaction.atomic
def change_catalogue(
    *, locale: str, messages: Mapping[str, Any], by: str, now: datetime, expected_version: int | None = None
) -> Catalogue:
    """Replace a locale's translations. Raises ``InvalidTemplate``, ``Catalogue.DoesNotExist`` and ``Superseded``."""
    _refuse(validate_catalogue(locale=locale, messages=messages))
    return _write_catalogue(_lock_catalogue(locale, expected_version), messages, by=by, now=now)


@transaction.atomic
def delete_catalogue(*, locale: str, by: str, now: datetime, expected_version: int | None = None) -> None:
    """Take a locale's translations away. Raises ``Catalogue.DoesNotExist`` and ``Superseded``."""
    catalogue = _lock_catalogue(locale, expected_version)
    changes = _told(catalogue.messages, {})
    catalogue.messages, catalogue.version, catalogue.deleted_at = {}, catalogue.version + 1, now
    catalogue.updated_by, catalogue.updated_at = by, now
    catalogue.save()
    trail.record(action=Action.CATALOGUE_DELETE, by=by, now=now, changes={"locale": catalogue.locale, **changes})


def _any_catalogue(locale: str, now: datetime) -> Catalogue:
    """The locale's row, locked: one that says nothing where there was none. “de_AT” and “de-AT” are one."""
    empty = {"version": 0, "deleted_at": now, "updated_at": now}
    locked = Catalogue.objects.select_for_update()
    return locked.get_or_create(locale=normalise_locale(locale), defaults=empty)[0]


def _lock_catalogue(locale: str, expected_version: int | None) -> Catalogue:
    catalogue: Catalogue = Catalogue.objects.live().select_for_update().get(locale=normalise_locale(locale))
    if expected_version is not None and expected_version != catalogue.version:
        raise Superseded(current=catalogue.version, by=catalogue.updated_by, at=catalogue.updated_at)
    return catalogue


def _write_catalogue(catalogue: Catalogue, messages: Mapping[str, Any], *, by: str, now: datetime) -> Catalogue:
    changes = _told(catalogue.messages, messages)
    if changes or catalogue.deleted_at:
        catalogue.messages, catalogue.version, catalogue.deleted_at = dict(messages), catalogue.version + 1, None
        catalogue.updated_by, catalogue.updated_at = by, now
        catalogue.save()
        trail.record(action=Action.CATALOGUE_SAVE, by=by, now=now, changes={"locale": catalogue.locale, **changes})
    return catalogue


def _told(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Changed messages as the audit has them, apart from what else it says of a catalogue."""
    return {f"messages/{key}": change for key, change in trail.diff(before, after).items()}


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise InvalidTemplate(problems)


def _refuse_remote(template: MessageTemplate) -> None:
    if template.is_remote:
        raise KeptElsewhere(template)
