"""The rehearsal of the load, small, against a real web server; what beat and workers do is done whenever it waits."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from delivery.models import Delivery
from scheduler_project.outside import rehearsal
from scheduler_project.outside.rehearsal import looks_like_production
from schedules.models import Recipient
from tests import outside
from tests.factories import RecipientFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def working(service, monkeypatch, live_server):
    outside.give_credentials(monkeypatch)
    outside.let_work(service, monkeypatch)
    monkeypatch.setattr(rehearsal, "_PIECE", 5)


def run(url, *arguments):
    told, aside = StringIO(), StringIO()
    options = ("--people", "12", "--timeout", "60")
    try:
        call_command("loadtest", url, *options, *arguments, stdout=told, stderr=aside)
    except CommandError as error:
        return told.getvalue(), str(error)
    return told.getvalue(), ""


def test_it_sends_reports_and_takes_everything_away(live_server):
    said, error = run(live_server.url, "--json")
    report = json.loads(said)
    assert error == ""
    assert report["outcomes"] == {"sent": 12}
    assert report["books_close"]
    assert report["api_requests"] > 0
    assert 0 <= report["first_call_late"] <= report["late_p50"] <= report["late_p99"] <= report["until_last"]
    assert report["per_second"] > 0
    assert Delivery.objects.count() == 12
    assert outside.is_clean()
    assert not Recipient.objects.exists()


def test_people_may_stay_and_are_taken_again(live_server):
    said, _ = run(live_server.url, "--keep-people", "--channel", "email")
    assert "| outcomes | 12 sent |" in said
    assert outside.is_clean()
    assert {person.email for person in Recipient.objects.all()} == {
        f"success+load-test-{number:06}@simulator.amazonses.com" for number in range(12)
    }
    again, error = run(live_server.url)
    assert error == ""
    assert "| books | close |" in again
    assert not Recipient.objects.exists()


def test_whoever_got_nothing_makes_it_fail(live_server):
    run(live_server.url, "--keep-people")
    Recipient.objects.filter(external_id="load-test-000003").update(consent={"in_app": False})
    said, error = run(live_server.url)
    assert "11 sent" in said
    assert "1 suppressed" in said
    assert "Not everything" in error


def test_people_of_others_are_not_touched(live_server):
    RecipientFactory(external_id="load-test-of-a-customer", email="", tags=[])
    _, error = run(live_server.url)
    assert "others made them" in error
    assert Recipient.objects.count() == 1
    assert outside.is_clean()


@pytest.mark.parametrize(
    ("arguments", "why"), [(["--people", "0"], "--people"), (["--people", "1", "--patience", "0"], "--patience")]
)
def test_what_makes_no_sense_is_refused(arguments, why):
    with pytest.raises(CommandError, match=why):
        call_command("loadtest", "http://localhost:1", *arguments)


def test_where_customers_may_be_it_has_to_be_told():
    with pytest.raises(CommandError, match=r"--yes-this-is https://notify\.example\.com"):
        call_command("loadtest", "https://notify.example.com")
    with pytest.raises(CommandError, match="may be where customers are"):
        call_command("loadtest", "https://notify.example.com", "--yes-this-is", "https://other.example.com")


@pytest.mark.parametrize(
    ("url", "is_so"),
    [
        ("https://notifications.example.com", True),
        ("https://latest.example.com", True),
        ("https://contest.example.com", True),
        ("https://notifications.staging.example.com", False),
        ("https://notifications-staging.example.com", False),
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("http://127.example.com", True),
    ],
)
def test_names_say_where_a_rehearsal_is(url, is_so):
    assert looks_like_production(url) is is_so
