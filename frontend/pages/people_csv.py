"""The people of a run as a file: streamed row by row, however many they are."""

from collections.abc import Iterator, Sequence

from django import forms
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.utils.translation import get_language, override
from django.utils.translation import gettext as _

from delivery import listing
from delivery.explain import zone_name
from delivery.listing import Filters
from delivery.models import Delivery, State
from frontend.access import needs
from frontend.instants import instant
from frontend.pages.csv_file import streamed
from frontend.wording import reason, remedy, state
from schedules import clock
from schedules.models import Channel, Occurrence, Recipient
from schedules.permissions import Ability, can, shown_address

# Rows that are in memory at once.
_AT_ONCE = 500


class PeopleForm(forms.Form):
    state = forms.TypedChoiceField(
        required=False,
        coerce=lambda value: State(int(value)),
        empty_value=None,
        choices=[("", ""), *((int(item), item.label) for item in State)],
    )
    reason = forms.RegexField(r"^[a-z_]{1,60}$", required=False)


@needs(Ability.READ)
def people_csv(request: HttpRequest, occurrence_id: int) -> HttpResponseBase:
    """The people of a run, of one state or reason where asked for; addresses masked by role."""
    occurrence = Occurrence.objects.select_related("schedule").filter(pk=occurrence_id).first()
    if occurrence is None:
        raise Http404(_("There is no run %(id)s.") % {"id": occurrence_id})
    form = PeopleForm(request.GET)
    if not form.is_valid():
        return HttpResponse(_("There is no such state or reason."), status=400)
    asked = form.cleaned_data
    filters = Filters(occurrence_id=occurrence.pk, state=asked["state"], reason=asked["reason"])
    told = asked["reason"] or (asked["state"].label if asked["state"] is not None else "")
    rows = _told(occurrence, filters, in_clear=can(request.user, Ability.SEE_ADDRESSES), language=get_language())
    return streamed(request, rows, name="-".join(filter(None, [f"run-{occurrence.pk}", told])))


def _told(
    occurrence: Occurrence, filters: Filters, *, in_clear: bool, language: str | None
) -> Iterator[Sequence[object]]:
    """Headings, then a row for each person, read some at a time; in the language of who asked, long after he did."""
    with override(language):
        headings = [
            _("External id"), _("Address"), _("Time zone"), _("Promised for (UTC)"), _("Outcome"), _("Reason"),
            _("What one can do"), _("Attempts"), _("Settled at (UTC)"), _("The provider's own words"),
        ]  # fmt: skip
    yield headings
    after = None
    while True:
        page = listing.page(filters, now=clock.now(), limit=_AT_ONCE, after=after)
        people = Recipient.objects.in_bulk([row.recipient_id for row in page.rows])
        with override(language):
            rows = [_row(row, people.get(row.recipient_id), occurrence, in_clear=in_clear) for row in page.rows]
        yield from rows
        if page.following is None:
            return
        after = page.following


def _row(row: Delivery, person: Recipient | None, occurrence: Occurrence, *, in_clear: bool) -> list[object]:
    is_email = occurrence.schedule.channel == Channel.EMAIL
    return [
        person.external_id if person else _("erased person #%(id)s") % {"id": row.recipient_id},
        shown_address(person.email, in_clear=in_clear) if person and is_email else "",
        zone_name(row, person=person, occurrence=occurrence),
        instant(row.wave_at) or "",
        state(row.state),
        reason(row.reason, row.state) if row.reason else "",
        remedy(row.reason),
        row.attempt,
        instant(row.settled_at) or "",
        "" if row.detail.startswith("{") else row.detail,
    ]
