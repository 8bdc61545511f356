"""``manage.py check_user_service``: is an organisation's user service as the contract says?

Exits 1 when a check fails, 2 when it could not begin. It changes nothing, here or there, and needs no database.
"""

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from schedules.checks import is_address
from schedules.user_service.client import Client, Refused
from schedules.user_service.conformance import suite
from schedules.user_service.conformance.checks import Check, Outcome, Result
from schedules.user_service.conformance.subject import Subject

_COULD_NOT_BEGIN = 2
_INTERRUPTED = 130
_MARKS = {Outcome.PASSED: "[green]passed [/green]", Outcome.FAILED: "[red]FAILED [/red]", Outcome.SKIPPED: "skipped"}


class Command(BaseCommand):
    help = (
        "Check a user service against docs/contracts/user-service.yaml, over HTTP and with the people it has: what was "
        "asked, what came, what the contract says, and the remedy. No person's data is printed."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "url", nargs="?", default="", help="what stands before /audience (default: USER_SERVICE_URL)"
        )
        parser.add_argument("--token", help="the bearer token (default: USER_SERVICE_TOKEN, where no url is given)")
        parser.add_argument("--timeout", type=float, metavar="S", help="seconds of an answer (USER_SERVICE_TIMEOUT_S)")
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a list")
        parser.add_argument(
            "--show-people",
            action="store_true",
            help="print the ids and values that were asked for and came: the output then holds personal data",
        )

    def handle(self, *, url: str, token: str | None, timeout: float | None, show_people: bool, **options: Any) -> None:
        # The token of the settings goes to the address of the settings alone.
        token = (settings.USER_SERVICE_TOKEN if not url else "") if token is None else token
        url = url.rstrip("/") or settings.USER_SERVICE_URL
        if not is_address(url):
            words = "Give the address that stands before /audience, such as https://users.example.com/notifications."
            raise CommandError(words, returncode=_COULD_NOT_BEGIN)
        if timeout is not None and not timeout > 0:
            raise CommandError(f"--timeout {timeout:g}: give seconds, more than 0.", returncode=_COULD_NOT_BEGIN)
        try:
            client = Client(url, token=token, timeout_s=timeout or settings.USER_SERVICE_TIMEOUT_S)
        except Refused as error:
            raise CommandError(str(error), returncode=_COULD_NOT_BEGIN) from None
        # The real time: there needn't be a database to ask for another.
        subject = Subject(client, as_of=timezone.now(), has_token=bool(token), shows_people=show_people)
        try:
            results = _results(subject)
        except KeyboardInterrupt:
            raise CommandError("Stopped.", returncode=_INTERRUPTED) from None
        counts = Counter(result.outcome for result in results)
        if options["json"]:
            figures = {str(outcome): counts[outcome] for outcome in Outcome}
            self.stdout.write(json.dumps({"url": url, **figures, "checks": [each.as_json() for each in results]}))
        else:
            console = Console(file=cast(IO[str], self.stdout), highlight=False, soft_wrap=True)
            for result in results:
                _print(console, result)
        if counts[Outcome.FAILED]:
            raise CommandError(f"{counts[Outcome.FAILED]} of {len(results)} checks failed.", returncode=1)
        if not options["json"]:
            skipped = f", {counts[Outcome.SKIPPED]} skipped" if counts[Outcome.SKIPPED] else ""
            self.stdout.write(f"{counts[Outcome.PASSED]} checks passed{skipped}.")


def _results(subject: Subject) -> list[Result]:
    with _progress_bar() as show:
        return list(suite.run(subject, on_check=show))


def _print(console: Console, result: Result) -> None:
    console.print(f"{_MARKS[result.outcome]}  {result.name:<17} {escape(result.came)}")
    if result.outcome is Outcome.FAILED:
        for name, said in (("asked", result.asked), ("contract", result.contract), ("remedy", result.remedy)):
            console.print(f"         {name:<9} {escape(said)}")


@contextmanager
def _progress_bar() -> Iterator[Callable[[Check], None]]:
    """On a terminal's standard error; nothing elsewhere."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Checking", total=len(suite.CHECKS))

        def show(check: Check) -> None:
            bar.update(task, description=f"Checking {check.name}", completed=suite.CHECKS.index(check))

        yield show
