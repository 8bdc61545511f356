"""``manage.py books``: do they balance? Exits 1 and names the occurrence where they don't."""

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError
from django.db import ProgrammingError
from psycopg.errors import UndefinedTable
from rich.console import Console
from rich.table import Table

from delivery import books, punctuality
from delivery.books import Books
from delivery.models import State
from schedules import clock
from schedules.models import Occurrence

# Occurrences shown one by one; what does not balance is always shown.
LATEST = 20
_MOST_DAYS = 36_500


class Command(BaseCommand):
    help = "Check the books of every occurrence, or show those of one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--occurrence", type=int, metavar="ID", help="show this occurrence's books and waves")
        parser.add_argument("--days", type=int, help="only occurrences of the last so many days")
        parser.add_argument("--json", action="store_true", help="one JSON object per occurrence")

    def handle(self, *, occurrence: int | None, days: int | None, **options: Any) -> None:
        if days is not None and not 0 < days <= _MOST_DAYS:
            raise CommandError(f"--days {days}: give a number from 1 to {_MOST_DAYS}, or leave it out for all.")
        try:
            found = _find(occurrence=occurrence, days=days)
        except LookupError as error:
            raise CommandError(str(error)) from error
        except ProgrammingError as error:
            if isinstance(error.__cause__, UndefinedTable):
                raise CommandError("The database has no books yet: run manage.py migrate.") from error
            raise
        if options["json"]:
            self._print_json(found)
        else:
            self._print_table(found, with_waves=occurrence is not None)
        wrong = [each for each in found if not each.closes]
        for each in wrong:
            self.stderr.write(f"occurrence {each.occurrence_id} does not balance: {'; '.join(each.differences)}")
        if wrong:
            raise CommandError(f"{len(wrong)} of {len(found)} books do not balance.", returncode=1)

    def _print_json(self, found: list[Books]) -> None:
        for each in found:
            figures = {"occurrence": each.occurrence_id, "schedule": each.schedule_id, "state": each.state}
            self.stdout.write(json.dumps({**figures, "targeted": each.targeted, **each.rows, "closes": each.closes}))

    def _print_table(self, found: list[Books], *, with_waves: bool) -> None:
        console = Console(file=cast(IO[str], self.stdout), width=None if self.stdout.isatty() else 160)
        names = [state.label for state in State if any(each.rows[state.label] for each in found)]
        table = Table("occurrence", "of schedule", "at (UTC)", "state", title="Books", show_footer=len(found) > 1)
        for name in ("targeted", *names):
            total = sum(each.targeted if name == "targeted" else each.rows[name] for each in found)
            table.add_column(name, f"{total:,}", justify="right")
        table.add_column("balance")
        table.columns[0].footer = f"all {len(found):,}"
        shown = [each for each in found[:-LATEST] if not each.closes] + found[-LATEST:]
        for each in shown:
            words = [str(each.occurrence_id), str(each.schedule_id), f"{each.occurrence_at:%Y-%m-%d %H:%M}", each.state]
            figures = [f"{each.targeted:,}", *(f"{each.rows[name]:,}" for name in names)]
            table.add_row(*words, *figures, ("open" if each.is_open else "closed") if each.closes else "[red]NO[/red]")
        console.print(table)
        if len(shown) < len(found):
            console.print(f"{len(found) - len(shown):,} earlier occurrences balance and are not shown; --json has all.")
        if with_waves and found:
            self._print_waves(console, Occurrence.objects.get(pk=found[0].occurrence_id))

    def _print_waves(self, console: Console, occurrence: Occurrence) -> None:
        table = Table("wave at (UTC)", title="Waves: lateness of the provider calls, in seconds")
        for heading in ("people", "open", "sent", "p50", "p95", "p99"):
            table.add_column(heading, justify="right")
        for wave in punctuality.waves(occurrence):
            late = ["–" if value is None else f"{value:.2f}" for value in (wave.p50, wave.p95, wave.p99)]
            table.add_row(
                f"{wave.wave_at:%Y-%m-%d %H:%M:%S}", f"{wave.people:,}", f"{wave.open:,}", f"{wave.sent:,}", *late
            )
        console.print(table)


def _find(*, occurrence: int | None, days: int | None) -> list[Books]:
    if occurrence is not None:
        return [books.of(occurrence)]
    return list(books.every(since=clock.now() - timedelta(days=days) if days is not None else None))
