"""Consent by topic: who gets what, and why not; by a run, beforehand in figures, and afterwards in words."""

import pytest
from django.test import Client as Browser

from audit.models import AuditEvent
from delivery import forecast
from schedules import operations, recipients, suppressions, topics
from schedules.audience.parser import parse
from schedules.audience.preview import preview
from schedules.consents import Asked
from schedules.definition import Definition, InvalidDefinition
from schedules.imports import recipients as imports
from schedules.models import Occurrence, Recipient, Topic
from schedules.suppressions import Strike
from schedules.topics import InvalidTopic, Told, TopicChanged, TopicInUse
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, TopicFactory, people
from tests.service import DAY, HOUR, reasons

pytestmark = pytest.mark.django_db

EVERYBODY = {"all": []}


@pytest.fixture
def crowd():
    """One of each kind of consent."""
    return {
        name: RecipientFactory(external_id=name, consent=consent)
        for name, consent in {
            "silent": {},
            "agrees": {"news:email": True},
            "objects": {"news:email": False},
            "objects_to_all": {"email": False, "news:email": True},
            "elsewhere": {"news:push": False, "offers:email": False},
        }.items()
    }


def test_a_topic_that_is_on_until_somebody_objects(service, provider, crowd):
    TopicFactory()
    schedule = ScheduleFactory(topic="news")
    service.step()
    assert reasons(schedule) == {"sent: ": 3, "suppressed: opted_out_of_topic": 1, "suppressed: opted_out": 1}
    assert crowd["objects"].pk not in provider.reached()


def test_a_topic_that_is_off_until_somebody_agrees(service, provider, crowd):
    TopicFactory(default="opted_out")
    schedule = ScheduleFactory(topic="news")
    service.step()
    assert reasons(schedule) == {
        "sent: ": 1,
        "suppressed: opted_out_of_topic": 1,
        "suppressed: opted_out": 1,
        "suppressed: not_opted_in": 2,
    }
    assert set(provider.reached()) == {crowd["agrees"].pk}


def test_without_a_topic_the_channel_alone_is_asked(service, provider, crowd):
    schedule = ScheduleFactory()
    service.step()
    assert reasons(schedule) == {"sent: ": 4, "suppressed: opted_out": 1}


@pytest.mark.parametrize("channel", ["email", "in_app"])
def test_what_is_transactional_asks_for_no_consent(service, provider, channel):
    people(2, consent={channel: False})
    schedule = ScheduleFactory(purpose="transactional", channel=channel)
    service.step()
    assert reasons(schedule) == {"sent: ": 2}


@pytest.mark.parametrize("reason", ["complained", "bounced", "blocked"])
def test_a_suppressed_address_gets_nothing_transactional_either(service, provider, reason):
    objects = RecipientFactory(external_id="anna", consent={"email": False})
    RecipientFactory(external_id="ben")
    for name in ("anna", "ben"):
        fingerprint = suppressions.fingerprint_to_block(f"{name}@example.com")
        suppressions.record([Strike(fingerprint, 1, reason)], now=NOW)
    schedule = ScheduleFactory(purpose="transactional")
    service.step()
    assert reasons(schedule) == {f"suppressed: {reason}": 2}
    assert objects.pk not in provider.reached()


def test_a_run_that_had_begun_as_marketing_stays_it_when_the_schedule_becomes_transactional(service, provider):
    people(3, consent={"email": False})
    people(1)
    schedule = ScheduleFactory()
    service.open()
    Occurrence.objects.update(begun_at=service.now)
    service.update(schedule, purpose="transactional")
    service.send()
    assert reasons(schedule) == {"sent: ": 1, "suppressed: opted_out": 3}


def test_an_objection_between_the_finding_and_the_sending_counts(service, provider):
    TopicFactory()
    anna, ben = people(2)
    schedule = ScheduleFactory(topic="news")
    service.open()
    recipients.update(recipient_id=anna.pk, changes={"consent": {"news:email": False}}, by=BY, now=service.now)
    service.send()
    assert reasons(schedule) == {"sent: ": 1, "suppressed: opted_out_of_topic": 1}
    assert set(provider.reached()) == {ben.pk}


def test_forecast_and_preview_count_as_a_run_does(crowd):
    for default, silent in (("opted_in", 2), ("opted_out", 4)):
        Topic.objects.all().delete()
        TopicFactory(default=default)
        asked = Asked("email", "news", needs_agreement=default == "opted_out")
        looked = preview(node=parse(EVERYBODY), asked=asked, sample=0, now=NOW)
        definition = Definition.of(ScheduleFactory(topic="news", run_at=NOW + HOUR))
        told = forecast.forecast(definition=definition, now=NOW)
        assert (looked.suppressed, told.suppressed, told.attempted) == (silent, silent, 5 - silent)
    transactional = Definition.of(ScheduleFactory(purpose="transactional", run_at=NOW + HOUR))
    assert forecast.forecast(definition=transactional, now=NOW).suppressed == 0


# --- Topics -----------------------------------------------------------------------------------------------------------


def test_a_topic_is_made_changed_archived_and_offered_again_and_the_audit_knows():
    TopicFactory(names={"de": "Neues"}, description="Weekly")
    topics.change(key="news", told=Told("News!", {"de": "Neues"}), by=BY, now=NOW, expected_version=1)
    with pytest.raises(TopicChanged):
        topics.change(key="news", told=Told("Else"), by=BY, now=NOW, expected_version=1)
    schedule = ScheduleFactory(topic="news", run_at=NOW + HOUR)
    with pytest.raises(TopicInUse) as used:
        topics.archive(key="news", by=BY, now=NOW)
    assert used.value.schedules == [(schedule.pk, schedule.name)]
    operations.cancel(schedule_id=schedule.pk, by=BY, now=NOW)
    topics.archive(key="news", by=BY, now=NOW)
    with pytest.raises(InvalidDefinition, match="archived"):
        ScheduleFactory(topic="news", run_at=NOW + HOUR)
    topics.restore(key="news", by=BY, now=NOW)
    told = AuditEvent.objects.filter(action__startswith="topic.").order_by("pk")
    assert [event.action for event in told] == ["topic.create", "topic.update", "topic.archive", "topic.restore"]
    assert told[1].payload_diff == {"topic": "news", "name": ["News", "News!"], "description": ["Weekly", ""]}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"key": "News"}, "key"),
        ({"key": "email"}, "key"),
        ({"key": "a:b"}, "key"),
        ({"key": "a" * 41}, "key"),
        ({"default": "maybe"}, "default"),
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"names": {"german": "x"}}, "names"),
        ({"names": {"de": "x" * 101}}, "names/de"),
        ({"description": "x" * 301}, "description"),
    ],
)
def test_a_topic_that_makes_no_sense_is_refused_by_the_field(fields, field):
    with pytest.raises(InvalidTopic) as refused:
        TopicFactory(**fields)
    assert [problem.field for problem in refused.value.problems] == [field]
    assert not Topic.objects.exists()


def test_a_topic_speaks_the_language_of_who_reads_it():
    topic = TopicFactory(names={"de": "Neues", "pt-BR": "Novidades"})
    assert [topics.name_in(topic, locale) for locale in ("de-AT", "pt-BR", "pt", "fr", "")] == [
        "Neues", "Novidades", "News", "News", "News",
    ]  # fmt: skip


def test_a_schedule_names_a_topic_that_there_is_and_a_transactional_one_none():
    with pytest.raises(InvalidDefinition, match="no topic nowhere"):
        ScheduleFactory(topic="nowhere")
    TopicFactory()
    with pytest.raises(InvalidDefinition, match="nobody can unsubscribe"):
        ScheduleFactory(topic="news", purpose="transactional")
    with pytest.raises(InvalidDefinition, match="purpose"):
        ScheduleFactory(purpose="spam")


# --- Where consent comes from -----------------------------------------------------------------------------------------


def test_a_profile_keeps_who_said_what_last_and_when():
    TopicFactory()
    person = recipients.create(
        external_id="anna", profile={"consent": {"email": True, "news:email": True}}, by="client:7", now=NOW
    )
    later = NOW + DAY
    recipients.update(
        recipient_id=person.pk, changes={"consent": {"email": True, "news:email": False}}, by="user:3", now=later
    )
    person.refresh_from_db()
    assert person.consent_source == {
        "email": {"by": "client:7", "at": NOW.isoformat()},
        "news:email": {"by": "user:3", "at": later.isoformat()},
    }
    assert person.objected_at == {"news:email": later.isoformat()}


def test_a_profile_can_not_name_a_topic_that_there_is_not():
    with pytest.raises(recipients.InvalidRecipient) as refused:
        recipients.create(external_id="anna", profile={"consent": {"newz:email": True}}, by=BY, now=NOW)
    assert [(problem.field, problem.code) for problem in refused.value.problems] == [
        ("consent/newz:email", "unknown_topic")
    ]


def _import(text, tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(text)
    with path.open("rb") as stream:
        return imports.import_recipients(stream=stream, format=imports.Format.CSV, by=BY, now=NOW)


def test_a_file_says_consent_to_a_topic_in_a_column(tmp_path):
    TopicFactory()
    _import(
        "id,email,consent_email,consent.news.email\na,a@example.com,yes,no\nb,b@example.com,,yes\nc,c@example.com,,\n",
        tmp_path,
    )
    said = dict(Recipient.objects.values_list("external_id", "consent"))
    assert said == {"a": {"email": True, "news:email": False}, "b": {"news:email": True}, "c": {}}
    kept = Recipient.objects.get(external_id="a")
    assert {key: each["by"] for key, each in kept.consent_source.items()} == {"email": BY, "news:email": BY}
    assert kept.objected_at.keys() == {"news:email"}


def test_a_file_with_a_column_of_no_topic_is_refused_by_the_column(tmp_path):
    with pytest.raises(imports.Unreadable, match=r"'consent\.newz\.email', and there is no topic"):
        _import("id,consent.newz.email\na,yes\n", tmp_path)
    assert not Recipient.objects.exists()


# --- By the API -------------------------------------------------------------------------------------------------------


def test_nobody_who_is_not_signed_in_sees_the_topics():
    TopicFactory()
    assert Browser().get("/topics/").status_code == 302
    assert Browser().get("/api/v1/topics").status_code == 401
