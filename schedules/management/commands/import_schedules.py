"""``manage.py import_schedules``: schedules from an NDJSON file."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from schedules import clock
from schedules.imports.lines import Unreadable
from schedules.imports.schedules import import_schedules
from schedules.management.files import opened


class Command(BaseCommand):
    help = (
        "Create and change schedules from an NDJSON file, by key: all of them or, when one has a problem, none. New "
        "ones are drafts, and none that runs is changed, unless --activate. docs/importing.md describes the file."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="the file; - reads the standard input")
        parser.add_argument("--dry-run", action="store_true", help="do it all and keep nothing")
        parser.add_argument(
            "--activate", action="store_true", help="let each be what its status says, so that active ones send"
        )

    def handle(self, **options: Any) -> None:
        name, is_dry = options["file"], options["dry_run"]
        try:
            with opened(name) as stream:
                report = import_schedules(
                    stream=stream,
                    by="system:import_schedules",
                    now=clock.now(),
                    activate=options["activate"],
                    dry_run=is_dry,
                )
        except Unreadable as error:
            raise CommandError(f"{name}: the file {error}. Nothing was imported.") from None
        except OSError as error:
            raise CommandError(f"{error.filename or name}: {error.strerror}. Nothing was imported.") from None
        for problem in report.problems:
            self.stdout.write(f"line {problem.line}{problem.pointer and ' ' + problem.pointer}: {problem.message}")
        if report.problem_count:
            raise CommandError(f"Nothing was imported. Problems to correct: {report.problem_count:,}.")
        self.stdout.write(
            f"{'Would be imported' if is_dry else 'Imported'}: {report.created:,} created, {report.updated:,} updated, "
            f"{report.unchanged:,} unchanged; of the first two {report.running:,} run."
        )
