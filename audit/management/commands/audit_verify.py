"""``manage.py audit_verify``: is the audit what was sealed, and the seals those that were exported?

Exits 1 and names the first row, seal or object that is not; 2 where the export can't be looked at, or has not been
made for a quarter of an hour; 3 where the settings lack what is needed to verify.
"""

from argparse import ArgumentParser, BooleanOptionalAction
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from audit import compare, keys, verify
from audit.bucket import Bucket, BucketError

# A turn of the export comes each minute.
_LATE = timedelta(minutes=15)


class Command(BaseCommand):
    help = "Compare every sealed row of the audit with its seal, and every seal with the exported one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--public-key",
            action="append",
            metavar="KEY",
            help="32 bytes as base64 or hexadecimal digits; may be repeated. Without it: that of AUDIT_SEAL_KEY, and "
            "those in AUDIT_FORMER_KEYS. Whoever doubts the server gives the one he wrote down.",
        )
        parser.add_argument(
            "--show-public-key",
            action="store_true",
            help="Print the public key of AUDIT_SEAL_KEY, to be written down elsewhere, and do nothing more.",
        )
        parser.add_argument(
            "--export",
            action=BooleanOptionalAction,
            help="Compare with the exported seals as well; so it is where AUDIT_EXPORT_BUCKET is set.",
        )

    def handle(
        self, *, public_key: list[str] | None, export: bool | None, show_public_key: bool = False, **_: Any
    ) -> None:
        try:
            if show_public_key:
                self.stdout.write(keys.public_key())
                return
            known = keys.read_public_keys(public_key) if public_key else keys.known_keys(settings.AUDIT_FORMER_KEYS)
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=3) from error
        try:
            done = verify.verify(known)
            self.stdout.write(
                f"The audit is as it was sealed: {done.rows} rows under {done.seals} seals."
                f" {done.unsealed} rows are younger than the last seal."
            )
            self._compare(export)
        except verify.Tampered as error:
            raise CommandError(f"The audit was tampered with: {error}.", returncode=1) from error
        except BucketError as error:
            raise CommandError(f"The export can't be compared: {error}.", returncode=2) from error

    def _compare(self, wanted: bool | None) -> None:
        bucket = Bucket.from_settings() if wanted is not False else None
        if bucket is None:
            if wanted:
                raise CommandError("AUDIT_EXPORT_BUCKET is not set: there is no export to compare with.", returncode=3)
            self.stdout.write("Seals were not compared with exported ones: whether the last are gone is not known.")
            return
        now = timezone.now()
        done = compare.compare(bucket, now=now)
        self.stdout.write(f"The export is as the database has it: {done.objects} seals.")
        if done.waiting_since:
            since = f"{done.waiting_since:%Y-%m-%d %H:%M}"
            words = f"{done.waiting} seals are not exported yet, the oldest of {since} UTC."
            if now - done.waiting_since > _LATE:
                raise CommandError(words, returncode=2)
            self.stdout.write(words)
