"""Changes of templates and catalogues: checked, versioned, audited, in one transaction each."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction

from audit import trail
from audit.models import Action
from schedules.content import normalise_locale, validate_catalogue, validate_content
from schedules.models import Catalogue, Channel, MessageTemplate, TemplateContent, TemplateVersion
from schedules.problems import Problem

PARTS = ("channel", "locale", "subject", "text", "html")
LONGEST_LOCALE = 35  # as its columns


class InvalidTemplate(ValueError):
    """The template or catalogue can't be kept; ``problems`` names each part, what is wrong and what to do."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


@transaction.atomic
def save(
    *, name: str, contents: Sequence[Mapping[str, str]], by: str, now: datetime, default_locale: str = "en"
) -> MessageTemplate:
    """Create or replace the template called ``name`` and publish it.

    ``contents``: {channel, locale, subject, text, html}, absent parts empty. Raises ``InvalidTemplate``.
    """
    _refuse(_check_name(name) + check(contents, default_locale=default_locale))
    template, _ = MessageTemplate.objects.select_for_update().get_or_create(
        name=name, defaults={"default_locale": default_locale}
    )
    template.default_locale = default_locale
    template.save()
    template.contents.all().delete()
    for content in contents:
        TemplateContent.objects.create(template=template, **{part: content.get(part, "") for part in PARTS})
    return publish(template_id=template.pk, by=by, now=now)


@transaction.atomic
def publish(*, template_id: int, by: str, now: datetime) -> MessageTemplate:
    """Make what the template's contents and default locale are now its next version, if anything is new.

    Occurrences opened from now on use it. Raises ``InvalidTemplate``: the caller's transaction is then rolled back.
    """
    template = MessageTemplate.objects.select_for_update().get(pk=template_id)
    contents = list(template.contents.values(*PARTS))
    _refuse(check(contents, default_locale=template.default_locale))
    last = template.versions.order_by("-version").first()
    if last and (last.contents, last.default_locale) == (contents, template.default_locale):
        return template
    template.version += 1
    template.updated_at = now
    template.save()
    said = {"contents": contents, "default_locale": template.default_locale, "version": template.version}
    TemplateVersion.objects.create(template=template, created_at=now, **said)
    before = {name: getattr(last, name, None) for name in said} | {"version": template.version - 1}
    changes = trail.diff(before, said)
    trail.record(action=Action.TEMPLATE_PUBLISH, by=by, now=now, changes={"template": template.pk, **changes})
    return template


def check(contents: Sequence[Mapping[str, str]], *, default_locale: str) -> list[Problem]:
    """Every problem of a template's contents; the field says where: ``email.de.subject``.

    Where channel or locale are no texts, it is ``contents.0.locale``.
    """
    if problems := [*_check_shape(contents), *_check_default_locale(default_locale)]:
        return problems
    problems = _repeated(contents)
    if not contents:
        problems.append(Problem("contents", "required", "Add content for at least one channel."))
    for content in contents:
        channel, locale = content.get("channel", ""), content.get("locale", "")
        place = f"{channel}.{locale}"
        if channel not in Channel.values:
            problems.append(Problem(f"{place}.channel", "unknown", f"Use one of: {', '.join(Channel.values)}."))
            continue
        if locale != "default" and not _is_locale(locale):
            problems.append(Problem(f"{place}.locale", "invalid", "Use a locale such as “de” or “de-AT”."))
        parts = {part: content.get(part, "") for part in ("subject", "text", "html")}
        problems += [
            Problem(f"{place}.{problem.field}", problem.code, problem.message)
            for problem in validate_content(channel=channel, **parts)
        ]
    return problems + _without_default(contents, default_locale)


def _check_name(name: object) -> list[Problem]:
    if isinstance(name, str) and name.strip() and len(name) <= 200 and name.isprintable():
        return []
    return [Problem("name", "invalid", "Give the template a name of at most 200 printable characters.")]


def _check_shape(contents: object) -> list[Problem]:
    """What keeps contents from being read at all: who sends them may send any JSON."""
    if not isinstance(contents, list | tuple):
        return [Problem("contents", "wrong_type", "Give a list of contents, each an object.")]
    problems = []
    for index, content in enumerate(contents):
        place = f"contents.{index}"
        if not isinstance(content, Mapping):
            message = f"Give an object with some of: {', '.join(PARTS)}."
            problems.append(Problem(place, "wrong_type", message))
            continue
        for part in PARTS:
            value = content.get(part, "")
            if not isinstance(value, str):
                problems.append(Problem(f"{place}.{part}", "wrong_type", "Give a text, or leave it out."))
            elif part in ("channel", "locale") and not value.isprintable():
                problems.append(Problem(f"{place}.{part}", "invalid", "Use printable characters alone."))
    return problems


def _check_default_locale(locale: object) -> list[Problem]:
    if isinstance(locale, str) and _is_locale(locale):
        return []
    return [Problem("default_locale", "invalid", "Use a locale such as “de” or “de-AT”.")]


def _is_locale(locale: str) -> bool:
    return len(locale) <= LONGEST_LOCALE and locale.isprintable() and bool(normalise_locale(locale))


def _without_default(contents: Sequence[Mapping[str, str]], default_locale: str) -> list[Problem]:
    fallbacks = {normalise_locale(default_locale), normalise_locale(default_locale).split("-")[0], ""}
    problems = []
    for channel in sorted({content.get("channel", "") for content in contents} & set(Channel.values)):
        spoken = [content.get("locale", "") for content in contents if content.get("channel") == channel]
        if not {normalise_locale(locale) for locale in spoken} & fallbacks:
            message = f"Add {channel} content in {default_locale}: it serves everyone whose locale has none."
            problems.append(Problem(f"{channel}.{default_locale}", "no_default", message))
    return problems


def _repeated(contents: Sequence[Mapping[str, str]]) -> list[Problem]:
    seen, problems = set(), []
    for content in contents:
        key = (content.get("channel"), normalise_locale(content.get("locale", "")))
        if key in seen:
            message = "This channel and locale stand twice: keep one of them."
            problems.append(Problem(f"{content.get('channel')}.{content.get('locale')}", "repeated", message))
        seen.add(key)
    return problems


@transaction.atomic
def save_catalogue(*, locale: str, messages: Mapping[str, Any], by: str, now: datetime) -> Catalogue:
    """Create or replace a locale's translations. Raises ``InvalidTemplate``."""
    _refuse(validate_catalogue(locale=locale, messages=messages))
    locale = normalise_locale(locale)  # “de_AT” and “de-AT” are one
    before = Catalogue.objects.filter(locale=locale).first()
    catalogue, _ = Catalogue.objects.update_or_create(
        locale=locale, defaults={"messages": dict(messages), "updated_at": now}
    )
    changes = trail.diff(before.messages if before else {}, dict(messages))
    if changes:
        trail.record(action=Action.CATALOGUE_SAVE, by=by, now=now, changes={"locale": locale, **changes})
    return catalogue


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise InvalidTemplate(problems)
