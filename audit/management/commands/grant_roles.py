"""``manage.py grant_roles``: the application's role in the database, which can add to the audit and not change it."""

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import ProgrammingError

from audit import roles


class Command(BaseCommand):
    help = (
        "Make or update the database roles. Run it as the role that migrates, after each migrate."
        " APP_DATABASE_PASSWORD is the password that the application shall have (unset: as it is)."
    )

    def handle(self, **_: Any) -> None:
        try:
            roles.grant(password=os.environ.get("APP_DATABASE_PASSWORD", ""))
        except ProgrammingError as error:
            raise CommandError(f"The roles can't be made: {str(error).strip()}") from error
        self.stdout.write(f"{roles.APP} may add to the audit, and do what it likes in every other table.")
