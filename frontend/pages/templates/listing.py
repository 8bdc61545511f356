"""All templates: what each says in which channel and language, and how many schedules use it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django import forms
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from frontend import actors, keysets
from frontend.access import needs
from frontend.keysets import BrokenCursor, Order
from frontend.pages.frame import framed
from frontend.pages.paging import link
from frontend.wording import number
from frontend.wording.actions import by_whom
from schedules import templates
from schedules.listing import spoken
from schedules.models import Channel, MessageTemplate, TemplateVersion
from schedules.permissions import Ability, can

PAGE = 50
_MOST_USERS = 1_000


class SearchForm(forms.Form):
    q = forms.CharField(
        required=False, max_length=200, label=gettext_lazy("Name"), help_text=gettext_lazy("Any part of it")
    )


@dataclass(frozen=True)
class Row:
    template: MessageTemplate
    speaks: list[tuple[str, str]]
    used: str
    by: str


@needs(Ability.READ)
def listing(request: HttpRequest) -> HttpResponse:
    form = SearchForm(request.GET if request.GET.get("q") else None)
    found = MessageTemplate.objects.live()
    if form.is_bound and form.is_valid():
        found = found.filter(name__icontains=form.cleaned_data["q"])
    try:
        order = Order("name", descending=False, parse=str)
        rows, following = keysets.read(found, order, cursor=request.GET.get("after"), limit=PAGE)
        problem = ""
    except BrokenCursor:
        rows, following, problem = [], None, _("The address of this page is incomplete. Start again from the top.")
    context = {
        "title": _("Templates"),
        "form": form,
        "rows": _rows(rows),
        "problem": problem,
        "is_filtered": form.is_bound,
        "is_first": "after" not in request.GET,
        "first": link(request, "templates", parameter="after", start=None),
        "following": link(request, "templates", parameter="after", start=following) if following else "",
        "may_edit": can(request.user, Ability.EDIT_TEMPLATES),
    }
    return framed(request, "frontend/templates/list.html", context)


def _rows(found: Iterable[MessageTemplate]) -> list[Row]:
    found = list(found)
    ids = [each.pk for each in found]
    used = templates.users(ids, most=_MOST_USERS)
    last = TemplateVersion.objects.filter(template__in=ids, version=F("template__version"))
    by = dict(last.values_list("template_id", "created_by"))
    names = actors.names(by.values())
    says = spoken(found)
    return [
        Row(each, _speaks(says[each.pk]), in_words(used[each.pk]), _by(by.get(each.pk, ""), names)) for each in found
    ]


def _by(actor: str, names: Mapping[str, str]) -> str:
    return by_whom(actor, names[actor]) if actor in names else ""


def _speaks(contents: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for channel, locale in contents:
        places[channel].append(locale)
    return [
        (str(dict(Channel.choices).get(channel, channel)), ", ".join(sorted(each))) for channel, each in places.items()
    ]


def in_words(schedules: int) -> str:
    if not schedules:
        return _("by no schedule that may run")
    if schedules > _MOST_USERS:
        return _("by more than %(count)s schedules") % {"count": number(_MOST_USERS)}
    return ngettext("by %(count)s schedule", "by %(count)s schedules", schedules) % {"count": number(schedules)}
