"""``manage.py import_templates``: templates and catalogues from JSON files."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from schedules.clock import now
from schedules.imports.templates import import_templates


class Command(BaseCommand):
    help = (
        "Create and update templates and catalogues from JSON files, and publish what is new: all of them or, when "
        "one has a problem, none. docs/importing.md describes the files."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE", help="folders or JSON files")
        parser.add_argument("--dry-run", action="store_true", help="do it all and keep nothing")

    def handle(self, **options: Any) -> None:
        report = import_templates(
            paths=options["paths"], by="system:import_templates", now=now(), dry_run=options["dry_run"]
        )
        for problem in report.problems:
            self.stdout.write(f"{problem.file}{problem.pointer and ' ' + problem.pointer}: {problem.message}")
        if report.problems:
            raise CommandError(f"Nothing was imported. Problems to correct: {len(report.problems)}.")
        verb = "Would publish" if options["dry_run"] else "Published"
        self.stdout.write(f"{verb}: {', '.join(report.published) or 'nothing'}.")
        if report.unchanged:
            self.stdout.write(f"Unchanged: {', '.join(report.unchanged)}.")
