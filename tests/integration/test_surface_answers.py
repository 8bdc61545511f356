"""Headers and cookies of answers, whom to write to, and what the user service's hook and the browsers' reports bear."""

import base64
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core import checks
from django.test import Client
from structlog.testing import capture_logs

from frontend.pages import policy_reports
from frontend.pages.api_docs import ApiDocument
from frontend.zones import TIMES_COOKIE
from schedules.permissions import Role
from tests.accounts import PASSWORD, account, signed_in
from tests.api import Api, token
from tests.furniture import furnish
from tests.integration.test_person_doors import call
from tests.pages import ADMIN, PAGES, PARTS, addresses

pytestmark = pytest.mark.django_db


# --- What may be kept -------------------------------------------------------------------------------------------------
def test_no_browser_and_no_proxy_keeps_anything_but_static_files(service):
    admin = signed_in(Role.ADMIN)
    paths = [path for _, path in addresses({**PAGES, **PARTS}, furnish(service))]
    for path in (*paths, *ADMIN, "/nowhere", "/metrics"):
        answer = admin.get(path)
        assert "no-store" in answer["Cache-Control"], path
        assert answer["X-Content-Type-Options"] == "nosniff", path
        assert answer["Referrer-Policy"] in ("same-origin", "no-referrer"), path
        policy = answer["Content-Security-Policy"]
        assert "frame-ancestors" in policy, path
        assert "default-src 'none'" in policy, path
        assert not answer.has_header("Access-Control-Allow-Origin"), path
    assert "no-store" in Api(token()).get("schedules")["Cache-Control"]
    assert "no-store" not in Client().get("/static/frontend/frame.js")["Cache-Control"]


def test_signing_out_clears_what_the_browser_holds():
    assert signed_in(Role.ADMIN).post("/admin/logout/")["Clear-Site-Data"] == '"cache"'


# --- Who asks, and where ----------------------------------------------------------------------------------------------
def test_another_host_is_refused_and_a_forwarded_one_is_not_believed():
    assert Client(headers={"Host": "evil.example"}).get("/").status_code == 400
    answer = Client(headers={"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}).get("/ledger/")
    assert answer["Location"] == "/admin/login/?next=/ledger/"
    assert not answer.wsgi_request.is_secure()


@pytest.mark.parametrize("aim", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil.example"])
def test_nobody_is_led_away(aim):
    browser = Client()
    for path, name in (("/language", "next"), ("/display", "next")):
        assert "evil" not in browser.post(path, {name: aim, "language": "de", "times": "utc"})["Location"], path
    assert "evil" not in signed_in(Role.ADMIN).post("/admin/logout/", {"next": aim}).get("Location", "")


def test_programs_that_come_in_clear_are_refused_and_people_led_to_https(settings):
    settings.SECURE_SSL_REDIRECT = True
    for path in ("/api/v1/schedules", "/oauth/token", "/oauth/revoke", "/hooks/user-service"):
        assert Client().post(path).status_code == 403, path
    assert Client().get("/ledger/")["Location"] == "https://testserver/ledger/"
    assert Client().get("/api/v1/schedules", secure=True).status_code == 401


def test_metrics_are_told_to_who_asks_by_address_and_in_clear(settings):
    settings.SECURE_SSL_REDIRECT, settings.ALLOWED_HOSTS = True, [".notify.example.com"]
    assert Client(SERVER_NAME="10.0.0.7").get("/metrics").status_code == 200
    assert Client(SERVER_NAME="10.0.0.7").get("/metrics/").status_code == 400
    assert Client(SERVER_NAME="10.0.0.7").get("/ledger/", secure=True).status_code == 400
    assert Client(SERVER_NAME="notify.example.com").get("/ledger/").status_code == 301


def test_no_folder_and_no_file_of_the_source_is_served():
    for path in ("/static/", "/static/frontend/", "/.git/config", "/manage.py", "/static/..%2f..%2fmanage.py", "/.env"):
        assert Client().get(path).status_code == 404, path


def test_trace_echoes_nothing():
    for path in ("/", "/admin/login/?next=/", "/api/v1/schedules", "/metrics", "/static/frontend/frame.js"):
        answer = Client(headers={"X-Secret": "planted"}).trace(path)
        assert "planted" not in str(answer.serialize_headers()), path
        assert b"planted" not in answer.getvalue(), path


# --- Passwords --------------------------------------------------------------------------------------------------------
def test_a_password_is_changed_by_whoever_knows_the_present_one():
    person, browser = account(Role.ANALYST, password=PASSWORD), Client()
    browser.force_login(person)
    wanted = {"new_password1": "seventeen grey herons", "new_password2": "seventeen grey herons"}
    assert browser.post("/admin/password_change/", {"old_password": "guessed", **wanted}).status_code == 200
    assert browser.post("/admin/password_change/", wanted).status_code == 200
    person.refresh_from_db()
    assert person.check_password(PASSWORD)
    assert browser.post("/admin/password_change/", {"old_password": PASSWORD, **wanted}).status_code == 302
    person.refresh_from_db()
    assert person.check_password("seventeen grey herons")


# --- Cookies ----------------------------------------------------------------------------------------------------------
def test_every_cookie_is_closed_to_scripts_and_to_other_sites():
    browser = Client()
    browser.get("/admin/login/?next=/")
    browser.post("/language", {"language": "de"})
    browser.post("/display", {"times": "utc"})
    browser.force_login(signed_in(Role.ANALYST).get("/dashboard/").wsgi_request.user)
    browser.get("/dashboard/")
    assert {"csrftoken", "django_language", TIMES_COOKIE} <= set(browser.cookies)
    for name, cookie in browser.cookies.items():
        if name != "sessionid":  # the test's own, which no answer has set
            assert (bool(cookie["httponly"]), cookie["samesite"]) == (True, "Lax"), name


# --- Whom to write to -------------------------------------------------------------------------------------------------
def test_without_a_contact_there_is_no_file(settings):
    settings.SECURITY_CONTACT = []
    assert Client().get("/.well-known/security.txt").status_code == 404


def test_whom_to_write_to_stands_where_rfc_9116_has_it(settings):
    settings.SECURITY_CONTACT = ["mailto:security@example.com", "https://example.com/report"]
    answer = Client().get("/.well-known/security.txt")
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    fields = [line.split(": ", 1) for line in answer.content.decode().splitlines()]
    assert [value for name, value in fields if name == "Contact"] == settings.SECURITY_CONTACT
    (expires,) = [value for name, value in fields if name == "Expires"]
    assert 0 < (datetime.fromisoformat(expires) - datetime.now(UTC)).days < 365
    assert dict(fields)["Canonical"] == "http://testserver/.well-known/security.txt"


# --- The user service's hook ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("whsec_", "can't be read"),
        ("whsec_%%%", "can't be read"),
        ("whsec_" + base64.b64encode(b"short").decode(), "can be guessed"),
        (f"whsec_{base64.b64encode(b'x' * 24).decode()} whsec_", "can't be read"),
    ],
)
def test_a_secret_that_is_none_is_refused_at_the_start(settings, secret, words):
    settings.USER_SERVICE_HOOK_SECRET = secret
    (found,) = [each for each in checks.run_checks() if each.id == "frontend.E001"]
    assert words in found.msg
    assert "openssl rand" in found.hint


def test_good_secrets_and_none_are_no_fault(settings):
    for secret in ("", f"whsec_{base64.b64encode(b'x' * 24).decode()} whsec_{base64.b64encode(b'y' * 32).decode()}"):
        settings.USER_SERVICE_HOOK_SECRET = secret
        assert [each for each in checks.run_checks() if each.id == "frontend.E001"] == []


def test_an_empty_secret_signs_nothing(settings):
    settings.USER_SERVICE_HOOK_SECRET = "whsec_"
    with pytest.raises(ValueError, match="whsec_"):
        call("anybody")


def test_a_body_that_nests_without_end_and_one_that_lies_about_its_length_are_refused(settings):
    settings.USER_SERVICE_HOOK_SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a good secret").decode()
    assert call(body=b"[" * 60_000).status_code == 400
    answer = Client().generic("POST", "/hooks/user-service", b"x" * 2_200_000, CONTENT_LENGTH="999999999999")
    assert answer.status_code == 413


# --- What is dear to make ---------------------------------------------------------------------------------------------
def test_the_apis_document_is_written_once_whoever_asks_for_it(monkeypatch):
    first = Client().get("/api/openapi.yaml")
    kept = (Path(__file__).resolve().parents[2] / "docs/openapi.yaml").read_text(encoding="utf-8")
    assert first.content.decode() == kept
    assert first["Content-Type"] == "application/vnd.oai.openapi"
    monkeypatch.setattr(ApiDocument, "generator_class", None)
    assert Client().get("/api/openapi.yaml?lang=de&version=9").content == first.content


def test_the_apis_document_comes_as_json_too():
    answer = Client().get("/api/openapi.yaml", headers={"Accept": "application/vnd.oai.openapi+json"})
    assert answer.json()["openapi"] == "3.1.0"


# --- Reports of the policy --------------------------------------------------------------------------------------------
def test_reports_without_end_fill_no_disk(monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(policy_reports, "monotonic", lambda: now)
    monkeypatch.setattr(policy_reports, "_written", policy_reports._Written())
    body = json.dumps([{"body": {"effectiveDirective": "img-src"}}] * 20)
    with capture_logs() as lines:
        for _ in range(10):
            assert Client().post("/policy-reports", body, content_type="application/reports+json").status_code == 204
        assert len(lines) == policy_reports.LINES_A_MINUTE
        now += 61
        Client().post("/policy-reports", body, content_type="application/reports+json")
    assert lines[policy_reports.LINES_A_MINUTE] == {
        "event": "policy_reports_left_out",
        "reports": 200 - policy_reports.LINES_A_MINUTE,
        "log_level": "warning",
    }
    assert len(lines) == policy_reports.LINES_A_MINUTE + 21
