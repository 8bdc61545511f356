"""Topics: what schedules write about, and people subscribe to by channel."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from frontend import actors
from frontend.access import actor, needs
from frontend.pages.frame import framed
from frontend.wording.sayings import translated
from frontend.wording.topics import DEFAULTS
from schedules import clock, topics
from schedules.models import LONGEST_KEY, Default, Topic
from schedules.permissions import Ability, can
from schedules.topics import (
    LONGEST_DESCRIPTION,
    LONGEST_NAME,
    InvalidTopic,
    NoSuchTopic,
    Told,
    TopicChanged,
    TopicInUse,
)

_DEFAULT_WORDS = [
    (Default.OPTED_IN.value, gettext_lazy("They get it until they object")),
    (Default.OPTED_OUT.value, gettext_lazy("They get nothing until they agree")),
]


class TopicForm(forms.Form):
    """``key`` and ``default`` of a new one alone: they never change."""

    version = forms.IntegerField(required=False, min_value=0, widget=forms.HiddenInput)
    name = forms.CharField(
        max_length=LONGEST_NAME, label=gettext_lazy("Name"), help_text=gettext_lazy("People see it when they choose.")
    )
    names = forms.CharField(
        required=False,
        label=gettext_lazy("In other languages"),
        help_text=gettext_lazy("One a line, such as “de: Neuigkeiten”."),
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    description = forms.CharField(
        required=False,
        max_length=LONGEST_DESCRIPTION,
        label=gettext_lazy("Description"),
        help_text=gettext_lazy("What it is and how often it comes: people see it below the name."),
    )

    def __init__(self, *args: Any, is_new: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if is_new:
            self.fields["key"] = forms.CharField(
                max_length=LONGEST_KEY,
                label=gettext_lazy("Key"),
                help_text=gettext_lazy("By which programs and files name it, such as news. It can't be changed later."),
            )
            self.fields["default"] = forms.ChoiceField(
                choices=_DEFAULT_WORDS,
                initial=Default.OPTED_IN.value,
                widget=forms.RadioSelect,
                label=gettext_lazy("Whoever has said nothing yet"),
                help_text=gettext_lazy("It can't be changed later: silence would become consent. Make another topic."),
            )
        self.order_fields(["version", "name", "key", "description", "names", "default"])

    def clean_names(self) -> dict[str, str]:
        found = {}
        for line in self.cleaned_data["names"].splitlines():
            locale, colon, name = line.partition(":")
            if not line.strip():
                continue
            if not colon or not name.strip():
                raise forms.ValidationError(_("Write the language, a colon and the name: “de: Neuigkeiten”."))
            found[locale.strip()] = name.strip()
        return found

    @property
    def told(self) -> Told:
        said = self.cleaned_data
        return Told(said["name"], said["names"], said["description"])

    def add_problems(self, error: InvalidTopic) -> None:
        for problem in error.problems:
            field = problem.field.partition("/")[0]
            self.add_error(field if field in self.fields else None, translated(problem.message))


@needs(Ability.READ)
def listing(request: HttpRequest) -> HttpResponse:
    found = list(Topic.objects.all())
    names = actors.names(each.updated_by for each in found)
    context = {
        "title": _("Topics"),
        "subtitle": _("What people may say no to without saying no to everything"),
        "rows": [(each, DEFAULTS[each.default], names.get(each.updated_by, "—")) for each in found],
        "may_edit": can(request.user, Ability.EDIT_TEMPLATES),
    }
    return framed(request, "frontend/topics/list.html", context)


@needs(Ability.EDIT_TEMPLATES)
def new(request: HttpRequest) -> HttpResponse:
    form = TopicForm(request.POST or None, is_new=True)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        try:
            made = topics.create(
                key=said["key"], default=said["default"], told=form.told, by=actor(request.user), now=clock.now()
            )
        except InvalidTopic as error:
            form.add_problems(error)
        else:
            messages.success(request, _("The topic “%(name)s” is there.") % {"name": made.name})
            return HttpResponseRedirect(reverse("topics"))
    return _form(request, form, _("New topic"))


@needs(Ability.READ)
def topic(request: HttpRequest, key: str) -> HttpResponse:
    """One topic, to be changed by who may."""
    found = _found_or_404(key)
    may_edit = can(request.user, Ability.EDIT_TEMPLATES)
    said = {
        "version": found.version,
        "name": found.name,
        "names": "\n".join(f"{locale}: {name}" for locale, name in sorted(found.names.items())),
        "description": found.description,
    }
    form = TopicForm(request.POST if may_edit and request.method == "POST" else None, is_new=False, initial=said)
    if form.is_bound and form.is_valid():
        version = form.cleaned_data["version"] or found.version
        try:
            topics.change(key=key, told=form.told, by=actor(request.user), now=clock.now(), expected_version=version)
        except InvalidTopic as error:
            form.add_problems(error)
        except TopicChanged:
            form.add_error(
                None, _("Somebody else has changed it meanwhile. Load the page again and repeat the change.")
            )
        else:
            messages.success(request, _("“%(key)s” is saved.") % {"key": form.cleaned_data["name"]})
            return HttpResponseRedirect(reverse("topics"))
    return _form(request, form, found.name, topic=found, default=DEFAULTS[found.default], may_edit=may_edit)


@require_POST
@needs(Ability.EDIT_TEMPLATES)
def archive(request: HttpRequest, key: str) -> HttpResponse:
    found = _found_or_404(key)
    try:
        topics.archive(key=found.key, by=actor(request.user), now=clock.now())
    except TopicInUse as error:
        named = ", ".join(f"“{name}”" for _id, name in error.schedules)
        words = _("It is not archived, since schedules that are not over write about it: %(named)s.")
        messages.warning(request, words % {"named": named if error.count <= len(error.schedules) else f"{named} …"})
        return HttpResponseRedirect(reverse("topic", args=[found.key]))
    messages.success(request, _("“%(name)s” is archived.") % {"name": found.name})
    return HttpResponseRedirect(reverse("topics"))


@require_POST
@needs(Ability.EDIT_TEMPLATES)
def restore(request: HttpRequest, key: str) -> HttpResponse:
    found = topics.restore(key=_found_or_404(key).key, by=actor(request.user), now=clock.now())
    messages.success(request, _("“%(name)s” is offered again.") % {"name": found.name})
    return HttpResponseRedirect(reverse("topics"))


def _form(request: HttpRequest, form: TopicForm, title: str, **context: Any) -> HttpResponse:
    shown = {"title": title, "crumbs": [(_("Topics"), reverse("topics"))], "form": form, "may_edit": True, **context}
    return framed(request, "frontend/topics/form.html", shown, status=422 if form.is_bound else 200)


def _found_or_404(key: str) -> Topic:
    try:
        return topics.find(key)
    except NoSuchTopic:
        raise Http404(_("There is no such topic.")) from None
