"""Recipients, templates and schedules as a test needs them: valid, and made by the roads that the service itself takes.

What a test does not name is the same each time. Schedules and templates go through their operations, hence with
versions and audit events. Tests take place around ``NOW``, a Saturday.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import factory

from schedules import operations, templates, topics
from schedules.definition import Definition
from schedules.models import Device, MessageTemplate, Recipient, Schedule, Topic
from schedules.topics import Told

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
BY = "user:1"
EVERY_CHANNEL = ("email", "push", "in_app")


class RecipientFactory(factory.django.DjangoModelFactory[Recipient]):
    class Meta:
        model = Recipient

    external_id = factory.Sequence(lambda n: f"person-{n}")
    email = factory.LazyAttribute(lambda person: f"{person.external_id}@example.com")
    locale = "en"
    time_zone = "UTC"


class DeviceFactory(factory.django.DjangoModelFactory[Device]):
    class Meta:
        model = Device

    recipient = factory.SubFactory(RecipientFactory)
    token = factory.Sequence(lambda n: f"token-{n}")
    platform = "android"


def people(count: int, **fields: Any) -> list[Recipient]:
    """``count`` recipients, written in bulk."""
    return Recipient.objects.bulk_create(RecipientFactory.build_batch(count, **fields), batch_size=5_000)


class TemplateFactory(factory.django.DjangoModelFactory[MessageTemplate]):
    """A published template that says ``text`` in every channel of ``channels``, in English."""

    class Meta:
        model = MessageTemplate

    name = factory.Sequence(lambda n: f"Template {n}")
    subject = "Hello {{ recipient.external_id }}"
    text = "Dear {{ first_name }}, it is time."
    channels: Sequence[str] = EVERY_CHANNEL
    now = NOW

    @classmethod
    def _create(cls, model_class: type[MessageTemplate], *args: Any, **values: Any) -> MessageTemplate:
        contents = [
            {"channel": channel, "locale": "en", "subject": values["subject"], "text": values["text"]}
            for channel in values["channels"]
        ]
        return templates.save(name=values["name"], contents=contents, by=BY, now=values["now"])


class TopicFactory(factory.django.DjangoModelFactory[Topic]):
    """What people get until they object; fields as in ``topics.create``, and those of ``Told``."""

    class Meta:
        model = Topic

    key = "news"
    name = "News"
    default = "opted_in"
    now = NOW

    @classmethod
    def _create(cls, model_class: type[Topic], *args: Any, **values: Any) -> Topic:
        named = {name: values.pop(name) for name in ("key", "default", "now")}
        return topics.create(**named, told=Told(**values), by=BY)


class ScheduleFactory(factory.django.DjangoModelFactory[Schedule]):
    """An active one-off by e-mail to everyone at ``NOW``, made a minute before; fields as in ``Definition``.

    With ``cron`` given it is a cron, made at ``NOW``.
    """

    class Meta:
        model = Schedule

    name = factory.Sequence(lambda n: f"Schedule {n}")
    channel = "email"
    audience_query = factory.LazyFunction(lambda: {"all": []})
    template_id = factory.LazyFunction(lambda: TemplateFactory.create().pk)
    cron = ""
    schedule_type = factory.LazyAttribute(lambda schedule: "cron" if schedule.cron else "once")
    run_at = factory.LazyAttribute(lambda schedule: None if schedule.cron else NOW)
    now = factory.LazyAttribute(lambda schedule: NOW if schedule.cron else NOW - timedelta(minutes=1))
    draft = False

    @classmethod
    def _create(cls, model_class: type[Schedule], *args: Any, **values: Any) -> Schedule:
        now, draft = values.pop("now"), values.pop("draft")
        return operations.create(definition=Definition(**values), by=BY, now=now, draft=draft)
