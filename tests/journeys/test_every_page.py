"""Every page as people see it: light and dark, on a desk and on a phone, in English and in German.

No page breaks a rule of axe that it calls serious (contrast is one), complains in the console, asks for what the
content policy forbids, or is wider than its screen.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from schedules.permissions import Role, can
from tests.furniture import furnish, stretch
from tests.journeys.conftest import PHONE, TOO_WIDE, WIDE
from tests.pages import ADMIN, PAGES, addresses

# Those on which most is done, walked through from one control to the next.
WALKED = ("schedules", "calendar", "templates", "template", "recipients", "recipient-imports", "recipient-import")
# What the keyboard is at, and what is wrong with how it shows; nothing at the end of the page.
STANDS = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const box = at.getBoundingClientRect();
  const [x, y] = [box.left + Math.min(box.width / 2, 12), box.top + box.height / 2];
  const above = document.elementFromPoint(x, y);
  const style = getComputedStyle(at.closest(".ns-choice") || at);
  const wrong = [];
  if (parseFloat(style.outlineWidth) < 2 || style.outlineStyle === "none") wrong.push("not outlined");
  if (x < 0 || y < 0 || x > innerWidth || y > innerHeight) wrong.push("beside the screen");
  else if (!above || !at.contains(above) && !above.contains(at)) wrong.push(`behind ${above && above.className}`);
  return [at.outerHTML.slice(0, 160), wrong.join(", ")];
}"""
MOST_STEPS = 120

pytestmark = pytest.mark.django_db(transaction=True)

SERIOUS = ("serious", "critical")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ALL = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
# Of what another theme and another width may break.
OF_LOOKS = {
    "runOnly": {
        "type": "rule",
        "values": ["color-contrast", "label", "select-name", "button-name", "link-name", "target-size"],
    },
    "rules": {"target-size": {"enabled": True}},
    "resultTypes": ["violations"],
}
# What unfold's own templates break, which are not ours to mend: small buttons of its search and its columns.
UNFOLDS = frozenset({"target-size"})


class Visitor:
    """Goes from page to page and notes what is wrong, each complaint with the pages that it is about."""

    def __init__(self, page: Page, errors: list[str]) -> None:
        self.page = page
        self.complaints: dict[str, list[str]] = defaultdict(list)
        self._errors = errors

    def visit(self, path: str) -> Iterator[str]:
        answer = self.page.goto(path)
        if answer is None or not answer.ok:
            yield f"answered {answer.status if answer else 'nothing'}"
        expect(self.page.locator(".htmx-request")).to_have_count(0)
        yield from self._errors
        self._errors.clear()

    def width(self) -> Iterator[str]:
        beyond = self.page.evaluate(TOO_WIDE)
        if beyond > 0:
            yield f"{beyond} px wider than {self.page.viewport_size}"

    def rules(self, options: object, *, but_not: frozenset[str] = frozenset()) -> Iterator[str]:
        """What axe, which must have been put into the page, has to say."""
        for each in self.page.evaluate("options => axe.run(options)", options)["violations"]:
            if each["impact"] in SERIOUS and each["id"] not in but_not:
                nodes = [(node["target"], node["html"][:160]) for node in each["nodes"][:2]]
                yield f"{each['id']}: {each['help']}: {nodes}"

    def note(self, path: str, complaints: Iterable[str]) -> None:
        for each in complaints:
            self.complaints[each].append(path)

    def is_content(self) -> None:
        told = [f"{each}\n  at {', '.join(paths)}" for each, paths in self.complaints.items()]
        assert not told, "\n" + "\n".join(told)


def pages_of(role: Role, values: dict[str, object]) -> Sequence[str]:
    """What ``role`` may open; of pages that are alike two, but each step of the wizard."""
    person = User.objects.get(username=role.lower())
    found: dict[str, list[str]] = defaultdict(list)
    for name, path in addresses(PAGES, values):
        if can(person, PAGES[name]) and (len(found[name]) < 2 or name == "wizard-step"):
            found[name].append(path)
    return [path for paths in found.values() for path in paths]


@pytest.mark.timeout(480)
def test_every_page_can_be_read_by_everybody_in_either_light(service, open_page, errors):
    values = furnish(service)
    page = open_page(Role.ADMIN)
    page.evaluate("localStorage.setItem('_x_adminTheme', '\"auto\"')")
    visitor = Visitor(page, errors)
    for number, path in enumerate([*pages_of(Role.ADMIN, values), *ADMIN, *values["links"]]):
        # Each page in both themes and on both screens; which goes with which alternates.
        on_a_desk, on_a_phone = ("light", "dark") if number % 2 else ("dark", "light")
        forgiven = UNFOLDS if path.startswith("/admin/") else frozenset()
        page.set_viewport_size(WIDE)
        page.emulate_media(color_scheme=on_a_desk)
        visitor.note(path, visitor.visit(path))
        page.evaluate(Axe().axe_script)
        visitor.note(path, [*visitor.width(), *visitor.rules(ALL, but_not=forgiven)])
        page.emulate_media(color_scheme=on_a_phone)
        page.set_viewport_size(PHONE)
        visitor.note(path, [*visitor.width(), *visitor.rules(OF_LOOKS, but_not=forgiven)])
    visitor.is_content()


def test_every_page_fits_a_phone_in_german_whatever_people_have_written(service, open_page, live_server, errors):
    values = furnish(service)
    stretch()
    page = open_page(Role.MARKETER, viewport=PHONE)
    page.context.add_cookies([{"name": "django_language", "value": "de", "url": live_server.url}])
    visitor = Visitor(page, errors)
    for path in pages_of(Role.MARKETER, values):
        visitor.note(path, [*visitor.visit(path), *visitor.width()])
        if page.locator("html").get_attribute("lang") != "de":
            visitor.note(path, ["not in German"])
    visitor.is_content()


def _walk(page: Page) -> Iterator[str]:
    """From the link to the content by Tab to the page's end."""
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(MOST_STEPS):
        page.keyboard.press("Tab")
        stands = page.evaluate(STANDS)
        if stands is None:
            return
        if stands[1]:
            yield f"{stands[1]}: {stands[0]}"
    yield "no end after so many steps"


def test_the_keyboard_goes_through_every_control_and_each_shows_that_it_is_there(service, open_page, errors):
    values = furnish(service)
    page = open_page(Role.ADMIN)
    visitor = Visitor(page, errors)
    for number, (_name, path) in enumerate(addresses({name: PAGES[name] for name in WALKED}, values)):
        page.set_viewport_size(PHONE if number % 2 else WIDE)
        visitor.note(path, [*visitor.visit(path), *_walk(page)])
    visitor.is_content()

    # The menu lies over a narrow page: it goes when one goes on, whether by keyboard or by a finger.
    page.set_viewport_size(PHONE)
    page.goto("/calendar/")
    opener, menu = page.get_by_role("button", name="Menu"), page.get_by_role("navigation", name="Main")
    opener.press("Enter")
    expect(menu.get_by_role("link").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    page.mouse.click(360, 700)
    expect(menu).to_be_hidden()
    opener.press("Enter")
    menu.get_by_role("link").last.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(menu).to_be_hidden()
    assert page.evaluate(STANDS)[1] == ""
