"""Uploading people: what a file would do, then doing it, whatever happens to the workers in between."""

import csv
import io
from datetime import timedelta
from html import unescape

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from audit.models import Action, AuditEvent
from schedules.imports import uploads
from schedules.models import Recipient, RecipientImport, RecipientImportChunk
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import NOW, RecipientFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

UPLOAD = "/recipients/import/"
PEOPLE = """external_id;Mail;plan;age;time_zone;postcode
anna;anna@example.com;pro;31;Europe/Vienna;01234
bert;no address;free;40;Europe/Vienna;01234
carla;carla@example.com;free;50;Mars/Crater;01234
anna;again@example.com;free;31;;01234
"""


def text_of(response) -> str:
    return " ".join(unescape(response.content.decode()).split())


def upload(client, text=PEOPLE, name="people.csv", **options):
    data = text if isinstance(text, bytes) else text.encode()
    return client.post(UPLOAD, {"file": SimpleUploadedFile(name, data), **options})


def work() -> None:
    """What clock and worker do."""
    import_id = uploads.take_waiting()
    assert import_id is not None
    uploads.run(import_id=import_id, now=NOW)


@pytest.fixture
def admin():
    return signed_in(Role.ADMIN)


def test_a_file_is_looked_through_first_and_imported_when_somebody_says_so(admin):
    RecipientFactory(external_id="carla", email="carla@example.com")
    response = upload(admin)
    one = RecipientImport.objects.get()
    page = reverse("recipient-import", args=[one.pk])
    assert response.url == page
    assert "Waiting until a worker is free" in text_of(admin.get(page))
    work()
    looked = admin.get(page)
    said = text_of(looked)
    assert "1 new, 1 changed, 0 as they are, 2 refused. Nothing is written yet." in said
    assert "Import 2 people" in said
    assert looked.context["bad"] == [
        (3, "e-mail address", "is no e-mail address: write one such as name@example.com, or leave it empty"),
        (5, "external id", "stands on line 2 already: keep one of the two"),
    ]
    assert ("Mail", "e-mail address") in looked.context["columns"]
    assert ("plan", "attribute plan, text") in looked.context["columns"]
    assert "“Mars/Crater” (1)" in said
    assert "Kept as texts, though they look like numbers: age" in said
    assert Recipient.objects.count() == 1
    assert not AuditEvent.objects.filter(action=Action.RECIPIENT_IMPORT).exists()

    report = admin.get(reverse("recipient-import-report", args=[one.pk]))
    rows = list(csv.reader(io.StringIO(b"".join(report).decode("utf-8-sig"))))
    assert [row[:2] for row in rows] == [["Line", "Field"], ["3", "e-mail address"], ["5", "external id"]]

    assert admin.post(reverse("recipient-import-confirm", args=[one.pk])).status_code == 302
    work()
    assert set(Recipient.objects.values_list("external_id", flat=True)) == {"anna", "carla"}
    assert Recipient.objects.get(external_id="anna").attributes == {"plan": "pro", "age": "31", "postcode": "01234"}
    said = text_of(admin.get(page))
    assert "1 created, 1 changed, 0 were as the file says. 2 lines were left out." in said
    assert not RecipientImportChunk.objects.exists()
    event = AuditEvent.objects.get(action=Action.RECIPIENT_IMPORT)
    assert event.actor_id == RecipientImport.objects.get().created_by
    assert "1 created" in text_of(admin.get(UPLOAD))


def test_options_say_how_a_file_is_read(admin):
    upload(admin, "external_id;name;age\n1;Jörg;31\n".encode("cp1252"), "p.txt", encoding="cp1252", infer_types="on")
    work()
    uploads.confirm(import_id=RecipientImport.objects.get().pk, by="user:1", now=NOW)
    work()
    assert Recipient.objects.get().attributes == {"name": "Jörg", "age": 31}


def test_ndjson_is_read_as_such(admin):
    upload(admin, '{"external_id": "1", "tags": ["a"]}\nnonsense\n', "p.ndjson")
    work()
    one = RecipientImport.objects.get()
    assert (one.report["created"], one.bad[0][:2]) == (1, [2, ""])
    assert "the line" in text_of(admin.get(reverse("recipient-import", args=[one.pk])))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("people.xlsx", b"PK", "The name has to end in one of .csv"),
        ("people.csv", b"", "empty"),
    ],
)
def test_a_file_of_the_wrong_kind_is_refused_at_once(admin, name, data, said):
    page = upload(admin, data, name)
    assert page.status_code == 422
    assert said in page.context["form"].errors["file"][0]
    assert not RecipientImport.objects.exists()


def test_a_file_that_is_too_large_is_refused_with_a_remedy(admin, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 20)
    page = upload(admin)
    assert page.status_code == 422
    assert "Split it" in page.context["form"].errors["file"][0]
    assert not RecipientImport.objects.exists()
    assert not RecipientImportChunk.objects.exists()


def test_a_file_that_makes_no_sense_as_a_whole_says_what_to_do(admin):
    upload(admin, "name;mail\nAnna;anna@example.com\n")
    work()
    one = RecipientImport.objects.get()
    page = admin.get(reverse("recipient-import", args=[one.pk]))
    assert "The file has no column external_id" in text_of(page)
    assert "Nothing was imported." in text_of(page)
    assert not one.chunks.exists()


def test_a_large_file_comes_in_pieces_and_is_one_again(monkeypatch):
    monkeypatch.setattr(uploads, "_CHUNK", 10)
    bits = [PEOPLE[start : start + 7].encode() for start in range(0, len(PEOPLE), 7)]
    uploads.keep(name="p.csv", chunks=bits, format="csv", by="user:1", now=NOW)
    assert RecipientImportChunk.objects.count() > 1
    assert b"".join(bytes(piece.data) for piece in RecipientImportChunk.objects.order_by("number")) == PEOPLE.encode()
    work()
    assert RecipientImport.objects.get().report["lines"] == 4


def test_one_file_is_done_at_a_time_and_each_message_once(admin):
    upload(admin)
    upload(admin, "external_id\nzoe\n")
    first, second = RecipientImport.objects.order_by("id")
    assert uploads.take_waiting() == first.pk
    assert uploads.take_waiting() is None  # the message is on its way
    uploads.run(import_id=first.pk, now=NOW)
    uploads.run(import_id=first.pk, now=NOW)  # a second copy of it
    assert RecipientImport.objects.get(pk=first.pk).attempts == 1
    assert uploads.take_waiting() == second.pk


def test_a_file_whose_worker_died_is_begun_anew_and_given_up_after_three(admin):
    upload(admin)
    one = RecipientImport.objects.get()
    page = reverse("recipient-import", args=[one.pk])
    died = {"token": "00000000-0000-0000-0000-000000000001", "leased_until": timezone.now() - timedelta(seconds=1)}
    RecipientImport.objects.update(**died, attempts=1, stage="READ", people=2, position=len(PEOPLE) // 2)
    page_then = text_of(admin.get(page))
    assert "Reading the file: 2 people so far" in page_then
    assert 'value="49"' in page_then or 'value="50"' in page_then
    work()
    assert RecipientImport.objects.get().state == "checked"
    uploads.confirm(import_id=one.pk, by="user:1", now=NOW)
    RecipientImport.objects.update(**died, attempts=3)
    assert uploads.take_waiting() is None
    assert "stopped three times. Nothing of it was kept" in text_of(admin.get(page))
    assert not Recipient.objects.exists()
    assert not RecipientImportChunk.objects.exists()


def test_whoever_has_lost_the_lease_has_imported_nothing(admin, monkeypatch):
    upload(admin)
    work()
    one = RecipientImport.objects.get()
    uploads.confirm(import_id=one.pk, by="user:1", now=NOW)
    slow = uploads.import_recipients

    def overtaken(**arguments):
        report = slow(**arguments)
        RecipientImport.objects.update(token="00000000-0000-0000-0000-000000000002")
        return report

    monkeypatch.setattr(uploads, "import_recipients", overtaken)
    work()
    assert not Recipient.objects.exists()
    assert RecipientImport.objects.get().state == "import"


def test_a_failure_of_the_service_is_told_and_leaves_nothing(admin, monkeypatch):
    upload(admin)
    monkeypatch.setattr(uploads, "import_recipients", lambda **_: 1 / 0)
    work()
    page = admin.get(reverse("recipient-import", args=[RecipientImport.objects.get().pk]))
    assert "The service failed while it worked on it" in text_of(page)
    assert not RecipientImportChunk.objects.exists()


def test_a_file_is_thrown_away_by_hand_and_by_itself_after_a_day(admin, monkeypatch):
    for _ in range(2):
        upload(admin)
        work()
    first, second = RecipientImport.objects.order_by("id")
    assert admin.post(reverse("recipient-import-discard", args=[first.pk])).status_code == 302
    assert not first.chunks.exists()
    late = admin.post(reverse("recipient-import-confirm", args=[first.pk]), follow=True)
    assert "That was too late" in text_of(late)
    call_command("tidy")
    assert second.chunks.exists()
    uploads.purge(now=NOW + timedelta(days=1, minutes=1))
    assert not second.chunks.exists()
    assert "Nobody decided for a day" in text_of(admin.get(reverse("recipient-import", args=[second.pk])))
    uploads.purge(now=NOW + timedelta(days=31))
    assert admin.get(reverse("recipient-import", args=[second.pk])).status_code == 404


def test_the_page_looks_for_itself_while_it_goes_on_and_no_longer(admin, django_assert_max_num_queries):
    upload(admin)
    page = reverse("recipient-import", args=[RecipientImport.objects.get().pk])
    with django_assert_max_num_queries(15):
        part = admin.get(page, headers={"HX-Request": "true"})
    assert "<html" not in part.content.decode()
    assert 'hx-trigger="every 1s"' in part.content.decode()
    assert ">Waiting until a worker is free: one file is done at a time.</p>" in part.content.decode()
    work()
    part = admin.get(page, headers={"HX-Request": "true"})
    assert "hx-trigger" not in part.content.decode()
    assert 'hx-swap-oob="innerHTML">people.csv: waits for your decision</p>' in part.content.decode()


def test_only_an_admin_imports():
    for role in (Role.MARKETER, Role.ANALYST):
        client = signed_in(role)
        assert client.get(UPLOAD).status_code == 403
        assert upload(client).status_code == 403
    assert not RecipientImport.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_progress_shows_while_the_import_itself_shows_nothing_yet(monkeypatch):
    one = uploads.keep(name="p.csv", chunks=[PEOPLE.encode()], format="csv", by="user:1", now=NOW)
    seen = []
    read = uploads.import_recipients

    def slow(*, progress, **arguments):
        progress(uploads.Stage.WRITE, 3)
        deadline = timezone.now() + timedelta(seconds=10)
        while not (row := RecipientImport.objects.get(pk=one.pk)).people and timezone.now() < deadline:
            pass
        seen.append((row.stage, row.people, row.leased_until > timezone.now() + timedelta(seconds=25)))
        return read(progress=progress, **arguments)

    monkeypatch.setattr(uploads, "import_recipients", slow)
    work()
    assert seen == [("WRITE", 3, True)]
    assert RecipientImport.objects.get().state == "checked"
