"""``manage.py tidy``: throw away expired tokens and sign-ins, and answers whose keys are past their day."""

from typing import Any

from django.core.management.base import BaseCommand
from oauth2_provider.models import clear_expired

from frontend.api import idempotency


class Command(BaseCommand):
    help = "Throw away expired tokens and spent idempotency keys. The clock does it once an hour."

    def handle(self, *, verbosity: int, **_: Any) -> None:
        clear_expired()
        spent = idempotency.purge()
        if verbosity:
            self.stdout.write(f"Expired tokens are gone, and {spent:,} idempotency keys.")
