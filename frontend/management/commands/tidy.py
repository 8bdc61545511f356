"""``manage.py tidy``: throw away sessions, tokens, tries at a password, kept answers and files whose time is over."""

from typing import Any

from django.contrib.sessions.backends.db import SessionStore
from django.core.management.base import BaseCommand
from oauth2_provider.models import clear_expired

from frontend import hooks, sign_in_limits
from frontend.api import idempotency
from schedules import clock
from schedules.imports import uploads


class Command(BaseCommand):
    help = (
        "Throw away expired sessions, tokens and tries at a password, spent idempotency keys and files of a day ago."
        " The clock does it once an hour."
    )

    def handle(self, *, verbosity: int, **_: Any) -> None:
        clear_expired()
        SessionStore.clear_expired()
        spent = idempotency.purge()
        hooks.purge()
        sign_in_limits.purge()
        files = uploads.purge(now=clock.now())
        if verbosity:
            self.stdout.write(f"Expired tokens are gone, {spent:,} idempotency keys, and {files:,} uploaded files.")
