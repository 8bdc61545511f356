"""Guessing passwords: ten tries an account in a quarter of an hour, from however many addresses; programs go on."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_network
from threading import Barrier
from urllib.parse import urlencode

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.test import Client, RequestFactory

from audit.models import Action, AuditEvent
from frontend import clients
from frontend.sign_in_limits import client_address
from schedules.permissions import Role, Scope
from tests.accounts import PASSWORD, account
from tests.api import Api
from tests.factories import BY, NOW
from tests.integration.test_oauth import SignIn, ask

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


def test_what_was_typed_as_a_name_is_thrown_away_once_the_try_counts_no_more():
    _try("wrong", name="anna@example.com")
    _quarter_of_an_hour_passes()
    AccessAttempt.objects.create(username="just now", failures_since_start=1)
    call_command("tidy", verbosity=0)
    assert list(AccessAttempt.objects.values_list("username", flat=True)) == ["just now"]


@pytest.mark.usefixtures("_quick_hashes")
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


@pytest.mark.usefixtures("_quick_hashes")
def test_one_name_has_ten_tries_however_it_is_spelled(looked_at):
    """The form makes one name of full-width letters and of spaces around, before anything is counted."""
    account(Role.ADMIN, password=PASSWORD)
    spellings = ["admin", "ａｄｍｉｎ", " admin ", "ａdmin"]
    answers = [_try("wrong", name=spellings[number % 4]) for number in range(LIMIT + 2)]
    assert answers == [200] * (LIMIT - 1) + [429] * 3
    assert len(looked_at) == LIMIT


def test_an_account_that_is_none_takes_as_long_as_one_that_is(monkeypatch):
    """As many passwords are hashed, which is what takes time."""
    hashed: list[str] = []
    real = PBKDF2PasswordHasher.encode
    monkeypatch.setattr(PBKDF2PasswordHasher, "iterations", 1_000)

    def encode(self, password, salt, iterations=None):
        hashed.append(password)
        return real(self, password, salt, iterations)

    account(Role.ADMIN, password=PASSWORD)
    account(Role.ANALYST, password=None)
    gone = account(Role.MARKETER, password=PASSWORD)
    gone.is_active = False
    gone.save()
    monkeypatch.setattr(PBKDF2PasswordHasher, "encode", encode)
    found = {}
    for name in ("admin", "nobody", "analyst", "marketer"):
        hashed.clear()
        assert _try("wrong", name=name) == 200
        found[name] = hashed.count("wrong") or len(hashed)
    assert found == dict.fromkeys(found, 1)


@pytest.mark.usefixtures("_quick_hashes")
def test_the_old_password_has_as_few_tries_as_at_the_sign_in(looked_at):
    """Whoever finds a browser open could else find out the password, and keep the account."""
    person = account(Role.MARKETER, password=PASSWORD)
    browser = Client()
    browser.force_login(person)
    forms = [
        {"old_password": f"canary {n}", "new_password1": "canary-n", "new_password2": "canary-n"} for n in range(12)
    ]
    answers = [browser.post("/admin/password_change/", form).status_code for form in forms]
    assert answers == [200] * (LIMIT - 1) + [429] * 3
    assert len(looked_at) == LIMIT
    right = {"old_password": PASSWORD, "new_password1": "another-42-word", "new_password2": "another-42-word"}
    assert browser.post("/admin/password_change/", right).status_code == 429
    assert _try(PASSWORD, name="marketer") == 429
    (attempt,) = AccessAttempt.objects.all()
    assert "canary" not in " ".join(str(getattr(attempt, field.name)) for field in AccessAttempt._meta.fields)


@pytest.mark.usefixtures("_quick_hashes")
@pytest.mark.parametrize("whose", ["own", "by an admin"])
def test_a_changed_password_ends_sessions_and_what_apps_have(whose):
    scene = SignIn()
    tokens = scene.tokens()
    there = Client()
    there.force_login(scene.person)
    new = {"password1": "another-42-word", "password2": "another-42-word", "usable_password": "true"}
    if whose == "own":
        own = {"old_password": PASSWORD, "new_password1": "another-42-word", "new_password2": "another-42-word"}
        assert scene.browser.post("/admin/password_change/", own).status_code == 302
        assert scene.browser.get("/dashboard/").status_code == 200
    else:
        admin = Client()
        admin.force_login(account(Role.ADMIN))
        assert admin.post(f"/admin/auth/user/{scene.person.pk}/password/", new).status_code == 302
    assert there.get("/dashboard/").status_code == 302
    assert Api(tokens["access_token"]).get("schedules").status_code == 401
    assert scene.refresh(tokens["refresh_token"]).status_code == 400
    event = AuditEvent.objects.get(action=Action.ACCOUNT_UPDATE)
    assert event.payload_diff == {"account": scene.person.pk, "password": "changed"}


def test_no_admin_sets_his_own_password_without_the_present_one():
    person, browser = account(Role.ADMIN, password=PASSWORD), Client()
    browser.force_login(person)
    new = {"password1": "another-42-word", "password2": "another-42-word", "usable_password": "true"}
    for path in (f"/admin/auth/user/{person.pk}/password/", f"/admin/auth/user/0{person.pk}/password/"):
        assert browser.post(path, new)["Location"] == "/admin/password_change/"
        assert browser.get(path)["Location"] == "/admin/password_change/"
    person.refresh_from_db()
    assert person.check_password(PASSWORD)


@pytest.mark.usefixtures("_quick_hashes")
@pytest.mark.parametrize("evil", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"])
def test_signing_in_leads_to_pages_of_ours_alone(evil):
    account(Role.ADMIN, password=PASSWORD)
    typed = {"username": "admin", "password": PASSWORD}
    for answer in (
        Client().post(f"/admin/login/?{urlencode({'next': evil})}", typed),
        Client().post(LOGIN, {**typed, "next": evil}),
        Client().post("/language", {"language": "de", "next": evil}),
        Client().post("/display", {"times": "utc", "next": evil}),
    ):
        assert (answer.status_code, answer["Location"]) == (302, "/")


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "evil.example@testserver", ""])
def test_no_page_is_made_for_a_host_that_is_not_ours(host):
    for path in (LOGIN, "/sign-in/code", "/.well-known/oauth-authorization-server"):
        answer = Client().get(path, headers={"Host": host, "X-Forwarded-Host": "evil.example"})
        assert answer.status_code == 400
        assert "evil.example" not in answer.content.decode()


def test_other_methods_sign_nobody_in():
    account(Role.ADMIN, password=PASSWORD)
    browser = Client()
    for method in ("head", "options", "put", "patch", "delete"):
        for path in (LOGIN, "/sign-in/code", "/oauth/token", "/oauth/authorize"):
            answer = getattr(browser, method)(path, {"username": "admin", "password": PASSWORD})
            assert answer.status_code < 500, (method, path)
    assert "_auth_user_id" not in browser.session


def test_who_has_no_role_any_more_can_sign_out():
    browser = Client()
    browser.force_login(account(None))
    kept = browser.cookies["sessionid"].value
    browser.post("/admin/logout/")
    assert not Session.objects.filter(pk=kept).exists()


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
        ("fe80::1%eth0", "", [], "fe80::"),
        ("10.0.0.2", "198.51.100.1:4711", ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.2", "[2001:db8:1:2::9]:443", ["10.0.0.0/8"], "2001:db8:1:2::"),
        ("", "198.51.100.1", ["10.0.0.0/8"], None),
    ],
)
def test_only_proxies_that_are_trusted_say_who_came(settings, remote, forwarded, trusted, found):
    settings.TRUSTED_PROXIES = [ip_network(each) for each in trusted]
    request = RequestFactory().get("/", REMOTE_ADDR=remote, headers={"X-Forwarded-For": forwarded})
    assert client_address(request) == found
