"""One person: the profile, how much of which limit is used, what he got and why not, and his inbox."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from audit.models import AuditEvent
from delivery import inbox, usage
from delivery.erasure import receipt_of
from delivery.listing import Filters, Key
from delivery.listing import page as ledger_page
from frontend import actors
from frontend.access import needs
from frontend.instants import show
from frontend.pages.frame import framed
from frontend.pages.ledger import Row, with_company
from frontend.pages.recipients import consents
from frontend.pages.recipients.forms import DeviceForm
from frontend.wording import attributes, feedback, number, timings
from frontend.wording.actions import by_whom
from schedules import clock, suppressions
from schedules.models import MirroredPerson, Recipient, Schedule
from schedules.permissions import Ability, can, masked, shown_address
from schedules.recurrence import ZONE_NAMES

PAGE = 20
_INBOX = 5
_DAY, _WEEK = timedelta(hours=24), timedelta(days=7)


@dataclass(frozen=True)
class Limit:
    """A limit of a schedule that writes to the person. ``is_used_up``: none of its messages goes out at present."""

    schedule: str
    schedule_id: int
    most: int
    is_used_up: bool


@dataclass(frozen=True)
class Window:
    """Messages of the last 24 hours or 7 days that count. ``frees_at``: when the oldest of them counts no more."""

    words: str
    used: int
    frees_at: datetime | None
    limits: Sequence[Limit]


def found_or_404(recipient_id: int) -> Recipient:
    found = Recipient.objects.prefetch_related("devices").filter(pk=recipient_id).first()
    if found is None:
        raise Http404(_("There is nobody of this number. An erased person leaves no profile behind."))
    return found


# What a receipt counts as gone, in words.
_GONE: Mapping[str, Any] = {
    "pending": gettext_lazy("Messages still to come, which are not sent"),
    "devices": gettext_lazy("Devices"),
    "inboxMessages": gettext_lazy("Messages in the inbox"),
    "outboxMessages": gettext_lazy("Messages in the outbox"),
    "testSends": gettext_lazy("Tests sent to the person"),
    "definitions": gettext_lazy("Audiences that named the person and do so no more"),
    "uploadedFiles": gettext_lazy("Uploaded files with the person in them, thrown away"),
    "storedAnswers": gettext_lazy("Kept answers to programs, freed of the person"),
    "sessions": gettext_lazy("Half-typed drafts that named the person"),
    "softBounces": gettext_lazy("Notes that messages came back for now"),
}
_REMAINS: Mapping[str, tuple[Any, Any]] = {
    "ledger": (
        gettext_lazy("Rows of the ledger"),
        gettext_lazy("The books of past runs have to close. The rows hold a number that leads to no profile."),
    ),
    "callsInFlight": (
        gettext_lazy("Calls that had begun"),
        gettext_lazy("They can't be taken back: each ends, and is recorded as what it was."),
    ),
    "audit": (
        gettext_lazy("Events of the audit"),
        gettext_lazy("The audit is never changed. Audiences stand in it that named the person by the external id."),
    ),
    "account": (
        gettext_lazy("The account to sign in with"),
        gettext_lazy("It has a life of its own: delete it under Users."),
    ),
    "fingerprints": (
        gettext_lazy("Keyed fingerprints"),
        gettext_lazy("So that no import brings the person back. Nobody can read an id or an address out of them."),
    ),
    "suppression": (
        gettext_lazy("A keyed fingerprint of the address"),
        gettext_lazy("So that nobody writes to it again. Nobody can read the address out of it."),
    ),
    "backups": (
        gettext_lazy("Backups and logs"),
        gettext_lazy("They are kept by whoever runs the service. Logs hold numbers and no names."),
    ),
}


@needs(Ability.READ)
def person(request: HttpRequest, recipient_id: int) -> HttpResponse:
    """The profile; of somebody erased, the receipt."""
    if not Recipient.objects.filter(pk=recipient_id).exists() and (event := receipt_of(recipient_id=recipient_id)):
        return _receipt(request, event)
    return page(request, found_or_404(recipient_id))


def _receipt(request: HttpRequest, event: AuditEvent) -> HttpResponse:
    receipt = event.payload_diff.get("receipt", {})
    names = dict(Schedule.objects.filter(pk__in=_schedule_ids(receipt)).values_list("pk", "name"))
    remains = [(each, *_REMAINS.get(each["what"], (each["what"], each["why"]))) for each in receipt.get("remains", [])]
    context = {
        "title": _("Erased person #%(id)s") % {"id": event.payload_diff["recipient"]},
        "crumbs": [(_("Recipients"), reverse("recipients"))],
        "at": event.created_at,
        "by": by_whom(event.actor_id, actors.name(event.actor_id)),
        "gone": [(words, number(receipt[key])) for key, words in _GONE.items() if receipt.get(key)],
        "schedules": [
            (names.get(each["scheduleId"], f"#{each['scheduleId']}"), each["scheduleId"], number(each["pending"]))
            for each in receipt.get("schedules", [])
        ],
        "remains": [
            (what, why, None if each["count"] is None else number(each["count"]), parse_datetime(each["until"] or ""))
            for each, what, why in remains
        ],
    }
    return framed(request, "frontend/recipients/receipt.html", context)


def _schedule_ids(receipt: Mapping[str, Any]) -> list[int]:
    return [each["scheduleId"] for each in receipt.get("schedules", [])]


def page(
    request: HttpRequest, person: Recipient, *, device_form: DeviceForm | None = None, status: int = 200
) -> HttpResponse:
    now = clock.now()
    history = ledger_page(
        Filters(recipient_id=person.pk), now=now, limit=PAGE, after=Key.read(request.GET.get("after", ""))
    )
    rows = with_company(history.rows)
    here = reverse("recipient", args=[person.pk])
    messages = inbox.messages(recipient_id=person.pk).order_by("-pk")
    context: dict[str, Any] = {
        "title": person.external_id,
        "crumbs": [(_("Recipients"), reverse("recipients"))],
        "person": person,
        "address": shown_address(person.email, in_clear=can(request.user, Ability.SEE_ADDRESSES)),
        "is_zone_known": person.time_zone in ZONE_NAMES,
        "local_time": show(now, person.time_zone) if person.time_zone in ZONE_NAMES else "",
        "changed_by": by_whom(person.updated_by, actors.name(person.updated_by)) if person.updated_by else "",
        "mirrored": MirroredPerson.objects.filter(pk=person.pk).first(),
        "is_served": bool(settings.USER_SERVICE_URL),
        "attributes": attributes.in_words(person.attributes),
        "devices": [(device, masked(device.token)) for device in sorted(person.devices.all(), key=lambda d: d.pk)],
        "device_form": device_form or DeviceForm(),
        "consents": consents.table(person),
        **_quiet_hours(person),
        **_suppression(request, person, now=now),
        "windows": _windows(person.pk, rows, now=now),
        "rows": rows,
        "is_first": "after" not in request.GET,
        "first": f"{here}#history",
        "following": f"{here}?after={history.following}#history" if history.following else "",
        "inbox_messages": messages[:_INBOX],
        "unread": inbox.unread_count(recipient_id=person.pk),
        "inbox_link": f"{reverse('inbox')}?recipient=%23{person.pk}",
        "may_edit": can(request.user, Ability.EDIT_RECIPIENTS),
    }
    return framed(request, "frontend/recipients/person.html", context, status=status)


def _quiet_hours(person: Recipient) -> dict[str, Any]:
    """In words, with who last set them or took them away, and when."""
    told = person.quiet_hours_source
    return {
        "quiet_hours": timings.quiet_hours_in_words(person.quiet_hours) if person.quiet_hours else "",
        "quieted_by": by_whom(told["by"], actors.name(told["by"])) if told else "",
        "quieted_at": parse_datetime(told["at"]) if told else None,
    }


def _suppression(request: HttpRequest, person: Recipient, *, now: datetime) -> dict[str, Any]:
    """Whether the address is written to, why not, and what the viewer can do about it."""
    held = suppressions.of_person(person)
    may = can(request.user, Ability.SUPPRESS)
    may_forgive = can(request.user, Ability.EDIT_RECIPIENTS)
    return {
        "suppression": held,
        "why_suppressed": feedback.why_suppressed(held.reason) if held else "",
        "suppressed_by": actors.name(held.source) if held and held.reason == suppressions.Reason.BLOCKED else "",
        "soft_bounces": 0 if held else suppressions.soft_bounces(person, now=now),
        "soft_limit": suppressions.SOFT_LIMIT,
        "may_block": may and not held and person.email_index is not None,
        "may_lift": held and may and (may_forgive or held.reason != suppressions.Reason.COMPLAINED),
    }


def _windows(recipient_id: int, rows: Iterable[Row], *, now: datetime) -> list[Window]:
    used = [each.claimed_at for each in usage.uses([recipient_id], now=now)]
    schedules = {row.occurrence.schedule_id: row.occurrence.schedule for row in rows if row.occurrence}
    found = []
    for words, length, field in (
        (_("Last 24 hours"), _DAY, "max_per_user_per_day"),
        (_("Last 7 days"), _WEEK, "max_per_user_per_week"),
    ):
        counting = sorted(at for at in used if now - length < at <= now)
        limits = [
            Limit(each.name, each.pk, getattr(each, field), len(counting) >= getattr(each, field))
            for each in schedules.values()
            if getattr(each, field) is not None
        ]
        found.append(Window(words, len(counting), counting[0] + length if counting else None, limits))
    return found
