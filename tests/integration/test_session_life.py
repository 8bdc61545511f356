"""A session ends an hour after its last request and a day after signing in, by the real clock."""

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from frontend import session_life
from scheduler_project.tasks import tidy
from schedules.permissions import Role
from tests.accounts import account, signed_in

pytestmark = pytest.mark.django_db
MINUTE = 60
HOUR = 3600


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1_800_000_000.0

        def time(self) -> float:
            return self.now

    hand = Clock()
    monkeypatch.setattr(session_life, "time", hand)
    return hand


def test_who_is_away_for_an_hour_signs_in_again(clock):
    browser = signed_in(Role.ANALYST)
    for _ in range(3):
        clock.now += 59 * MINUTE
        assert browser.get("/ledger/").status_code == 200
    clock.now += 61 * MINUTE
    assert browser.get("/ledger/").status_code == 302
    assert not Session.objects.exists()


def test_after_a_day_everybody_signs_in_again(clock):
    browser = signed_in(Role.ANALYST)
    for _ in range(47):
        clock.now += HOUR / 2
        assert browser.get("/ledger/").status_code == 200
    clock.now += HOUR
    assert browser.get("/ledger/").status_code == 302


def test_a_page_that_looks_by_itself_keeps_no_session_alive(clock):
    browser = signed_in(Role.ANALYST)
    for _ in range(4):
        clock.now += 20 * MINUTE
        answer = browser.get("/dashboard/health", headers={"HX-Request": "true"})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/dashboard/health", "/account/", "/admin/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_part_of_a_page_after_the_end_is_no_login(path, method):
    answer = getattr(Client(), method)(path, headers={"HX-Request": "true"})
    assert (answer.status_code in (401, 405), answer.content) == (True, b"")
    assert Client().get(path).status_code == 302


def test_a_page_learns_whether_its_person_is_signed_in_and_the_token_of_its_forms(clock):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(account(Role.ANALYST))
    clock.now += 50 * MINUTE
    token = browser.get("/account/here", headers={"HX-Request": "true"}).json()["token"]
    assert browser.post("/display", {"times": "utc"}).status_code == 403
    assert browser.post("/display", {"times": "utc", "csrfmiddlewaretoken": token}).status_code == 302
    clock.now += 70 * MINUTE
    answer = browser.get("/account/here", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.content) == (401, b"")


def test_who_works_costs_one_statement_a_minute(clock):
    browser = signed_in(Role.ANALYST)
    clock.now += 2 * MINUTE
    written = []
    for _ in range(3):
        with CaptureQueriesContext(connection) as queries:
            assert browser.get("/ledger/").status_code == 200
        written.append(sum("django_session" in each["sql"] and "UPDATE" in each["sql"] for each in queries))
    assert written == [1, 0, 0]


def test_a_session_that_knows_no_beginning_begins_now(clock):
    browser = signed_in(Role.ANALYST)
    session = browser.session
    del session[session_life.BEGUN], session[session_life.SEEN]
    session.save()
    assert browser.get("/ledger/").status_code == 200
    clock.now += 61 * MINUTE
    assert browser.get("/ledger/").status_code == 302


def test_a_stranger_gets_no_session():
    assert "sessionid" not in Client().get("/ledger/").cookies


def test_sessions_that_are_over_are_thrown_away_within_the_hour():
    over, alive = signed_in(Role.ANALYST), signed_in(Role.MARKETER)
    Session.objects.filter(pk=over.session.session_key).update(expire_date=timezone.now() - timedelta(minutes=1))
    tidy()
    assert [each.pk for each in Session.objects.all()] == [alive.session.session_key]
