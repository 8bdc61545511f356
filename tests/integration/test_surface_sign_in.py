"""Guessing passwords: ten tries an account in a quarter of an hour, from however many addresses; programs go on."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_network
from threading import Barrier

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.test import Client, RequestFactory

from frontend import clients
from frontend.sign_in_limits import client_address
from schedules.permissions import Role, Scope
from tests.accounts import PASSWORD, account
from tests.factories import BY, NOW
from tests.integration.test_oauth import ask

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/?next=/"
LIMIT = 10


@pytest.fixture
def _quick_hashes(settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher", *settings.PASSWORD_HASHERS]


def _try(password: str, *, name: str = "admin", address: str = "198.51.100.1") -> int:
    """The answer's status: 302 in, 200 wrong, 429 refused."""
    browser = Client(REMOTE_ADDR=address)
    return browser.post(LOGIN, {"username": name, "password": password}).status_code


@pytest.fixture
def looked_at(monkeypatch) -> list[str]:
    """Every password that is compared with an account's, as it happens."""
    seen: list[str] = []
    real = User.check_password

    def check(self: User, raw: str) -> bool:
        seen.append(raw)
        return real(self, raw)

    monkeypatch.setattr(User, "check_password", check)
    return seen


def _quarter_of_an_hour_passes() -> None:
    AccessAttempt.objects.update(attempt_time=F("attempt_time") - timedelta(minutes=15, seconds=1))


@pytest.mark.django_db(transaction=True)
def test_fifty_addresses_at_once_have_ten_tries_and_the_owner_gets_in_again(looked_at):
    account(Role.ADMIN, password=PASSWORD)
    start = Barrier(50)

    def guess(number: int) -> int:
        try:
            start.wait(30)
            return _try(f"guess {number}", address=f"203.0.113.{number}")
        finally:
            connection.close()

    with ThreadPoolExecutor(50) as pool:
        answers = sorted(pool.map(guess, range(50)))
    assert len(looked_at) == LIMIT
    assert answers.count(429) == 50 - LIMIT + 1  # the tenth says already that it was the last
    assert answers.count(200) == LIMIT - 1

    # The right password is not looked at either, wherever it comes from; tries meanwhile do not prolong the rest.
    assert _try(PASSWORD, address="192.0.2.7") == 429
    assert len(looked_at) == LIMIT
    _quarter_of_an_hour_passes()
    assert _try(PASSWORD, address="192.0.2.7") == 302


@pytest.mark.usefixtures("_quick_hashes")
def test_an_admin_ends_the_rest_sooner():
    account(Role.ADMIN, password=PASSWORD)
    for number in range(LIMIT):
        _try("wrong", address=f"203.0.113.{number}")
    assert _try(PASSWORD) == 429
    call_command("axes_reset_username", "admin")
    assert _try(PASSWORD) == 302


@pytest.mark.usefixtures("_quick_hashes")
def test_other_accounts_sign_in_meanwhile():
    account(Role.ADMIN, password=PASSWORD)
    account(Role.ANALYST, password=PASSWORD)
    for _ in range(LIMIT):
        _try("wrong")
    assert _try(PASSWORD) == 429
    assert _try(PASSWORD, name="analyst") == 302


@pytest.mark.usefixtures("_quick_hashes")
def test_an_address_that_goes_from_account_to_account_is_refused(settings, looked_at):
    settings.SIGN_IN_TRIES_PER_ADDRESS = 20
    account(Role.ADMIN, password=PASSWORD)
    answers = [_try("wrong", name=f"nobody{number}") for number in range(25)]
    assert answers == [200] * 19 + [429] * 6
    assert _try(PASSWORD) == 429
    assert not looked_at
    assert _try(PASSWORD, address="192.0.2.9") == 302


@pytest.mark.usefixtures("_quick_hashes")
def test_an_account_that_is_none_is_refused_as_one_that_is():
    account(Role.ADMIN, password=PASSWORD)
    assert [_try("wrong") for _ in range(LIMIT + 1)] == [
        _try("wrong", name="nobody", address="203.0.113.1") for _ in range(LIMIT + 1)
    ]


@pytest.mark.usefixtures("_quick_hashes")
def test_the_form_says_why_and_the_answer_when():
    account(Role.ADMIN, password=PASSWORD)
    for _ in range(LIMIT):
        _try("wrong")
    answer = Client(REMOTE_ADDR="198.51.100.1").post(LOGIN, {"username": "admin", "password": PASSWORD})
    assert "signing in rests for 15 minutes" in answer.content.decode()
    assert answer["Retry-After"] == "900"


@pytest.mark.usefixtures("_quick_hashes")
def test_what_was_typed_is_not_kept():
    account(Role.ADMIN, password=PASSWORD)
    _try("canary-of-a-password")
    (attempt,) = AccessAttempt.objects.all()
    kept = " ".join(str(getattr(attempt, field.name)) for field in AccessAttempt._meta.fields)
    assert "canary" not in kept


@pytest.mark.usefixtures("_quick_hashes")
def test_a_service_signs_in_however_often_its_secret_was_wrong():
    made = clients.create_service(name="shop", scopes=[Scope.READ], by=BY, now=NOW)
    account(Role.ADMIN, name=made.client.client_id, password=PASSWORD)
    for _ in range(LIMIT):
        _try("wrong", name=made.client.client_id, address="127.0.0.1")
        assert ask({"grant_type": "client_credentials"}, basic=(made.client.client_id, "wrong")).status_code == 401
    attempts = AccessAttempt.objects.get().failures_since_start
    assert attempts == LIMIT  # those of the page alone
    answer = ask({"grant_type": "client_credentials"}, basic=(made.client.client_id, made.secret))
    assert answer.status_code == 200, answer.content


@pytest.mark.parametrize(
    ("remote", "forwarded", "trusted", "found"),
    [
        ("198.51.100.1", "", [], "198.51.100.1"),
        ("198.51.100.1", "10.9.9.9", [], "198.51.100.1"),
        ("10.0.0.2", "198.51.100.1", ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.2", "6.6.6.6, 198.51.100.1", ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.2", "6.6.6.6, 198.51.100.1, 10.0.0.3", ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.2", "", ["10.0.0.0/8"], "10.0.0.2"),
        ("10.0.0.2", "6.6.6.6, nonsense", ["10.0.0.0/8"], "10.0.0.2"),
        ("2001:db8:1:2:3:4:5:6", "", [], "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::9", "", [], "2001:db8:1:2::"),
        ("::ffff:198.51.100.1", "", [], "198.51.100.1"),
        ("", "198.51.100.1", ["10.0.0.0/8"], None),
    ],
)
def test_only_proxies_that_are_trusted_say_who_came(settings, remote, forwarded, trusted, found):
    settings.TRUSTED_PROXIES = [ip_network(each) for each in trusted]
    request = RequestFactory().get("/", REMOTE_ADDR=remote, headers={"X-Forwarded-For": forwarded})
    assert client_address(request) == found
