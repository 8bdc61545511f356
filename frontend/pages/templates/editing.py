"""Writing a template, with a preview beside it; its versions; duplicating and deleting it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from delivery import previews as kept_previews
from frontend import actors, keysets
from frontend.access import actor, needs
from frontend.keysets import BrokenCursor, Order
from frontend.pages.frame import framed
from frontend.pages.templates import diffs, previews
from frontend.pages.templates.diffs import Change
from frontend.pages.templates.forms import HeadForm, bound, contents_of, put, unbound
from frontend.pages.templates.listing import in_words
from frontend.wording.actions import by_whom
from frontend.wording.sayings import translated
from schedules import clock, templates
from schedules.listing import spoken
from schedules.models import Channel, MessageTemplate, TemplateVersion
from schedules.permissions import Ability, can
from schedules.template_service import client
from schedules.templates import InvalidTemplate, KeptElsewhere, Superseded, TemplateInUse

_VERSIONS = 10


@dataclass(frozen=True)
class Conflict:
    """Somebody has published since the form was opened."""

    by: str
    at: datetime
    changes: list[Change]


@needs(Ability.EDIT_TEMPLATES)
def new(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        blank = {"channel": Channel.EMAIL, "locale": "en"}
        return _form(request, HeadForm(initial={"default_locale": "en"}), unbound([blank]))
    head, contents = HeadForm(request.POST), bound(request.POST)
    if again := _again(request, contents):
        return _form(request, HeadForm(initial=request.POST.dict()), again, opened=_last(again, request))
    if head.is_valid() and contents.is_valid():
        try:
            made = templates.create(
                name=head.cleaned_data["name"],
                contents=contents.contents(),
                default_locale=head.cleaned_data["default_locale"],
                by=actor(request.user),
                now=clock.now(),
            )
        except InvalidTemplate as error:
            put(error.problems, head, contents)
        else:
            messages.success(request, _("“%(name)s” is published.") % {"name": made.name})
            return HttpResponseRedirect(reverse("template", args=[made.pk]))
    return _form(request, head, contents, status=422)


@needs(Ability.READ)
def template(request: HttpRequest, template_id: int) -> HttpResponse:
    """For who may edit the form, for others what it says, and so for all what the template service keeps."""
    found = _found_or_404(template_id)
    if found.is_remote:
        return _remote(request, found)
    if not can(request.user, Ability.EDIT_TEMPLATES):
        return _reading(request, found)
    if request.method != "POST":
        head = HeadForm(initial={"version": found.version, "default_locale": found.default_locale}, is_new=False)
        return _form(request, head, unbound(contents_of(found)), template=found)
    head, contents = HeadForm(request.POST, is_new=False), bound(request.POST)
    if again := _again(request, contents):
        head = HeadForm(initial=request.POST.dict(), is_new=False)
        return _form(request, head, again, template=found, opened=_last(again, request))
    conflict = None
    if head.is_valid() and contents.is_valid():
        try:
            saved = templates.change(
                template_id=template_id,
                changes={"contents": contents.contents(), "default_locale": head.cleaned_data["default_locale"]},
                by=actor(request.user),
                now=clock.now(),
                expected_version=head.cleaned_data["version"] or 0,
            )
        except InvalidTemplate as error:
            put(error.problems, head, contents)
        except Superseded as newer:
            conflict = _conflict(template_id, head.cleaned_data["version"], newer)
            head = HeadForm(_with(request.POST, "version", newer.current), is_new=False)
        except MessageTemplate.DoesNotExist:
            _found_or_404(template_id)
        else:
            messages.success(request, _saved(saved, found))
            return HttpResponseRedirect(reverse("template", args=[template_id]))
    return _form(request, head, contents, template=found, conflict=conflict, status=422)


def _saved(saved: MessageTemplate, before: MessageTemplate) -> str:
    if saved.version == before.version:
        return _("Nothing was different, so there is no new version.")
    return _("Version %(version)s is published: runs that open from now on say it.") % {"version": saved.version}


def _again(request: HttpRequest, contents: Any) -> Any:
    """The same contents, with an empty one where that was asked for; nothing is saved then. None where saving was."""
    typed = [form.content() for form in contents.forms]
    if "add" in request.POST:
        return unbound([*typed, {"channel": typed[-1]["channel"] if typed else Channel.EMAIL, "locale": ""}])
    return unbound(typed) if {"preview", "preview-step"} & request.POST.keys() else None


def _last(contents: Any, request: HttpRequest) -> int:
    return len(contents.forms) - 1 if "add" in request.POST else 0


def _with(data: Any, name: str, value: object) -> Any:
    changed = data.copy()
    changed[name] = str(value)
    return changed


def _conflict(template_id: int, version: int | None, newer: Superseded) -> Conflict:
    versions = TemplateVersion.objects.filter(template=template_id)
    before = versions.filter(version=version or 0).first()
    return Conflict(actors.name(newer.by), newer.at, diffs.between(before, versions.get(version=newer.current)))


def _form(
    request: HttpRequest,
    head: HeadForm,
    contents: Any,
    *,
    template: MessageTemplate | None = None,
    conflict: Conflict | None = None,
    opened: int = 0,
    status: int = 200,
) -> HttpResponse:
    said = previews.draft(contents, str(head["default_locale"].value() or ""))
    wrong = [index for index, form in enumerate(contents.forms) if form.is_bound and form.errors]
    context: dict[str, Any] = {
        "title": template.name if template else _("New template"),
        "crumbs": [(_("Templates"), reverse("templates"))],
        "template": template,
        "head": head,
        "contents": contents,
        "opened": wrong or [opened],
        "conflict": conflict,
        "shown": previews.show(said, request, asked=previews.asked(request.POST)),
        "is_draft": True,
        **(_about(template) if template else {}),
    }
    return framed(request, "frontend/templates/form.html", context, status=status)


def _reading(request: HttpRequest, template: MessageTemplate) -> HttpResponse:
    labels = dict(Channel.choices)
    contents = [(f"{labels[each['channel']]} · {each['locale']}", each) for each in contents_of(template)]
    context = {"contents": contents, **_shown(request, template)}
    return framed(request, "frontend/templates/read.html", context)


def _remote(request: HttpRequest, template: MessageTemplate) -> HttpResponse:
    """What is known here of a template that the template service keeps, and how it reads."""
    says: dict[str, list[str]] = {}
    for channel, locale in spoken([template])[template.pk]:
        says.setdefault(str(dict(Channel.choices).get(channel, channel)), []).append(locale)
    refused = translated(KeptElsewhere(template).problems[0].message) if request.method == "POST" else ""
    last = template.versions.filter(version=template.version).first()
    context = {
        "says": says.items(),
        "last": last,
        "refused": refused,
        "is_configured": client.is_configured(),
        **_shown(request, template),
    }
    return framed(request, "frontend/templates/remote.html", context, status=409 if refused else 200)


def _shown(request: HttpRequest, template: MessageTemplate) -> dict[str, Any]:
    """What a page shows of a template that it doesn't write: the head and a preview."""
    said = kept_previews.kept(template_id=template.pk, version=None)
    shown = previews.show(said, request, asked=previews.asked(request.GET))
    query = {"channel": shown.channel, "language": shown.locale, "person": shown.person.pk if shown.person else ""}
    return {
        "title": template.name,
        "crumbs": [(_("Templates"), reverse("templates"))],
        "template": template,
        "shown": shown,
        "is_draft": False,
        "body": f"{reverse('template-body', args=[template.pk])}?"
        + urlencode({f"preview-{name}": value for name, value in query.items()}),
        **_about(template),
    }


def _about(template: MessageTemplate) -> dict[str, Any]:
    last = template.versions.filter(version=template.version).first()
    return {
        "used": in_words(templates.users([template.pk])[template.pk]),
        "changed_by": by_whom(last.created_by, actors.name(last.created_by)) if last else "—",
    }


@needs(Ability.READ)
def versions(request: HttpRequest, template_id: int) -> HttpResponse:
    """What was published, the latest first, each with what it changed."""
    found = _found_or_404(template_id)
    order = Order("version", descending=True)
    try:
        page, following = keysets.read(found.versions.all(), order, cursor=request.GET.get("after"), limit=_VERSIONS)
    except BrokenCursor:
        page, following = [], None
    earlier = found.versions.filter(version=page[-1].version - 1).first() if page else None
    names = actors.names(each.created_by for each in page)
    before = [*page[1:], earlier]
    here = reverse("template-versions", args=[template_id])
    context = {
        "title": _("Versions of “%(name)s”") % {"name": found.name},
        "crumbs": [(_("Templates"), reverse("templates")), (found.name, reverse("template", args=[template_id]))],
        "rows": [
            (each, by_whom(each.created_by, names.get(each.created_by, "—")), diffs.between(old, each), old is None)
            for each, old in zip(page, before, strict=True)
        ],
        "is_first": "after" not in request.GET,
        "first": here,
        "following": f"{here}?after={following}" if following else "",
    }
    return framed(request, "frontend/templates/versions.html", context)


@require_POST
@needs(Ability.EDIT_TEMPLATES)
def duplicate(request: HttpRequest, template_id: int) -> HttpResponse:
    found = _found_or_404(template_id)
    if found.is_remote:
        return _remote(request, found)
    copy = templates.duplicate(
        template_id=template_id,
        name=_("Copy of %(name)s") % {"name": found.name},
        by=actor(request.user),
        now=clock.now(),
    )
    messages.success(request, _("This is the copy: “%(name)s”.") % {"name": copy.name})
    return HttpResponseRedirect(reverse("template", args=[copy.pk]))


@require_POST
@needs(Ability.EDIT_TEMPLATES)
def delete(request: HttpRequest, template_id: int) -> HttpResponse:
    found = _found_or_404(template_id)
    if found.is_remote:
        return _remote(request, found)
    version = request.POST.get("version", "")
    try:
        templates.delete(
            template_id=template_id,
            by=actor(request.user),
            now=clock.now(),
            expected_version=int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0,
        )
    except TemplateInUse as error:
        context = {
            "title": _("“%(name)s” is in use") % {"name": found.name},
            "crumbs": [(_("Templates"), reverse("templates")), (found.name, reverse("template", args=[template_id]))],
            "schedules": error.schedules,
            "more": error.count - len(error.schedules),
        }
        return framed(request, "frontend/templates/in_use.html", context, status=409)
    except Superseded as newer:
        words = _("%(who)s has changed it meanwhile. Look at it again before you delete it.")
        messages.warning(request, words % {"who": actors.name(newer.by)})
        return HttpResponseRedirect(reverse("template", args=[template_id]))
    except MessageTemplate.DoesNotExist:
        pass
    messages.success(request, _("“%(name)s” is deleted. Past runs keep what they said.") % {"name": found.name})
    return HttpResponseRedirect(reverse("templates"))


def _found_or_404(template_id: int) -> MessageTemplate:
    found: MessageTemplate | None = MessageTemplate.objects.live().filter(pk=template_id).first()
    if found is None:
        raise Http404(_("There is no such template. It may have been deleted."))
    return found
