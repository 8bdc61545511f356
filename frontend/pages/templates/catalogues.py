"""Translations: by language which keys there are and which are missing; each key with its plural forms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from babel import Locale, UnknownLocaleError
from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import get_language, gettext_lazy, ngettext
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from frontend import actors
from frontend.access import actor, needs
from frontend.pages.frame import framed
from frontend.wording import number
from frontend.wording.actions import by_whom
from frontend.wording.sayings import translated
from schedules import clock, templates
from schedules.content import babel_locale, normalise_locale
from schedules.models import Catalogue
from schedules.permissions import Ability, can
from schedules.templates import InvalidTemplate, Superseded

PAGE = 100
_FORMS = {
    "zero": gettext_lazy("for none"),
    "one": gettext_lazy("for one"),
    "two": gettext_lazy("for two"),
    "few": gettext_lazy("for a few"),
    "many": gettext_lazy("for many"),
    "other": gettext_lazy("for all other counts"),
}


def plural_forms(locale: str) -> list[str]:
    """The categories that the language knows, in CLDR's order, “other” last."""
    known = babel_locale(locale=locale, default_locale="en").plural_form.tags
    return [name for name in _FORMS if name in known or name == "other"]


def language(locale: str) -> str:
    """``German (Austria)``, in the viewer's language; empty where nobody has a name for it."""
    try:
        return Locale.parse(locale, sep="-").get_display_name((get_language() or "en").replace("-", "_")) or ""
    except (ValueError, UnknownLocaleError):
        return ""


@dataclass(frozen=True)
class Row:
    catalogue: Catalogue
    language: str
    size: str
    missing: int
    by: str


@needs(Ability.READ)
def listing(request: HttpRequest) -> HttpResponse:
    found = list(Catalogue.objects.live())
    every = _keys(found)
    names = actors.names(each.updated_by for each in found)
    context = {
        "title": _("Catalogues"),
        "subtitle": _('Translations that templates look up with t("key")'),
        "rows": [
            Row(
                each,
                language(each.locale),
                ngettext("%(count)s key", "%(count)s keys", len(each.messages)) % {"count": number(len(each.messages))},
                len(every - each.messages.keys()),
                by_whom(each.updated_by, names.get(each.updated_by, "—")),
            )
            for each in found
        ],
        "may_edit": can(request.user, Ability.EDIT_TEMPLATES),
    }
    return framed(request, "frontend/templates/catalogues.html", context)


def _keys(found: list[Catalogue]) -> set[str]:
    return set().union(*(each.messages for each in found))


class MessageForm(forms.Form):
    """One key in one language: a simple text, or one for each plural form."""

    version = forms.IntegerField(required=False, min_value=0, widget=forms.HiddenInput)
    locale = forms.CharField(max_length=templates.LONGEST_LOCALE, label=gettext_lazy("Language"))
    key = forms.CharField(
        max_length=200, label=gettext_lazy("Key"), help_text=gettext_lazy('As the template names it: t("key").')
    )
    simple = forms.CharField(
        required=False,
        strip=False,
        label=gettext_lazy("Text"),
        help_text=gettext_lazy('{name} stands for a parameter: t("key", name=first_name).'),
        widget=forms.Textarea(attrs={"rows": 3}),
    )

    def __init__(self, *args: Any, locale: str, is_fixed: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.categories = plural_forms(locale)
        for name in self.categories:
            self.fields[f"form_{name}"] = forms.CharField(
                required=False, strip=False, label=_FORMS[name], widget=forms.Textarea(attrs={"rows": 2})
            )
        if is_fixed:
            del self.fields["locale"]

    def plurals(self) -> list[forms.BoundField]:
        return [self[f"form_{name}"] for name in self.categories]

    @property
    def has_plurals(self) -> bool:
        return any(field.value() or field.errors for field in self.plurals())

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        forms_given = {name: data[f"form_{name}"] for name in self.categories if data.get(f"form_{name}")}
        if bool(data.get("simple")) == bool(forms_given):
            words = _("Write either one text or its plural forms.")
            self.add_error("simple", words)
        data["message"] = data.get("simple") or forms_given
        return data


@needs(Ability.READ)
def catalogue(request: HttpRequest, locale: str) -> HttpResponse:
    """The keys of a language, those that only others have marked as missing."""
    found = list(Catalogue.objects.live())
    mine = _of(found, locale)
    asked = request.GET.get("q", "")[:200]
    after = request.GET.get("after", "")[:200]
    every = sorted(key for key in _keys(found) if asked.lower() in key.lower() and key > after)
    here = reverse("catalogue", args=[mine.locale])
    context = {
        "title": language(mine.locale) or mine.locale,
        "subtitle": mine.locale,
        "crumbs": [(_("Catalogues"), reverse("catalogues"))],
        "catalogue": mine,
        "asked": asked,
        "rows": [
            (key, _shown(mine.messages.get(key), mine.locale), _elsewhere(found, mine, key)) for key in every[:PAGE]
        ],
        "changed_by": by_whom(mine.updated_by, actors.name(mine.updated_by)),
        "is_first": not after,
        "first": here,
        "following": f"{here}?{_query(q=asked, after=every[PAGE - 1])}" if len(every) > PAGE else "",
        "may_edit": can(request.user, Ability.EDIT_TEMPLATES),
    }
    return framed(request, "frontend/templates/catalogue.html", context)


def _query(**asked: str) -> str:

    return urlencode({name: value for name, value in asked.items() if value})


def _shown(message: Any, locale: str) -> list[tuple[str, str]]:
    """Pairs of plural form in words, empty for a simple text, and text; none for no message."""
    if message is None:
        return []
    if isinstance(message, str):
        return [("", message)]
    return [(str(_FORMS.get(name, name)), message[name]) for name in plural_forms(locale) if name in message]


def _elsewhere(found: list[Catalogue], mine: Catalogue, key: str) -> list[tuple[str, str]]:
    """What the other languages say, for who translates."""
    others = [each for each in found if each.pk != mine.pk and key in each.messages]
    return [
        (each.locale, "; ".join(text for _form, text in _shown(each.messages[key], each.locale))) for each in others
    ]


@needs(Ability.EDIT_TEMPLATES)
def new(request: HttpRequest) -> HttpResponse:
    """The first key of a language that has none yet, or a further one of any."""
    locale = (request.POST.get("locale") or request.GET.get("locale") or "")[: templates.LONGEST_LOCALE]
    form = MessageForm(
        request.POST or None,
        locale=locale,
        is_fixed=False,
        initial={"locale": locale, "key": request.GET.get("key", "")},
    )
    if request.method == "POST" and form.is_valid():
        found = list(Catalogue.objects.live())
        standing = next((each for each in found if each.locale == normalise_locale(locale)), None)
        if standing and form.cleaned_data["key"] in standing.messages:
            form.add_error("key", _("The language has this key already: change it in its catalogue."))
        else:
            saved = _save(request, form, locale, standing)
            if saved:
                return saved
    return _message(request, form, _("New translation"), [(_("Catalogues"), reverse("catalogues"))])


@needs(Ability.EDIT_TEMPLATES)
def message(request: HttpRequest, locale: str) -> HttpResponse:
    """One key of a language, named in the address by ``?key=``."""
    found = list(Catalogue.objects.live())
    mine = _of(found, locale)
    key = request.GET.get("key", "")
    stands = mine.messages.get(key)
    said = (
        {"simple": stands}
        if isinstance(stands, str)
        else {f"form_{name}": text for name, text in (stands or {}).items()}
    )
    form = MessageForm(
        request.POST or None,
        locale=mine.locale,
        is_fixed=True,
        initial={"version": mine.version, "key": key, **said},
    )
    context: dict[str, Any] = {"elsewhere": _elsewhere(found, mine, key), "stands": stands is not None, "key": key}
    if request.method == "POST" and form.is_valid():
        wanted = form.cleaned_data["key"]
        if wanted != key and wanted in mine.messages:
            form.add_error("key", _("The language has this key already: change it in its catalogue."))
        elif form.cleaned_data["version"] != mine.version and _is_changed_since(request, mine, key):
            context["conflict"] = (actors.name(mine.updated_by), mine.updated_at, _shown(stands, mine.locale))
            data = request.POST.copy()
            data["version"], data["was"] = str(mine.version), _as_text(stands)
            form = MessageForm(data, locale=mine.locale, is_fixed=True)
        else:
            saved = _save(request, form, mine.locale, mine, replaces=key)
            if saved:
                return saved
    context["was"] = form.data.get("was", _as_text(stands)) if form.is_bound else _as_text(stands)
    crumbs = [(_("Catalogues"), reverse("catalogues")), (mine.locale, reverse("catalogue", args=[mine.locale]))]
    return _message(request, form, key or _("New key"), crumbs, catalogue=mine, **context)


def _is_changed_since(request: HttpRequest, mine: Catalogue, key: str) -> bool:
    """Whether this very key says something else than when the form was opened; other keys are no concern of it."""
    return request.POST.get("was", "").replace("\r\n", "\n") != _as_text(mine.messages.get(key))


def _as_text(message: Any) -> str:
    if message is None or isinstance(message, str):
        return message or ""
    return "\n".join(f"{name}: {text}" for name, text in sorted(message.items()))


def _save(
    request: HttpRequest, form: MessageForm, locale: str, standing: Catalogue | None, *, replaces: str = ""
) -> HttpResponse | None:
    """Write the form's key; None, with the problems at their fields, where that is refused."""
    before: Mapping[str, Any] = standing.messages if standing else {}
    kept = {key: each for key, each in before.items() if key != replaces}
    after = {**kept, form.cleaned_data["key"]: form.cleaned_data["message"]}
    who: dict[str, Any] = {"by": actor(request.user), "now": clock.now()}
    try:
        if standing:
            saved = templates.change_catalogue(
                locale=standing.locale, messages=after, expected_version=standing.version, **who
            )
        else:
            saved = templates.create_catalogue(locale=locale, messages=after, **who)
    except InvalidTemplate as error:
        for problem in error.problems:
            field = "locale" if problem.field == "locale" and "locale" in form.fields else "simple"
            form.add_error(field if problem.code != "key" else "key", translated(problem.message))
    except (Superseded, Catalogue.DoesNotExist):
        form.add_error(None, _("Somebody else has saved this very moment. Look at the catalogue, and save again."))
    else:
        messages.success(request, _("“%(key)s” is saved.") % {"key": form.cleaned_data["key"]})
        return HttpResponseRedirect(reverse("catalogue", args=[saved.locale]))
    return None


def _message(
    request: HttpRequest, form: MessageForm, title: str, crumbs: list[tuple[str, str]], **context: Any
) -> HttpResponse:
    shown = {"title": title, "crumbs": crumbs, "form": form, **context}
    return framed(request, "frontend/templates/message.html", shown, status=422 if form.is_bound else 200)


@require_POST
@needs(Ability.EDIT_TEMPLATES)
def remove(request: HttpRequest, locale: str) -> HttpResponse:
    """A key (``key``), or without one the whole language."""
    mine = _of(list(Catalogue.objects.live()), locale)
    key = request.POST.get("key", "")
    who: dict[str, Any] = {"by": actor(request.user), "now": clock.now(), "expected_version": mine.version}
    try:
        if key:
            kept = {name: each for name, each in mine.messages.items() if name != key}
            templates.change_catalogue(locale=mine.locale, messages=kept, **who)
            messages.success(request, _("“%(key)s” is taken out.") % {"key": key})
            return HttpResponseRedirect(reverse("catalogue", args=[mine.locale]))
        templates.delete_catalogue(locale=mine.locale, **who)
    except (Superseded, Catalogue.DoesNotExist):
        messages.warning(request, _("Somebody else has changed it at this very moment. Look at it again."))
        return HttpResponseRedirect(reverse("catalogues"))
    messages.success(request, _("The translations of %(locale)s are deleted.") % {"locale": mine.locale})
    return HttpResponseRedirect(reverse("catalogues"))


def _of(found: list[Catalogue], locale: str) -> Catalogue:
    for each in found:
        if each.locale == locale:
            return each
    raise Http404(_("There are no translations in this language."))
