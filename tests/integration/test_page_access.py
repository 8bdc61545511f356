"""Who may open and who may change what: every address for people × every role. An analyst changes nothing."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse

from frontend.admin_site import site
from schedules.permissions import Ability, Role, can
from tests.accounts import account
from tests.furniture import furnish
from tests.pages import ACTIONS, OTHERS, PAGES, PARTS, addresses, named

pytestmark = pytest.mark.django_db

READING = {name: ability for name, ability in {**PAGES, **PARTS}.items() if ability == Ability.READ}
WRITING = {name: ability for name, ability in {**PAGES, **PARTS, **ACTIONS}.items() if ability != Ability.READ}


@pytest.fixture(params=Role)
def person(request) -> User:
    return account(request.param)


@pytest.fixture
def browser(person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def written(queries: CaptureQueriesContext) -> list[str]:
    """The statements that changed something, sessions aside."""
    changing = re.compile(r"^\s*(INSERT|UPDATE|DELETE|TRUNCATE|WITH .*\b(INSERT INTO|UPDATE|DELETE FROM)\b)", re.S)
    told = [query["sql"] for query in queries if changing.match(query["sql"])]
    return [sql for sql in told if "django_session" not in sql]


def test_every_address_is_in_one_of_the_tables_and_in_one_only():
    tables = Counter([*PAGES, *PARTS, *ACTIONS, *OTHERS])
    assert {name for name, _ in named()} == tables.keys()
    assert [name for name, count in tables.items() if count > 1] == []


def test_whoever_has_a_role_reads_everything_and_writes_nothing_by_reading(service, browser):
    paths = [path for _, path in addresses(READING, furnish(service))]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        answers = {path: browser.get(path).status_code for path in paths}
        answers |= {f"{path}, posted to": browser.post(path).status_code for path in paths}
    assert {path: status for path, status in answers.items() if status not in (200, 405)} == {}
    assert written(queries) == []


def test_what_writes_is_refused_to_whom_it_is_not_for_and_leaves_no_trace(service, person, browser):
    refused = [path for name, path in addresses(WRITING, furnish(service)) if not can(person, WRITING[name])]
    assert refused or not person.groups.filter(name=Role.ANALYST).exists()
    with CaptureQueriesContext(connection) as queries:
        answers = {path: (browser.get(path).status_code, browser.post(path).status_code) for path in refused}
    assert {path: status for path, status in answers.items() if status not in ((403, 403), (405, 403))} == {}
    assert written(queries) == []


def test_strangers_are_led_to_the_login_everywhere(service):
    paths = [path for _, path in addresses({**READING, **WRITING}, furnish(service))]
    with CaptureQueriesContext(connection) as queries:
        answers = [(path, Client().post(path)) for path in paths]
    assert {path for path, answer in answers if not answer.get("Location", "").startswith("/admin/login/")} == set()
    assert written(queries) == []


def admin_addresses() -> Iterator[str]:
    """Of each model in the admin: its list, its form, and the first one's own pages."""
    for model in site._registry:
        first = model._default_manager.values_list("pk", flat=True).first()
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        for view in ("changelist", "add"):
            yield reverse(f"{name}_{view}")
        for view in ("change", "delete") if first is not None else ():
            try:
                yield reverse(f"{name}_{view}", args=[first])
            except NoReverseMatch:
                continue


def test_the_admin_changes_nothing_for_an_analyst(service):
    furnish(service)
    analyst = Client()
    analyst.force_login(account(Role.ANALYST))
    paths = list(admin_addresses())
    with CaptureQueriesContext(connection) as queries:
        answers = {path: analyst.post(path, {"post": "yes"}).status_code for path in paths}
    assert {path: status for path, status in answers.items() if status >= 500} == {}
    assert {path for path in paths if path.endswith(("/add/", "/delete/")) and answers[path] != 403} == set()
    assert written(queries) == []
