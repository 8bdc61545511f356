"""The commonest mistakes on German pages: what the rooms below say of them is German too."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import translation

from delivery.providers.base import Verdict
from scheduler_project import catalogue
from schedules import operations
from schedules.models import (
    MessageTemplate,
    Occurrence,
    OccurrenceState,
    RecipientImport,
    Resolution,
    ResolutionUse,
    Schedule,
)
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.http_double import HttpDouble, Reply
from tests.integration.test_pages import text_of
from tests.integration.test_pages_import import upload, work
from tests.integration.test_pages_templates import GREETING, form
from tests.integration.test_wizard import post, rows, when
from tests.service import only_occurrence, states
from tests.user_service import forget_counts

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def english() -> dict[str, str]:
    """Sentences of ours, or what stands between their placeholders, that no German page may hold; with their texts."""
    found = {}
    for message in catalogue.read():
        texts = [message.id] if isinstance(message.id, str) else list(message.id)
        german = message.string if isinstance(message.string, str) else " ".join(message.string)
        for text in texts:
            for piece in re.split(r"%\(\w+\)[sd]|\{\w*\}|<[^>]*>", text):
                words = " ".join(piece.split()).strip(" .:;,")
                if len(re.findall(r"[A-Za-z']{2,}", words)) >= 3 and words not in german:
                    found[words] = text
    return found


@pytest.fixture
def speak(english):
    """Sign in, choose German as on the page; the answers' texts are looked through for English."""

    def sign_in(role=Role.ADMIN):
        browser = signed_in(role)
        assert browser.post("/language", {"language": "de", "next": "/schedules/"}).status_code == 302
        return browser

    def german(response, *said: str) -> None:
        text = " ".join(text_of(response).split())
        for each in said:
            assert each in text
        assert [piece for piece in english if piece in text] == []

    yield sign_in, german
    translation.deactivate()  # a request leaves its language to whatever its thread does next


@pytest.fixture
def draft(service, speak):
    sign_in, _german = speak
    browser = sign_in()
    browser.post(reverse("wizard"), {"name": "Winterverkauf", "channel": "email", "go": "next"})
    return browser, Schedule.objects.get()


@pytest.mark.parametrize(
    ("step", "values", "said"),
    [
        ("when", when(kind="cron", repeat="cron", cron="99 * * * *"), "Minute: 0 bis 59"),
        ("when", when(kind="cron", repeat="cron", cron="0 9 * *"), "Der Cron hat 4 Felder und braucht fünf"),
        ("when", when(kind="cron", repeat="cron", cron="0 9 31 2 *"), "Kein Monat 2 hat einen Tag 31"),
        ("when", when(run_date="2026-11-20"), "Dieser Zeitpunkt ist schon vorbei"),
        ("audience", {"who": "json", "shown": "json", "json": '{"field": "plann"}'}, "fehlt; eine Bedingung hat"),
        ("audience", {"who": "json", "shown": "json", "json": "{"}, "Das ist kein JSON"),
        ("audience", rows(("locale", "eq", "x" * 300)), "Der Text hat 300 Zeichen; erlaubt sind höchstens 256."),
    ],
)
def test_a_wrong_step_of_the_wizard(draft, speak, step, values, said):
    browser, schedule = draft
    answer = post(browser, schedule, step, values)
    assert answer.status_code == 422
    speak[1](answer, said)


def test_what_a_change_of_the_clock_does(draft, speak):
    browser, schedule = draft
    look = reverse("wizard-look", args=[schedule.pk, "when"])
    answer = browser.post(look, when(kind="cron", at="02:30", start_date="2027-03-28"))
    speak[1](answer, "Die Uhr überspringt 2027-03-28 02:30: Der Lauf beginnt stattdessen um 03:30")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**GREETING, "text": "eins\n{{ x|safe }}"}, "Zeile 2: Filter 'safe' gibt es nicht"),
        ({**GREETING, "subject": "{{ name"}, "Zeile 1: ab 'dem Ende' nicht lesbar"),
        ({**GREETING, "subject": ""}, "Eine E-Mail braucht einen Betreff."),
        ({**GREETING, "locale": "keine Sprache"}, "Verwenden Sie eine Sprache wie „de“ oder „de-AT“."),
    ],
)
def test_a_template_that_cannot_be_kept(service, speak, row, said):
    sign_in, german = speak
    answer = sign_in().post("/templates/new/", form(row, name="Kaputt"))
    assert answer.status_code == 422
    assert not MessageTemplate.objects.exists()
    german(answer, said)


def test_a_preview_that_fails(service, speak):
    sign_in, german = speak
    page = reverse("template-preview")
    german(sign_in().post(page, form({**GREETING, "text": "{{ x|safe }}"}, name="Kaputt")), "Filter 'safe' gibt es")


def test_bad_lines_of_a_file_and_a_file_that_cannot_be_read(service, speak):
    sign_in, german = speak
    browser = sign_in()
    upload(browser, "external_id;email\nanna;anna@example.com\nbert;keine Adresse\nanna;b@example.com\nx;y;z\n")
    work()
    one = RecipientImport.objects.get()
    page = reverse("recipient-import", args=[one.pk])
    german(
        browser.get(page),
        "Ist keine E-Mail-Adresse: Schreiben Sie eine",
        "Steht schon in Zeile 2: Behalten Sie eine der beiden Zeilen.",
        "Hat 3 Felder, wo die Kopfzeile 2 hat",
    )
    report = b"".join(browser.get(reverse("recipient-import-report", args=[one.pk]))).decode()
    assert "ist keine E-Mail-Adresse" in report
    english = text_of(signed_in(Role.ADMIN, name="other").get(page))
    assert "Is no e-mail address: write one such as name@example.com" in english

    upload(browser, "name;email\nanna;anna@example.com\n")
    work()
    unreadable = RecipientImport.objects.latest("pk")
    assert unreadable.detail.startswith("has no column external_id (columns: name, email)")
    page = reverse("recipient-import", args=[unreadable.pk])
    german(browser.get(page), "Die Datei hat keine Spalte external_id (Spalten: name, email)")


def test_a_person_and_a_device_that_cannot_be_kept(service, speak):
    sign_in, german = speak
    nothing = {"attributes-TOTAL_FORMS": 0, "attributes-INITIAL_FORMS": 0}
    answer = sign_in().post("/recipients/new/", {"external_id": "1", "email": "keine Adresse", **nothing})
    assert answer.status_code == 422
    german(answer, "Die Angabe ist keine E-Mail-Adresse")


def test_an_action_that_its_state_does_not_admit(service, speak):
    sign_in, german = speak
    browser = sign_in()
    schedule = ScheduleFactory(name="Winterverkauf")
    operations.cancel(schedule_id=schedule.pk, by=BY, now=NOW)
    german(browser.post(f"/schedules/{schedule.pk}/do/run-now/", {}, follow=True))
    german(browser.post(f"/schedules/{schedule.pk}/do/pause/", {"reason": "x" * 501}, follow=True))
    late = ScheduleFactory(name="Sommerverkauf")
    answer = browser.post(f"/schedules/{late.pk}/do/pause/", {"reason": "x" * 501}, follow=True)
    german(answer)


def test_what_failed_long_ago_or_of_a_cancelled_run_is_not_tried_again(service, provider, speak):
    sign_in, german = speak
    provider.answers(Verdict.PERMANENT, "message_rejected")
    people(2)
    schedule = ScheduleFactory(name="Winterverkauf")
    service.step()
    assert states(schedule) == {"failed": 2}
    run = only_occurrence(schedule)
    browser = sign_in()
    Occurrence.objects.filter(pk=run.pk).update(ends_at=NOW - timedelta(days=1))
    answer = browser.post(reverse("occurrence-again", args=[run.pk]), {"reason": ""}, follow=True)
    german(answer, "Der Lauf hat das Ende seiner sieben Tage erreicht")
    Occurrence.objects.filter(pk=run.pk).update(state=OccurrenceState.CANCELLED)
    answer = browser.post(reverse("occurrence-again", args=[run.pk]), {"reason": ""}, follow=True)
    german(answer, "In diesem Zustand des Laufs lässt sich nichts noch einmal versuchen: abgebrochen.")


def test_a_cron_for_which_there_is_no_german_sentence(service, speak):
    sign_in, german = speak
    schedule = ScheduleFactory(name="Winterverkauf", cron="0 9 1-7 * MON")
    german(sign_in().get(reverse("schedule", args=[schedule.pk])), "Nach dem Cron 0 9 1-7 * MON, UTC")


def test_what_the_user_service_counts_and_names(service, speak, settings):
    sign_in, german = speak
    people(3)
    schedule = ScheduleFactory(name="Winterverkauf")
    service.tick()
    run = only_occurrence(schedule)
    told = {"audience": "digest", "as_of": NOW, "last_page_at": NOW, "pages": 2, "people": 1200, "total": 3000}
    ResolutionUse.objects.create(occurrence_id=run.pk, resolution=Resolution.objects.create(**told))
    Occurrence.objects.update(reason="user_service_away")
    browser = sign_in()
    page = browser.get(f"/occurrences/{run.pk}/")
    german(page, "Bisher hat der Benutzerdienst genannt: 1.200 Personen von 3.000, auf 2 Seiten.", "antwortet nicht")
    forget_counts()
    with HttpDouble(lambda request: Reply(body=b'{"count": 7}')) as double:
        settings.USER_SERVICE_URL = double.url
        page = browser.get(reverse("schedule-forecast", args=[schedule.pk]))
    german(page, "Der Benutzerdienst zählt 7 Personen, und ein Lauf fragt den Benutzerdienst.")
    forget_counts()
