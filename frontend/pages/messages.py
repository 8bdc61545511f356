"""Outbox and inbox: the messages as people would get them, one after the other."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from delivery.models import InboxMessage, OutboxMessage
from delivery.providers import mail
from frontend import policies
from frontend.access import needs
from frontend.pages.frame import framed
from frontend.pages.paging import PAGE, RecipientField, link
from schedules import links
from schedules.fields import legible
from schedules.models import Channel, Occurrence, Recipient, Schedule
from schedules.permissions import Ability, can, masked, shown_address


class FilterForm(forms.Form):
    recipient = RecipientField()
    occurrence = forms.IntegerField(
        required=False, min_value=1, label=gettext_lazy("Run"), help_text=gettext_lazy("Its number")
    )
    before = forms.IntegerField(required=False, min_value=1, widget=forms.HiddenInput)


# As they stand in a message, in HTML too.
_LINKS = re.compile(r"((?:/|&#x2f;)[up](?:/|&#x2f;))[A-Za-z0-9_-]{35,100}")


@dataclass(frozen=True)
class Shown:
    """A message of either kind in the same words. ``to`` is masked already; ``read_at`` of the inbox alone.

    ``unsubscribe_url``: of the header that programs which show mail offer a button for, for who may press it.
    """

    pk: int
    kind: str
    channel: str
    to: str
    subject: str
    text: str
    html: str
    created_at: datetime
    recipient: Recipient
    occurrence_id: int
    schedule: Schedule | None
    link: str
    read_at: datetime | None = None
    unsubscribe_url: str = ""

    @property
    def headers(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in mail.one_click(self.unsubscribe_url).items())

    @property
    def zone(self) -> str:
        return self.schedule.time_zone if self.schedule else ""

    @property
    def story(self) -> str:
        return reverse("delivery", args=[self.occurrence_id, self.recipient.pk])


@dataclass(frozen=True)
class Box:
    """What differs between the two: ``name`` is the list's address, ``page`` that of one message."""

    model: type[InboxMessage] | type[OutboxMessage]
    name: str
    page: str
    title: str | Promise
    about: str | Promise
    empty: str | Promise


OUTBOX = Box(
    OutboxMessage,
    "outbox",
    "outbox-message",
    gettext_lazy("Outbox"),
    gettext_lazy("What the outbox provider was given to send. Nothing here has left this service."),
    gettext_lazy("No message here yet: it fills when a schedule runs whose channel leads to the outbox."),
)
INBOX = Box(
    InboxMessage,
    "inbox",
    "inbox-message",
    gettext_lazy("Inbox"),
    gettext_lazy("What stands in people's in-app inboxes."),
    gettext_lazy("No message here yet: it fills when a schedule runs in-app."),
)


@needs(Ability.READ)
def outbox(request: HttpRequest) -> HttpResponse:
    return _list(request, OUTBOX)


@needs(Ability.READ)
def inbox(request: HttpRequest) -> HttpResponse:
    return _list(request, INBOX)


@needs(Ability.READ)
def outbox_message(request: HttpRequest, message_id: int) -> HttpResponse:
    return _message(request, OUTBOX, message_id)


@needs(Ability.READ)
def inbox_message(request: HttpRequest, message_id: int) -> HttpResponse:
    return _message(request, INBOX, message_id)


def _list(request: HttpRequest, box: Box) -> HttpResponse:
    form = FilterForm(request.GET)
    messages: list[Any] = []
    if form.is_valid():
        rows = box.model.objects.select_related("recipient").order_by("-id")
        asked = form.cleaned_data
        if asked["occurrence"]:
            rows = rows.filter(occurrence_id=asked["occurrence"])
        if asked["recipient"] is not None:
            rows = rows.filter(recipient_id=asked["recipient"])
        if asked["before"]:
            rows = rows.filter(pk__lt=asked["before"])
        messages = list(rows[: PAGE + 1])
    context = {
        "title": box.title,
        "box": box,
        "form": form,
        "messages_shown": _shown(messages[:PAGE], box, request),
        "following": _link(request, box, messages[PAGE - 1].pk) if len(messages) > PAGE else "",
        "is_first": "before" not in request.GET,
        "first": _link(request, box, None),
    }
    return framed(request, "frontend/messages.html", context)


def _link(request: HttpRequest, box: Box, before: int | None) -> str:
    return link(request, box.name, parameter="before", start=before)


def _message(request: HttpRequest, box: Box, message_id: int) -> HttpResponse:
    found = box.model.objects.select_related("recipient").filter(pk=message_id).first()
    if found is None:
        raise Http404(_("There is no message %(id)s; an erased person's messages are gone.") % {"id": message_id})
    (message,) = _shown([found], box, request)
    ids = box.model.objects.values_list("pk", flat=True)
    context = {
        "title": message.subject or _("Message %(id)s") % {"id": message.pk},
        "crumbs": [(box.title, reverse(box.name))],
        "box": box,
        "message": message,
        "newer": ids.filter(pk__gt=message_id).order_by("pk").first(),
        "older": ids.filter(pk__lt=message_id).order_by("-pk").first(),
    }
    return framed(request, "frontend/message.html", context)


@needs(Ability.READ)
def outbox_body(request: HttpRequest, message_id: int) -> HttpResponse:
    """The HTML of a message, for the frame in its page."""
    found = OutboxMessage.objects.select_related("recipient").filter(pk=message_id).first()
    if found is None:
        raise Http404(_("There is no message %(id)s; an erased person's messages are gone.") % {"id": message_id})
    response: HttpResponse = policies.foreign(_readable(found, request)(found.html))
    return response


def _shown(messages: Sequence[Any], box: Box, request: HttpRequest) -> list[Shown]:
    wanted = {message.occurrence_id for message in messages}
    schedules = {o.pk: o.schedule for o in Occurrence.objects.filter(pk__in=wanted).select_related("schedule")}
    return [_show(message, schedules.get(message.occurrence_id), box, request) for message in messages]


def _readable(message: Any, request: HttpRequest) -> Callable[[str], str]:
    """What a template has put the person's address into, with the address as the viewer may see it.

    His present one and the one that it went to, as they are and as HTML and addresses of links write them. And with
    no links by which a viewer who may not could unsubscribe the person.
    """
    by_address = _with_addresses(message, request)
    if _may_act(request):
        return by_address
    return lambda text: by_address(_LINKS.sub(rf"\1{links.SAMPLE}", text) if legible([text]) else text)


def _may_act(request: HttpRequest) -> bool:
    """Whether the viewer may keep a person from being written to."""
    return can(request.user, Ability.SUPPRESS)


def _with_addresses(message: Any, request: HttpRequest) -> Callable[[str], str]:
    addresses = legible([message.recipient.email, getattr(message, "to", "")])
    if not addresses or can(request.user, Ability.SEE_ADDRESSES):
        return str
    instead = {form.lower(): masked(address) for address in addresses for form in _forms(address)}
    known = re.compile("|".join(map(re.escape, sorted(instead, key=len, reverse=True))), re.IGNORECASE)
    return lambda text: known.sub(lambda found: instead[found[0].lower()], text) if legible([text]) else text


def _forms(address: str) -> list[str]:
    escaped = escape(address)
    return [address, escaped, escaped.replace("&#x27;", "&#39;"), quote(address), quote(address, safe="@")]


def _show(message: Any, schedule: Schedule | None, box: Box, request: HttpRequest) -> Shown:
    is_inbox = box is INBOX
    readable = _readable(message, request)
    channel = Channel.IN_APP if is_inbox else (schedule.channel if schedule else "")
    return Shown(
        pk=message.pk,
        kind=channel,
        channel=str(Channel(channel).label) if channel else "—",
        to=message.recipient.external_id
        if is_inbox
        else shown_address(message.to, in_clear=can(request.user, Ability.SEE_ADDRESSES)),
        subject=readable(message.title if is_inbox else message.subject),
        text=readable(message.body if is_inbox else message.text),
        html="" if is_inbox else readable(message.html),
        created_at=message.created_at,
        recipient=message.recipient,
        occurrence_id=message.occurrence_id,
        schedule=schedule,
        link=reverse(box.page, args=[message.pk]),
        read_at=message.read_at if is_inbox else None,
        unsubscribe_url="" if is_inbox else readable(message.unsubscribe_url),
    )
