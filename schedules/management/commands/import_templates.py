"""``manage.py import_templates``: templates, catalogues and topics from JSON files."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from schedules import clock
from schedules.imports.lines import Unreadable
from schedules.imports.templates import import_archive, import_templates


class Command(BaseCommand):
    help = (
        "Create and update templates, catalogues and topics from JSON files, and publish what is new: all or, when "
        "one has a problem, none. docs/importing.md describes the files."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE", help="folders or JSON files; or one zip")
        parser.add_argument("--dry-run", action="store_true", help="do it all and keep nothing")

    def handle(self, **options: Any) -> None:
        paths: list[Path] = options["paths"]
        about: dict[str, Any] = {"by": "system:import_templates", "now": clock.now(), "dry_run": options["dry_run"]}
        try:
            if [path.suffix for path in paths] == [".zip"]:
                with paths[0].open("rb") as file:
                    report = import_archive(stream=file, **about)
            else:
                report = import_templates(paths=paths, **about)
        except Unreadable as error:
            raise CommandError(f"{paths[0]}: the file {error}. Nothing was imported.") from None
        except OSError as error:
            raise CommandError(f"{paths[0]}: {error.strerror}. Nothing was imported.") from None
        for problem in report.problems:
            self.stdout.write(f"{problem.file}{problem.pointer and ' ' + problem.pointer}: {problem.message}")
        if report.problems:
            raise CommandError(f"Nothing was imported. Problems to correct: {len(report.problems)}.")
        verb = "Would publish" if options["dry_run"] else "Published"
        self.stdout.write(f"{verb}: {', '.join(report.published) or 'nothing'}.")
        if report.unchanged:
            self.stdout.write(f"Unchanged: {', '.join(report.unchanged)}.")
