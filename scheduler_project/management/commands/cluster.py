"""``manage.py cluster``: a deployment's topology as processes of this machine."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from scheduler_project.cluster.run import CannotRun, Options, run

_INTERRUPTED = 130


class Command(BaseCommand):
    help = (
        "Run everything twice, in two zones: web, streams, beat and a worker for each queue, behind HAProxy, with"
        " PgBouncer in transaction mode and a Redis Cluster for the counters. Until Ctrl-C; the data is kept."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8080, help="of the pages and the API (default: %(default)s)")
        parser.add_argument("--for", type=float, default=0.0, dest="seconds", help="seconds after which it ends")
        parser.add_argument(
            "--only-check", action="store_true", help="send through all of it, print the figures as JSON, and end"
        )
        parser.add_argument(
            "--rolling", action="store_true", help="check with everything restarted, one by one, during the send"
        )
        parser.add_argument("--people", type=int, default=0, help="of a check (default: 10,000, rolling 40,000)")

    def handle(self, *, port: int, seconds: float, only_check: bool, rolling: bool, people: int, **_: Any) -> None:
        options = Options(port=port, seconds=seconds, only_check=only_check, rolling=rolling, people=people)
        console = Console(highlight=False)
        try:
            code = run(options, console, root=settings.LOCAL_DIR / "cluster")
        except KeyboardInterrupt:
            console.print("Stopped before it was ready. Nothing is left running.")
            sys.exit(_INTERRUPTED)
        except CannotRun as error:
            raise CommandError(str(error)) from error
        sys.exit(code)
