"""The second factor: every door is closed until the code is right; each code is good once, and tries are counted."""

import re
from base64 import b32decode, b32encode
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from urllib.parse import parse_qs, urlsplit

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.test import Client
from django_otp.oath import totp
from oauth2_provider.models import get_grant_model

from audit.models import Action, AuditEvent
from frontend import second_factor, session_life
from frontend.models import Authenticator
from schedules.permissions import Role
from tests.accounts import PASSWORD, account
from tests.factories import BY, NOW
from tests.furniture import furnish
from tests.integration.test_oauth import SignIn
from tests.pages import ACTIONS, ADMIN, PAGES, PARTS, addresses
from tests.second_factor import ACCOUNT, CODE, LOGIN, OWN, SET_UP, Somebody, offered

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quick_hashes(settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher", *settings.PASSWORD_HASHERS]


@pytest.fixture
def somebody() -> Somebody:
    return Somebody()


def _actions() -> list[str]:
    return list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))


# --- Setting it up ----------------------------------------------------------------------------------------------------
def test_a_person_sets_it_up_and_is_shown_ten_codes_once():
    browser = Client()
    browser.force_login(account(Role.ANALYST, password=PASSWORD))
    page = browser.get(SET_UP)
    signed, secret = offered(page)
    assert "no-store" in page["Cache-Control"]
    assert b"<svg" in page.content
    assert not Authenticator.objects.exists()  # nothing is kept of what is only looked at
    typed = {"offer": signed, "password": PASSWORD}
    wrong = browser.post(SET_UP, {**typed, "code": "000000" if totp(secret) else "000001"})
    assert wrong.status_code == 422
    assert offered(wrong) == (signed, secret)  # the app has it by now
    assert not Authenticator.objects.exists()

    done = browser.post(SET_UP, {**typed, "code": f" {totp(secret):06d} "})
    shown = re.findall(r'<code class="ns-secret">([a-z2-9-]+)</code>', done.content.decode())
    assert len(set(shown)) == 10
    assert browser.get("/dashboard/").status_code == 200
    page = browser.get(ACCOUNT).content.decode()
    assert "10 recovery codes are left" in page
    assert not any(code in page for code in shown)
    assert browser.get(SET_UP)["Location"] == ACCOUNT
    event = AuditEvent.objects.get(action=Action.ACCOUNT_FACTOR_ON)
    assert event.payload_diff == {"account": User.objects.get().pk}


def test_who_finds_a_browser_open_can_not_take_the_account_into_his_own_app():
    browser = Client()
    browser.force_login(account(Role.ADMIN, password=PASSWORD))
    signed, secret = offered(browser.get(SET_UP))
    right = {"offer": signed, "code": f"{totp(secret):06d}"}
    answers = [browser.post(SET_UP, {**right, "password": "wrong"}).status_code for _ in range(12)]
    assert answers == [422] * 9 + [429] * 3
    assert browser.post(SET_UP, {**right, "password": PASSWORD}).status_code == 429
    assert browser.post(SET_UP, right).status_code == 422
    assert not Authenticator.objects.exists()


def test_the_picture_needs_no_room_in_the_policy():
    offer = second_factor.offer(account(Role.ADMIN))
    said = parse_qs(urlsplit(offer.address).query)
    assert offer.address.startswith("otpauth://totp/Notification%20scheduler%3Aadmin?")
    assert (said["secret"], said["digits"], said["period"]) == ([offer.secret], ["6"], ["30"])
    drawn = offer.picture
    assert "style" not in drawn
    assert "script" not in drawn
    browser = Client()
    browser.force_login(User.objects.get())
    policy = browser.get(SET_UP)["Content-Security-Policy"]
    assert "unsafe" not in policy


def test_the_database_holds_neither_secret_nor_codes(somebody):
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(d)::text FROM otp_totp_totpdevice d")
        kept = cursor.fetchone()[0]
        cursor.execute("SELECT encode(secret, 'hex') || encode(secret, 'escape') FROM frontend_authenticatorsecret")
        kept += cursor.fetchone()[0]
        cursor.execute("SELECT string_agg(row_to_json(c)::text, '') FROM frontend_recoverycode c")
        kept += cursor.fetchone()[0]
    for spelled in (somebody.secret.hex(), b32encode(somebody.secret).decode()):
        assert spelled.lower() not in kept.lower()
    assert not any(code in kept or code.replace("-", "") in kept for code in somebody.codes)


def test_a_change_of_keys_takes_the_secrets_along(settings, somebody):
    former = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["ab" * 32, *former]
    call_command("rotate_keys")
    settings.ENCRYPTION_KEYS = ["ab" * 32]
    assert second_factor.spend(user=somebody.user, code=somebody.shown())[1] == "app"


def test_a_code_for_which_the_key_is_gone_is_refused_and_a_recovery_code_still_lets_in(settings, somebody):
    settings.ENCRYPTION_KEYS = ["ab" * 32]
    browser = somebody.after_the_password()
    assert browser.post(CODE, {"code": somebody.shown()}).status_code == 422
    assert browser.post(CODE, {"code": somebody.codes[0]}).status_code == 302


def test_what_was_offered_to_one_is_no_good_for_another_nor_twice_nor_late(somebody, monkeypatch):
    other = account(Role.MARKETER)
    offer = second_factor.offer(other)
    code = f"{totp(b32decode(offer.secret)):06d}"
    with pytest.raises(second_factor.TooLate):
        second_factor.turn_on(user=account(Role.ANALYST), signed=offer.signed, code=code, by=BY, now=NOW)
    monkeypatch.setattr(second_factor, "_OFFERED_S", -1)
    with pytest.raises(second_factor.TooLate):
        second_factor.turn_on(user=other, signed=offer.signed, code=code, by=BY, now=NOW)
    monkeypatch.undo()
    second_factor.turn_on(user=other, signed=offer.signed, code=code, by=BY, now=NOW)
    with pytest.raises(second_factor.TooLate):
        second_factor.turn_on(user=other, signed=offer.signed, code=code, by=BY, now=NOW)
    assert Authenticator.objects.filter(user=other).count() == 1


# --- Signing in -------------------------------------------------------------------------------------------------------
def test_every_door_is_closed_between_password_and_code(service, somebody):
    """As it is to a stranger, whom it leads to the sign-in, and that to the code."""
    values = furnish(service)
    browser = somebody.after_the_password()
    paths = [path for _, path in addresses({**PAGES, **PARTS, **ACTIONS}, values)]
    before = AuditEvent.objects.count()
    for path in [*paths, *ADMIN, *OWN, "/oauth/authorize?client_id=x"]:
        for answer in (browser.get(path), browser.post(path, {"code": "1"})):
            assert answer.status_code in (302, 405), (path, answer.status_code)
            if answer.status_code == 302:
                assert answer["Location"].partition("?")[0] == "/admin/login/", path
    assert AuditEvent.objects.count() == before
    assert browser.get("/api/v1/schedules").status_code == 401
    led = browser.get("/admin/login/?next=/ledger/")
    assert led["Location"] == f"{CODE}?next=%2Fledger%2F"
    assert browser.post(led["Location"], {"code": somebody.shown()})["Location"] == "/ledger/"
    assert browser.get("/ledger/").status_code == 200


def test_no_app_gets_a_code_for_who_waits(somebody):
    scene = SignIn()
    scene.browser = somebody.after_the_password()
    for method in (scene.browser.get, scene.browser.post):
        answer = method("/oauth/authorize", scene.query() | {"allow": "Authorize"})
        assert answer["Location"].startswith("/admin/login/")
    assert not get_grant_model().objects.exists()


def test_the_sign_in_is_told_once_the_code_was_right(somebody):
    before = len(_actions())
    browser = somebody.after_the_password()
    assert _actions()[before:] == []
    browser.post(CODE, {"code": somebody.wrong()})
    browser.post(CODE, {"code": somebody.shown()})
    assert _actions()[before:] == [Action.ACCOUNT_FACTOR_REFUSE, Action.ACCOUNT_SIGN_IN]
    assert AuditEvent.objects.first().payload_diff == {"account": somebody.user.pk, "by_code": "app"}


def test_the_session_has_another_key_after_the_code_and_ends_soon_without_it(somebody):
    browser = somebody.after_the_password()
    waiting = browser.cookies["sessionid"].value
    assert browser.session.get_expiry_age() <= 15 * 60
    browser.post(CODE, {"code": somebody.shown()})
    assert browser.cookies["sessionid"].value != waiting
    assert browser.session.get_expiry_age() > 12 * 3600
    assert Client(headers={"Cookie": f"sessionid={waiting}"}).get(CODE)["Location"] == "/"
    assert Client(headers={"Cookie": f"sessionid={waiting}"}).get("/dashboard/").status_code == 302


def test_the_place_of_who_waits_is_not_prolonged_by_looking(somebody):
    browser = somebody.after_the_password()
    ends = Session.objects.get().expire_date
    session = browser.session
    session[session_life.SEEN] -= 120  # so that the next request is noted in it
    session.save()
    assert browser.get(CODE).status_code == 200
    assert browser.session[session_life.SEEN] > session[session_life.SEEN]
    assert Session.objects.get().expire_date == ends


def test_a_code_is_good_once(somebody):
    code = somebody.shown()
    assert somebody.after_the_password().post(CODE, {"code": code}).status_code == 302
    assert somebody.after_the_password().post(CODE, {"code": code}).status_code == 422


def test_a_recovery_code_is_good_once_however_it_is_written(somebody):
    first, second, *_ = somebody.codes
    assert somebody.after_the_password().post(CODE, {"code": first}).status_code == 302
    assert somebody.after_the_password().post(CODE, {"code": first}).status_code == 422
    written = f" {second.replace('-', ' ').upper()} "
    assert somebody.after_the_password().post(CODE, {"code": written}).status_code == 302
    assert second_factor.codes_left(somebody.user) == 8
    assert AuditEvent.objects.first().payload_diff["by_code"] == "recovery"


@pytest.mark.parametrize("code", ["", "0", "12345", "1234567", "١٢٣٤٥٦", "-12345", "1e5", "a" * 64, "a" * 5_000, "\0"])
def test_nonsense_is_no_code(somebody, code):
    assert somebody.after_the_password().post(CODE, {"code": code}).status_code == 422


def test_the_codes_of_one_are_nothing_to_another(somebody):
    other = Somebody(Role.MARKETER)
    assert somebody.after_the_password().post(CODE, {"code": other.shown()}).status_code == 422
    assert somebody.after_the_password().post(CODE, {"code": other.codes[0]}).status_code == 422
    assert second_factor.codes_left(other.user) == 10


@pytest.mark.parametrize("evil", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"])
def test_the_code_leads_to_pages_of_ours_alone(somebody, evil):
    browser = somebody.after_the_password()
    answer = browser.post(f"{CODE}?next={evil}", {"code": somebody.shown()})
    assert (answer.status_code, answer["Location"]) == (302, "/")


def test_a_session_that_was_open_when_it_was_turned_on_waits(somebody):
    other = account(Role.MARKETER, password=PASSWORD)
    here, there = Client(), Client()
    here.force_login(other)
    there.force_login(other)
    signed, secret = offered(here.get(SET_UP))
    here.post(SET_UP, {"offer": signed, "password": PASSWORD, "code": f"{totp(secret):06d}"})
    assert here.get("/dashboard/").status_code == 200
    assert there.get("/dashboard/").status_code == 302
    assert there.get("/admin/login/?next=/dashboard/")["Location"].startswith(CODE)


def test_who_waits_may_leave(somebody):
    browser = somebody.after_the_password()
    kept = browser.cookies["sessionid"].value
    browser.post("/admin/logout/")
    assert not Session.objects.filter(pk=kept).exists()
    assert Client(headers={"Cookie": f"sessionid={kept}"}).get(CODE)["Location"] == "/"


def test_a_person_without_a_factor_is_asked_for_none():
    account(Role.ADMIN, password=PASSWORD)
    browser = Client()
    assert browser.post(LOGIN, {"username": "admin", "password": PASSWORD})["Location"] == "/"
    assert browser.get("/dashboard/").status_code == 200
    assert browser.get(CODE)["Location"] == "/"


# --- Guessing and racing ----------------------------------------------------------------------------------------------
@pytest.fixture
def looked_at(monkeypatch) -> list[str]:
    """Every code that is compared with the app's or the kept ones."""
    seen: list[str] = []
    real = second_factor.spend

    def spend(*, user, code):
        seen.append(code)
        return real(user=user, code=code)

    monkeypatch.setattr(second_factor, "spend", spend)
    return seen


def test_wrong_codes_and_wrong_passwords_are_ten_together(somebody, looked_at):
    for _ in range(4):
        Client().post(LOGIN, {"username": "admin", "password": "wrong"})
    browser = somebody.after_the_password()
    answers = [browser.post(CODE, {"code": somebody.wrong()}).status_code for _ in range(8)]
    assert answers == [422] * 5 + [429] * 3
    assert len(looked_at) == 6
    refused = browser.post(CODE, {"code": somebody.codes[0]})  # nor is what is right looked at
    assert (refused.status_code, refused["Retry-After"]) == (429, "900")
    assert b"rests for a quarter of an hour" in refused.content
    assert Client().post(LOGIN, {"username": "admin", "password": PASSWORD}).status_code == 429
    AccessAttempt.objects.update(attempt_time=F("attempt_time") - timedelta(minutes=15, seconds=1))
    assert browser.post(CODE, {"code": somebody.codes[0]}).status_code == 302


def test_what_was_typed_as_a_code_is_kept_nowhere(somebody):
    somebody.after_the_password().post(CODE, {"code": "canary-of-a-code"})
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(a)::text FROM axes_accessattempt a")
        kept = " ".join(row[0] for row in cursor.fetchall())
        cursor.execute("SELECT row_to_json(a)::text FROM notification_audit a")
        kept += " ".join(row[0] for row in cursor.fetchall())
    assert kept
    assert "canary" not in kept


def _at_once(browsers: list[Client], codes: list[str], *, path: str = CODE) -> list[int]:
    start = Barrier(len(browsers))

    def send(pair: tuple[Client, str]) -> int:
        try:
            start.wait(30)
            return pair[0].post(path, {"code": pair[1]}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(len(browsers)) as pool:
        return sorted(pool.map(send, zip(browsers, codes, strict=True)))


@pytest.mark.django_db(transaction=True)
def test_of_fifty_tries_at_once_ten_are_looked_at(looked_at):
    somebody = Somebody()
    browsers = [somebody.after_the_password() for _ in range(50)]
    answers = _at_once(browsers, [somebody.wrong()] * 50)
    assert len(looked_at) == 10
    assert answers == [422] * 9 + [429] * 41


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_of_two_who_send_the_same_code_at_once_one_is_let_in(kind):
    somebody = Somebody()
    code = somebody.shown() if kind == "app" else somebody.codes[0]
    assert _at_once([somebody.after_the_password() for _ in range(2)], [code] * 2) == [302, 422]
