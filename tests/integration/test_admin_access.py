"""Every address of the admin × stranger, MARKETER, ADMIN, and every open address × stranger, ANALYST and ADMIN."""

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, reverse

from frontend.urls import site
from schedules.permissions import Role
from tests.accounts import account, signed_in
from tests.api import service_client
from tests.furniture import furnish
from tests.integration.test_page_access import written
from tests.pages import OTHERS

pytestmark = pytest.mark.django_db

# Accounts, roles and programs: nobody else sees that they are there.
FOR_ADMINS = ("auth/", "frontend/")
# Everybody's own, of whatever role.
OWN = ("", "search/", "jsi18n/", "password_change/", "password_change/done/")
# What makes or removes something; who may is in schedules.permissions.
CHANGING = ("/add/", "/delete/", "/password/")


def routes(patterns: list[URLPattern | URLResolver] = site.urls[0], before: str = "") -> Iterator[str]:
    for each in patterns:
        if isinstance(each, URLResolver):
            yield from routes(each.url_patterns, before + str(each.pattern))
        else:
            yield before + str(each.pattern)


def addresses() -> Iterator[str]:
    """With the first object of each model in its place, or one that is not there."""
    for route in routes():
        if route.startswith("^("):
            yield from ("auth/", "delivery/")  # the list of an app
        elif route == "(?P<url>.*)$":
            yield "nowhere/"
        elif route.startswith("r/"):
            yield "r/1/1/"
        else:
            model = apps.get_model(*route.split("/")[:2]) if "<" in route else None
            first = model._default_manager.order_by("pk").values_list("pk", flat=True).first() if model else None
            yield route.replace("<path:object_id>", str(first or 1)).replace("<id>", str(first or 1))


@pytest.fixture
def paths(service) -> list[str]:
    furnish(service)
    service_client()
    account(Role.ADMIN, name="somebody")
    found = sorted({address for address in addresses() if address not in ("login/", "logout/")})
    assert len(found) > 60
    return found


def test_strangers_are_led_to_the_login_from_every_address_of_the_admin(paths):
    stranger = Client()
    with CaptureQueriesContext(connection) as queries:
        for path in paths:
            for answer in (stranger.get(f"/admin/{path}"), stranger.post(f"/admin/{path}")):
                assert answer.status_code == 302, path
                assert answer["Location"].startswith(("/admin/login/", "/admin/")), path
    assert written(queries) == []


def test_who_is_no_admin_sees_no_account_and_changes_nothing(paths):
    """A marketer, who may everything that an analyst may (test_permissions)."""
    browser, wrong = signed_in(Role.MARKETER), []
    with CaptureQueriesContext(connection) as queries:
        for path in paths:
            got = browser.get(f"/admin/{path}").status_code
            posted = {
                browser.post(f"/admin/{path}", data).status_code
                for data in ({"post": "yes"}, {"action": "delete_selected", "_selected_action": "1", "post": "yes"})
                if path not in OWN
            }
            refused = path.startswith(FOR_ADMINS) or path.endswith(CHANGING)
            # An object's short address leads to its form, and an app's list is empty: 302 and 404.
            if got >= 500 or posted & {500} or (refused and not {got, *posted} <= {302, 403, 404}):
                wrong.append((path, got, posted))
            if refused and got == 302:
                wrong += [(path, "shown")] if browser.get(f"/admin/{path}", follow=True).status_code == 200 else []
    assert wrong == []
    assert written(queries) == []
    assert User.objects.filter(username="somebody").exists()


def test_an_admin_opens_every_address_of_the_admin(paths):
    browser = signed_in(Role.ADMIN)
    answers = {path: browser.get(f"/admin/{path}").status_code for path in paths}
    assert {path: status for path, status in answers.items() if status >= 500} == {}
    assert {path for path, status in answers.items() if status == 403 and not path.endswith(CHANGING)} <= {
        "autocomplete/"
    }


def test_the_search_finds_nothing_that_its_role_may_not_open(paths):
    for role, found in ((Role.ANALYST, False), (Role.MARKETER, False), (Role.ADMIN, True)):
        page = signed_in(role).get("/admin/search/?s=user").content.decode()
        assert ("/admin/auth/user/" in page) is found, role


# What an open address answers to GET and to an empty POST, whoever asks.
OPEN = {
    "display": (405, 302),
    "set_language": (302, 302),
    "metrics": (200, 200),
    "policy-reports": (405, 415),
    "security-txt": (404, 405),
    "user-service-hook": (405, 404),
    "ses-hook": (405, 404),
    "oauth2_provider:token": (405, 400),
    "oauth2_provider:revoke-token": (405, 400),
    "oauth2_provider:oauth-server-metadata": (200, 405),
    "api-problems": (200, 200),
    "openapi": (200, 405),
    "api-docs": (200, 405),
    "api-reference": (200, 405),
}
# These lead a stranger to the login, or are steps of it; the tests of their own ask who may what.
LED = {
    *(
        "home",
        "oauth2_provider:authorize",
        "account",
        "here",
        "second-factor",
        "second-factor-off",
        "sign-out-everywhere",
    ),
    "sign-in-code",
}
# Each is for whom its link was made; their own tests ask them.
OF_LINKS = {"preferences", "unsubscribe"}


def test_every_open_address_answers_everybody_alike_and_changes_nothing():
    assert OPEN.keys() | LED | OF_LINKS == OTHERS
    with CaptureQueriesContext(connection) as queries:
        for browser in (Client(), signed_in(Role.ANALYST), signed_in(Role.ADMIN)):
            answers = {name: (browser.get(reverse(name)), browser.post(reverse(name))) for name in OPEN}
            assert {name: (get.status_code, post.status_code) for name, (get, post) in answers.items()} == OPEN
    assert [sql for sql in written(queries) if "auth_user" not in sql and "auth_group" not in sql] == []
