"""A service in which every page has something to show: of each kind of thing one, in each state that it may be in."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import cycle
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Model

from delivery import test_sends
from delivery.events.base import Kind
from delivery.models import Delivery, InboxMessage, OutboxMessage, TestSend
from schedules import links, operations, preferences, recipients, stops, suppressions, templates
from schedules.imports import uploads
from schedules.imports.recipients import Format
from schedules.links import Link
from schedules.models import (
    MessageTemplate,
    Occurrence,
    OccurrenceState,
    Recipient,
    RecipientImport,
    Schedule,
    StopSwitch,
    TemplateContent,
    TemplateVersion,
)
from schedules.recurrence import ZONE_NAMES
from tests import subscribers
from tests.factories import (
    BY,
    EVERY_CHANNEL,
    NOW,
    DeviceFactory,
    RecipientFactory,
    ScheduleFactory,
    TemplateFactory,
    TopicFactory,
)
from tests.provider_events import event, settle
from tests.service import MINUTE, Service

LONG = "somebody-with-quite-a-long-identifier-of-forty"
UPLOAD = (
    b"external_id,email,time_zone\nnew-1,new@example.com,Europe/Vienna\n,nobody@example.com,\nnew-2,not an address,\n"
)
HTML = "<h1>Rich words</h1><p>Dear {{ first_name }}, it is time.</p>"
# Fails for who has the attribute ``fails``, as a template does that reckons with what is no number.
TEXT = "Dear {{ first_name }}, it is time.{% if fails %}{{ fails + '' }}{% endif %}"


# As long as a name may be, and nowhere a place to break; the second from right to left.
UNBROKEN = (
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3,
    "عرضالربيعللجميع" * 14,
    "https://example.com/" + "spring-offer/" * 15,
)

ZONES = sorted(ZONE_NAMES)

# Of each kind of value that a profile may have one.
ATTRIBUTES = {
    "first_name": "Ada",
    "last_order_at": "2026-11-03T17:45:00Z",
    "birthday": "1990-05-04",
    "loyaltyPoints": 48210,
    "is_member": True,
    "favourites": ["Yirgacheffe", "Santos"],
    "address": {"city": "Graz", "postal_code": "8010"},
}


def furnish(service: Service) -> dict[str, Any]:
    """Fill the database at ``NOW``; return what addresses are made of: the ids of what was made, by converter."""
    zone = "America/Argentina/Rio_Gallegos"
    person = RecipientFactory(external_id=LONG, time_zone=zone, tags=["vip", "team"], attributes=ATTRIBUTES)
    device = DeviceFactory(recipient=person)
    RecipientFactory(external_id="no-address", email="")
    TopicFactory(names={"de": "Neues"}, description="What is new, about once a week")
    TopicFactory(key="offers", name="Offers", default="opted_out")
    token = links.sign(Link(person.pk, "email", "news"))
    said = {"consent": {"news:email": False}, "quiet_hours": {"from": "23:00", "to": "05:30"}}
    recipients.update(recipient_id=person.pk, changes=said, by=preferences.PERSON, now=NOW)
    RecipientFactory(external_id="opted-out", consent={"email": False}, time_zone="Not/AZone")
    failing = RecipientFactory(external_id="failing", attributes={"fails": True})
    blocked, *others = (
        RecipientFactory(external_id=name) for name in ("blocked", "moved-away", "out-of-office", "slow")
    )
    (fingerprint,) = suppressions.fingerprints(blocked.email)
    suppressions.block(fingerprint=fingerprint, by=BY, now=NOW, recipient_id=blocked.pk)
    contents = [
        {"channel": channel, "locale": locale, "subject": "Hello", "text": TEXT, "html": html}
        for channel, html in ((each, HTML if each == "email" else "") for each in EVERY_CHANNEL)
        for locale in ("en", "de")
    ]
    template = templates.save(name="Spring offer", contents=contents, by=BY, now=NOW)
    templates.save(name="Spring offer", contents=[*contents[:1], *contents[2:]], by=BY, now=NOW)
    templates.save_catalogue(locale="de", messages={"greeting": "Guten Tag"}, by=BY, now=NOW)
    sent = ScheduleFactory(name="Spring offer to everyone", template_id=template.pk)
    held = ScheduleFactory(name="A note inside", channel="in_app", template_id=template.pk)
    service.step()
    run = Occurrence.objects.get(schedule=sent)
    _hear(
        run, [person, person, *others], [Kind.DELIVERY, Kind.COMPLAINT, Kind.BOUNCE_HARD, Kind.BOUNCE_SOFT, Kind.DELAY]
    )
    Occurrence.objects.filter(schedule=held).update(
        held_reason="failures", held_at=NOW, closed_at=None, state=OccurrenceState.RUNNING
    )
    own_clock = {"cron": "0 9 * * *", "time_zone_mode": "user_local"}
    paused = ScheduleFactory(name="Each morning, everywhere", template_id=template.pk, **own_clock)
    operations.pause(schedule_id=paused.pk, by=BY, now=NOW, reason="Until the roastery is back")
    ScheduleFactory(name="Mondays", cron="0 10 * * MON", time_zone="Europe/Berlin", template_id=template.pk)
    draft = ScheduleFactory(name="No date yet", run_at=None, draft=True, template_id=template.pk)
    gone = ScheduleFactory(name="Called off", run_at=NOW + timedelta(days=2), template_id=template.pk)
    operations.cancel(schedule_id=gone.pk, by=BY, now=NOW)
    test = test_sends.ask(schedule_id=sent.pk, external_id=LONG, by=BY, now=NOW)
    upload = uploads.keep(name="people.csv", chunks=[UPLOAD], format=Format.CSV, by=BY, now=NOW)
    uploads.run(import_id=upload.pk, now=NOW)
    uploads.keep(name="more people.csv", chunks=[UPLOAD], format=Format.CSV, by=BY, now=NOW)
    stops.stop_sending(scope="channel:push", by=BY, now=NOW, reason="Because this is a test")
    remote = _mirror("Welcome aboard")
    posting = subscribers.shown(now=NOW)
    return {
        "schedule_id": sent.pk,
        "occurrence_id": run.pk,
        "recipient_id": [person.pk, failing.pk],
        "message_id": OutboxMessage.objects.earliest("pk").pk,
        "inbox-message message_id": InboxMessage.objects.earliest("pk").pk,
        "template_id": template.pk,
        "template template_id": [template.pk, remote.pk],
        "template-versions template_id": [template.pk, remote.pk],
        "occurrence-decide verb": ["pause", "resume", "cancel"],
        "schedule-do verb": ["pause", "resume", "activate", "run-now", "duplicate", "cancel", "delete"],
        "test_send_id": test.pk,
        "device_id": device.pk,
        "endpoint_id": posting.endpoint_id,
        "import_id": [upload.pk, upload.pk + 1],
        "locale": "de",
        "key": ["news", "offers"],
        "links": [f"{door}{token}" for door in (links.UNSUBSCRIBE, links.PREFERENCES)],
        "schedule-edit schedule_id": paused.pk,
        **{
            f"{name} schedule_id": draft.pk
            for name in ("wizard-step", "wizard-look", "wizard-people", "wizard-templates", "wizard-body")
        },
        "wizard-step step": ["basics", "audience", "message", "when", "limits", "review"],
        "wizard-look step": ["audience", "message", "when", "review"],
        "dashboard-csv what": ["outcomes", "lateness", "reasons"],
    }


def _hear(run: Occurrence, people: Sequence[Recipient], kinds: Iterable[Kind]) -> None:
    """What a provider tells afterwards of the messages of a run: of each of the people one thing."""
    deliveries = {each.recipient_id: each for each in Delivery.objects.filter(day=run.day, occurrence_id=run.pk)}
    settle(*(event(kind, deliveries[each.pk], at=NOW) for each, kind in zip(people, kinds, strict=True)))


def _mirror(name: str) -> MessageTemplate:
    """A template that a service keeps which does not answer."""
    made = MessageTemplate.objects.create(
        name=name, version=1, service_id="welcome", created_at=NOW, updated_at=NOW, mirrored_at=NOW
    )
    TemplateVersion.objects.create(
        template=made,
        version=1,
        service_version="2026-11-20/3",
        default_locale="en",
        tokens=["first_name", "plan"],
        contents=[{"channel": channel, "locale": locale} for channel in ("email", "push") for locale in ("de", "en")],
        created_by="system:template_service",
        created_at=NOW,
    )
    return made


def add(service: Service, count: int) -> None:
    """``count`` more people, each in a zone of his own, ``count`` templates, and as many runs to everyone by e-mail,
    at their own hour, and in the app."""
    for number in range(count):
        zone = ZONES[number * 7 % len(ZONES)]
        person = RecipientFactory(
            time_zone=zone, locale=("en", "de", "fr")[number % 3], attributes={"fails": number % 2 == 0}
        )
        DeviceFactory(recipient=person)
        template = TemplateFactory()
        ScheduleFactory(template_id=template.pk, run_at=service.now + MINUTE, now=service.now)
        ScheduleFactory(template_id=template.pk, run_at=service.now + MINUTE, now=service.now, channel="in_app")
        ScheduleFactory(template_id=template.pk, cron=f"{number} 9 * * *", time_zone_mode="user_local", now=service.now)
    service.after(MINUTE).step()
    service.send(rounds=count)


def stretch() -> None:
    """Put words that can't be broken into whatever people write."""
    words = cycle(UNBROKEN)
    short: dict[type[Model], tuple[str, ...]] = {
        Schedule: ("name", "status_reason"),
        MessageTemplate: ("name",),
        Recipient: ("external_id",),
        RecipientImport: ("name",),
        StopSwitch: ("reason",),
        OutboxMessage: ("to", "subject", "text"),
        InboxMessage: ("title", "body"),
        TestSend: ("to", "subject", "detail"),
        User: ("first_name",),
    }
    for model, fields in short.items():
        for row in model._default_manager.all():
            for field in fields:
                setattr(row, field, f"{row.pk}{next(words)}"[:150])
            row.save()
    for person in Recipient.objects.all():
        person.tags = [next(words)[:60], "vip"]
        person.attributes = {**person.attributes, "first_name": next(words), next(words)[:64]: next(words)}
        person.save()
    for content in TemplateContent.objects.all():
        content.subject, content.text = next(words), f"{next(words)} {content.text}"
        content.save()
    said = {"greeting": UNBROKEN[0], "g" * 100: UNBROKEN[1]}
    templates.save_catalogue(locale="de", messages=said, by=BY, now=NOW)
