"""``manage.py demo``: the whole service on this machine, with invented people."""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError
from rich.console import Console

from scheduler_project.demo.environment import AlreadyRunning
from scheduler_project.demo.run import CannotRun, Options, enter_own_world, run
from scheduler_project.local.errors import LocalServicesError

_INTERRUPTED = 130


class Command(BaseCommand):
    help = "Run the whole service with invented people until Ctrl-C. The next start finds their data again."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=_port, default=8000, help="of the pages; taken: the next free one")
        parser.add_argument(
            "--email-provider",
            choices=["ses", "outbox"],
            default="ses",
            help="ses: over HTTP to a stub of Amazon SES, with a mailbox; outbox: into the database",
        )
        parser.add_argument(
            "--push-provider",
            choices=["fcm", "outbox"],
            default="fcm",
            help="fcm: over HTTP to a stub of Firebase Cloud Messaging, with a page; outbox: into the database",
        )
        parser.add_argument("--fresh", action="store_true", help="empty the embedded database first")
        parser.add_argument("--recipients", type=_people, default=10_000, help="how many people to invent")

    def handle(
        self, *, port: int, email_provider: str, push_provider: str, fresh: bool, recipients: int, **_: Any
    ) -> None:
        enter_own_world()
        console = Console(highlight=False)
        options = Options(
            port=port,
            email_provider=email_provider,
            push_provider=push_provider,
            fresh=fresh,
            people=recipients,
            user_service=settings.USER_SERVICE_URL,
            template_service=settings.TEMPLATE_SERVICE_URL,
        )
        try:
            code = run(options, console)
        except KeyboardInterrupt:
            console.print("Stopped before it was ready. Nothing is left running.")
            sys.exit(_INTERRUPTED)
        except (AlreadyRunning, CannotRun, LocalServicesError, OSError, OperationalError) as error:
            raise CommandError(str(error).strip()) from error
        sys.exit(code)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise ArgumentTypeError(f"{text!r} is no port: write a number from 1 to 65535.")
    return int(text)


def _people(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise ArgumentTypeError(f"{text!r} won't do: write a number from 1 to 1000000.")
    return int(text)
