"""What pages and API tell of the user service: its count beside the copy's, how far a run has come, of whom it told."""

import json
import socket
import threading
import time
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from audit.models import Action, AuditEvent
from delivery import materialise
from schedules.models import (
    LeftAlone,
    MirroredPerson,
    Occurrence,
    Resolution,
    ResolutionUse,
    Schedule,
    ServedCount,
)
from schedules.permissions import Role
from schedules.user_service import counting
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.http_double import HttpDouble, Reply, reset
from tests.integration.test_pages import text_of
from tests.service import DAY, MINUTE, in_threads, only_occurrence
from tests.user_service import forget_counts

pytestmark = pytest.mark.django_db

VIPS = {"field": "tags", "op": "contains", "value": "vip"}
EVERYBODY = {"all": []}


@pytest.fixture
def api(service):
    return Api(token())


@pytest.fixture
def directory(settings):
    """A user service that counts seven people in every audience."""
    with HttpDouble(lambda request: Reply(body=b'{"count": 7}')) as double:
        settings.USER_SERVICE_URL, settings.USER_SERVICE_TOKEN = double.url, "a-token"
        yield double


@pytest.fixture
def browser(service):
    """Of somebody who may see and plan."""
    return signed_in(Role.MARKETER)


def preview(api, query=EVERYBODY):
    return api.post("audiences:preview", {"audienceQuery": query}).json()


def forecast(api, schedule):
    known = ("name", "channel", "scheduleType", "templateId", "audienceQuery")
    kept = api.get(f"schedules/{schedule.pk}").json()
    asked = {**{name: kept[name] for name in known}, "runAt": "2026-11-22T10:00:00Z"}
    return api.post("schedules:forecast", asked).json()


# The count


def test_where_people_are_kept_here_nobody_else_is_named(api):
    people(2)
    assert preview(api)["userService"] is None
    assert forecast(api, ScheduleFactory())["userService"] is None


def test_the_services_count_stands_beside_the_copys(api, directory):
    people(3)
    told = preview(api, VIPS)
    assert (told["count"], told["userService"]) == (0, {"count": 7, "asOf": "2026-11-21T10:00:00Z", "reason": None})
    (asked,) = directory.requests
    assert asked.line.startswith("POST /audience/count ")
    assert asked.headers["authorization"] == "Bearer a-token"
    assert asked.json == {"audience": VIPS, "asOf": "2026-11-21T10:00:00Z"}
    told = forecast(api, ScheduleFactory(draft=True))
    assert (told["targeted"], told["userService"]["count"]) == (3, 7)


def test_an_answer_is_remembered_for_a_while_and_each_audience_has_its_own(api, directory, settings):
    assert [preview(api)["userService"]["count"] for _ in range(3)] == [7, 7, 7]
    assert len(directory.requests) == 1
    preview(api, VIPS)
    assert len(directory.requests) == 2
    settings.USER_SERVICE_URL = f"{directory.url}/v2"
    preview(api)
    assert directory.requests[-1].line.startswith("POST /v2/audience/count ")


def test_a_service_that_is_away_costs_no_preview_and_is_left_alone_for_a_while(api, directory):
    people(3)
    directory.failure = reset
    for query in (EVERYBODY, VIPS):
        told = preview(api, query)["userService"]
        assert (told["count"], told["reason"]) == (None, "user_service_away")
    assert preview(api)["count"] == 3
    assert len(directory.requests) == 1


def test_after_half_a_minute_one_asks_a_silent_service_and_the_others_when_it_was_answered(api, directory):
    directory.failure = reset
    preview(api)
    left = LeftAlone.objects.get()
    assert 25 < (left.until - timezone.now()).total_seconds() <= 30
    LeftAlone.objects.update(until=timezone.now(), asked_until=timezone.now() + MINUTE)
    assert preview(api, VIPS)["userService"]["reason"] == "user_service_away"
    assert len(directory.requests) == 1
    directory.failure = None
    LeftAlone.objects.update(asked_until=None)
    ServedCount.objects.all().delete()
    assert preview(api, VIPS)["userService"]["count"] == 7
    assert not LeftAlone.objects.exists()


def test_a_slow_service_is_waited_for_no_longer_than_a_reader_is_patient(api, directory, monkeypatch):
    monkeypatch.setattr(counting, "_PATIENCE_S", 0.2)
    directory.delay = 60.0
    began = time.monotonic()
    assert preview(api)["userService"]["reason"] == "user_service_away"
    assert time.monotonic() - began < 30


def test_a_name_that_nobody_looks_up_is_waited_for_no_longer_either(api, directory, settings, monkeypatch):
    monkeypatch.setattr(counting, "_PATIENCE_S", 0.2)
    settings.USER_SERVICE_URL = "http://directory.test"
    let_go, look_up = threading.Event(), socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **b: let_go.wait(60) and look_up("localhost", *a[1:], **b))
    began = time.monotonic()
    assert preview(api)["userService"]["reason"] == "user_service_away"
    assert time.monotonic() - began < 30
    let_go.set()


def test_so_many_questions_hang_and_no_more(service, directory, monkeypatch):
    monkeypatch.setattr(counting, "_free", threading.BoundedSemaphore(1))
    counting._free.acquire()
    assert counting.served(EVERYBODY, now=NOW).reason == "user_service_away"
    assert directory.requests == []


@pytest.mark.django_db(transaction=True)
def test_of_many_who_ask_the_same_at_once_one_asks_the_service(service, directory, monkeypatch):
    monkeypatch.setattr(counting, "_PATIENCE_S", 30.0)  # a busy machine may keep one of them waiting
    directory.delay = 0.3
    told = in_threads(*[lambda: counting.served(EVERYBODY, now=NOW)] * 5)
    assert [each.people for each in told] == [7] * 5
    assert len(directory.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_being_asked_is_no_answer_whatever_the_clocks_say(service, directory, monkeypatch):
    monkeypatch.setattr(counting, "_PATIENCE_S", 0.3)
    assert counting._take(counting._key(EVERYBODY), NOW)
    ServedCount.objects.update(good_until=timezone.now() + MINUTE)
    assert counting.served(EVERYBODY, now=NOW).reason == "user_service_away"


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_one_that_does_not_come_back_gives_up(service, directory, monkeypatch):
    monkeypatch.setattr(counting, "_PATIENCE_S", 0.3)
    assert counting._take(counting._key(EVERYBODY), NOW)  # and dies
    assert counting.served(EVERYBODY, now=NOW).reason == "user_service_away"
    ServedCount.objects.update(asked_until=timezone.now())
    assert counting.served(EVERYBODY, now=NOW).people == 7


def test_old_counts_are_dropped(service, directory):
    counting.served(EVERYBODY, now=NOW)
    materialise.purge(before=NOW)
    assert ServedCount.objects.exists()
    ServedCount.objects.update(good_until=timezone.now() - 2 * DAY)
    materialise.purge(before=NOW)
    assert not ServedCount.objects.exists()


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_service_that_refuses_is_told_apart(api, directory, status):
    directory.answer = lambda request: Reply(status)
    told = preview(api)["userService"]
    assert (told["count"], told["reason"]) == (None, "user_service_refused")


# Pages that count


def review(schedule):
    return reverse("wizard-look", args=[schedule.pk, "review"])


def forecast_page(schedule):
    return reverse("schedule-forecast", args=[schedule.pk])


def audience_step(schedule):
    return reverse("wizard-look", args=[schedule.pk, "audience"])


def shown(browser, address):
    return text_of(browser.get(address, HTTP_HX_REQUEST="true"))


@pytest.mark.parametrize("page", [review, forecast_page, audience_step])
def test_pages_that_count_people_say_whose_count_it_is(browser, directory, page):
    people(3)
    schedule = ScheduleFactory(draft=True, run_at=NOW + MINUTE)
    said = (
        "The user service counts 7 people, and a run asks the user service. The figures are of the copy of its people"
    )
    assert said in shown(browser, page(schedule))
    assert "As of 2026-11-21 10:00:00 UTC" in shown(browser, page(schedule))
    directory.answer = lambda request: Reply(body=json.dumps({"count": 3}).encode())
    forget_counts()
    assert "The user service counts the same: 3 people." in shown(browser, page(schedule))
    directory.failure = reset
    forget_counts()
    assert "The user service does not answer at present" in shown(browser, page(schedule))


def test_without_a_user_service_pages_speak_of_none(browser):
    people(3)
    schedule = ScheduleFactory(draft=True, run_at=NOW + MINUTE)
    for page in (review, forecast_page, audience_step):
        assert "user service" not in shown(browser, page(schedule))


def test_a_copy_without_them_warns_of_nobody_while_the_service_knows_somebody(browser, directory):
    people(1)
    schedule = ScheduleFactory(audience_query=VIPS, draft=True, run_at=NOW + MINUTE)
    assert "Nobody matches" not in shown(browser, audience_step(schedule))
    assert "nobody would get it" not in shown(browser, review(schedule))
    directory.answer = lambda request: Reply(body=b'{"count": 0}')
    forget_counts()
    assert "Nobody matches" in shown(browser, audience_step(schedule))
    assert "nobody would get it" in shown(browser, review(schedule))


def test_an_empty_copy_warns_of_nobody_while_the_service_is_away(browser, directory):
    directory.failure = reset
    schedule = ScheduleFactory(draft=True, run_at=NOW + MINUTE)
    assert "nobody would get it" not in shown(browser, review(schedule))
    for words in ("Nobody matches", "There is nobody yet"):
        assert words not in shown(browser, audience_step(schedule))


def activate(browser, schedule, **typed):
    schedule.refresh_from_db()
    values = {"go": "activate", "version": schedule.version, **typed}
    return browser.post(reverse("wizard-step", args=[schedule.pk, "review"]), values)


def test_it_is_the_services_number_by_which_a_large_audience_is_confirmed(browser, directory, settings):
    people(1)
    settings.CONFIRM_AUDIENCE = 6
    schedule = ScheduleFactory(name="Large", draft=True, run_at=NOW + MINUTE)
    refused = activate(browser, schedule)
    assert refused.status_code == 422
    assert "7 people belong to its audience. Type its name" in text_of(refused)
    directory.failure = reset
    forget_counts()
    assert "How many people it goes to can't be said quickly. Type its name" in text_of(activate(browser, schedule))
    assert activate(browser, schedule, confirm="Large").status_code == 302
    assert Schedule.objects.get().status == "active"


def test_it_is_the_services_number_too_before_a_run_at_once(browser, directory, settings):
    people(1)
    settings.CONFIRM_AUDIENCE = 6
    address = f"/schedules/{ScheduleFactory(name='Large', run_at=NOW + MINUTE).pk}/do/run-now/"
    assert browser.post(address, {}).status_code == 422
    forget_counts()
    directory.answer = lambda request: Reply(body=b'{"count": 6}')
    assert browser.post(address, {}).status_code == 302


# A run that asks for its people


@pytest.fixture
def resolving(service):
    """A run that has been told of 1,200 of 3,000 people."""
    schedule = ScheduleFactory(name="Winter sale")
    service.tick()
    resolution = Resolution.objects.create(
        audience="digest", as_of=NOW, pages=2, people=1200, total=3000, last_page_at=NOW + timedelta(seconds=5)
    )
    return ResolutionUse.objects.create(occurrence_id=only_occurrence(schedule).pk, resolution=resolution)


def run_page(browser, use, path=""):
    return browser.get(f"/occurrences/{use.occurrence_id}/{path}")


def test_a_run_says_how_many_people_have_been_named(browser, resolving):
    page = text_of(run_page(browser, resolving))
    said = "So far the user service has named 1,200 people of 3,000, in 2 pages. Nobody is sent to before all of them"
    assert said in page
    assert "known. As of 2026-11-21 10:00:00 UTC" in page
    assert "Its people are being found. That takes some seconds" not in page
    Resolution.objects.update(people=2400, pages=3)
    phase = run_page(browser, resolving).context["phase"]
    assert "2,400 people of 3,000, in 3 pages" in text_of(run_page(browser, resolving, f"progress?phase={phase}"))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            "user_service_away",
            "The user service, which names its people, does not answer. It is asked again by itself.",
        ),
        ("user_service_refused", "The user service refuses to name its people"),
    ],
)
def test_a_run_says_why_it_has_no_people_yet(browser, resolving, api, reason, said):
    phase = run_page(browser, resolving).context["phase"]
    Occurrence.objects.update(reason=reason)
    # More than figures has changed, so the whole run is told anew.
    assert run_page(browser, resolving, f"progress?phase={phase}").headers["HX-Retarget"] == "#run"
    assert said in text_of(run_page(browser, resolving))
    assert api.get(f"occurrences/{resolving.occurrence_id}").json()["reason"] == reason
    RecipientFactory(external_id="anna")
    schedule = Schedule.objects.get()
    told = api.get(f"explain?schedule={schedule.pk}&recipient=anna").json()
    assert (told["code"], said in told["sentence"]) == (reason, True)


def test_a_run_that_has_asked_and_got_nothing_yet_says_so(browser, resolving):
    Resolution.objects.update(pages=0, people=0, total=None)
    asked = "The user service is being asked for its people. Nobody is sent to before all of them are known."
    assert asked in text_of(run_page(browser, resolving))
    Occurrence.objects.update(reason="user_service_away")
    assert "being asked" not in text_of(run_page(browser, resolving))


def test_a_run_that_has_its_people_says_as_of_when_and_what_was_wrong(browser, resolving):
    Resolution.objects.update(people=3000, repeated=2, flawed=1, unreadable=3, left_out=1, completed_at=NOW, pages=4)
    ResolutionUse.objects.update(used_at=NOW)
    page = text_of(run_page(browser, resolving))
    assert "named by the user service, as of 2026-11-21 10:00:00 UTC" in page
    assert "2 times somebody came again, and counts once" in page
    assert "1 profile held something that can't be kept" in page
    assert "3 profiles named nobody, and are left out" in page
    assert "1 person was erased here, and is left out" in page


def test_the_api_tells_how_the_people_were_named(resolving, api):
    told = api.get(f"occurrences/{resolving.occurrence_id}").json()["resolution"]
    assert told == {
        "asOf": "2026-11-21T10:00:00Z",
        "pages": 2,
        "people": 1200,
        "total": 3000,
        "repeated": 0,
        "flawed": 0,
        "unreadable": 0,
        "leftOut": 0,
        "lastPageAt": "2026-11-21T10:00:05Z",
        "completedAt": None,
    }
    Resolution.objects.all().delete()
    assert api.get(f"occurrences/{resolving.occurrence_id}").json()["resolution"] is None


def test_who_fits_and_was_not_named_is_told_so(service, api, settings):
    people(1)
    schedule = ScheduleFactory()
    service.step()
    RecipientFactory(external_id="anna", created_at=NOW - MINUTE, updated_at=NOW - MINUTE)
    asked = f"explain?schedule={schedule.pk}&recipient=anna"
    assert "user service" not in api.get(asked).json()["sentence"]
    settings.USER_SERVICE_URL = "http://127.0.0.1:1"
    told = api.get(asked).json()
    assert (told["code"], "did not name the person" in told["sentence"]) == ("not_found_then", True)


def test_an_audience_is_judged_on_a_copy_whose_age_is_told(service, browser, api):
    schedule = ScheduleFactory(audience_query=VIPS)
    service.step()
    anna = RecipientFactory(external_id="anna", created_at=NOW - MINUTE, updated_at=NOW - MINUTE)
    asked = f"explain?schedule={schedule.pk}&recipient=anna"
    assert api.get(asked).json()["audience"]["mirroredAt"] is None
    MirroredPerson.objects.create(recipient_id=anna.pk, mirrored_at=NOW)
    assert api.get(asked).json()["audience"]["mirroredAt"] == "2026-11-21T10:00:00Z"
    page = browser.get(f"/occurrences/{only_occurrence(schedule).pk}/", {"person": "anna"})
    assert "the user service last told of it 2026-11-21 10:00:00 UTC" in text_of(page)


# A person of whom it told


def test_a_person_is_shown_as_the_user_service_had_it(browser, settings):
    anna = RecipientFactory(external_id="anna")
    person = reverse("recipient", args=[anna.pk])
    assert "user service" not in text_of(browser.get(person))
    settings.USER_SERVICE_URL = "http://127.0.0.1:1"
    assert "It has not told of this person yet." in text_of(browser.get(person))
    MirroredPerson.objects.create(recipient_id=anna.pk, mirrored_at=NOW, source_updated_at=NOW - MINUTE)
    page = text_of(browser.get(person))
    assert "As the user service had it 2026-11-21 10:00:00 UTC" in page
    assert "changed there 2026-11-21 09:59:00 UTC" in page
    assert "What it says next takes the place of what is changed here." in page


def test_the_api_tells_when_and_lets_nobody_say_so_himself(service, api):
    anna = RecipientFactory(external_id="anna")
    RecipientFactory(external_id="bea")
    MirroredPerson.objects.create(recipient_id=anna.pk, mirrored_at=NOW, source_updated_at=None)
    told = api.get("recipients/anna")
    assert (told.json()["mirroredAt"], told.json()["sourceUpdatedAt"]) == ("2026-11-21T10:00:00Z", None)
    listed = {each["externalId"]: each["mirroredAt"] for each in api.get("recipients").json()["items"]}
    assert listed == {"anna": "2026-11-21T10:00:00Z", "bea": None}
    refused = api.put("recipients/anna", {"locale": "de", "mirroredAt": "2026-11-21T10:00:00Z"})
    assert [(each["pointer"], each["code"]) for each in refused.json()["errors"]] == [("/mirroredAt", "read_only")]


def test_what_is_held_of_a_person_holds_when_the_service_told(service, api):
    anna = RecipientFactory(external_id="anna")
    MirroredPerson.objects.create(recipient_id=anna.pk, mirrored_at=NOW)
    (told,) = api.get("recipients/anna/export").json()["mirrored"]
    assert told["mirroredAt"] == "2026-11-21T10:00:00Z"
    assert AuditEvent.objects.filter(action=Action.EXPORT_FILE).exists()
