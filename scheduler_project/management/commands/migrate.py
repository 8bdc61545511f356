"""``manage.py migrate``: as Django's, while the service goes on.

A statement that changes a table waits for whoever uses it, and everybody else waits behind it. So it waits a moment
only and gives way; the migration is taken back whole, and tried again.
"""

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import OperationalError, connections
from psycopg.errors import LockNotAvailable

from scheduler_project.pooling import is_pooled

LOCK_WAIT_MS = 3_000
TRIES = 20
PAUSE_S = 1.0


class Command(migrate.Command):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--lock-wait",
            type=int,
            default=LOCK_WAIT_MS,
            metavar="MS",
            help="milliseconds for which a statement waits for a table before it gives way and is tried again; 0: for"
            " ever, as where no process runs (default: %(default)s)",
        )

    def handle(self, *args: Any, lock_wait: int = LOCK_WAIT_MS, **options: Any) -> None:
        given = connections[options["database"]]
        if given.alias == "default" and is_pooled():
            raise CommandError(
                "DATABASE_URL leads to a pooler such as PgBouncer. Migrations belong to the role that owns the tables,"
                " and set limits for their whole connection: here belongs PostgreSQL's own address, and that role."
            )
        for left in reversed(range(TRIES)):
            with given.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, false)", [str(lock_wait)])
            try:
                super().handle(*args, **options)
            except OperationalError as error:
                if not isinstance(error.__cause__, LockNotAvailable):
                    raise
                if not left:
                    raise CommandError(
                        f"A table was in use for {TRIES} times {lock_wait} ms: {str(error).strip()}. What was done"
                        " before stands; run it again at a quieter time, or with a longer --lock-wait."
                    ) from error
                self.stderr.write(f"A table is in use ({str(error).strip()}); {left} more tries.")
                time.sleep(PAUSE_S)
            else:
                return
            finally:
                if given.connection is not None and not given.in_atomic_block:
                    with given.cursor() as cursor:
                        cursor.execute("RESET lock_timeout")
