"""``manage.py export_templates``: templates, catalogues and topics as JSON files."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from schedules import clock
from schedules.exports.templates import export_templates, write_archive
from schedules.management.files import written_to


class Command(BaseCommand):
    help = (
        "Write every template, catalogue and topic to a JSON file of its own, which import_templates reads without a "
        "loss. What a template service keeps is left out."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", metavar="DIR|FILE.zip", help="a new or empty folder, or a zip archive")

    def handle(self, *, path: str, **_: Any) -> None:
        entries = export_templates(by="system:export_templates", now=clock.now())
        if path.endswith(".zip"):
            with written_to(path) as file:
                write_archive(entries, file)
            return
        folder = Path(path)
        try:
            if folder.exists() and any(folder.iterdir()):
                raise CommandError(
                    f"{path} is not empty: what is no template any more would stay. Name another folder."
                )
            count = 0
            for entry in entries:
                target = folder / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(entry.data)
                count += 1
        except OSError as error:
            raise CommandError(f"{error.filename or path}: {error.strerror}.") from None
        self.stdout.write(f"Exported: {count:,} files in {path}.")
