"""Exporting from lists, and importing schedules and templates by a page: looked through first, then done."""

import json
from html import unescape

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from frontend import exporting
from schedules.models import MessageTemplate, Schedule
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import RecipientFactory, ScheduleFactory, TemplateFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

SCHEDULES, TEMPLATES = "/schedules/import/", "/templates/import/"


def text_of(response) -> str:
    return " ".join(unescape(response.content.decode()).split())


def upload(client, page, data, **options):
    return client.post(page, {"file": SimpleUploadedFile("file", data), **options})


@pytest.fixture
def marketer():
    return signed_in(Role.MARKETER)


def file_of(client, address) -> bytes:
    response = client.get(address)
    assert response.status_code == 200
    assert response["Content-Disposition"].startswith("attachment; filename=")
    assert response["Cache-Control"] == "no-store"
    return b"".join(response.streaming_content)


def test_schedules_are_looked_through_first_and_imported_when_somebody_says_so(marketer):
    ScheduleFactory(name="Daily", cron="0 9 * * *")
    ScheduleFactory(name="Weekly", cron="0 9 * * 1")
    file = file_of(marketer, "/schedules/file")
    looked = upload(marketer, SCHEDULES, file)
    assert "0 new, 0 changed, 2 as they are. There is nothing to import." in text_of(looked)
    assert looked.context["kept"] == ""
    Schedule.objects.all().delete()
    looked = upload(marketer, SCHEDULES, file, activate="on")
    assert "2 new, 0 changed, 0 as they are. Nothing is written yet." in text_of(looked)
    assert "2 of them send from then on, at their times." in text_of(looked)
    assert "Import 2 schedules" in text_of(looked)
    assert not Schedule.objects.exists()
    done = marketer.post(SCHEDULES, {"kept": looked.context["kept"], "activate": "on"}, follow=True)
    assert "2 created, 0 changed, 0 were as the file says." in text_of(done)
    assert set(Schedule.objects.values_list("status", "created_by")) == {("active", f"user:{done.context['user'].pk}")}


def test_without_the_tick_they_are_drafts(marketer):
    TemplateFactory(name="welcome")
    line = {"name": "News", "status": "active", "channel": "email", "scheduleType": "once", "template": "welcome"}
    looked = upload(marketer, SCHEDULES, json.dumps(line).encode())
    assert "send from then on" not in text_of(looked)
    marketer.post(SCHEDULES, {"kept": looked.context["kept"]})
    assert Schedule.objects.get().status == "draft"


def test_what_is_wrong_is_listed_and_leaves_nothing_to_confirm(marketer):
    looked = upload(marketer, SCHEDULES, b'{"name": "a", "channel": "fax", "scheduleType": "once"}\n{')
    assert looked.status_code == 422
    said = text_of(looked)
    assert "2 things are wrong, so nothing can be imported." in said
    assert "line 1 /channel" in said
    assert "Use one of: email, push, in_app." in said
    assert looked.context["kept"] == ""


def test_templates_are_looked_through_first_too(marketer):
    TemplateFactory(name="welcome")
    archive = file_of(marketer, "/templates/file")
    MessageTemplate.objects.all().delete()
    looked = upload(marketer, TEMPLATES, archive)
    assert "1 new or changed, 0 as they are. Nothing is written yet." in text_of(looked)
    assert "template welcome" in text_of(looked)
    done = marketer.post(TEMPLATES, {"kept": looked.context["kept"]}, follow=True)
    assert "1 imported, 0 were as the file says." in text_of(done)
    assert file_of(marketer, "/templates/file") == archive


@pytest.mark.parametrize("page", [SCHEDULES, TEMPLATES])
def test_what_is_no_file_is_told_in_words(marketer, page):
    for sent, words in (
        ({}, "Choose a file."),
        ({"kept": "!"}, "What was looked through has been lost."),
        ({"kept": "AAAA"}, "What was looked through has been lost."),
        ({"file": SimpleUploadedFile("f", b"\x1f\x8b")}, "The file is"),
        ({"file": SimpleUploadedFile("f", b"x" * (1024 * 1024 + 1))}, "The file is larger than 1 MB."),
    ):
        answer = marketer.post(page, sent)
        assert (answer.status_code, words in text_of(answer)) == (422, True), (sent, text_of(answer))


def test_people_leave_by_an_admin_alone_as_the_list_shows_them(marketer):
    RecipientFactory(external_id="anna", tags=["vip"])
    RecipientFactory(external_id="bea")
    admin = signed_in(Role.ADMIN)
    listed = admin.get("/recipients/?tag=vip")
    assert 'href="/recipients/file?tag=vip"' in listed.content.decode()
    file = file_of(admin, "/recipients/file?tag=vip&format=ndjson")
    assert [json.loads(line)["externalId"] for line in file.splitlines()] == ["anna"]
    assert file_of(admin, "/recipients/file").decode("utf-8-sig").count("\r\n") == 3
    assert admin.get("/recipients/file?format=xls").status_code == 400
    assert marketer.get("/recipients/file").status_code == 403
    assert "/recipients/file" not in marketer.get("/recipients/").content.decode()


def test_whoever_takes_one_file_of_people_after_the_other_is_told_to_wait(monkeypatch):
    monkeypatch.setattr(exporting, "_AT_ONCE", 1)
    monkeypatch.setattr(exporting, "_A_SECOND", 1 / 36_000)  # however slow the machine is
    admin = signed_in(Role.ADMIN)
    assert admin.get("/recipients/file").status_code == 200
    assert "Too many files of people at once: wait" in text_of(admin.get("/recipients/file", follow=True))


def test_the_list_of_schedules_gives_away_what_it_shows(marketer):
    for name in ("One", "Two"):
        ScheduleFactory(name=name)
    names = [json.loads(line)["name"] for line in file_of(marketer, "/schedules/file?text=Two").splitlines()]
    assert names == ["Two"]
