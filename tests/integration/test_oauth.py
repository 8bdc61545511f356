"""Tokens: how services and people get them, what of them is kept, and how they end."""

import base64
import hashlib
import io
import json
import time
from datetime import timedelta
from secrets import token_urlsafe
from urllib.parse import parse_qs, urlsplit

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client as Browser
from django.urls import reverse
from django.utils import timezone
from oauth2_provider.models import AccessToken, Grant, RefreshToken

from audit.models import Action, AuditEvent
from frontend import clients
from frontend.models import Client, IdempotencyKey
from scheduler_project.tasks import tidy
from schedules.permissions import Role, Scope
from tests.accounts import PASSWORD, account, signed_in
from tests.api import READ_WRITE, Api, service_client, token
from tests.factories import BY, NOW, RecipientFactory

pytestmark = pytest.mark.django_db

BACK = "http://127.0.0.1:8123/back"


@pytest.fixture(autouse=True)
def _roomy(settings) -> None:
    settings.API_BURST = 10_000


def run(name: str, *arguments: str) -> dict[str, str]:
    out = io.StringIO()
    call_command(name, *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def ask(fields: dict[str, str], *, basic: tuple[str, str] | None = None, path: str = "token"):
    headers = {}
    if basic:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
    return Browser(raise_request_exception=False).post(f"/oauth/{path}", fields, headers=headers)


# --- Services ---------------------------------------------------------------------------------------------------------


def test_a_service_is_made_gets_a_token_and_calls():
    made = run("create_service_client", "billing")
    answer = ask({"grant_type": "client_credentials"}, basic=(made["client_id"], made["client_secret"]))
    assert answer.status_code == 200, answer.content
    got = answer.json()
    assert got["token_type"] == "Bearer"
    assert got["expires_in"] == 900
    assert got["scope"] == READ_WRITE
    assert "refresh_token" not in got
    assert answer["Cache-Control"] == "no-store"
    assert Api(got["access_token"]).get("schedules").status_code == 200
    in_body = {"grant_type": "client_credentials", **{key: made[key] for key in ("client_id", "client_secret")}}
    assert ask({**in_body, "scope": Scope.READ}).json()["scope"] == Scope.READ


def test_a_new_client_is_in_the_audit_without_its_secret():
    made = run("create_service_client", "billing", "--scopes", Scope.READ)
    event = AuditEvent.objects.get(action=Action.CLIENT_CREATE)
    client = Client.objects.get()
    assert event.actor_id == "system:shell"
    assert event.payload_diff["client"] == client.pk
    assert event.payload_diff["scopes"] == [None, Scope.READ]
    assert made["client_secret"] not in json.dumps(event.payload_diff)
    assert client.client_secret.startswith("pbkdf2_secret$1$")
    assert made["client_secret"] not in client.client_secret


def test_the_secret_is_printed_once_and_in_words():
    out = io.StringIO()
    call_command("create_service_client", "billing", stdout=out)
    assert Client.objects.get().client_id in out.getvalue()
    assert "not shown again" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["billing", "--scopes", "inbox"], "A service has no inbox"),
        (["billing", "--scopes", "notification:admin"], "There is no scope"),
        (["billing", "--scopes", "notification:read notification:write"], "There is no scope"),
        (["  "], "Give the client a name"),
        (["a\nb"], "Give the client a name"),
    ],
)
def test_a_client_that_can_not_be_is_refused_in_words(arguments, words):
    with pytest.raises(CommandError, match=words):
        call_command("create_service_client", *arguments)
    assert not Client.objects.exists()
    assert not AuditEvent.objects.exists()


def test_a_service_never_gets_the_inbox_scope_or_more_than_its_own():
    client = service_client(scopes=f"{Scope.READ} {Scope.INBOX}")
    Client.objects.filter(pk=client.pk).update(client_secret="plain")
    for scope in (Scope.INBOX, Scope.WRITE, "*", "notification:read inbox"):
        refused = ask({"grant_type": "client_credentials", "scope": scope}, basic=(client.client_id, "plain"))
        assert refused.status_code == 400
        assert refused.json()["error"] == "invalid_scope"
    assert ask({"grant_type": "client_credentials"}, basic=(client.client_id, "plain")).json()["scope"] == Scope.READ


def test_asking_for_a_token_costs_milliseconds():
    made = run("create_service_client", "billing")
    basic = (made["client_id"], made["client_secret"])
    ask({"grant_type": "client_credentials"}, basic=basic)
    took = []
    for _ in range(5):
        begun = time.thread_time()
        assert ask({"grant_type": "client_credentials"}, basic=basic).status_code == 200
        took.append(time.thread_time() - begun)
    assert min(took) < 0.1  # a hash for passwords alone takes several times as long


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "status"),
    [
        ({}, "unsupported_grant_type", 400),
        ({"grant_type": "password", "username": "a", "password": "b"}, "unsupported_grant_type", 400),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:device_code"}, "unsupported_grant_type", 400),
        ({"grant_type": "implicit"}, "unsupported_grant_type", 400),
        ({"grant_type": "client_credentials"}, "invalid_client", 401),
        ({"grant_type": "client_credentials", "client_id": "x", "client_secret": "y"}, "invalid_client", 401),
        ({"grant_type": "client_credentials", "client_id": "a\0"}, "invalid_request", 400),
        ({"grant_type": "authorization_code", "code": "a\0", "client_id": "x"}, "invalid_request", 400),
        ({"grant_type": "authorization_code", "code": "a", "client_id": "x"}, "invalid_client", 401),
        ({"grant_type": "refresh_token", "refresh_token": "x" * 100_000}, "invalid_client", 401),
        ({"grant_type": ["client_credentials", "refresh_token"]}, "invalid_request", 400),
        ({f"field{number}": "x" for number in range(2_000)}, "invalid_request", 400),
        ({"grant_type": "client_credentials", "scope": "x" * 3_000_000}, "invalid_request", 400),
    ],
)
def test_every_refusal_of_a_token_is_json_as_rfc_6749_has_it(fields, error, status):
    answer = ask(fields)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer["Content-Type"].startswith("application/json")
    assert answer["Cache-Control"] == "no-store"


def test_other_ways_of_asking_are_refused_in_json_too():
    browser = Browser(raise_request_exception=False)
    for path in ("/oauth/token", "/oauth/revoke"):
        for method in ("get", "put", "delete", "options"):
            answer = getattr(browser, method)(path)
            assert (answer.status_code, answer.json()["error"]) == (405, "invalid_request")
            assert answer["Allow"] == "POST"
        broken = browser.post(path, b"\xff\xfe%00", content_type="multipart/form-data; boundary=x")
        assert broken.status_code in (400, 401)
        assert broken.json()["error"]
        assert browser.post(path, b"{}", content_type="application/json").status_code in (400, 401)
    for bad in ("Basic", "Basic %%%", "Basic " + base64.b64encode(b"\xff\0:x").decode(), "Bearer x"):
        answer = browser.post("/oauth/token", {"grant_type": "client_credentials"}, headers={"Authorization": bad})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_a_wrong_secret_and_an_unknown_client_are_told_alike():
    made = run("create_service_client", "billing")
    wrong = ask({"grant_type": "client_credentials"}, basic=(made["client_id"], "x"))
    unknown = ask({"grant_type": "client_credentials"}, basic=("nobody", "x"))
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json() == {"error": "invalid_client"}


# --- What is kept -----------------------------------------------------------------------------------------------------


def all_text_of_the_database() -> str:
    """Every row of every table of ours and of the toolkit's, as text."""
    names = [model._meta.db_table for model in apps.get_models() if model._meta.managed]
    found = []
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"SELECT row_to_json(t)::text FROM {connection.ops.quote_name(name)} AS t")
            found += [row[0] for row in cursor.fetchall()]
    return "\n".join(found)


def test_no_token_and_no_secret_stands_in_the_database():
    made = run("create_service_client", "billing")
    service = ask({"grant_type": "client_credentials"}, basic=(made["client_id"], made["client_secret"])).json()
    person = SignIn().tokens()
    text = all_text_of_the_database()
    assert made["client_id"] in text
    secrets = [made["client_secret"], service["access_token"], person["access_token"], person["refresh_token"]]
    assert [each for each in secrets if each in text] == []


# --- People -----------------------------------------------------------------------------------------------------------


class SignIn:
    """An app and a person who signs in through it: authorization code with PKCE."""

    def __init__(self, role: Role | None = Role.MARKETER, *, scopes: str = READ_WRITE) -> None:
        self.app = clients.create_app(name="Planner", redirect_uris=[BACK], by=BY, now=NOW).client
        self.person = account(role, password=PASSWORD)
        self.browser = Browser(raise_request_exception=False)
        self.scopes = scopes
        self.verifier = token_urlsafe(48)
        self.state = token_urlsafe(8)

    def query(self, **changes: str | None) -> dict[str, str]:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self.app.client_id,
            "redirect_uri": BACK,
            "scope": self.scopes,
            "state": self.state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def page(self, **changes: str | None):
        self.browser.force_login(self.person)
        return self.browser.get("/oauth/authorize", self.query(**changes))

    def allow(self, *, allow: bool = True, **changes: str | None) -> dict[str, str]:
        """Press the button; the parameters with which the app is called back."""
        form = self.page(**changes).context["form"]
        fields = {name: value for name, value in form.initial.items() if value is not None}
        answer = self.browser.post("/oauth/authorize", {**fields, **({"allow": "Authorize"} if allow else {})})
        assert answer.status_code == 302
        assert answer["Location"].startswith(BACK)
        return {name: values[0] for name, values in parse_qs(urlsplit(answer["Location"]).query).items()}

    def trade(self, code: str, **changes: str):
        asked = {
            "grant_type": "authorization_code",
            "client_id": self.app.client_id,
            "code": code,
            "redirect_uri": BACK,
            "code_verifier": self.verifier,
        }
        return ask({**asked, **changes})

    def tokens(self) -> dict[str, str]:
        answer = self.trade(self.allow()["code"])
        assert answer.status_code == 200, answer.content
        return answer.json()

    def refresh(self, refresh_token: str):
        asked = {"grant_type": "refresh_token", "client_id": self.app.client_id, "refresh_token": refresh_token}
        return ask(asked)


def test_a_person_signs_in_through_an_app_from_the_login_to_the_refresh():
    scene = SignIn()
    first = scene.browser.get("/oauth/authorize", scene.query())
    assert first.status_code == 302
    assert first["Location"].startswith("/admin/login/?next=")
    login = scene.browser.post(first["Location"], {"username": scene.person.username, "password": PASSWORD})
    assert login.status_code == 302, login.content
    page = scene.browser.get(login["Location"])
    assert page.status_code == 200
    assert b"Planner" in page.content
    assert b"Change schedules, recipients and templates, and send" in page.content
    back = scene.allow()
    assert back["state"] == scene.state
    assert back["iss"] == "http://testserver"
    got = scene.trade(back["code"]).json()
    assert Api(got["access_token"]).post("schedules", {"name": "d", "status": "draft"}).status_code in (201, 400)
    refreshed = scene.refresh(got["refresh_token"]).json()
    assert Api(refreshed["access_token"]).get("schedules").status_code == 200
    assert refreshed["refresh_token"] != got["refresh_token"]


def test_a_person_without_a_role_signs_in_for_his_own_inbox_and_nothing_else():
    scene = SignIn(None, scopes="inbox")
    RecipientFactory.create(external_id=scene.person.username)
    first = scene.browser.get("/oauth/authorize", scene.query())
    login = scene.browser.post(first["Location"], {"username": scene.person.username, "password": PASSWORD})
    assert login.status_code == 302, login.content
    assert scene.browser.get(login["Location"]).status_code == 200
    api = Api(scene.tokens()["access_token"])
    assert api.get("inbox").status_code == 200
    assert api.get("schedules").status_code == 403
    assert scene.browser.get("/ledger/").status_code == 403


def test_a_refresh_token_used_twice_ends_everything_that_came_of_it():
    scene = SignIn()
    first = scene.tokens()
    second = scene.refresh(first["refresh_token"]).json()
    stolen = scene.refresh(first["refresh_token"])
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    assert Api(second["access_token"]).get("schedules").status_code == 401
    assert scene.refresh(second["refresh_token"]).status_code == 400


def test_who_says_no_is_taken_at_his_word():
    back = SignIn().allow(allow=False)
    assert back["error"] == "access_denied"
    assert not Grant.objects.exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"response_type": "token"}, "unauthorized_client"),
        ({"scope": "notification:admin"}, "invalid_scope"),
    ],
)
def test_what_an_app_may_not_ask_it_is_told(changes, error):
    answer = SignIn().page(**changes)
    assert answer.status_code == 302
    said = parse_qs(urlsplit(answer["Location"]).query)
    assert said["error"][0] in (error, "unsupported_response_type")


@pytest.mark.parametrize("method", ["plain", None])
def test_a_challenge_that_shows_its_verifier_is_none(method):
    back = SignIn().allow(code_challenge_method=method)
    assert back["error"] == "invalid_request"
    assert not Grant.objects.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": BACK + "/more"},
        {"client_id": "nobody"},
        {"client_id": "a\0"},
        {"state": "a\0"},
    ],
)
def test_nobody_is_sent_to_an_address_that_is_not_the_apps(changes):
    answer = SignIn().page(**changes)
    assert answer.status_code == 400
    assert b"This link does not work" in answer.content


def test_a_form_that_was_changed_is_refused():
    scene = SignIn()
    scene.browser.force_login(scene.person)
    for fields in ({}, {**scene.query(), "client_id": "nobody", "allow": "x"}, {**scene.query(), "client_id": "a\0"}):
        assert scene.browser.post("/oauth/authorize", fields).status_code == 400


def test_the_page_can_not_be_framed():
    page = SignIn().page()
    assert page["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in page["Content-Security-Policy"]
    assert page["Cache-Control"] == "no-store"


def test_a_code_is_good_once_for_its_app_with_its_verifier():
    scene = SignIn()
    code = scene.allow()["code"]
    assert scene.trade(code, code_verifier="x" * 43).json()["error"] == "invalid_grant"
    assert scene.trade(code, redirect_uri="https://evil.example/").status_code in (400, 401)
    assert scene.trade(scene.allow()["code"]).status_code == 200
    code = scene.allow()["code"]
    assert scene.trade(code).status_code == 200
    assert scene.trade(code).json()["error"] == "invalid_grant"
    expired = scene.allow()["code"]
    Grant.objects.update(expires=timezone.now() - timedelta(seconds=1))
    assert scene.trade(expired).json()["error"] == "invalid_grant"


def test_a_person_who_was_deactivated_gets_nothing_more():
    scene = SignIn()
    got, code = scene.tokens(), scene.allow()["code"]
    scene.person.is_active = False
    scene.person.save()
    assert Api(got["access_token"]).get("schedules").status_code == 401
    assert scene.refresh(got["refresh_token"]).json()["error"] == "invalid_grant"
    assert scene.trade(code).json()["error"] == "invalid_grant"
    assert scene.browser.get("/oauth/authorize", scene.query()).status_code == 302  # to the login


def test_a_person_who_was_demoted_is_so_at_once():
    scene = SignIn(Role.MARKETER)
    got = Api(scene.tokens()["access_token"])
    assert got.post("schedules", {}).status_code == 400
    scene.person.groups.set([Group.objects.get(name=Role.ANALYST)])
    assert got.post("schedules", {}).status_code == 403
    assert got.get("schedules").status_code == 200
    scene.person.groups.clear()
    assert got.get("schedules").status_code == 403


def test_a_token_is_revoked_by_who_has_it():
    scene = SignIn()
    got = scene.tokens()
    fields = {"client_id": scene.app.client_id, "token": got["refresh_token"]}
    assert ask(fields, path="revoke").status_code == 200
    assert Api(got["access_token"]).get("schedules").status_code == 401
    assert scene.refresh(got["refresh_token"]).status_code == 400
    assert ask({**fields, "token": "unknown"}, path="revoke").status_code == 200  # RFC 7009, 2.2


def test_an_expired_token_is_refused():
    bearer = token(lives_s=-1)
    answer = Api(bearer).get("schedules")
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer["WWW-Authenticate"]


def test_while_the_database_is_away_programs_are_told_so_in_json(monkeypatch):
    def away(*_: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr("oauth2_provider.views.base.TokenView.create_token_response", away)
    monkeypatch.setattr("oauth2_provider.views.base.RevokeTokenView.create_revocation_response", away)
    for path in ("token", "revoke"):
        answer = ask({"grant_type": "client_credentials", "token": "x"}, path=path)
        assert (answer.status_code, answer.json()["error"], answer["Retry-After"]) == (
            503,
            "temporarily_unavailable",
            "5",
        )


@pytest.mark.parametrize(
    ("resource", "status"),
    [
        ([], 200), (["http://testserver/api/v1"], 200), (["http://testserver/"], 200),
        (["http://testserver/api/v1/templates"], 401), (["https://elsewhere.example/"], 401),
        (["https://elsewhere.example/", "http://testserver/api/"], 200),
    ],
)  # fmt: skip
def test_a_token_for_another_server_is_none_here(resource, status):
    """RFC 8707: a token may say for which servers it is."""
    bearer = token()
    AccessToken.objects.update(resource=resource)
    answer = Api(bearer).get("schedules?limit=1")
    assert answer.status_code == status
    assert ("invalid_token" in answer.get("WWW-Authenticate", "")) == (status == 401)


def test_an_app_is_made_by_a_command_and_needs_a_safe_way_back():
    made = run("create_app_client", "Planner", "--redirect-uri", BACK, "--redirect-uri", "https://a.example/b")
    assert set(made) == {"client_id", "scopes"}
    client = Client.objects.get()
    assert client.client_type == Client.CLIENT_PUBLIC
    assert client.scopes.split() == [scope.value for scope in Scope]
    for bad in ("ftp://a.example/", "javascript:alert(1)", "/back", "https://a.example/#part"):
        with pytest.raises(CommandError):
            call_command("create_app_client", "Bad", "--redirect-uri", bad)
    assert Client.objects.count() == 1


# --- The metadata and what ends ---------------------------------------------------------------------------------------


def test_the_servers_metadata_say_what_it_does():
    said = Browser().get("/.well-known/oauth-authorization-server").json()
    assert said["issuer"] == "http://testserver"
    assert said["token_endpoint"] == "http://testserver/oauth/token"
    assert said["authorization_endpoint"] == "http://testserver/oauth/authorize"
    assert said["revocation_endpoint"] == "http://testserver/oauth/revoke"
    assert said["grant_types_supported"] == ["authorization_code", "client_credentials", "refresh_token"]
    assert said["response_types_supported"] == ["code"]
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert set(said["scopes_supported"]) == set(Scope)
    assert said["authorization_response_iss_parameter_supported"] is True


def test_what_has_expired_is_thrown_away_each_hour():
    old, fresh = token(lives_s=-1), token()
    day = timedelta(days=1, seconds=1)
    for key, age in (("old", day), ("new", timedelta())):
        IdempotencyKey.objects.create(
            client="1:", key=key, fingerprint="x", status=201, body="{}", created_at=timezone.now() - age
        )
    tidy()
    assert Api(fresh).get("schedules").status_code == 200
    assert AccessToken.objects.count() == 1
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["new"]
    assert Api(old).get("schedules").status_code == 401


def test_a_refresh_token_outlives_the_access_token_it_came_with():
    scene = SignIn()
    got = scene.tokens()
    AccessToken.objects.update(expires=timezone.now() - timedelta(hours=1))
    tidy()
    assert scene.refresh(got["refresh_token"]).status_code == 200


# --- The admin's page of clients --------------------------------------------------------------------------------------


def test_clients_are_shown_to_admins_without_their_secrets():
    made = clients.create_service(name="billing", by=BY, now=NOW)
    token(client=made.client)
    url = reverse("admin:frontend_client_changelist")
    one = reverse("admin:frontend_client_change", args=[made.client.pk])
    admin = signed_in(Role.ADMIN)
    for page in (admin.get(url), admin.get(one)):
        assert page.status_code == 200
        assert b"billing" in page.content
        assert b"pbkdf2" not in page.content
        assert made.secret.encode() not in page.content
    assert signed_in(Role.MARKETER).get(url).status_code == 403
    assert admin.get(reverse("admin:frontend_client_add")).status_code == 403
    assert admin.post(one, {"name": "other"}).status_code == 403


def test_an_admin_ends_a_clients_tokens_or_the_client():
    client = service_client(name="billing")
    bearers = [token(client=client) for _ in range(2)]
    url = reverse("admin:frontend_client_changelist")
    admin = signed_in(Role.ADMIN)
    done = admin.post(url, {"action": "revoke", "_selected_action": [client.pk]}, follow=True)
    assert b"2 tokens have ended" in done.content
    assert [Api(bearer).get("schedules").status_code for bearer in bearers] == [401, 401]
    assert AuditEvent.objects.get(action=Action.CLIENT_REVOKE).payload_diff["tokens"] == [2, 0]

    bearer = token(client=client)
    admin.post(reverse("admin:frontend_client_delete", args=[client.pk]), {"post": "yes"})
    assert not Client.objects.exists()
    assert Api(bearer).get("schedules").status_code == 401
    assert AuditEvent.objects.get(action=Action.CLIENT_DELETE).payload_diff["name"] == ["billing", None]


def test_ending_an_apps_tokens_ends_its_sign_ins_too():
    scene = SignIn()
    got = scene.tokens()
    code = scene.allow()["code"]
    clients.revoke_tokens(client_id=scene.app.pk, by=BY, now=NOW)
    assert scene.refresh(got["refresh_token"]).status_code == 400
    assert scene.trade(code).status_code == 400
    assert not RefreshToken.objects.exists()
