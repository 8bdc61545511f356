"""``manage.py audit_verify``: is the audit what was sealed? Exits 1 and names the first row or seal that is not."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from audit import seals, verify


class Command(BaseCommand):
    help = "Compare every sealed row of the audit with its seal."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--public-key",
            action="append",
            metavar="KEY",
            help="32 bytes as base64 or hexadecimal digits; may be repeated. Without it: that of AUDIT_SEAL_KEY, and "
            "those in AUDIT_FORMER_KEYS. Whoever doubts the server gives the one he wrote down.",
        )

    def handle(self, *, public_key: list[str] | None, **_: Any) -> None:
        try:
            keys = seals.read_public_keys(public_key) if public_key else seals.known_keys(settings.AUDIT_FORMER_KEYS)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        try:
            done = verify.verify(keys)
        except verify.Tampered as error:
            raise CommandError(f"The audit was tampered with: {error}.", returncode=1) from error
        self.stdout.write(
            f"The audit is as it was sealed: {done.rows} rows under {done.seals} seals."
            f" {done.unsealed} rows are younger than the last seal."
        )
