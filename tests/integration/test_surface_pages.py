"""Sessions, forged forms and the browsers' reports."""

import json

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from structlog.testing import capture_logs

from frontend.pages.policy_reports import MAX_BYTES
from schedules.permissions import Role
from tests.accounts import PASSWORD, account
from tests.furniture import furnish
from tests.pages import ACTIONS, ADMIN, PAGES, PARTS, addresses

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/?next=/"
REPORT = {
    "csp-report": {
        "document-uri": "https://notify.example.com/recipients/?q=ann@example.com",
        "effective-directive": "script-src-elem",
        "blocked-uri": "https://evil.example/steal?mail=ann@example.com",
    }
}


# --- Sessions ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def admin():
    return account(Role.ADMIN, password=PASSWORD)


def _sign_in(browser: Client) -> None:
    assert browser.post(LOGIN, {"username": "admin", "password": PASSWORD}).status_code == 302


def test_a_session_that_a_stranger_chose_is_not_the_one_after_signing_in(admin):
    browser = Client()
    session = browser.session
    session["planted"] = True
    session.save()
    browser.cookies["sessionid"] = planted = session.session_key
    _sign_in(browser)
    assert browser.cookies["sessionid"].value != planted
    assert Client(headers={"Cookie": f"sessionid={planted}"}).get("/dashboard/").status_code == 302


def test_signing_out_ends_the_session_for_whoever_kept_its_cookie(admin):
    browser = Client()
    _sign_in(browser)
    kept = browser.cookies["sessionid"].value
    assert Client(headers={"Cookie": f"sessionid={kept}"}).get("/dashboard/").status_code == 200
    browser.post("/admin/logout/")
    assert Client(headers={"Cookie": f"sessionid={kept}"}).get("/dashboard/").status_code == 302


def test_a_changed_role_holds_for_sessions_that_are_open(admin):
    browser = Client()
    _sign_in(browser)
    assert browser.get("/recipients/new/").status_code == 200
    admin.groups.set([Group.objects.get_or_create(name=Role.ANALYST.value)[0]])
    assert browser.get("/recipients/new/").status_code == 403
    assert browser.get("/dashboard/").status_code == 200
    admin.groups.clear()
    assert browser.get("/dashboard/").status_code == 403


@pytest.mark.parametrize("change", ["password", "deactivated", "deleted"])
def test_a_changed_account_ends_its_sessions(admin, change):
    browser = Client()
    _sign_in(browser)
    if change == "deleted":
        admin.delete()
    else:
        admin.set_password("another") if change == "password" else setattr(admin, "is_active", False)
        admin.save()
    assert browser.get("/dashboard/").status_code == 302


# --- Forged forms -----------------------------------------------------------------------------------------------------
def test_a_form_without_its_token_is_refused_at_every_address(service):
    """Of the open ones ``oauth/token`` and ``oauth/revoke`` know no cookie, and a policy's report changes nothing."""
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(account(Role.ADMIN))
    values = furnish(service)
    paths = [path for _, path in addresses({**PAGES, **PARTS, **ACTIONS}, values)]
    paths += [*ADMIN, "/admin/login/", "/admin/logout/", "/language", "/display", "/oauth/authorize"]
    answers = {path: browser.post(path, {"name": "forged"}).status_code for path in paths}
    assert {path: status for path, status in answers.items() if status != 403} == {}


def test_a_sessions_cookie_calls_nothing_of_the_api(service):
    browser = Client()
    browser.force_login(account(Role.ADMIN))
    assert browser.get("/api/v1/schedules").status_code == 401
    assert browser.post("/api/v1/schedules", "{}", content_type="application/json").status_code == 401


# --- Reports of the policy --------------------------------------------------------------------------------------------
def _report(body: bytes, kind: str = "application/csp-report") -> int:
    return Client().post("/policy-reports", body, content_type=kind).status_code


def test_every_page_tells_browsers_where_to_report_to():
    assert "report-uri /policy-reports" in Client().get("/admin/login/?next=/")["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/csp-report", REPORT),
        (
            "application/reports+json",
            [
                {
                    "type": "csp-violation",
                    "body": {
                        "documentURL": "https://notify.example.com/recipients/?q=ann@example.com",
                        "effectiveDirective": "script-src-elem",
                        "blockedURL": "https://evil.example/steal?mail=ann@example.com",
                    },
                }
            ],
        ),
    ],
)
def test_a_report_is_a_line_in_the_log_without_what_stands_in_addresses(kind, body):
    with capture_logs() as lines:
        assert _report(json.dumps(body).encode(), kind) == 204
    (line,) = [each for each in lines if each["event"] == "policy_violated"]
    assert (line["directive"], line["blocked"], line["page"]) == (
        "script-src-elem",
        "https://evil.example",
        "/recipients/",
    )
    assert "ann@" not in str(line)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b" " * (MAX_BYTES + 1), "application/csp-report", 413),
        (b"x" * 10_000_000, "application/csp-report", 413),
        (b"{", "application/csp-report", 400),
        (b"[" * 5_000, "application/csp-report", 400),
        (b'{"csp-report": "no"}', "application/csp-report", 400),
        (b"[1]", "application/reports+json", 400),
        (b"{}", "text/plain", 415),
    ],
)
def test_what_is_no_report_is_refused(body, kind, status):
    assert _report(body, kind) == status
