"""``manage.py audit_export``: what has been sealed goes where nobody can remove it. Exits 1 where it does not.

The clock starts it each minute; by hand it says at once what is wrong.
"""

import math
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from audit.bucket import Bucket, BucketError
from audit.export import export
from audit.verify import Tampered


class Command(BaseCommand):
    help = "Export the audit's seals with their rows to the bucket AUDIT_EXPORT_BUCKET, which locks them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further object after so many")

    def handle(self, *, verbosity: int, seconds: float, **_: Any) -> None:
        try:
            bucket = Bucket.from_settings()
            if bucket is None:
                if verbosity:
                    self.stdout.write("AUDIT_EXPORT_BUCKET is not set: nothing is exported.")
                return
            number = export(bucket, now=timezone.now(), seconds=seconds)
        except (BucketError, Tampered) as error:
            raise CommandError(f"The audit was not exported: {error}.", returncode=1) from error
        if number or verbosity:
            self.stdout.write(f"{number} seals were exported.")
