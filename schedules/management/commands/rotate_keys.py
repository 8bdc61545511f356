"""``manage.py rotate_keys``: encrypt anew what is kept under a former key."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schedules import encryption, rotation
from schedules.rotation import Rotated


class Command(BaseCommand):
    help = (
        "Encrypt anew, under the first of ENCRYPTION_KEYS, every address, device token and message that is kept under "
        "another. The service may run meanwhile; killed, it goes on where it was. Exits 1 where a value can't be read."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--reindex",
            action="store_true",
            help="make the blind indexes anew too, after a change of BLIND_INDEX_KEY; stop the service for that",
        )

    def handle(self, **options: Any) -> None:
        reindex: bool = options["reindex"]
        encryption.keyset()  # says what is missing before anything is counted
        columns = rotation.columns()
        total = sum(rotation.outdated(column, reindex=reindex) for column in columns)
        console = Console(stderr=True)
        parts = (TextColumn("Encrypting anew"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*parts, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=total)
            result = rotation.rotate(progress=lambda done: bar.advance(task, done), reindex=reindex)
        self._tell(result)

    def _tell(self, result: Rotated) -> None:
        primary, *former = encryption.keyset().key_ids
        self.stdout.write(
            f"Encrypted anew: {result.done:,}. Under the primary key {primary}: {result.kept[primary]:,}."
        )
        for key_id in former:
            left = result.kept[key_id]
            self.stdout.write(
                f"Under the former key {key_id}: {left:,}" + ("." if left else ", so it may be taken out.")
            )
        if result.doubled:
            self.stdout.write(f"Devices that stood there twice, of which the newer one stays: {result.doubled:,}.")
        for (table, column, pk), why in result.examples.items():
            self.stderr.write(f"{table}.{column}, id {pk}: {why}")
        for (table, column, reason), count in result.unreadable.items():
            self.stderr.write(f"{table}.{column}, {reason}: {count:,}")
        if result.unreadable:
            raise CommandError(f"{result.unreadable.total():,} values can't be decrypted.")
        if result.held:
            raise CommandError(f"{result.held:,} values were held by others all the time: run it again.")
