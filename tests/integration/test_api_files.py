"""``/api/v1/recipients:export``, ``schedules:export`` and ``:import``, ``templates:export`` and ``:import``."""

import io
import json
import zipfile

import pytest

from audit.models import AuditEvent
from frontend import exporting
from frontend.api import files
from schedules.models import Catalogue, MessageTemplate, Recipient, Schedule
from tests.api import Api, token
from tests.factories import DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory
from tests.service import Service

pytestmark = pytest.mark.django_db

NDJSON, ZIP = "application/x-ndjson", "application/zip"


@pytest.fixture
def api(service: Service) -> Api:
    return Api(token())


def body(answer) -> bytes:
    assert answer.status_code == 200, answer.content
    return b"".join(answer.streaming_content)


def test_people_go_out_as_the_bulk_operation_takes_them_in(api):
    person = RecipientFactory(external_id="anna", email="anna@example.com", tags=["vip"], attributes={"age": 31})
    DeviceFactory(recipient=person, token="t", platform="ios")
    RecipientFactory(external_id="bea", locale="de")
    answer = api.get("recipients:export")
    assert answer["Content-Type"] == NDJSON
    assert answer["Content-Disposition"] == 'attachment; filename="people.ndjson"'
    assert answer["Cache-Control"] == "no-store"
    file = body(answer)
    assert [json.loads(line)["email"] for line in file.splitlines()] == ["anna@example.com", "bea@example.com"]
    Recipient.objects.all().delete()
    brought = api.call("POST", "recipients:bulk", file, content_type=NDJSON)
    assert [json.loads(line)["status"] for line in brought.content.splitlines()] == ["created", "created"]
    assert body(api.get("recipients:export")) == file


def test_people_are_narrowed_down_and_come_as_a_table_too(api):
    RecipientFactory(external_id="anna", locale="de", time_zone="Europe/Vienna", tags=["vip"])
    RecipientFactory(external_id="bea", locale="en")
    for query in ("locale=de", "timeZone=Europe/Vienna", "tag=vip", "prefix=an"):
        answer = api.get(f"recipients:export?format=csv&{query}")
        assert answer["Content-Type"] == "text/csv; charset=utf-8"
        assert body(answer).decode("utf-8-sig").splitlines()[1].startswith("anna,anna@example.com,de,Europe/Vienna,")
    event = AuditEvent.objects.filter(action="export.file").first()
    assert event.payload_diff == {"file": "people.csv", "people": 1, "filter": "prefix=…"}
    assert event.actor_id.startswith("client:")
    for wrong in ("format=xls", "tags=vip", "locale="):
        assert api.get(f"recipients:export?{wrong}").status_code == 400, wrong


def test_whoever_takes_one_file_of_people_after_the_other_waits(api, monkeypatch):
    monkeypatch.setattr(exporting, "_AT_ONCE", 2)
    monkeypatch.setattr(exporting, "_A_SECOND", 1 / 36_000)  # however slow the machine is
    assert [api.get("recipients:export").status_code for _ in range(2)] == [200, 200]
    refused = api.get("recipients:export")
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 36_000
    assert api.get("schedules:export").status_code == 200


def test_schedules_go_out_and_in(api):
    schedule = ScheduleFactory(name="Daily", cron="0 9 * * *")
    ScheduleFactory(name="Push", channel="push")
    file = body(api.get("schedules:export?channel=email"))
    line = json.loads(file)
    assert (line["key"], line["name"], line["status"]) == (schedule.key, "Daily", "active")
    assert (line["template"], "templateId" in line) == (schedule.template.name, False)
    again = api.call("POST", "schedules:import?activate=true", file, content_type=NDJSON)
    assert again.json() == {"isKept": True, "lines": 1, "created": 0, "updated": 0, "unchanged": 1, "running": 0}
    Schedule.objects.all().delete()
    for query, kept, running in (("dryRun=true&activate=true", False, 1), ("", True, 0)):
        told = api.call("POST", f"schedules:import?{query}", file, content_type=NDJSON).json()
        assert (told["isKept"], told["created"], told["running"]) == (kept, 1, running)
    assert Schedule.objects.get().status == "draft"
    (found,) = api.get(f"schedules?key={schedule.key}").json()["items"]
    assert (found["name"], found["key"]) == ("Daily", schedule.key)
    assert api.get("schedules?key=another").json()["items"] == []


def test_what_is_wrong_is_told_by_line_and_pointer_and_nothing_is_kept(api):
    good = {"name": "a", "channel": "email", "scheduleType": "once"}
    lines = [good, {**good, "template": "none"}, {**good, "cron": 1}]
    data = b"\n".join(json.dumps(line).encode() for line in lines)
    answer = api.call("POST", "schedules:import", data, content_type=NDJSON)
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Nothing was imported. Problems: 2."
    first, second = answer.json()["errors"]
    assert first == {
        "line": 2,
        "pointer": "/template",
        "code": "not_found",
        "detail": "There is no template called “none”: import it first.",
    }
    assert second == {"line": 3, "pointer": "/cron", "code": "wrong_type", "detail": "Use a text."}
    assert not Schedule.objects.exists()


def test_an_import_that_is_sent_again_is_done_once(api):
    data = json.dumps({"name": "a", "channel": "email", "scheduleType": "once"}).encode()
    sent = {"content_type": NDJSON, "headers": {"Idempotency-Key": "k"}}
    first, second = (api.call("POST", "schedules:import", data, **sent) for _ in range(2))
    assert (first.json(), second["Idempotency-Replayed"]) == (second.json(), "true")
    assert Schedule.objects.count() == 1
    assert api.call("POST", "schedules:import", data + b"\n", **sent).status_code == 422


def test_templates_go_out_and_in(api):
    TemplateFactory(name="welcome")
    Catalogue.objects.create(locale="de", messages={"a": {"one": "1", "other": "n"}})
    answer = api.get("templates:export")
    assert (answer["Content-Type"], answer["Content-Disposition"]) == (ZIP, 'attachment; filename="templates.zip"')
    archive = body(answer)
    assert zipfile.ZipFile(io.BytesIO(archive)).namelist() == ["catalogues/de.json", "templates/welcome.json"]
    told = api.call("POST", "templates:import", archive, content_type=ZIP).json()
    assert told == {"isKept": True, "published": [], "unchanged": ["catalogue de", "template welcome"]}
    MessageTemplate.objects.all().delete()
    told = api.call("POST", "templates:import?dryRun=true", archive, content_type=ZIP).json()
    assert (told["isKept"], told["published"]) == (False, ["template welcome"])
    assert not MessageTemplate.objects.exists()
    assert api.call("POST", "templates:import", archive, content_type=ZIP).json()["isKept"] is True
    assert body(api.get("templates:export")) == archive


def zipped(**named):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in named.items():
            archive.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def test_what_is_wrong_in_an_archive_is_told_by_file_and_pointer(api):
    answer = api.call("POST", "templates:import", zipped(a__b='{"name": "x"}'), content_type=ZIP)
    assert answer.json()["errors"][0]["detail"].startswith("holds no .json file")
    data = zipped(**{"in__t.json": '{"name": "x", "contents": 5}', "..__up.json": "{}"})
    answer = api.call("POST", "templates:import", data, content_type=ZIP)
    places = [(each["file"], each["pointer"]) for each in answer.json()["errors"]]
    assert places == [("in/t.json", "/contents"), ("up.json", "")]


def test_archives_that_are_none_or_would_grow_too_large_are_refused(api, monkeypatch):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b"0" * 2_000_000)
    monkeypatch.setattr("schedules.imports.archives.MAX_UNPACKED", 1_000_000)
    monkeypatch.setattr("schedules.imports.archives.MAX_ENTRIES", 2)
    many = zipped(a="", b="", c="")
    locked = bytearray(zipped(a=""))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    for data, words in (
        (b"", "The body is empty"),
        (b"PK", "is no zip archive"),
        (bomb.getvalue()[:-30], "is no zip archive"),
        (bomb.getvalue(), "unpacks to more than 1,000,000 bytes"),
        (many, "holds more than 2 files"),
        (bytes(locked), "is encrypted"),
    ):
        answer = api.call("POST", "templates:import", data, content_type=ZIP)
        assert (answer.status_code, words in answer.json()["detail"]) == (400, True), answer.json()


def test_bodies_of_another_type_or_too_large_are_refused(api, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    for path, media in (("schedules:import", NDJSON), ("templates:import", ZIP)):
        assert api.post(path, {}).status_code == 415
        assert api.call("POST", path, b"x" * 11, content_type=media).status_code == 413
        assert api.call("POST", f"{path}?dryRun=yes", b"x", content_type=media).status_code == 400
