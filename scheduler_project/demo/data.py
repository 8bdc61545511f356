"""The demo's data: put in once, kept from start to start, emptied on request."""

import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Prefetch
from redis import Redis

from audit import roles
from delivery import partitions
from scheduler_project.demo import content
from scheduler_project.demo.people import Person, as_profile, invent
from scheduler_project.demo.plans import EACH_MINUTE, bulletin, plans
from scheduler_project.local import services
from scheduler_project.local.layout import write_private
from schedules import operations, templates, topics
from schedules.models import Catalogue, Device, MessageTemplate, Recipient, Schedule, ScheduleStatus
from schedules.topics import Told

BY = "system:demo"
_CHUNK = 2_000
_LOCK_WAIT = "10s"


def empty() -> None:
    """Drop every table and flush both Redis servers. Raises ``OperationalError`` while others hold a table."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_WAIT])
        cursor.execute("DROP SCHEMA public CASCADE")
        cursor.execute("CREATE SCHEMA public")
    for url in (settings.BROKER_URL, settings.COUNTERS_URL):
        with Redis.from_url(url) as server:
            server.flushdb()


def migrate() -> None:
    """Bring the tables up to date, and the role that the demo's processes have in the database."""
    call_command("migrate", interactive=False, verbosity=0)
    roles.grant(password=services.secret(root=settings.LOCAL_DIR, name="app_password"))


def is_there() -> bool:
    """Whether a demo has put its data in; a schedule is never removed, so this stays true whatever users delete."""
    return Schedule.objects.filter(created_by=BY).exists()


@transaction.atomic
def put_in(*, people: int, now: datetime, are_templates_known: bool = False) -> None:
    """Recipients, templates, catalogues and schedules; all or nothing.

    ``are_templates_known``: a template service keeps the templates, and those of it are known here already.
    """
    partitions.ensure_around(today=now.date())
    _put_people(invent(count=people, now=now))
    for key, name, in_german, description in content.TOPICS:
        told = Told(name, {"de": in_german}, description)
        topics.create(key=key, default="opted_in", told=told, by=BY, now=now)
    for locale, messages in content.CATALOGUES.items():
        templates.save_catalogue(locale=locale, messages=messages, by=BY, now=now)
    if not are_templates_known:
        for name, contents in content.templates().items():
            templates.save(name=name, contents=contents, by=BY, now=now)
    template_ids = dict(MessageTemplate.objects.live().filter(name__in=content.templates()).values_list("name", "pk"))
    for plan in plans(now=now, template_ids=template_ids):
        draft = plan.then == "keep as draft"
        schedule = operations.create(definition=plan.definition, by=BY, now=now, draft=draft)
        if plan.then == "pause":
            operations.pause(schedule_id=schedule.pk, by=BY, now=now, reason="Until the roastery is back from holiday")


def write_templates(path: Path, catalogues: Path) -> None:
    """The templates that a reference template service keeps, one a line, and what it translates by.

    They say what those of that name say here, else what the demo says. What says the same has the same version.
    """
    kept = {each.name: each for each in MessageTemplate.objects.live().filter(service_id="")}
    lines = []
    for name, contents in content.templates().items():
        ours = kept.get(name)
        said = {
            "id": content.service_id(name),
            "name": name,
            "defaultLocale": ours.default_locale if ours else "en",
            "contents": list(ours.contents.values(*templates.PARTS)) if ours else contents,
        }
        text = json.dumps(said, ensure_ascii=False)
        lines.append(json.dumps({**said, "version": sha256(text.encode()).hexdigest()[:12]}, ensure_ascii=False))
    messages = dict(Catalogue.objects.live().values_list("locale", "messages")) or content.CATALOGUES
    write_private(catalogues, json.dumps(messages, ensure_ascii=False))
    write_private(path, "".join(f"{line}\n" for line in lines))


@transaction.atomic
def hand_over() -> None:
    """The demo's templates are a template service's from now on: their next version is what that says."""
    for name in content.templates():
        ours = MessageTemplate.objects.live().filter(name=name, service_id="")
        ours.update(service_id=content.service_id(name))


@transaction.atomic
def take_back(*, now: datetime) -> None:
    """The demo's templates are kept here again, and say what the demo says."""
    ids = [content.service_id(name) for name in content.templates()]
    for template in MessageTemplate.objects.live().filter(service_id__in=ids):
        MessageTemplate.objects.filter(pk=template.pk).update(service_id="", mirrored_at=None)
        templates.save(name=template.name, contents=content.templates()[template.name], by=BY, now=now)


def write_profiles(path: Path, *, people: int, now: datetime) -> None:
    """The people that a reference user service answers with, a profile a line: those kept here, else invented ones.

    Whole or not at all.
    """
    invented = ((person, now) for person in invent(count=people, now=now))
    known = _kept_people() if Recipient.objects.exists() else invented
    draft = path.with_suffix(".draft")
    draft.touch(mode=0o600)
    with draft.open("w") as file:
        for person, since in known:
            dates = {"updatedAt": now.isoformat(), "createdAt": since.isoformat()}
            file.write(json.dumps({**as_profile(person), **dates}, ensure_ascii=False) + "\n")
    os.replace(draft, path)


def _kept_people() -> Iterator[tuple[Person, datetime]]:
    devices = Prefetch("devices", Device.objects.filter(active=True).order_by("pk"))
    for each in Recipient.objects.order_by("pk").prefetch_related(devices).iterator(chunk_size=_CHUNK):
        person = Person(
            external_id=each.external_id,
            email=each.email,
            locale=each.locale,
            time_zone=each.time_zone,
            attributes=each.attributes,
            tags=each.tags,
            consent=each.consent,
            devices=[(device.token, device.platform) for device in each.devices.all()],
        )
        yield person, each.created_at


@transaction.atomic
def renew(*, now: datetime) -> None:
    """Let the bulletin of each minute go out for the coming hours, unless it does so or a user has paused it."""
    standing = Schedule.objects.filter(name=EACH_MINUTE, status__in=[ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED])
    template = MessageTemplate.objects.live().filter(name=content.BULLETIN).first()
    if template and not standing.filter(end_at__gt=now).exists():
        operations.create(definition=bulletin(now=now, template_id=template.pk), by=BY, now=now)


def _put_people(people: Iterable[Person]) -> None:
    people = iter(people)
    while chunk := list(islice(people, _CHUNK)):
        recipients = Recipient.objects.bulk_create(_recipient(person) for person in chunk)
        owned = zip(recipients, (person.devices for person in chunk), strict=True)
        Device.objects.bulk_create(
            chain.from_iterable(
                (Device(recipient=recipient, token=token, platform=platform) for token, platform in devices)
                for recipient, devices in owned
            )
        )


def _recipient(person: Person) -> Recipient:
    return Recipient(
        external_id=person.external_id,
        email=person.email,
        locale=person.locale,
        time_zone=person.time_zone,
        attributes=person.attributes,
        tags=person.tags,
        consent=person.consent,
    )
