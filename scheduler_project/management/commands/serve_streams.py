"""``manage.py serve_streams``: the server of inboxes' streams."""

import asyncio
import signal
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from frontend.streams import serve
from scheduler_project.wsgi import application


class Command(BaseCommand):
    help = (
        "Serve /api/v1/me/inbox/stream until SIGTERM, beside the web server: a proxy leads that address here. Says "
        "/metrics and /healthz too, which are not for the internet. A stream takes a file: see ulimit -n."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8030, help="0 takes a free one")

    def handle(self, *, host: str, port: int, **_: Any) -> None:
        try:
            asyncio.run(self._serve(host, port))
        except OSError as error:
            raise CommandError(f"{host}:{port} can't be listened on: {error}") from error

    async def _serve(self, host: str, port: int) -> None:
        loop, until = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, until.set)
        opened: asyncio.Future[int] = loop.create_future()
        opened.add_done_callback(lambda done: self.stdout.write(f"Streams are served at http://{host}:{done.result()}"))
        await serve(
            application,
            host=host,
            port=port,
            most=settings.INBOX_STREAMS,
            most_of_person=settings.INBOX_STREAMS_PER_PERSON,
            until=until,
            opened=opened,
        )
