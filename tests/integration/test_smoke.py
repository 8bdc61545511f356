"""The check after a deployment, against a real web server; what beat and workers do is done whenever it waits."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from delivery.models import Delivery, InboxMessage
from scheduler_project.outside import smoke
from schedules.models import Recipient
from tests import outside
from tests.factories import RecipientFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def credentials(service, monkeypatch, live_server):
    outside.give_credentials(monkeypatch)


@pytest.fixture
def working(service, monkeypatch):
    outside.let_work(service, monkeypatch)


def run(url, *arguments):
    told = StringIO()
    try:
        call_command("smoke", url, "--json", "--timeout", "60", *arguments, stdout=told)
    except CommandError as error:
        return json.loads(told.getvalue()), str(error)
    return json.loads(told.getvalue()), ""


def is_clean():
    return outside.is_clean() and not Recipient.objects.exists()


def test_a_service_that_sends_is_found_well_and_left_as_it_was(live_server, working):
    said, error = run(live_server.url)
    assert (said["ok"], error) == (True, ""), said
    assert [step["error"] for step in said["steps"]] == [""] * 12
    assert Delivery.objects.count() == 1
    assert is_clean()
    assert not InboxMessage.objects.exists()
    again, _ = run(live_server.url)  # somebody who was erased is brought back
    assert again["ok"], again


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--channel", "email"], "--address"),
        (["--patience", "0"], "--patience"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(arguments, why):
    with pytest.raises(CommandError, match=why):
        call_command("smoke", "http://127.0.0.1:1", *arguments)


@pytest.mark.parametrize("url", ["ftp://host", "https://", "http://host/?a=1", "host:8000"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(CommandError, match="no address of a service"):
        call_command("smoke", url)


def test_without_credentials_it_says_how_to_get_some(monkeypatch):
    monkeypatch.delenv("CLIENT_SECRET")
    with pytest.raises(CommandError, match=r"CLIENT_SECRET must be set: manage\.py create_service_client"):
        call_command("smoke", "http://127.0.0.1:1")


def test_nobody_at_the_address_is_said_so():
    said, error = run("http://127.0.0.1:1")
    assert [step["error"] for step in said["steps"]] == [f"GET {said['url']} can't be asked: NewConnectionError"]
    assert "healthz" in error


def test_without_workers_it_fails_and_takes_away_what_it_made(live_server, service):
    said, error = run(live_server.url, "--patience", "0.1")
    assert [bool(step["error"]) for step in said["steps"]][-2:] == [True, False]
    assert "does beat run" in said["steps"][-2]["error"]
    assert "the message is sent" in error
    assert is_clean()


def test_what_a_killed_check_left_is_taken_away_by_the_next(live_server, service, working, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(smoke.Check, "_await_sent", _die)
        killed.setattr(smoke.Check, "_clean", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            run(live_server.url)
    assert not is_clean()
    said, _ = run(live_server.url)
    assert said["ok"], said
    assert is_clean()


def _die(_):
    raise KeyboardInterrupt


def test_somebody_who_is_called_so_and_was_made_by_others_is_left_alone(live_server):
    RecipientFactory(external_id=smoke.PERSON, email="", tags=["a customer"])
    said, error = run(live_server.url)
    assert "others made them" in said["steps"][-1]["error"]
    assert "nothing of an earlier check" in error
    assert Recipient.objects.count() == 1


def test_a_page_of_metrics_that_is_hidden_fails_with_the_remedy(live_server, working):
    said, error = run(live_server.url, "--metrics", f"{live_server.url}/nothing-here")
    assert "--no-metrics" in said["steps"][-1]["error"]
    assert "metrics" in error
    well, _ = run(live_server.url, "--no-metrics", "--channel", "email", "--address", "smoke@example.com")
    assert well["ok"], well
    assert is_clean()


def test_wrong_credentials_are_told_and_not_shown(live_server, monkeypatch):
    monkeypatch.setenv("CLIENT_SECRET", "not-this-one")
    said, error = run(live_server.url)
    assert said["steps"][-1]["error"] == "POST /oauth/token answered 401: see to CLIENT_ID and CLIENT_SECRET"
    assert "not-this-one" not in json.dumps(said) + error


def test_behind_a_proxy_it_may_speak_as_one(live_server, working, settings):
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    _, error = run(live_server.url)
    assert "the client gets a token" in error or "nothing of an earlier check" in error
    well, _ = run(live_server.url, "--as-proxy")
    assert well["ok"], well
