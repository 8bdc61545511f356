"""One's own account: the second factor turned off and reset, a role that must have one, signing out everywhere."""

from base64 import b32decode
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_otp.oath import totp
from oauth2_provider.models import get_access_token_model

from audit.models import Action, AuditEvent
from frontend import clients, second_factor, session_life, verified
from frontend.models import Authenticator, RecoveryCode
from schedules.permissions import Role
from tests.accounts import PASSWORD, account
from tests.api import Api
from tests.factories import BY, NOW
from tests.integration.test_oauth import BACK, SignIn
from tests.second_factor import ACCOUNT, CODE, EVERYWHERE, LOGIN, OFF, SET_UP, Somebody, offered

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quick_hashes(settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher", *settings.PASSWORD_HASHERS]


@pytest.fixture
def somebody() -> Somebody:
    return Somebody()


def _actions() -> list[str]:
    return list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))


# --- Turning it off, and resetting ------------------------------------------------------------------------------------
def test_it_is_turned_off_with_a_code(somebody):
    browser = somebody.inside()
    assert browser.post(OFF, {"code": somebody.wrong()}).status_code == 422
    assert Authenticator.objects.exists()
    assert browser.post(OFF, {"code": somebody.shown()})["Location"] == ACCOUNT
    assert not Authenticator.objects.exists()
    assert not RecoveryCode.objects.exists()
    assert browser.get("/dashboard/").status_code == 200
    assert Client().post(LOGIN, {"username": "admin", "password": PASSWORD})["Location"] == "/"
    assert _actions()[-2:] == [Action.ACCOUNT_FACTOR_OFF, Action.ACCOUNT_SIGN_IN]


def test_an_admin_resets_somebodys_but_not_his_own():
    lost, admin = Somebody(Role.MARKETER), Somebody(Role.ADMIN)
    browser = admin.inside()
    users = reverse("admin:auth_user_changelist")
    chosen = {"action": "reset_second_factor", "_selected_action": [lost.user.pk, admin.user.pk]}
    assert b"1 second factor was reset" in browser.post(users, chosen, follow=True).content
    assert list(Authenticator.objects.values_list("user", flat=True)) == [admin.user.pk]
    event = AuditEvent.objects.get(action=Action.ACCOUNT_FACTOR_RESET)
    assert (event.actor_id, event.payload_diff) == (f"user:{admin.user.pk}", {"account": lost.user.pk})
    assert Client().post(LOGIN, {"username": "marketer", "password": PASSWORD})["Location"] == "/"


def test_who_is_no_admin_resets_nobodys(somebody):
    browser = Client()
    browser.force_login(account(Role.MARKETER))
    chosen = {"action": "reset_second_factor", "_selected_action": [somebody.user.pk]}
    assert browser.post(reverse("admin:auth_user_changelist"), chosen).status_code == 403
    assert Authenticator.objects.exists()


def test_an_admin_signs_somebody_out_everywhere():
    there, admin, other = Client(), Client(), Client()
    person = account(Role.MARKETER)
    for browser, user in ((there, person), (admin, account(Role.ADMIN)), (other, account(Role.ANALYST))):
        browser.force_login(user)
    chosen = {"action": "sign_out", "_selected_action": [person.pk]}
    done = admin.post(reverse("admin:auth_user_changelist"), chosen, follow=True)
    assert b"1 session has ended" in done.content
    assert [browser.get("/dashboard/").status_code for browser in (there, admin, other)] == [302, 200, 200]
    assert AuditEvent.objects.get().payload_diff == {"account": person.pk, "sessions": 1}


def test_a_reset_lets_in_nobody_who_waits_with_a_stolen_password(somebody):
    inside, thief = somebody.inside(), somebody.after_the_password()
    app = clients.create_app(name="Planner", redirect_uris=[BACK], by=BY, now=NOW).client
    later = timezone.now() + timedelta(hours=1)
    get_access_token_model().objects.create(user=somebody.user, application=app, token="t", expires=later)
    second_factor.reset(user_id=somebody.user.pk, by=BY, now=NOW)
    assert [each.get("/dashboard/").status_code for each in (inside, thief)] == [302, 302]
    assert not Session.objects.exists()
    assert not get_access_token_model().objects.exists()


def test_what_an_app_got_by_the_password_alone_ends_as_the_factor_is_turned_on():
    scene = SignIn()
    tokens = scene.tokens()
    assert Api(tokens["access_token"]).get("schedules").status_code == 200
    offer = second_factor.offer(scene.person)
    code = f"{totp(b32decode(offer.secret)):06d}"
    second_factor.turn_on(user=scene.person, signed=offer.signed, code=code, by=BY, now=NOW)
    assert Api(tokens["access_token"]).get("schedules").status_code == 401
    assert scene.refresh(tokens["refresh_token"]).status_code == 400


def test_an_admin_signs_himself_out_with_others():
    browser, admin = Client(), account(Role.ADMIN)
    browser.force_login(admin)
    chosen = {"action": "sign_out", "_selected_action": [admin.pk]}
    session = browser.session
    session[session_life.SEEN] -= 120  # so that this request is noted in it
    session.save()
    assert browser.post(reverse("admin:auth_user_changelist"), chosen).status_code == 302
    assert browser.get("/dashboard/").status_code == 302


def test_the_only_admin_has_his_reset_on_the_server(somebody):
    call_command("reset_second_factor", "admin")
    assert not Authenticator.objects.exists()
    for name in ("admin", "nobody"):
        with pytest.raises(CommandError):
            call_command("reset_second_factor", name)


# --- Where a role must have one ---------------------------------------------------------------------------------------
def test_a_role_that_must_have_one_is_let_in_once_it_has(settings):
    settings.SECOND_FACTOR_REQUIRED_FOR = ["ADMIN"]
    admin, marketer = account(Role.ADMIN, password=PASSWORD), account(Role.MARKETER)
    browser, open_before, other = Client(), Client(), Client()
    open_before.force_login(admin)
    other.force_login(marketer)
    assert other.get("/dashboard/").status_code == 200
    assert open_before.get("/dashboard/").status_code == 302
    led = browser.post("/admin/login/?next=/ledger/", {"username": "admin", "password": PASSWORD})
    assert led["Location"] == f"{SET_UP}?next=%2Fledger%2F"
    assert browser.get("/ledger/").status_code == 302
    assert browser.get("/admin/")["Location"].startswith("/admin/login/")
    signed, secret = offered(browser.get(led["Location"]))
    done = browser.post(led["Location"], {"offer": signed, "code": f"{totp(secret):06d}"})
    assert b'href="/ledger/"' in done.content
    assert browser.get("/ledger/").status_code == 200


def test_whose_session_was_open_before_his_role_demanded_one_gives_his_password_once_more(settings):
    admin, browser = account(Role.ADMIN, password=PASSWORD), Client()
    browser.force_login(admin)
    session = browser.session
    session[session_life.BEGUN] -= 16 * 60
    session.save()
    settings.SECOND_FACTOR_REQUIRED_FOR = ["ADMIN"]
    signed, secret = offered(browser.get(SET_UP))
    right = {"offer": signed, "code": f"{totp(secret):06d}"}
    assert browser.post(SET_UP, right).status_code == 422
    assert not Authenticator.objects.exists()
    assert browser.post(SET_UP, {**right, "password": PASSWORD}).status_code == 200
    assert Authenticator.objects.exists()


# --- One's own account ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", [*Role, None])
def test_whoever_signs_in_has_an_account_page_and_strangers_have_none(role):
    browser = Client()
    for path in (ACCOUNT, SET_UP, OFF):
        assert browser.get(path)["Location"].startswith("/admin/login/"), path
    assert browser.post(EVERYWHERE)["Location"].startswith("/admin/login/")
    browser.force_login(account(role))
    page = browser.get(ACCOUNT)
    assert page.status_code == 200
    assert b"Set it up" in page.content
    assert browser.get(OFF)["Location"] == ACCOUNT


def test_forms_of_the_account_need_their_token(somebody):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(account(Role.MARKETER))
    assert {browser.post(path).status_code for path in [SET_UP, OFF, EVERYWHERE, CODE]} == {403}


def test_signing_out_everywhere_ends_every_session_and_token_of_the_person_and_nobody_elses(somebody):
    here, there, waiting = somebody.inside(), somebody.inside(), somebody.after_the_password()
    other = Client()
    other.force_login(account(Role.ANALYST))
    scene = SignIn()
    scene.person.delete()
    scene.person, scene.browser = somebody.user, here
    scene.browser.force_login = lambda _: None
    tokens = scene.tokens()
    assert Api(tokens["access_token"]).get("schedules").status_code == 200
    assert here.post(EVERYWHERE).status_code == 302
    for browser in (here, there, waiting):
        assert browser.get("/dashboard/").status_code == 302
        assert browser.get(CODE)["Location"] == "/"
    assert other.get("/dashboard/").status_code == 200
    assert Api(tokens["access_token"]).get("schedules").status_code == 401
    assert scene.refresh(tokens["refresh_token"]).status_code == 400
    event = AuditEvent.objects.get(action=Action.ACCOUNT_END_SESSIONS)
    assert event.payload_diff == {"account": somebody.user.pk, "sessions": 3}


def test_who_the_person_is_costs_no_statement_more_than_before(somebody, django_assert_num_queries):
    session = somebody.inside().session
    assert session["otp_device_id"]  # read by now
    request = type("Request", (), {"session": session})()
    with django_assert_num_queries(1):
        assert verified._who(request).pk == somebody.user.pk


def test_an_account_with_a_factor_is_deleted_whole(somebody):
    gone = Somebody(Role.MARKETER)
    done = somebody.inside().post(reverse("admin:auth_user_delete", args=[gone.user.pk]), {"post": "yes"})
    assert done.status_code == 302
    assert list(Authenticator.objects.values_list("user", flat=True)) == [somebody.user.pk]
    assert RecoveryCode.objects.count() == 10
