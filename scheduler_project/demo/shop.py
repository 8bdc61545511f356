"""A pretend shop on an address of its own, whose page shows its customer's notifications by the bell.

python -m scheduler_project.demo.shop --port 8029 --service http://127.0.0.1:8000 --streams http://127.0.0.1:8030

The customer is somebody of the team whose bulletin comes each minute. A real shop gets the customer's tokens at
/oauth/authorize; here they are made on the spot.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import NamedTuple

import django

from stubs.http import Request, Response, Server, json_response, text_response

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
django.setup()

from django.db import close_old_connections  # noqa: E402 - models can be imported from here on

from scheduler_project.demo.accounts import customer, token_for  # noqa: E402

_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5; }
body { margin: 0; }
header { display: flex; align-items: center; gap: 1rem; padding: .5rem 1.25rem; border-bottom: 1px solid #8886; }
header strong { flex: 1; font-size: 1.2rem; }
main { max-width: 44rem; margin: 2rem auto; padding: 0 1.25rem; }
code { overflow-wrap: anywhere; }
"""
_SCRIPT = """
const bell = document.querySelector("notification-bell");
bell.getToken = async () => (await (await fetch("/token", { method: "POST" })).json()).token;
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>A pretend shop</title>
<link rel="stylesheet" href="/shop.css">
<link rel="icon" href="data:,">
<script src="{service}/static/frontend/bell.js" defer></script>
<script src="/shop.js" defer></script>
</head>
<body>
<header><strong>A pretend shop</strong><span>{name}</span>
<notification-bell src="{service}" stream="{streams}"></notification-bell></header>
<main>
<h1>Somebody else’s page</h1>
<p>This page is of another origin than the service, and its content security policy lets in no inline script or style.
The bell above is one script and one element; the shop’s server hands it a token of its customer,
<code>{name}</code>.</p>
<p>Each minute the “Bulletin for the team” brings a message, without a reload. Open the page in a second window, mark
one as read, and see the other one count.</p>
</main>
</body>
</html>
"""


class Addresses(NamedTuple):
    """Of the service, for programs on other sites; without a slash at their ends."""

    service: str
    streams: str


class Shop:
    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self.server = Server(self._answer)
        # Django's database work is refused in a thread that runs an event loop.
        self._database = ThreadPoolExecutor(max_workers=1, thread_name_prefix="customer")

    async def _answer(self, request: Request) -> Response:
        match request.method, request.path:
            case "GET", "/":
                return self._page(await self._asked(customer))
            case "GET", "/shop.css":
                return text_response(_STYLE, content_type="text/css; charset=utf-8")
            case "GET", "/shop.js":
                return text_response(_SCRIPT, content_type="text/javascript; charset=utf-8")
            case "POST", "/token":
                name = await self._asked(customer)
                return json_response({"token": await self._asked(token_for, name) if name else None})
        return text_response("There is nothing here.", status=404)

    def _page(self, name: str) -> Response:
        shown = {key: escape(value) for key, value in self._addresses._asdict().items()}
        page = _PAGE.format(**shown, name=escape(name or "nobody yet: people are still on their way"))
        service, streams = self._addresses
        policy = f"default-src 'none'; script-src 'self' {service}; style-src 'self'; img-src data:; "
        headers = {
            "Content-Security-Policy": f"{policy}connect-src 'self' {service} {streams}; base-uri 'none'",
            "Cache-Control": "no-store",
        }
        return Response(200, page.encode(), "text/html; charset=utf-8", headers)

    async def _asked(self, question: Callable[..., str], *about: str) -> str:
        def ask() -> str:
            close_old_connections()
            return question(*about)

        return await asyncio.get_running_loop().run_in_executor(self._database, ask)


async def _serve(shop: Shop, port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sys.stdout.write(f"shop ready at {await shop.server.start('127.0.0.1', port)}\n")
    sys.stdout.flush()
    await stop.wait()
    await shop.server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A page of another origin with the bell.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--streams", required=True)
    options = parser.parse_args()
    asyncio.run(_serve(Shop(Addresses(options.service, options.streams)), options.port))
