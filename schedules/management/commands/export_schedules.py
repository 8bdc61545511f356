"""``manage.py export_schedules``: schedules as an NDJSON file."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from schedules import clock
from schedules.exports.schedules import export_schedules
from schedules.management.files import written_to


class Command(BaseCommand):
    help = (
        "Write schedules to an NDJSON file, which import_schedules reads without a loss. Templates stand in it by "
        "their names: export_templates exports those."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="to be written; - writes to the standard output")
        parser.add_argument("--all", action="store_true", help="those too that are finished or cancelled, as drafts")

    def handle(self, **options: Any) -> None:
        with written_to(options["file"]) as file:
            for piece in export_schedules(by="system:export_schedules", now=clock.now(), with_over=options["all"]):
                file.write(piece)
