"""What the commands have in common that check a service of an organisation against its contract."""

import abc
import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, ClassVar, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from schedules.checks import is_address
from schedules.remote import checking
from schedules.remote.checking import Check, Outcome, Result
from schedules.remote.errors import Refused

_COULD_NOT_BEGIN = 2
_INTERRUPTED = 130
_MARKS = {Outcome.PASSED: "[green]passed [/green]", Outcome.FAILED: "[red]FAILED [/red]", Outcome.SKIPPED: "skipped"}


class CheckCommand(BaseCommand, abc.ABC):
    """Exits 1 when a check fails, 2 when it could not begin. It changes nothing, here or there, and needs no database.

    ``setting``: how the names of the service's settings begin; ``path``: what its address stands before; ``example``:
    an address; ``checks``: all of them, for what ``subject`` makes.
    """

    requires_system_checks: list[str] = []
    setting: ClassVar[str]
    path: ClassVar[str]
    example: ClassVar[str]
    checks: ClassVar[Sequence[Check[Any]]]

    @abc.abstractmethod
    def subject(self, url: str, *, token: str, timeout_s: float, **options: Any) -> Any:
        """The service under check. Raises ``Refused``."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        name = self.setting
        words = f"what stands before {self.path} (default: {name}_URL)"
        parser.add_argument("url", nargs="?", default="", help=words)
        parser.add_argument("--token", help=f"the bearer token (default: {name}_TOKEN, where no url is given)")
        parser.add_argument("--timeout", type=float, metavar="S", help=f"seconds of an answer ({name}_TIMEOUT_S)")
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a list")

    def handle(self, *, url: str, token: str | None, timeout: float | None, **options: Any) -> None:
        own = {part: getattr(settings, f"{self.setting}_{part}") for part in ("URL", "TOKEN", "TIMEOUT_S")}
        # The token of the settings goes to the address of the settings alone.
        token = (own["TOKEN"] if not url else "") if token is None else token
        url = url.rstrip("/") or own["URL"]
        if not is_address(url):
            words = f"Give the address that stands before {self.path}, such as {self.example}."
            raise CommandError(words, returncode=_COULD_NOT_BEGIN)
        if timeout is not None and not timeout > 0:
            raise CommandError(f"--timeout {timeout:g}: give seconds, more than 0.", returncode=_COULD_NOT_BEGIN)
        try:
            subject = self.subject(url, token=token, timeout_s=timeout or own["TIMEOUT_S"], **options)
        except Refused as error:
            raise CommandError(str(error), returncode=_COULD_NOT_BEGIN) from None
        try:
            results = self._results(subject)
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

    def _results(self, subject: Any) -> list[Result]:
        with _progress_bar(self.checks) as show:
            return list(checking.run(self.checks, subject, on_check=show))


def _print(console: Console, result: Result) -> None:
    console.print(f"{_MARKS[result.outcome]}  {result.name:<17} {escape(result.came)}")
    if result.outcome is Outcome.FAILED:
        for name, said in (("asked", result.asked), ("contract", result.contract), ("remedy", result.remedy)):
            console.print(f"         {name:<9} {escape(said)}")


@contextmanager
def _progress_bar(checks: Sequence[Check[Any]]) -> Iterator[Callable[[Check[Any]], None]]:
    """On a terminal's standard error; nothing elsewhere."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Checking", total=len(checks))

        def show(check: Check[Any]) -> None:
            bar.update(task, description=f"Checking {check.name}", completed=list(checks).index(check))

        yield show
