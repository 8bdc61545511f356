"""``manage.py export_recipients``: people as a CSV or NDJSON file."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from schedules import clock
from schedules.exports.recipients import Wanted, export_recipients
from schedules.imports.recipients import Format
from schedules.management.files import format_of, written_to


class Command(BaseCommand):
    help = (
        "Write recipients to a CSV or NDJSON file, which import_recipients reads without a loss. The file holds "
        "addresses and device tokens in clear. docs/importing.md describes it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="to be written, readable by nobody else; - writes to the standard output")
        parser.add_argument("--format", choices=[str(each) for each in Format], help="instead of the file's ending")
        parser.add_argument("--prefix", help="only those whose external id begins so")
        parser.add_argument("--locale", help="only those of this locale, such as de-AT")
        parser.add_argument("--time-zone", help="only those of this time zone, such as Europe/Vienna")
        parser.add_argument("--tag", help="only those who have it")

    def handle(self, **options: Any) -> None:
        left_out: list[int] = []
        wanted = Wanted(**{name: options[name] for name in ("prefix", "locale", "time_zone", "tag")})
        with written_to(options["file"]) as file:
            for piece in export_recipients(
                format=format_of(options["file"], options["format"]),
                by="system:export_recipients",
                now=clock.now(),
                wanted=wanted,
                on_left_out=left_out.append,
            ):
                file.write(piece)
        if left_out:
            raise CommandError(
                f"Left out, since their address or a token can't be read: {len(left_out):,}. Their numbers: "
                f"{', '.join(map(str, left_out[:20]))}. manage.py rotate_keys says which keys are missing."
            )
