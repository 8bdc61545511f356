"""How a message reads for one person: what is being written, and what is kept. Nothing is sent or kept here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from delivery import previews
from delivery.previews import Said
from delivery.renderers import OfService
from frontend import policies
from frontend.access import needs
from frontend.pages.templates.forms import bound
from frontend.wording.sayings import translated
from schedules import clock
from schedules.content import Content, asked_for, locale_chain, pick_content, read_catalogues, read_contents
from schedules.models import Catalogue, Channel, Recipient
from schedules.permissions import Ability, can, shown_address
from schedules.problems import Problem, Saying
from schedules.templates import InvalidTemplate


@dataclass(frozen=True)
class Variable:
    """A name that the content asks for, and where its value comes from."""

    name: str
    source: str
    is_missing: bool


@dataclass(frozen=True)
class Key:
    """A key of catalogues; ``missing``: locale and address to add it, for each language that lacks it."""

    name: str
    missing: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Shown:
    """A preview in words. ``problems``: which part, and what to do; ``content_locale``: whose content was taken."""

    channel: str
    locale: str
    person: Recipient | None
    subject: str = ""
    text: str = ""
    html: str = ""
    content_locale: str = ""
    problems: Sequence[tuple[str, str]] = ()
    variables: Sequence[Variable] = ()
    keys: Sequence[Key] = ()
    locales: Sequence[str] = field(default_factory=list)
    channels: Sequence[tuple[str, str]] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The preview for those who hear the page: what is wrong, or whose it is and what it lacks."""
        if self.problems:
            return " ".join(f"{part}: {words}" if part else words for part, words in self.problems)
        if not self.channel:
            return ""
        words = _("As %(id)s reads it") % {"id": self.person.external_id} if self.person else _("Preview")
        lacks = f". {_('Without a value for this person:')} {', '.join(self.missing)}" if self.missing else ""
        return f"{words} ({self.content_locale}){lacks}"

    @property
    def missing(self) -> list[str]:
        return [each.name for each in self.variables if each.is_missing]


def show(said: Said, request: HttpRequest, *, asked: Mapping[str, str], needs_all: bool = True) -> Shown:
    """``asked``: ``channel``, ``language``, ``person`` (number), ``step`` (next, previous); each may be empty."""
    spoken = list(dict.fromkeys(content.channel for content in said.contents if content.channel in Channel.values))
    channel = asked.get("channel", "")
    channel = channel if channel in spoken else (spoken[0] if spoken else "")
    locale = asked.get("language", "")[:35]
    person = _person(asked.get("person", ""), asked.get("step", ""))
    labels = dict(Channel.choices)
    locales = sorted({content.locale for content in said.contents if content.channel == channel} | {locale} - {""})
    shown: dict[str, Any] = {
        "channel": channel,
        "locale": locale,
        "person": person,
        "locales": [each for each in locales if each],
        "channels": [(each, labels[each]) for each in spoken],
    }
    if not channel:
        return Shown(**shown)
    address = shown_address(person.email, in_clear=can(request.user, Ability.SEE_ADDRESSES)) if person else ""
    read_by = locale or (person.locale if person else "")
    content = pick_content(contents=said.contents, channel=channel, locale=read_by, default_locale=said.default_locale)
    try:
        told = previews.preview(
            said=said, channel=channel, person=person, locale=locale or None, address=address, now=clock.now()
        )
    except InvalidTemplate as error:
        problems = [_told(problem) for problem in error.problems]
        return Shown(**shown, problems=problems, content_locale=content.locale if content else "")
    rendered = told.rendered
    if needs_all and isinstance(said.renderer, OfService):
        shown["variables"] = _variables(said.renderer.remote.tokens, rendered.missing_tokens)
    elif needs_all and content:
        shown["variables"] = _variables(asked_for(content).variables, rendered.missing_tokens)
        shown["keys"] = _keys(said, content, channel)
    return Shown(
        **shown, subject=rendered.subject, text=rendered.text, html=rendered.html, content_locale=rendered.locale
    )


def _person(number: str, step: str) -> Recipient | None:
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return previews.reader(external_id=None, locale=None)
    if step in ("next", "previous"):
        return previews.beside(recipient_id=int(number), backwards=step == "previous")
    return Recipient.objects.filter(pk=int(number)).first() or previews.reader(external_id=None, locale=None)


def _told(problem: Problem) -> tuple[str, str]:
    """The part in words, empty for the content as a whole, and what is wrong with it."""
    part = problem.field.rpartition("/")[2]
    words = problem.message
    if isinstance(words, Saying) and words.values.get("part") == part:
        words = str(words.values.get("words", words))  # the part stands before it already
    return {"subject": _("Subject"), "text": _("Text"), "html": _("HTML")}.get(part, ""), translated(words)


def _variables(names: Iterable[str], missing: Iterable[str]) -> list[Variable]:
    lacking = set(missing)
    return [Variable(name, _source(name), name in lacking) for name in sorted(names)]


def _source(name: str) -> str:
    head, _dot, rest = name.partition(".")
    match head:
        case "recipient" if rest.startswith("attributes"):
            return _("attribute of the person")
        case "recipient":
            return _("profile of the person")
        case "schedule":
            return _("the schedule")
        case "occurrence":
            return _("the run: its time on the person's clock")
    return _("attribute of the person")


def _keys(said: Said, content: Content, channel: str) -> list[Key]:
    names = sorted(asked_for(content).keys)
    if not names:
        return []
    catalogues = read_catalogues(Catalogue.objects.live().values_list("locale", "messages"))
    spoken = sorted({each.locale for each in said.contents if each.channel == channel} | {said.default_locale})
    found = []
    for name in names:
        lacking = [
            locale
            for locale in spoken
            if not any(
                name in catalogues.get(each, {})
                for each in locale_chain(locale=locale, default_locale=said.default_locale)
            )
        ]
        found.append(Key(name, [(locale, f"{reverse('catalogue-new')}?locale={locale}") for locale in lacking]))
    return found


def draft(contents: Any, default_locale: str) -> Said:
    """What stands in the forms of ``contents`` at this moment, valid or not."""
    return Said.sent(_("Preview"), read_contents(contents.contents()), default_locale or "en", place="contents")


def _drafted(request: HttpRequest) -> Said:
    return draft(bound(request.POST), request.POST.get("default_locale", ""))


@require_POST
@needs(Ability.EDIT_TEMPLATES)
def preview(request: HttpRequest) -> HttpResponse:
    """The panel beside the form, anew."""
    shown = show(_drafted(request), request, asked=asked(request.POST))
    context = {"shown": shown, "is_draft": True, "part": "frontend/templates/preview.html", "said": shown.said}
    return render(request, "frontend/part.html", context)


@require_POST
@needs(Ability.EDIT_TEMPLATES)
def draft_body(request: HttpRequest) -> HttpResponse:
    """The HTML of what is being written, for the frame in the panel."""
    return _foreign(_html(show(_drafted(request), request, asked=asked(request.POST), needs_all=False)))


@needs(Ability.READ)
def body(request: HttpRequest, template_id: int) -> HttpResponse:
    """The HTML of what is kept, for the frame in the panel."""
    try:
        said = previews.kept(template_id=template_id, version=None)
    except InvalidTemplate as error:
        return _foreign(f"<p>{translated(error.problems[0].message)}</p>")
    return _foreign(_html(show(said, request, asked=asked(request.GET), needs_all=False)))


def _foreign(html: str) -> HttpResponse:
    response: HttpResponse = policies.foreign(html)
    return response


def _html(shown: Shown) -> str:
    return shown.html or f"<p>{_('This content has no HTML.')}</p>"


def asked(data: Any) -> dict[str, str]:
    """What the panel's own fields say, from ``request.GET`` or ``request.POST``."""
    return {name: data.get(f"preview-{name}", "") for name in ("channel", "language", "person", "step")}
