"""Everybody whom the service may write to: found by external id, zone, language, tag and address."""

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from frontend import keysets
from frontend.access import needs
from frontend.keysets import BrokenCursor, Order
from frontend.pages.frame import framed
from frontend.pages.paging import link
from frontend.wording import number
from schedules import recipients
from schedules.models import Recipient
from schedules.permissions import Ability, can, shown_address
from schedules.recurrence import ZONE_NAMES

PAGE = 50
_TIMEOUT_MS = 5_000


class FilterForm(forms.Form):
    q = forms.CharField(
        required=False, max_length=200, label=gettext_lazy("External id"), help_text=gettext_lazy("How it begins")
    )
    zone = forms.ChoiceField(required=False, label=gettext_lazy("Time zone"))
    locale = forms.ChoiceField(required=False, label=gettext_lazy("Language"))
    tag = forms.CharField(required=False, max_length=256, label=gettext_lazy("Tag"), help_text=gettext_lazy("In full"))
    address = forms.ChoiceField(
        required=False,
        label=gettext_lazy("E-mail address"),
        choices=[
            ("", gettext_lazy("Any")),
            ("yes", gettext_lazy("Has one")),
            ("no", gettext_lazy("Has none")),
        ],
    )

    def __init__(self, data: QueryDict | None) -> None:
        super().__init__(data)
        for name, column in (("zone", "time_zone"), ("locale", "locale")):
            values = recipients.values_in_use(column)  # type: ignore[arg-type]
            asked = data.get(name, "") if data else ""
            values += [asked] if asked and asked not in values else []
            self.fields[name].choices = [("", _("Any")), *((each, each) for each in values)]  # type: ignore[attr-defined]

    def wanted(self) -> dict[str, Any]:
        """As ``recipients.matching`` has it."""
        data = self.cleaned_data if self.is_bound else {}
        return {
            "prefix": data.get("q") or None,
            "time_zone": data.get("zone") or None,
            "locale": data.get("locale") or None,
            "tag": data.get("tag") or None,
            "has_email": {"yes": True, "no": False}.get(data.get("address", "")),
        }


@dataclass(frozen=True)
class Row:
    person: Recipient
    address: str
    devices: int

    @property
    def is_zone_known(self) -> bool:
        return not self.person.time_zone or self.person.time_zone in ZONE_NAMES


@needs(Ability.READ)
def listing(request: HttpRequest) -> HttpResponse:
    asked = {name for name, value in request.GET.items() if value and name != "after"}
    form = FilterForm(request.GET if asked else None)
    rows: list[Recipient] = []
    following, problem = None, ""
    if not form.is_bound or form.is_valid():
        try:
            rows, following = _read(form.wanted(), request.GET.get("after"))
        except OperationalError:
            problem = _("That took too long. Name how the external id begins, or fewer things at once.")
        except BrokenCursor:
            problem = _("The address of this page is incomplete. Start again from the newest.")
    context = {
        "title": _("Recipients"),
        "subtitle": _in_words(recipients.about_how_many()),
        "form": form,
        "rows": [_row(person, request) for person in rows],
        "problem": problem,
        "is_filtered": form.is_bound,
        "is_first": "after" not in request.GET,
        "first": link(request, "recipients", parameter="after", start=None),
        "following": link(request, "recipients", parameter="after", start=following) if following else "",
        "may_edit": can(request.user, Ability.EDIT_RECIPIENTS),
        "asked": urlencode([(name, value) for name, value in request.GET.items() if name in asked]),
    }
    return framed(request, "frontend/recipients/list.html", context)


def _read(wanted: dict[str, Any], cursor: str | None) -> tuple[list[Recipient], str | None]:
    with transaction.atomic(), connection.cursor() as statement:
        statement.execute(f"SET LOCAL statement_timeout = {_TIMEOUT_MS}")
        found = keysets.read(recipients.matching(**wanted), Order(), cursor=cursor, limit=PAGE)
        statement.execute("SET LOCAL statement_timeout TO DEFAULT")
    return found


def _row(person: Recipient, request: HttpRequest) -> Row:
    address = shown_address(person.email, in_clear=can(request.user, Ability.SEE_ADDRESSES))
    return Row(person, address, sum(device.active for device in person.devices.all()))


def _in_words(people: int) -> str:
    if people <= 10_000:
        return ngettext("%(count)s person", "%(count)s people", people) % {"count": number(people)}
    step = 10 ** (int(math.log10(people)) - 1)
    return _("About %(count)s people") % {"count": number(round(people / step) * step)}
