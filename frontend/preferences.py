"""Pages without signing in, to which links in messages lead: unsubscribing by one click, and what a person is sent and
at which hours not.

The link is the key (``schedules.links``). A page is opened by programs that look into links, too, so that opening it
changes nothing: POST does. One POST is all that unsubscribing takes, without a cookie or anything else that only a
browser has, since mailboxes send it (RFC 8058, 3.2); hence no protection against foreign forms, which would need a
cookie, and which the link replaces. Nothing is told of the person but the masked address.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parseaddr
from hashlib import sha256
from typing import Any, Final, Self

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from delivery import inbox
from frontend import buckets
from frontend.sign_in_limits import client_address
from frontend.wording.schedules import CHANNELS
from schedules import clock, consents, links, preferences, quiet_hours, topics
from schedules.content import locale_chain
from schedules.links import Link
from schedules.models import Channel, Recipient, Topic
from schedules.permissions import masked
from schedules.quiet_hours import QuietHours
from schedules.recipients import NoSuchRecipient
from schedules.recurrence import ZONE_NAMES

# Requests a second, and at once: of one link; of one address with links that are none; and with links that are, but
# for one click, which mailboxes send for all their people from few addresses.
_OF_LINK: Final = (0.5, 30)
_OF_GUESSES: Final = (0.2, 20)
_OF_ADDRESS: Final = (20.0, 200)
_LANGUAGES: Final = frozenset(code for code, _name in settings.LANGUAGES)
_MOST_SWITCHES: Final = consents.MOST_KEYS
_LONGEST_TIME: Final = 20


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows one button, unless there is nothing left to say; POST, the button's or a mailbox's, unsubscribes.

    Any number of times.
    """
    link, refusal = _link(request, token, is_one_click=request.method == "POST")
    if link is None:
        return refusal
    try:
        person = (
            preferences.unsubscribe(link, now=clock.now())
            if request.method == "POST"
            else Recipient.objects.get(pk=link.recipient_id)
        )
    except (Recipient.DoesNotExist, NoSuchRecipient):
        return _gone(request)
    is_done = request.method == "POST" or preferences.is_unsubscribed(link, person)
    with _language(person):
        context = {
            "title": _("You are unsubscribed") if is_done else _("Unsubscribe"),
            "is_done": is_done,
            "what": _what(link, person.locale),
            "preferences": f"{links.PREFERENCES}{token}",
            **_of(person),
        }
        return _page(request, "frontend/preferences/unsubscribe.html", context)


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def preferences_page(request: HttpRequest, token: str) -> HttpResponse:
    """What the person is sent, by topic and channel, and the quiet hours; POST keeps what was changed on the page.

    Switches are kept whatever is wrong with the hours: no objection is lost to a slip of the pen.
    """
    link, refusal = _link(request, token)
    if link is None:
        return refusal
    is_post = request.method == "POST"
    typed = _typed_hours(request) if is_post else None
    is_refused = typed is not None and bool(quiet_hours.fault(typed.said))
    is_kept = is_post and not is_refused
    try:
        person = Recipient.objects.prefetch_related("devices").get(pk=link.recipient_id)
        shown = preferences.of_person(person, _channels(person, link))
        if is_post:
            agreed = _agreed(request, {each.key for group in shown for each in (group.whole, *group.topics)})
            said: dict[str, Any] = {"consent": agreed} if agreed else {}
            if typed is not None and not is_refused:
                said["quiet_hours"] = typed.said
            person = preferences.change(recipient_id=person.pk, said=said, now=clock.now()) if said else person
            is_kept = is_kept or bool(said)
            shown = preferences.of_person(person, [group.channel for group in shown])
    except (Recipient.DoesNotExist, NoSuchRecipient):
        return _gone(request)
    with _language(person):
        context = {
            "title": _("What you are sent"),
            "is_kept": is_kept,
            "channels": [
                (
                    group.channel.value,
                    CHANNELS[group.channel],
                    _all_of(group.channel),
                    group.whole,
                    [(each, topics.name_in(each.topic, person.locale)) for each in group.topics if each.topic],
                )
                for group in shown
            ],
            "hours": typed if typed is not None and is_refused else _Hours.of(person),
            "hours_before": quiet_hours.spelt(person.quiet_hours),
            "are_hours_refused": is_refused,
            "zone": person.time_zone if person.time_zone in ZONE_NAMES else "",
            **_of(person),
        }
        return _page(request, "frontend/preferences/page.html", context, status=422 if is_refused else 200)


@dataclass(frozen=True)
class _Hours:
    """Quiet hours as two fields have them; both are empty for none."""

    begins: str
    ends: str

    @classmethod
    def of(cls, person: Recipient) -> Self:
        hours = person.quiet_hours or {"from": "", "to": ""}
        return cls(hours["from"], hours["to"])

    @property
    def said(self) -> QuietHours | None:
        return {"from": self.begins, "to": self.ends} if self.begins or self.ends else None


def _typed_hours(request: HttpRequest) -> _Hours | None:
    """What was typed; None where that is what the page was opened with, and so nothing is said of it."""
    typed = _Hours(*(request.POST.get(name, "").strip()[:_LONGEST_TIME] for name in ("quiet_from", "quiet_to")))
    before = request.POST.get("quiet_before")
    return None if before is None or quiet_hours.spelt(typed.said) == before else typed


def _link(request: HttpRequest, token: str, *, is_one_click: bool = False) -> tuple[Link | None, HttpResponse]:
    """What the token says; where that is nothing, or too much was asked, the answer instead."""
    found = links.read(token)
    address = client_address(request) or ""
    wanted = []
    if found is None:
        wanted = [(f"guess:{address}", _OF_GUESSES)]
    else:
        wanted = [(f"link:{sha256(token.encode()).hexdigest()[:32]}", _OF_LINK)]
        if not is_one_click:
            wanted.append((f"preferences:{address}", _OF_ADDRESS))
    for bucket, (rate, burst) in wanted:
        took = buckets.take(bucket, rate=rate, burst=burst)
        if took and took.retry_after:
            return None, _slow(request, took.retry_after)
    return found, _no_link(request, token) if found is None else HttpResponse()


def _agreed(request: HttpRequest, known: set[str]) -> dict[str, bool]:
    """What the person has changed on the page: what changed elsewhere since it was opened stays."""
    said, was, on = (set(request.POST.getlist(name)[:_MOST_SWITCHES]) for name in ("switch", "was", "on"))
    return {key: key in on for key in sorted(said & known) if (key in on) != (key in was)}


def _channels(person: Recipient, link: Link) -> list[Channel]:
    """E-mail, that of the message, and those by which the person is reached."""
    by_push = any(device.active for device in person.devices.all())
    reached = {
        Channel.EMAIL: True,
        Channel.PUSH: by_push or link.channel == Channel.PUSH,
        Channel.IN_APP: link.channel == Channel.IN_APP or inbox.messages(recipient_id=person.pk).exists(),
    }
    return [channel for channel in Channel if reached[channel]]


def _what(link: Link, locale: str) -> str:
    """What is unsubscribed from, as the end of a sentence."""
    channel = _all_of(Channel(link.channel))
    topic = Topic.objects.filter(key=link.topic).first() if link.topic else None
    if topic is None:
        return channel
    names = {"topic": topics.name_in(topic, locale), "channel": CHANNELS[link.channel]}
    return _("“%(topic)s” (%(channel)s)") % names


def _all_of(channel: Channel) -> str:
    return {
        Channel.EMAIL: _("all e-mail, but for what you have ordered or must be told"),
        Channel.PUSH: _("all push messages, but for what you have ordered or must be told"),
        Channel.IN_APP: _("all messages in the app, but for what you have ordered or must be told"),
    }[channel]


def _of(person: Recipient) -> Mapping[str, Any]:
    return {"address": masked(person.email)}


def _language(person: Recipient) -> Any:
    """The person's own, as far as we speak it; else English rather than the browser's, as the message was."""
    chain = locale_chain(locale=person.locale, default_locale="en")
    return translation.override(next(tag for tag in chain if tag in _LANGUAGES))


def _gone(request: HttpRequest) -> HttpResponse:
    words = _("We keep nothing of you any more, so nothing is sent to you. There is nothing left to do.")
    return _bare(request, 200, _("All done"), words)


def _no_link(request: HttpRequest, token: str) -> HttpResponse:
    if token == links.SAMPLE:
        words = _("This link stands in a preview or a test. In a message to a person it leads to that person's page.")
        return _bare(request, 200, _("A sample"), words)
    words = _("The link is cut off or out of date. Copy it whole, or use the one in a more recent message.")
    return _bare(request, 404, _("This link leads nowhere"), words)


def _slow(request: HttpRequest, retry_after: int) -> HttpResponse:
    response = _bare(request, 429, _("Too many requests"), _("Wait a moment, then try again."))
    response.headers["Retry-After"] = str(retry_after)
    return response


def _bare(request: HttpRequest, status: int, title: str, words: str) -> HttpResponse:
    return _page(request, "frontend/preferences/words.html", {"title": title, "words": words}, status=status)


def _page(request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200) -> HttpResponse:
    name, address = parseaddr(settings.EMAIL_FROM)
    response = render(request, template, {"sender": name or address, **context}, status=status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    response.headers["Content-Language"] = translation.get_language()
    return response
