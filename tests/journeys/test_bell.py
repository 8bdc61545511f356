"""The bell on a page of another origin, whose policy lets in no inline script or style, nor text as HTML."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone
from oauth2_provider.models import AccessToken
from playwright.sync_api import Page, expect

from delivery import wakeups
from delivery.models import InboxMessage
from schedules.permissions import Scope
from tests.accounts import account
from tests.api import token
from tests.factories import RecipientFactory
from tests.journeys.conftest import PHONE, WIDE
from tests.streams import QUICK, streams

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE_MS = 60_000
_PAGE = """<!doctype html><html lang="{lang}"><meta charset="utf-8"><title>A shop</title>
<meta name="viewport" content="width=device-width"><script src="{api}/static/frontend/bell.js" defer></script>
<script src="/shop.js" defer></script><main><h1>A shop</h1>
<notification-bell src="{api}" stream="{streams}"></notification-bell></main></html>"""
_SCRIPT = """
document.querySelector("notification-bell").getToken = async () => (await (await fetch("/token")).json()).token;
"""


@dataclass
class Shop:
    """Somebody else's site. ``token`` is what it hands its page; ``streams`` what the bell is told."""

    api: str
    streams: str
    token: Callable[[], str | None]
    lang: str = "en"
    url: str = field(default="", init=False)
    policed: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.policed = self.streams

    @property
    def policy(self) -> str:
        return (
            f"default-src 'none'; script-src 'self' {self.api}; style-src 'none'; connect-src 'self' {self.api}"
            f" {self.policed}; require-trusted-types-for 'script'; trusted-types 'none'"
        )

    def answer(self, path: str) -> tuple[str, str]:
        match path:
            case "/token":
                return "application/json", json.dumps({"token": self.token()})
            case "/shop.js":
                return "text/javascript", _SCRIPT
        return "text/html", _PAGE.format(api=self.api, streams=self.streams, lang=self.lang)


def _handler(shop: Shop) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                kind, text = shop.answer(self.path)
            finally:
                connections.close_all()  # this thread's
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Security-Policy", shop.policy)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def eva():
    account(None, name="eva")
    return RecipientFactory(external_id="eva")


@pytest.fixture
def shop(live_server, settings, eva) -> Iterator[Shop]:
    with streams(QUICK) as running:
        made = Shop(live_server.url, running.url, bearer)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
        made.url = f"http://127.0.0.1:{server.server_port}"
        settings.CORS_ALLOWED_ORIGINS = [made.url]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        server.server_close()


def bearer() -> str:
    return token(scopes=str(Scope.INBOX), user=User.objects.get(username="eva"))


@pytest.fixture
def requests() -> list[str]:
    """Addresses that pages have asked for."""
    return []


@pytest.fixture
def visit(browser, shop, errors, requests):
    def visit_it(*, viewport=WIDE, theme: str = "light") -> Page:
        page = browser.new_context(viewport=viewport, color_scheme=theme).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(shop.url)
        return page

    expect.set_options(timeout=PATIENCE_MS)
    yield visit_it
    expect.set_options(timeout=5_000)


def lay(person, number, *, title="", body="Body") -> InboxMessage:
    made = InboxMessage.objects.create(
        recipient=person, occurrence_id=number, title=title or f"Title {number}", body=body, created_at=timezone.now()
    )
    wakeups.tell([person.pk])
    return made


def bell(page: Page):
    return page.get_by_role("button", name="Notifications")


def test_messages_come_without_a_reload_and_are_read_unread_and_archived(visit, eva, errors):
    lay(eva, 1)
    page, other = visit(), visit()
    for each in (page, other):
        expect(bell(each)).to_have_accessible_name("Notifications, 1 unread")
    hostile = "<img src=x onerror=alert(1)> see https://shop.example/a?b=1. and javascript:alert(2)"
    lay(eva, 2, title="<b>Sale</b>", body=hostile)
    expect(bell(page)).to_have_accessible_name("Notifications, 2 unread")
    expect(page.locator(".badge")).to_have_text("2")
    expect(page.locator("[aria-live]")).to_have_text("New notification: <b>Sale</b>")

    bell(page).press("Enter")
    panel = page.get_by_role("dialog", name="Notifications")
    items = panel.get_by_role("listitem")
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text(hostile)
    links = items.first.get_by_role("link")
    expect(links).to_have_count(1)
    expect(links).to_have_attribute("href", "https://shop.example/a?b=1")
    expect(links).to_have_attribute("rel", "noopener noreferrer")

    # While it is open more come in on top.
    lay(eva, 3)
    expect(items).to_have_count(3)
    expect(items.first).to_contain_text("Title 3")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    for each in (page, other):
        expect(bell(each)).to_have_accessible_name("Notifications, 2 unread")
    items.first.get_by_role("button", name="Mark unread").click()
    expect(bell(other)).to_have_accessible_name("Notifications, 3 unread")
    items.first.get_by_role("button", name="Archive").click()
    expect(items).to_have_count(2)
    expect(bell(other)).to_have_accessible_name("Notifications, 2 unread")
    panel.get_by_role("button", name="Mark all read").click()
    for each in (page, other):
        expect(bell(each)).to_have_accessible_name("Notifications")
        expect(each.locator(".badge")).to_be_hidden()
    assert InboxMessage.objects.filter(read_at=None, archived_at=None).count() == 0
    expect(items).to_have_count(2)
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(bell(page)).to_be_focused()
    assert errors == []


def test_what_comes_while_the_list_is_on_its_way_is_in_it(visit, eva, errors, requests):
    lay(eva, 1)
    page = visit()
    expect(bell(page)).to_have_accessible_name("Notifications, 1 unread")

    def held_up(route):
        answer = route.fetch()
        lay(eva, 2)
        expect(bell(page)).to_have_accessible_name("Notifications, 2 unread")
        route.fulfill(response=answer)

    page.route("**/api/v1/inbox?limit=20", held_up, times=1)
    bell(page).click()
    items = page.get_by_role("listitem")
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text("Title 2")
    assert errors == []
    assert sum(url.endswith("/me/inbox/stream") for url in requests) == 1


def test_a_token_that_ends_is_asked_for_again_and_a_person_signed_out_is_told(visit, eva, shop):
    page = visit()
    expect(bell(page)).to_be_visible()
    lay(eva, 1)
    expect(bell(page)).to_have_accessible_name("Notifications, 1 unread")
    with page.expect_request("**/token"):
        AccessToken.objects.all().delete()
    lay(eva, 2)
    expect(bell(page)).to_have_accessible_name("Notifications, 2 unread")
    shop.token = lambda: None
    AccessToken.objects.all().delete()
    bell(page).click()
    expect(page.get_by_role("status")).to_contain_text("You are not signed in any more.")


def test_a_stream_that_is_away_is_tried_again_and_counts_are_asked_for_meanwhile(visit, eva, shop):
    away, shop.streams = shop.streams, shop.api  # which does not stream, and says so
    page = visit()
    lay(eva, 1)
    expect(bell(page)).to_have_accessible_name("Notifications, 1 unread")
    bell(page).click()
    expect(page.get_by_role("status")).to_contain_text("No connection")
    page.evaluate("url => document.querySelector('notification-bell').setAttribute('stream', url)", away)
    expect(page.get_by_role("status")).to_be_hidden()
    lay(eva, 2)
    expect(page.get_by_role("listitem")).to_have_count(2)


@pytest.mark.parametrize(("theme", "viewport"), [("light", WIDE), ("dark", PHONE)])
def test_it_is_accessible_in_german_too(visit, eva, shop, theme, viewport, errors):
    shop.lang = "de"
    lay(eva, 1, title="Angebot", body="Mehr auf https://shop.example/angebot")
    InboxMessage.objects.create(
        recipient=eva, occurrence_id=2, title="Alt", body="Gelesen", created_at=timezone.now(), read_at=timezone.now()
    )
    page = visit(theme=theme, viewport=viewport)
    button = page.get_by_role("button", name="Mitteilungen, 1 ungelesen")
    button.click()
    expect(page.get_by_role("listitem")).to_have_count(2)
    expect(page.get_by_role("button", name="Alle gelesen")).to_be_visible()
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= viewport["width"]
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    assert found.response["violations"] == []
    assert errors == []
