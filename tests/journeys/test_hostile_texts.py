"""Scripts in everything that people can write: no page runs one, makes an element of one, or loads what one names.

The pages are those that the service has, each opened once, in a browser that sings when a script of the corpus runs.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.db.models import Model
from playwright.sync_api import Page, Request, Response, TimeoutError, expect

from delivery.models import InboxMessage, OutboxMessage, TestSend
from frontend.models import Client
from schedules.models import (
    Device,
    MessageTemplate,
    Occurrence,
    Recipient,
    RecipientImport,
    Schedule,
    ScheduleVersion,
    StopSwitch,
    TemplateContent,
)
from schedules.permissions import Role
from tests.api import service_client
from tests.corpora import corpus
from tests.furniture import furnish
from tests.journeys.test_every_page import pages_of
from tests.pages import PARTS, addresses

pytestmark = pytest.mark.django_db(transaction=True)

ALL = "\n".join(corpus("scripts"))
# Elements that a text became: in attributes that run or load something, and in scripts.
MADE = """() => [...document.querySelectorAll("*")].flatMap(element => [
    ...(element.matches("script, style, template") && /pwned|evil\\.example/.test(element.textContent)
        ? [element.outerHTML.slice(0, 200)] : []),
    ...[...element.attributes].filter(each => /pwned|evil\\.example/.test(each.value)
        && (/^(on|x-|@|:|hx-|data-hx-|v-|ng-)/i.test(each.name) && each.name !== "hx-vals"
            || /^(srcdoc|style|ping|background|code|http-equiv)$/i.test(each.name)
            || /^(href|src|action|formaction|data|xlink:href|poster|srcset)$/i.test(each.name)
               && !each.value.startsWith("/") && !each.value.startsWith("?") && !each.value.startsWith("#")))
        .map(each => `${element.tagName} ${each.name}=${each.value.slice(0, 200)}`)])"""
SETTLED_MS = 3_000  # for a page whose load has no end
REFLECTED = ("/schedules/?text={}", "/templates/?text={}", "/recipients/?q={}", "/ledger/?recipient={}", "/no/such/{}")


class Canary:
    """What happened that must not: scripts run, dialogs, what was asked of other hosts, what the policy had to stop.

    In frames with what others wrote the policy is what stops it. Elsewhere it has nothing to do.
    """

    def __init__(self, page: Page, here: str) -> None:
        self.sung: list[str] = []
        self._here = here
        page.expose_binding("pwned", lambda source, *_: self.sung.append(f"ran in {source['frame'].url}"))
        page.on("dialog", lambda dialog: (self.sung.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("popup", lambda popup: self.sung.append(f"popup {popup.url}"))
        page.on("requestfinished", self._left)
        page.on("requestfailed", lambda request: self._stopped(request, page))

    def _left(self, request: Request) -> None:
        if "/policy-reports" in request.url or not request.url.startswith((self._here, "data:", "blob:", "about:")):
            self.sung.append(f"asked for {request.url[:200]}")

    def _stopped(self, request: Request, page: Page) -> None:
        is_foreign = request.frame != page.main_frame or request.frame.url.endswith("/body")
        if request.failure != "csp" or not is_foreign:
            self._left(request)


def _pieces(longest: int) -> Iterator[str]:
    """Lines of the corpus, as many together as ``longest`` characters hold, again and again."""
    lines = [line for line in corpus("scripts") if len(line) <= longest]
    whole, piece = [], ""
    for line in lines:
        if len(piece) + len(line) >= longest:
            whole.append(piece)
            piece = ""
        piece = f"{piece} {line}".strip()
    return cycle([*whole, piece])


def _plant(service: Any) -> dict[str, Any]:
    """The furnished service, every free text of which is replaced."""
    values = furnish(service)
    api = service_client(name=next(_pieces(200)))
    Client.objects.filter(pk=api.pk).update(redirect_uris="https://a.example/")
    short = _pieces(190)

    def rewrite(model: type[Model], **texts: Any) -> None:
        for row in model._default_manager.all():
            for name, text in texts.items():
                setattr(row, name, next(text) if isinstance(text, Iterator) else text)
            row.save()

    tags, bio = corpus("scripts")[::12][:10], ALL[:16_000]
    audience = {"all": [{"field": "attributes.plan", "op": "in", "value": corpus("scripts")[:40]}]}
    rewrite(Schedule, name=short, status_reason=_pieces(490), created_by=_pieces(95), audience_query=audience)
    rewrite(ScheduleVersion, created_by=_pieces(95))
    rewrite(MessageTemplate, name=short)
    TemplateContent.objects.update(subject=ALL[:900], text=ALL, html=ALL)
    attributes = {"first_name": bio, "plan": next(short), "name<b>": next(short)}
    rewrite(
        Recipient,
        external_id=short,
        email=_pieces(300),
        locale=_pieces(35),
        time_zone=_pieces(64),
        tags=tags,
        attributes=attributes,
        updated_by=_pieces(95),
    )
    rewrite(Device, token=_pieces(400))
    rewrite(Occurrence, held_reason=short)
    rewrite(StopSwitch, reason=_pieces(490), created_by=_pieces(95))
    rewrite(RecipientImport, name=short, detail=_pieces(900), created_by=_pieces(95))
    rewrite(OutboxMessage, to=_pieces(300), subject=_pieces(900), text=ALL, html=ALL)
    rewrite(InboxMessage, title=_pieces(900), body=ALL)
    rewrite(TestSend, to=_pieces(300), detail=_pieces(390), subject=_pieces(900), created_by=_pieces(95))
    User.objects.filter(username="admin").update(first_name=next(_pieces(140)), last_name=next(_pieces(140)))
    return values


def _open(page: Page, path: str) -> Response | None:
    """The page with what it loads; a frame of hostile HTML may never say that it is done, and gets a while."""
    answer = page.goto(path, wait_until="domcontentloaded")
    with suppress(TimeoutError):
        page.wait_for_load_state("load", timeout=SETTLED_MS)
    return answer


def test_the_corpus_is_large_and_a_browser_runs_it_where_nothing_stops_it(browser):
    lines = corpus("scripts")
    assert len(set(lines)) == len(lines) >= 200
    page = browser.new_page()
    page.route("**/*", lambda route: route.abort())
    canary = Canary(page, "http://nowhere.invalid")
    # What takes the page away would end the others.
    page.set_content("\n".join(line for line in lines if "http-equiv" not in line and "location" not in line))
    page.wait_for_timeout(300)
    ran = len([each for each in canary.sung if each.startswith("ran")])
    assert ran >= 40
    assert len(page.evaluate(MADE)) >= 60


@pytest.mark.timeout(480)
def test_no_page_runs_or_becomes_what_somebody_has_written(service, open_page, live_server):
    page = open_page(Role.ADMIN)
    values = _plant(service)
    canary = Canary(page, live_server.url)
    wrong = []
    seen = set()
    for path in pages_of(Role.ADMIN, values):
        answer = _open(page, path)
        assert answer is not None
        if answer.status != 200:
            wrong.append(f"{path}: answered {answer.status}")
        expect(page.locator(".htmx-request")).to_have_count(0)
        wrong += [f"{path}: {each}" for each in (*page.evaluate(MADE), *canary.sung)]
        canary.sung.clear()
        seen |= {path} if "pwned" in page.content() else set()
    for _, path in addresses({name: PARTS[name] for name in ("template-body", "outbox-body")}, values):
        _open(page, path)
        wrong += [f"{path} by itself: {each}" for each in canary.sung]
        canary.sung.clear()
    for path in REFLECTED:
        _open(page, path.format(quote(next(_pieces(1_500)))))
        wrong += [f"{path}: {each}" for each in (*page.evaluate(MADE), *canary.sung)]
    assert wrong == []
    assert len(seen) >= 25, f"nothing was planted on most pages: {seen}"
