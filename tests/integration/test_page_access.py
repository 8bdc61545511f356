"""Who may open and who may change what: every address for people × every role. An analyst changes nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
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


@pytest.fixture
def browsers() -> dict[User, Client]:
    """Somebody of each role, signed in."""
    found = {account(role): Client() for role in Role}
    for person, client in found.items():
        client.force_login(person)
    return found


def written(queries: CaptureQueriesContext) -> list[str]:
    """The statements that changed something, sessions and the audit's word of a file that was taken aside."""
    changing = re.compile(r"^\s*(INSERT|UPDATE|DELETE|TRUNCATE|WITH .*\b(INSERT INTO|UPDATE|DELETE FROM)\b)", re.S)
    told = [query["sql"] for query in queries if changing.match(query["sql"])]
    return [sql for sql in told if "django_session" not in sql and "'export.file'" not in sql]


def test_every_address_is_in_one_of_the_tables_and_in_one_only():
    tables = Counter([*PAGES, *PARTS, *ACTIONS, *OTHERS])
    assert {name for name, _ in named()} == tables.keys()
    assert [name for name, count in tables.items() if count > 1] == []


def test_what_writes_is_refused_to_whom_it_is_not_for_and_leaves_no_trace(service, browsers):
    values = furnish(service)
    with CaptureQueriesContext(connection) as queries:
        for person, client in browsers.items():
            paths = [path for name, path in addresses(WRITING, values) if not can(person, WRITING[name])]
            answers = {path: {client.get(path).status_code, client.post(path).status_code} for path in paths}
            assert {path: found for path, found in answers.items() if not {403} <= found <= {403, 405}} == {}, person
            assert answers or not person.groups.filter(name=Role.ANALYST).exists()
    assert written(queries) == []


def test_strangers_are_led_to_the_login_everywhere(service):
    stranger, values = Client(), furnish(service)
    with CaptureQueriesContext(connection) as queries:
        for _, path in addresses({**READING, **WRITING}, values):
            answers = [stranger.get(path), stranger.post(path)]
            led = {each["Location"].partition("?")[0] for each in answers if each.status_code == 302}
            assert led == {"/admin/login/"}, path
            assert {each.status_code for each in answers} <= {302, 405}, path
    assert written(queries) == []


class _Controls(HTMLParser):
    """What in the main part of a page posts: forms with something to press or to fill in, elements of htmx."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._is_main = self._is_posting = False

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        self._is_main |= tag == "main"
        if tag == "form":
            self._is_posting = said.get("method") == "post"
        is_control = tag in ("button", "select", "textarea") or (tag == "input" and said.get("type") != "hidden")
        if self._is_main and ((is_control and self._is_posting) or "hx-post" in said):
            self.found.append(self.get_starttag_text())

    def handle_endtag(self, tag):
        self._is_main &= tag != "main"
        self._is_posting &= tag != "form"


def _controls(page: HttpResponse) -> list[str]:
    controls = _Controls()
    controls.feed(page.content.decode())
    return controls.found


def test_whoever_has_a_role_reads_everything_and_writes_nothing_by_reading(service, browsers):
    """On no page an analyst finds anything to write with."""
    values = furnish(service)
    with CaptureQueriesContext(connection) as queries:
        for person, client in browsers.items():
            shown = {path: client.get(path) for name, path in addresses(PAGES, values) if can(person, PAGES[name])}
            paths = [path for _, path in addresses(READING, values)]
            answers = shown | {path: client.get(path) for path in paths if path not in shown}
            assert {path: each.status_code for path, each in answers.items() if each.status_code != 200} == {}, person
            found = {path: controls for path, page in shown.items() if (controls := _controls(page))}
            is_analyst = person.groups.filter(name=Role.ANALYST).exists()
            assert is_analyst is not bool(found), (person, found)
            posted = {path: client.post(path).status_code for path in paths}
            told = (200, 403, 405, 409, 422)
            assert {path: status for path, status in posted.items() if status not in told} == {}, person
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
