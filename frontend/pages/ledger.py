"""The ledger, read-only: who got what, when, and why not."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from delivery import feedback
from delivery.explain import zone_name
from delivery.listing import Filters, Key, Page, page
from delivery.models import Delivery, Feedback, InboxMessage, News, OutboxMessage, State, ZoneSource
from frontend.access import needs
from frontend.pages.frame import framed
from frontend.pages.paging import RecipientField, link, schedule_page
from frontend.wording import REASONS, STATES, reason, state
from frontend.wording import feedback as wording_of_news
from schedules import clock
from schedules.models import Occurrence, Recipient
from schedules.permissions import Ability

PAGE = 50
# A page that takes longer than this asks too much of the ledger.
_TIMEOUT_MS = 5_000


_ANY = gettext_lazy("Any")
_REASON_CHOICES = [("", _ANY), *REASONS.items()]
# Whose zone decided a promise's instant.
_ZONE_SOURCES = {
    ZoneSource.FIXED: gettext_lazy("the schedule's instant"),
    ZoneSource.PROFILE: gettext_lazy("the profile's zone"),
    ZoneSource.MISSING: gettext_lazy("the schedule's zone, as the profile has none"),
    ZoneSource.INVALID: gettext_lazy("the schedule's zone, as the profile's is unknown"),
}


class FilterForm(forms.Form):
    recipient = RecipientField()
    occurrence = forms.IntegerField(
        required=False, min_value=1, label=gettext_lazy("Run"), help_text=gettext_lazy("Its number")
    )
    schedule = forms.IntegerField(
        required=False, min_value=1, label=gettext_lazy("Schedule"), help_text=gettext_lazy("Its number")
    )
    state = forms.TypedChoiceField(
        required=False,
        label=gettext_lazy("Outcome"),
        coerce=lambda value: State(int(value)),
        empty_value=None,
        choices=[("", _ANY), *((int(item), words) for item, words in STATES.items())],
    )
    reason = forms.ChoiceField(required=False, choices=_REASON_CHOICES, label=gettext_lazy("Reason"))

    def __init__(self, data: QueryDict | None) -> None:
        super().__init__(data)
        asked = data.get("reason", "") if data else ""
        if asked not in REASONS and asked.isidentifier():  # a reason newer than our words for it
            cast(forms.ChoiceField, self.fields["reason"]).choices = [*_REASON_CHOICES, (asked, reason(asked))]

    def filters(self) -> Filters:
        data = self.cleaned_data
        return Filters(data["occurrence"], data["schedule"], data["recipient"], data["state"], data["reason"])


@dataclass(frozen=True)
class Row:
    """A ledger row with what belongs to it elsewhere. ``person`` is empty for somebody erased."""

    delivery: Delivery
    person: Recipient | None
    occurrence: Occurrence | None
    zone_name: str
    message: str
    feedback: Feedback | None = None

    @property
    def state(self) -> str:
        return state(self.delivery.state)

    @property
    def css(self) -> str:
        return State(self.delivery.state).label

    @property
    def reason(self) -> str:
        return reason(self.delivery.reason, self.delivery.state) if self.delivery.reason else ""

    @property
    def news(self) -> str:
        """What the provider told of the message afterwards; empty where it says no more than the outcome."""
        said = self.feedback and News(self.feedback.news)
        return "" if not said or said is News.ACCEPTED else str(wording_of_news.NEWS[said])

    @property
    def news_css(self) -> str:
        return wording_of_news.CSS[News(self.feedback.news)] if self.feedback else ""

    @property
    def story(self) -> str:
        """Its own page; of an occurrence that is gone there is none."""
        return reverse("delivery", args=[self.occurrence.pk, self.delivery.recipient_id]) if self.occurrence else ""

    @property
    def person_page(self) -> str:
        return reverse("recipient", args=[self.delivery.recipient_id])

    @property
    def schedule_page(self) -> str:
        return schedule_page(self.occurrence.schedule_id) if self.occurrence else ""

    @property
    def zone_source(self) -> str:
        return str(_ZONE_SOURCES[ZoneSource(self.delivery.zone_source)])

    @property
    def lateness(self) -> float | None:
        """Seconds from the promised instant to the start of the call; what was put off is late by design: none."""
        called_at: datetime | None = self.delivery.called_at
        if called_at is None or self.delivery.attempt != 1 or self.delivery.due_at > self.delivery.wave_at:
            return None
        return (called_at - self.delivery.wave_at).total_seconds()


@needs(Ability.READ)
def ledger(request: HttpRequest) -> HttpResponse:
    form = FilterForm(request.GET or None)
    found, problem = Page([], None), ""
    if not form.is_bound or form.is_valid():
        filters = form.filters() if form.is_bound else Filters()
        try:
            found = _read(filters, after=Key.read(request.GET.get("after", "")))
        except OperationalError:
            problem = _("That took too long. Name a run or a recipient.")
    run = form.cleaned_data.get("occurrence") if form.is_bound else None
    context = {
        "title": _("Ledger"),
        "run": run,
        "csv": _csv(form.cleaned_data) if run else "",
        "form": form,
        "rows": with_company(found.rows),
        "problem": problem,
        "following": link(request, "ledger", parameter="after", start=found.following) if found.following else "",
        "is_first": "after" not in request.GET,
        "first": link(request, "ledger", parameter="after", start=None),
    }
    return framed(request, "frontend/ledger.html", context)


def _csv(asked: dict[str, Any]) -> str:
    """The same people of one run as a file; of one person alone there is none."""
    if asked.get("recipient") is not None:
        return ""
    query = {"state": int(asked["state"])} if asked.get("state") is not None else {}
    query |= {"reason": asked["reason"]} if asked.get("reason") else {}
    page = reverse("occurrence-people", args=[asked["occurrence"]])
    return f"{page}?{urlencode(query)}" if query else page


def _read(filters: Filters, *, after: Key | None) -> Page:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {_TIMEOUT_MS}")
        found = page(filters, now=clock.now(), limit=PAGE, after=after)
        cursor.execute("SET LOCAL statement_timeout TO DEFAULT")
    return found


def with_company(deliveries: Iterable[Delivery]) -> list[Row]:
    """The rows with people, occurrences, messages and what was told, each looked up once for all of them."""
    deliveries = list(deliveries)
    people = Recipient.objects.in_bulk({row.recipient_id for row in deliveries})
    wanted = {row.occurrence_id for row in deliveries}
    occurrences = {o.pk: o for o in Occurrence.objects.filter(pk__in=wanted).select_related("schedule")}
    messages = _messages(deliveries)
    told = feedback.of_deliveries((row.day, row.occurrence_id, row.recipient_id) for row in deliveries)
    return [
        Row(
            row,
            people.get(row.recipient_id),
            occurrence := occurrences.get(row.occurrence_id),
            zone_name(row, person=people.get(row.recipient_id), occurrence=occurrence),
            messages.get((row.recipient_id, row.occurrence_id), ""),
            told.get((row.day, row.occurrence_id, row.recipient_id)),
        )
        for row in deliveries
    ]


def _messages(deliveries: list[Delivery]) -> dict[tuple[int, int], str]:
    """The page of each row's message, where one is kept."""
    keys: dict[str, Any] = {
        "recipient_id__in": {row.recipient_id for row in deliveries},
        "occurrence_id__in": {row.occurrence_id for row in deliveries},
    }
    found = {}
    for model, name in ((OutboxMessage, "outbox-message"), (InboxMessage, "inbox-message")):
        for pk, recipient_id, occurrence_id in model.objects.filter(**keys).values_list(
            "pk", "recipient_id", "occurrence_id"
        ):
            found[recipient_id, occurrence_id] = reverse(name, args=[pk])
    return found
