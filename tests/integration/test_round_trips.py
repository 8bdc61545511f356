"""Out and in again: what an export wrote and an empty database has imported, it exports to the same bytes."""

import io
import json
import zipfile
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.models import AuditEvent
from frontend import erasing
from schedules import operations, templates, topics
from schedules.definition import WIRE, Definition
from schedules.exports.recipients import Wanted, export_recipients
from schedules.exports.schedules import export_schedules
from schedules.exports.templates import export_templates, write_archive
from schedules.imports.recipients import Format, import_recipients
from schedules.imports.schedules import import_schedules
from schedules.imports.templates import import_archive
from schedules.models import (
    Catalogue,
    Device,
    MessageTemplate,
    Recipient,
    Schedule,
    ScheduleStatus,
    Topic,
)
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, TopicFactory

pytestmark = pytest.mark.django_db

examples = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
FORMATS = pytest.mark.parametrize("format", list(Format))


def people(format=Format.NDJSON, **wanted):
    return b"".join(export_recipients(format=format, by=BY, now=NOW, wanted=Wanted(**wanted)))


def bring(data, format=Format.NDJSON, **options):
    return import_recipients(stream=io.BytesIO(data), format=format, by=BY, now=NOW, **options)


def forget_everybody():
    Device.objects.all().delete()
    Recipient.objects.all().delete()


# Letters of any script, quotes, line ends, what spreadsheets compute; no halves of surrogate pairs and no NUL.
words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        '"',
        "a,b",
        "a;b",
        "=1+1",
        "'=1+1",
        ";=1",
        ';"+1',
        "a\nb",
        "\r\n",
        "\t@x",
        "null",
        "1.50",
        "＝1",
        "\u2028",
        "🙂",
    ]
)
names = st.from_regex(r"[A-Za-z][\w-]{0,8}", fullmatch=True)
numbers = (
    st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.1, -0.0, 1e22, 5e-324])
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
consents = st.dictionaries(
    st.sampled_from(["email", "push", "in_app", "news:email", "nobody-made-it:push"]), st.none() | st.booleans()
)
devices = st.lists(
    st.fixed_dictionaries(
        {
            "platform": st.sampled_from(["ios", "android", "web"]),
            "token": st.from_regex(r"[!-~]{1,20}", fullmatch=True) | st.sampled_from(["a|b", "=x", "ü"]),
        }
    ),
    max_size=3,
)
profiles = st.fixed_dictionaries(
    {"external_id": words | st.sampled_from(["+43 664 1", "-5", "' =x", "@me"])},
    optional={
        "email": st.sampled_from(["", "a@example.com", "=1+1@example.com", "'+x@example.com", "ü@ex.ämple", None]),
        "locale": words | st.sampled_from(["de-AT", "de;=AT"]),
        "time_zone": words | st.sampled_from(["Europe/Vienna", "Mars/Crater"]),
        "quiet_hours": st.sampled_from([None, {"from": "22:00", "to": "07:00"}]),
        "tags": st.lists(words | st.sampled_from(["a|b", "[x", "-1"]), max_size=3),
        "consent": consents,
        "attributes": st.dictionaries(names, anything, max_size=4),
        "devices": devices,
    },
)


@FORMATS
@examples
@given(st.lists(profiles, min_size=1, max_size=6))
def test_people_come_back_to_the_byte(format, service, said):
    with transaction.atomic():
        file = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in said).encode()
        bring(file, skip_bad=True)
        if not Recipient.objects.exists():
            return  # an empty file is taken for a mistake
        first = people(format)
        again = bring(first, format)
        assert (again.bad, again.written.unchanged) == ((), Recipient.objects.count())
        assert again.written._replace(unchanged=0) == type(again.written)()
        forget_everybody()
        brought = bring(first, format)
        assert brought.bad == ()
        assert people(format) == first
        transaction.set_rollback(True)


@FORMATS
def test_numbers_keep_every_digit_and_texts_that_look_like_numbers_stay_texts(format):
    bring(b"id,price:number,code,x:json\n1,1.50,01234,0.10000000000000000001\n2,,+43,[2.0]\n", Format.CSV)
    first = people(format)
    forget_everybody()
    bring(first, format)
    assert people(format) == first
    kept = Recipient.objects.extra(select={"said": "attributes::text"}).order_by("external_id")
    assert [row.said for row in kept] == [
        '{"x": 0.10000000000000000001, "code": "01234", "price": 1.50}',
        '{"x": [2.0], "code": "+43"}',
    ]


def test_what_is_missing_is_empty_in_the_file_and_nothing_is_left_to_chance():
    RecipientFactory(external_id="1", email="", locale="", time_zone="")
    assert people().decode() == (
        '{"externalId": "1", "email": "", "locale": "", "timeZone": "", "quietHours": null, "tags": [],'
        ' "consent": {}, "attributes": {}, "devices": []}\n'
    )
    assert people(Format.CSV).decode("utf-8-sig") == (
        "external_id,email,locale,time_zone,quiet_hours,tags,consent,attributes,devices\r\n1,,,,,,{},{},\r\n"
    )


def test_a_file_of_nobody_can_be_imported_as_csv():
    assert bring(people(Format.CSV), Format.CSV).lines == 0
    assert people() == b""


def test_devices_that_are_switched_off_stay_out(service):
    person = RecipientFactory(external_id="1")
    DeviceFactory(recipient=person, token="on", platform="ios")
    DeviceFactory(recipient=person, token="off", active=False)
    assert json.loads(people())["devices"] == [{"platform": "ios", "token": "on"}]


def test_pages_meet_without_a_gap(monkeypatch, service):
    monkeypatch.setattr("schedules.exports.recipients._PAGE", 2)
    for number in range(5):
        RecipientFactory(external_id=f"p{number}", locale="de" if number % 2 else "en", tags=["vip"])
    assert [json.loads(line)["externalId"] for line in people().splitlines()] == ["p0", "p1", "p2", "p3", "p4"]
    some = [json.loads(line)["externalId"] for line in people(locale="de", prefix="p", tag="vip").splitlines()]
    assert some == ["p1", "p3"]
    last = AuditEvent.objects.filter(action="export.file").first()
    assert last.payload_diff == {
        "file": "people.ndjson", "people": 2, "filter": "prefix=…, locale=de, tag=vip"
    }  # fmt: skip


def test_whoever_is_erased_is_in_no_export_and_an_older_one_brings_nobody_back(service):
    for name in ("anna", "bea"):
        RecipientFactory(external_id=name)
    before = people()
    erasing.erase(recipient_id=Recipient.objects.get(external_id="anna").pk, by=BY, now=NOW)
    assert b"anna" not in people() + people(Format.CSV)
    written = bring(before).written
    assert (written.left_out, written.unchanged, written.created) == (1, 1, 0)


def test_who_can_not_be_read_is_left_out_as_a_whole_and_told(service):
    RecipientFactory(external_id="1")
    broken = RecipientFactory(external_id="2")
    with connection.cursor() as cursor:
        last = "length(email) - 1"
        changed = f"set_byte(email, {last}, get_byte(email, {last}) # 1)"
        cursor.execute(f"UPDATE schedules_recipient SET email = {changed} WHERE id = %s", [broken.pk])
    left_out = []
    pieces = export_recipients(format=Format.NDJSON, by=BY, now=NOW, on_left_out=left_out.append)
    assert [json.loads(line)["externalId"] for line in b"".join(pieces).splitlines()] == ["1"]
    assert left_out == [broken.pk]


# Templates, catalogues, topics


def archive():
    file = io.BytesIO()
    write_archive(export_templates(by=BY, now=NOW), file)
    return file.getvalue()


def bring_archive(data, **options):
    return import_archive(stream=io.BytesIO(data), by=BY, now=NOW, **options)


def forget_templates():
    for model in (Schedule, MessageTemplate, Catalogue, Topic):
        model.objects.all().delete()


printable = words.filter(lambda text: text.isprintable() and text.strip())
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0{}%#"), min_size=1, max_size=20).filter(
    str.strip
)
contents = st.lists(st.sampled_from(["de", "de-AT", "fr"]), unique=True).flatmap(
    lambda others: st.tuples(
        *(st.tuples(st.just(locale), printable, texts, st.booleans()) for locale in ["en", *others])
    )
)
plurals = st.fixed_dictionaries({"other": texts}, optional={"one": texts})


@examples
@given(
    st.lists(st.tuples(printable, contents), max_size=3, unique_by=lambda each: each[0]),
    st.dictionaries(texts, texts | plurals, max_size=4),
    st.lists(printable, max_size=2),
)
def test_templates_catalogues_and_topics_come_back_to_the_byte(service, said, messages, topic_names):
    with transaction.atomic():
        for name, parts in said:
            given = [
                {"channel": "email", "locale": locale, "subject": subject, "text": text}
                | ({"html": f"<p>{'x' * len(text)}</p>"} if has_html else {})
                for locale, subject, text, has_html in parts
            ]
            templates.save(name=name, contents=given, by=BY, now=NOW)
        templates.save_catalogue(locale="de_AT", messages=messages, by=BY, now=NOW)
        for number, name in enumerate(topic_names):
            TopicFactory(key=f"topic-{number}", name=name, names={"de": name, "ar": name}, default="opted_out")
        if topic_names:
            topics.archive(key="topic-0", by=BY, now=NOW)
        first = archive()
        again = bring_archive(first)
        assert (again.problems, again.published) == ([], [])
        forget_templates()
        assert bring_archive(first).problems == []
        assert archive() == first
        transaction.set_rollback(True)


def test_names_of_files_differ_where_names_do_whatever_the_file_system_thinks_of_capitals(service):
    for name in ("welcome", "Welcome", "../welcome", "wel/come", "ウェルカム", "x" * 200):
        TemplateFactory(name=name)
    found = zipfile.ZipFile(io.BytesIO(archive())).namelist()
    assert len({name.lower() for name in found}) == 6
    assert "templates/welcome.json" in found
    assert all(name.isascii() and ".." not in name and name.count("/") == 1 and len(name) < 100 for name in found)


def test_what_a_template_service_keeps_and_what_was_never_published_stays_out(service):
    TemplateFactory(name="ours")
    MessageTemplate.objects.create(name="theirs", service_id="t1", version=1)
    MessageTemplate.objects.create(name="empty")
    assert zipfile.ZipFile(io.BytesIO(archive())).namelist() == ["templates/ours.json"]


# Schedules


def schedules(**options):
    return b"".join(export_schedules(by=BY, now=NOW, **options))


def bring_schedules(data, **options):
    return import_schedules(stream=io.BytesIO(data), by=BY, now=NOW, **options)


def forget_schedules():
    """What an empty database has of them: nothing but the templates and topics that they name."""
    Schedule.objects.all().delete()


# One value of each field that is not its default, so that a field that is added and forgotten fails here.
EVERY_FIELD = {
    "name": "Sommer „Sale“ 🙂",
    "channel": "push",
    "audience_query": {"all": [{"field": "attributes.age", "op": "gt", "value": 1.5}, {"not": {"any": []}}]},
    "topic": "news",
    "purpose": "transactional",
    "schedule_type": "cron",
    "run_at": datetime(2027, 3, 1, 9, 0, 0, 1, tzinfo=UTC),
    "cron": "30 9 * * 1-5",
    "time_zone": "Europe/Vienna",
    "time_zone_mode": "user_local",
    "start_at": datetime(2027, 1, 1, tzinfo=UTC),
    "end_at": datetime(2028, 1, 1, tzinfo=UTC),
    "max_runs": 7,
    "max_per_user_per_day": 2,
    "max_per_user_per_week": 5,
    "counts_toward_caps": False,
    "max_per_minute": 600,
    "send_window": {"days": ["mon", "tue"], "from": "09:00", "to": "20:00"},
    "expires_after_minutes": 90,
    "misfire_grace_minutes": 15,
    "on_past": "send_now",
    "recheck_audience": False,
}


def test_every_field_of_a_definition_comes_back_and_none_is_forgotten(service):
    """A draft, since not all of them go together."""
    assert EVERY_FIELD.keys() | {"template_id"} == WIRE.keys() == {item.name for item in fields(Definition)}
    plain = Definition(name="", channel="email", template_id=None, schedule_type="once")
    assert [name for name, value in EVERY_FIELD.items() if value == getattr(plain, name)] == []
    template = TemplateFactory(name="welcome")
    definition = Definition(**EVERY_FIELD, template_id=template.pk)
    operations.create(definition=definition, by=BY, now=NOW, draft=True)
    first = schedules()
    assert list(json.loads(first)) == [
        "key", "status", *("template" if key == "templateId" else key for key in WIRE.values())
    ]  # fmt: skip
    forget_schedules()
    assert bring_schedules(first).created == 1
    assert Definition.of(Schedule.objects.get()) == definition
    assert schedules() == first


drafts = st.fixed_dictionaries(
    {"name": printable, "channel": st.sampled_from(["email", "push", "in_app"])},
    optional={name: st.just(value) for name, value in EVERY_FIELD.items() if name not in ("name", "channel")}
    | {
        "audience_query": st.dictionaries(
            words, st.recursive(st.none() | words | st.floats(-9, 9), st.lists), max_size=3
        )
    },
)


@examples
@given(st.lists(st.tuples(drafts, st.booleans()), min_size=1, max_size=4))
def test_drafts_come_back_to_the_byte_however_unfinished(service, said):
    with transaction.atomic():
        template = TemplateFactory(name="welcome")
        for given, has_template in said:
            given = {"schedule_type": "once", **given, "template_id": template.pk if has_template else None}
            operations.create(definition=Definition(**given), by=BY, now=NOW, draft=True)
        first = schedules()
        again = bring_schedules(first)
        assert (again.problems, again.created, again.updated, again.unchanged) == ([], 0, 0, len(said))
        forget_schedules()
        assert bring_schedules(first).problems == []
        assert schedules() == first
        transaction.set_rollback(True)


def test_what_runs_comes_back_running_when_that_is_asked_for_and_as_drafts_otherwise(service):
    later = {"run_at": NOW + timedelta(days=1)}
    TopicFactory(key="news")
    ScheduleFactory(name="an active one", **later, topic="news")
    paused = ScheduleFactory(name="a paused one", cron="0 9 * * *", max_runs=3)
    operations.pause(schedule_id=paused.pk, by=BY, now=NOW)
    ScheduleFactory(name="draft", **later, draft=True)
    broken = ScheduleFactory(name="broken", **later)
    Schedule.objects.filter(pk=broken.pk).update(status=ScheduleStatus.BROKEN)
    for name, end in (("cancelled", operations.cancel), ("deleted", operations.delete)):
        end(schedule_id=ScheduleFactory(name=name, **later).pk, by=BY, now=NOW)
    first, whole = schedules(), schedules(with_over=True)
    said = [(line["name"], line["status"]) for line in map(json.loads, whole.splitlines())]
    assert said == [
        ("an active one", "active"), ("a paused one", "paused"), ("draft", "draft"), ("broken", "draft"),
        ("cancelled", "draft"),
    ]  # fmt: skip
    assert len(first.splitlines()) == 4
    events = AuditEvent.objects.count()
    for file in (first, whole):
        again = bring_schedules(file)
        assert (again.problems, again.unchanged) == ([], again.lines)
    assert AuditEvent.objects.count() == events
    for file in (first, whole):
        forget_schedules()
        assert bring_schedules(file).created == len(file.splitlines())
        assert set(Schedule.objects.values_list("status", flat=True)) == {"draft"}
        assert schedules() == file.replace(b'"active"', b'"draft"').replace(b'"paused"', b'"draft"')
        forget_schedules()
        report = bring_schedules(file, activate=True)
        assert (report.created, report.running, report.problems) == (len(file.splitlines()), 1, [])
        assert schedules() == file
        assert bring_schedules(file, activate=True).unchanged == len(file.splitlines())
