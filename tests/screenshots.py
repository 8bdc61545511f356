"""Pictures of every page, from a demo of their own: ``make screenshots``.

    python -m tests.screenshots [--wait 90] [--language de] [--only NAME]

All pages in light and dark, on a desk and on a phone, go to ``.local/screenshots/pages``; the few that README and the
guide show, in English and of a moderate size, to ``docs/screenshots``. A new demo below ``.local/screenshots``
plays for a while, so that there is something to see. Then its clock is put forward by a day, which takes some minutes,
for what shows more than an hour, and it ends.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import django
from playwright.sync_api import Browser, expect, sync_playwright

from scheduler_project.local import services

PROJECT = Path(__file__).resolve().parents[1]
ROOT = PROJECT / ".local" / "screenshots"
EVERY_PAGE = ROOT / "pages"
CHOSEN = PROJECT / "docs" / "screenshots"
READY_S = 300
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESK, PHONE = (1440, 900), (375, 800)
IN_DOCS = (1440, 720)
LARGEST_BYTES = 150_000


# This process and the demo that it starts share servers of their own.
os.environ |= {"LOCAL_DIR": str(ROOT), "DJANGO_SETTINGS_MODULE": "scheduler_project.settings"}
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright keeps an event loop beside the one that asks the database


class Picture(NamedTuple):
    """One of those that are committed: of the first address of ``page`` that has ``part`` in it, with ``query``."""

    name: str
    page: str
    part: str = ""
    theme: str = "light"
    size: tuple[int, int] = IN_DOCS
    query: str = ""
    a_day_later: bool = False


PICTURES = [
    Picture("schedules", "schedules"),
    Picture("schedules-phone", "schedules", theme="dark", size=PHONE),
    Picture("wizard-audience", "wizard-step", part="audience"),
    Picture("wizard-message", "wizard-step", part="message"),
    Picture("wizard-when", "wizard-step", part="when"),
    Picture("wizard-limits", "wizard-step", part="limits"),
    Picture("wizard-review", "wizard-step", part="review"),
    Picture("schedule", "schedule"),
    Picture("calendar", "calendar", query="?view=agenda"),
    Picture("run", "occurrence"),
    Picture("run-reasons", "occurrence", query="#reasons"),
    Picture("run-books", "occurrence", query="#books"),
    Picture("ledger", "ledger", query="?state=11"),
    Picture("story", "delivery"),
    Picture("recipient", "recipient"),
    Picture("topics", "topics"),
    Picture("explain", "explain", part="?"),
    Picture("dashboard", "dashboard", theme="dark", size=(1440, 800), a_day_later=True),
    Picture("dashboard-reasons", "dashboard", query="#reasons", a_day_later=True),
    Picture("audit", "audit"),
]


@contextmanager
def running_demo() -> Iterator[str]:
    """A demo with fresh data; the address of its pages."""
    command = [sys.executable, "manage.py", "demo", "--fresh", "--port", "8741", "--recipients", "10000"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as demo:
        try:
            yield _address(demo)
        finally:
            demo.terminate()
            demo.wait(timeout=60)


def _address(demo: "subprocess.Popen[str]") -> str:
    """Reads until the demo says where its pages are."""
    give_up = time.monotonic() + READY_S
    assert demo.stdout
    for line in demo.stdout:
        sys.stderr.write(line)
        if line.strip().startswith("Pages"):
            return line.split()[1]
        if time.monotonic() > give_up:
            break
    sys.exit("The demo does not start: see its words above.")


def values() -> dict[str, Any]:
    """What addresses are made of, from the demo's data; a draft is made for the wizard's pages."""
    from delivery.models import Delivery, InboxMessage, State
    from schedules import clock, operations
    from schedules.definition import Definition
    from schedules.models import MessageTemplate, Occurrence, OccurrenceState, Recipient, Schedule, Topic

    now = clock.now()
    newsletter = Schedule.objects.get(name="Newsletter to everyone")
    run = Occurrence.objects.get(schedule=newsletter)
    template = MessageTemplate.objects.get(pk=newsletter.template_id)
    definition = Definition(
        name="Winter greetings",
        channel="email",
        template_id=template.pk,
        schedule_type="once",
        time_zone_mode="user_local",
        time_zone="Europe/Berlin",
        run_at=(now + timedelta(days=3)).replace(hour=9, minute=0, second=0, microsecond=0),
        audience_query={
            "all": [
                {"field": "tags", "op": "contains", "value": "newsletter"},
                {"field": "attributes.plan", "op": "in", "value": ["plus", "pro"]},
            ]
        },
        max_per_user_per_day=2,
    )
    draft = operations.create(definition=definition, by="system:demo", now=now, draft=True)
    failed = Delivery.objects.filter(day=run.day, occurrence_id=run.pk, state=State.FAILED).first()
    person = failed.recipient_id if failed else Recipient.objects.earliest("pk").pk
    held = Occurrence.objects.filter(state=OccurrenceState.RUNNING).exclude(held_reason="").first()
    return {
        "schedule_id": Schedule.objects.get(name__startswith="Evening digest").pk,
        "occurrence_id": [each.pk for each in (run, held) if each],
        "delivery occurrence_id": run.pk,
        "recipient_id": person,
        "template_id": template.pk,
        "locale": "de",
        "inbox-message message_id": InboxMessage.objects.latest("pk").pk,
        "wizard-step schedule_id": draft.pk,
        "wizard-step step": ["basics", "audience", "message", "when", "limits", "review"],
        "schedule-do verb": ["pause"],
        "schedule-edit schedule_id": newsletter.pk,
        "key": list(Topic.objects.values_list("key", flat=True)[:1]),
        **{key: [] for key in ("message_id", "import_id", "test_send_id", "endpoint_id")},  # the demo has none
        "asked of explain": f"?recipient={Recipient.objects.get(pk=person).external_id}&schedule={newsletter.pk}",
    }


class Camera:
    """A browser in which an admin of the demo is signed in."""

    def __init__(self, browser: Browser, address: str, *, language: str) -> None:
        self._page = browser.new_page(base_url=address)
        self._page.context.add_cookies([{"name": "django_language", "value": "en", "url": address}])
        self._page.goto("/")
        self._page.get_by_label("Username").fill("admin")
        self._page.get_by_label("Password").fill(services.secret(root=ROOT, name="demo-password")[:12])
        self._page.get_by_role("button", name="Log in").click()
        self._page.wait_for_url(lambda there: "/login/" not in there)
        self._page.context.add_cookies([{"name": "django_language", "value": language, "url": address}])
        self._page.evaluate("localStorage.setItem('_x_adminTheme', '\"auto\"')")

    def take(self, address: str, path: Path, *, theme: str, size: tuple[int, int], whole: bool) -> None:
        """A picture of what is seen at first, or of the ``whole`` page however long."""
        self._page.set_viewport_size({"width": size[0], "height": size[1]})
        self._page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        self._page.goto(address)
        expect(self._page.locator(".htmx-request")).to_have_count(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._page.screenshot(path=path, full_page=whole, animations="disabled")


def take_all(camera: Camera, found: list[tuple[str, str]], *, only: str) -> None:
    for name, address in found:
        for theme in ("light", "dark"):
            for size in (DESK, PHONE):
                file = address.strip("/").replace("/", "-").partition("?")[0] or "home"
                path = EVERY_PAGE / f"{theme}-{size[0]}" / f"{file}{'-asked' if '?' in address else ''}.png"
                if only in name:
                    camera.take(address, path, theme=theme, size=size, whole=True)


def take_chosen(camera: Camera, found: list[tuple[str, str]], *, only: str, a_day_later: bool) -> None:
    for picture in PICTURES:
        if only not in picture.page or picture.a_day_later != a_day_later:
            continue
        address = next(path for name, path in found if name == picture.page and picture.part in path)
        path = CHOSEN / f"{picture.name}.png"
        camera.take(address + picture.query, path, theme=picture.theme, size=picture.size, whole=False)
        if path.stat().st_size > LARGEST_BYTES:
            sys.stderr.write(f"{path} is larger than {LARGEST_BYTES:,} bytes\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description="Pictures of every page.")
    parser.add_argument("--wait", type=int, default=90, help="seconds for which the demo plays first")
    parser.add_argument(
        "--language", choices=["en", "de"], default="en", help="of the pictures that are not in the docs"
    )
    parser.add_argument("--only", default="", help="pages whose address has a name with this in it")
    options = parser.parse_args()
    with running_demo() as address, sync_playwright() as playwright:
        time.sleep(options.wait)
        django.setup()
        known = values()
        tables = import_module("tests.pages")  # it needs the settings, which join the demo
        found = list(tables.addresses(tables.PAGES, known))
        found += [("explain", f"/explain/{known['asked of explain']}")]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        in_english = Camera(browser, address, language="en")
        take_chosen(in_english, found, only=options.only, a_day_later=False)
        subprocess.run([sys.executable, "manage.py", "clock", "advance", "25h"], cwd=PROJECT, check=True)
        take_chosen(in_english, found, only=options.only, a_day_later=True)
        take_all(Camera(browser, address, language=options.language), found, only=options.only)
        browser.close()


if __name__ == "__main__":
    main()
