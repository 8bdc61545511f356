"""Chromium, and what every page must be: without errors, no wider than the screen, and readable."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connections
from playwright.sync_api import Browser, Page, sync_playwright

from schedules.permissions import Role
from tests.accounts import signed_in

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REMEDY = "No Chromium on the PATH: the browser journeys can't run. Install it: apt-get install chromium"
CONTRAST = Path(__file__).with_name("contrast.js").read_text()
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# WCAG 2.1, level AA, for text of ordinary size.
ENOUGH_CONTRAST = 4.5
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 375, "height": 800}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, one a process; without one the journeys are skipped, and in CI they fail."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail(REMEDY)
        pytest.skip(REMEDY)
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright keeps an event loop in this thread; the ORM is used by the test beside it, never inside it.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium) -> Iterator[Browser]:
    """Chromium without anything open in it."""
    yield chromium
    for context in chromium.contexts:
        context.close()
    connections.close_all()  # beside the event loop Django opens connections of their own


@pytest.fixture
def errors() -> list[str]:
    """What the pages complain about in the browser's console."""
    return []


@pytest.fixture
def open_page(browser, live_server, errors):
    """Hand over a browser's page to somebody who has signed in as ``role``. The form is filled in by other tests."""

    def sign_in(role: Role, *, viewport=WIDE, theme: str = "light") -> Page:
        name, url = settings.SESSION_COOKIE_NAME, live_server.url
        cookie = {"name": name, "value": signed_in(role).cookies[name].value, "url": url}
        looks = {"name": "_x_adminTheme", "value": f'"{theme}"'}
        state = {"cookies": [], "origins": [{"origin": url, "localStorage": [looks]}]}
        context = browser.new_context(viewport=viewport, base_url=url, color_scheme=theme, storage_state=state)
        context.add_cookies([cookie])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto("/")
        return page

    return sign_in


def contrast(page: Page) -> float:
    least: float = page.evaluate(CONTRAST)
    return least
