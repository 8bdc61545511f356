"""An admin uploads people and erases one; a marketer sees how a template reads while it is written."""

import pytest
from playwright.sync_api import expect

from schedules import templates
from schedules.imports import uploads
from schedules.models import Recipient
from schedules.permissions import Role
from tests.factories import BY, NOW, RecipientFactory
from tests.journeys.conftest import PHONE, TOO_WIDE

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = "external_id,email,age\nanna,anna@example.com,31\nbert,no address,40\nanna,again@example.com,31\n"


def work() -> None:
    import_id = uploads.take_waiting()
    assert import_id is not None
    uploads.run(import_id=import_id, now=NOW)


def test_a_file_with_bad_lines_is_looked_through_and_imported_while_the_page_looks_on(
    service, open_page, errors, tmp_path
):
    file = tmp_path / "people.csv"
    file.write_text(PEOPLE)
    page = open_page(Role.ADMIN, viewport=PHONE)
    page.goto("/recipients/")
    page.locator("main").get_by_role("link", name="Import people").first.press("Enter")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Look through the file").press("Enter")
    expect(page.get_by_role("progressbar")).to_be_visible()
    work()
    expect(page.get_by_text("1 new, 0 changed, 0 as they are, 2 refused. Nothing is written yet.")).to_be_visible()
    expect(page.get_by_text("Stands on line 2 already: keep one of the two.")).to_be_visible()
    assert page.evaluate(TOO_WIDE) <= 0
    page.get_by_role("button", name="Import 1 person").press("Enter")
    expect(page.get_by_role("progressbar")).to_be_visible()
    work()
    expect(page.get_by_text("1 created, 0 changed, 0 were as the file says. 2 lines were left out.")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all of them as CSV").click()
    assert download.value.suggested_filename.endswith(".csv")
    assert [person.external_id for person in Recipient.objects.all()] == ["anna"]
    assert errors == []


def test_a_template_shows_how_it_reads_while_it_is_written(service, open_page, errors):
    RecipientFactory(external_id="anna", locale="de", attributes={"first_name": "Anna"})
    RecipientFactory(external_id="bert")
    contents = [
        {"channel": "email", "locale": "en", "subject": "Hello", "html": "<p>Dear {{ first_name }}</p>"},
        {"channel": "push", "locale": "en", "subject": "Psst", "text": "New things"},
    ]
    template = templates.save(name="Offer", contents=contents, by=BY, now=NOW)
    page = open_page(Role.MARKETER)
    page.goto(f"/templates/{template.pk}/")
    preview = page.locator("#preview")
    body = page.frame_locator("iframe[name=preview-body]")
    expect(body.get_by_text("Dear Anna")).to_be_visible()
    page.locator("#id_contents-0-html").fill("<p>Dearest {{ first_name }}</p>")
    expect(body.get_by_text("Dearest Anna")).to_be_visible()
    preview.get_by_role("button", name="Next person").press("Enter")
    expect(preview.get_by_text("As bert reads it")).to_be_visible()
    expect(preview.get_by_role("button", name="Next person")).to_be_focused()
    expect(preview.get_by_text("Without a value for this person: first_name")).to_be_visible()
    said = "As bert reads it (en). Without a value for this person: first_name"
    expect(page.get_by_role("status").filter(has_text=said)).to_have_count(1)
    page.locator("#id_contents-0-html").fill("<p>{% if %}</p>")
    expect(preview.get_by_text("HTML: line 1")).to_be_visible()
    expect(page.locator("#id_contents-0-html")).to_be_focused()
    page.get_by_role("heading", name="Push · en").click()
    expect(preview.get_by_text("New things")).to_be_visible()
    assert page.evaluate("history.length") <= 4  # a preview is no step of the browser's history
    page.get_by_role("button", name="Publish as a new version").press("Enter")
    expect(page.get_by_text("to mend")).to_be_visible()
    page.locator("#id_contents-0-html").fill("<p>Dearest {{ first_name }}</p>")
    page.get_by_role("button", name="Publish as a new version").press("Enter")
    expect(page.get_by_text("Version 2 is published")).to_be_visible()
    assert [error for error in errors if "422" not in error] == []


def test_a_person_is_erased_once_the_id_is_typed(service, open_page, errors):
    RecipientFactory(external_id="anna")
    page = open_page(Role.ADMIN)
    page.goto("/recipients/?q=an")
    page.get_by_role("link", name="anna").press("Enter")
    page.get_by_role("link", name="Erase…").press("Enter")
    page.get_by_label("Type the external id: anna").fill("ann")
    page.get_by_role("button", name="Erase this person").press("Enter")
    expect(page.get_by_text("Nobody was erased")).to_be_visible()
    page.get_by_label("Type the external id: anna").fill("anna")
    page.get_by_role("button", name="Erase this person").press("Enter")
    expect(page.get_by_text("The person is erased.")).to_be_visible()
    assert not Recipient.objects.exists()
    assert [error for error in errors if "422" not in error] == []
