"""``manage.py check_volumes``: whether what the service leaves in clear lies on encrypted volumes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, OperationalError, connection

from scheduler_project.volumes import Volume, volume_of


class Command(BaseCommand):
    help = (
        "Say of the database's folders, its write-ahead log and tablespaces among them, and of the temporary folder "
        "whether the machine encrypts the volumes below. Exits 1 where one can't be seen or is not seen to be "
        "encrypted: then the provider must, or nobody does. Run it on the database's machine, as its superuser."
    )

    _unseen = ""  # why nothing can be said of the database

    def handle(self, **_: Any) -> None:
        doubtful = 0
        for name, folder in self._folders():
            try:
                where = folder.resolve(strict=True)
                volume = volume_of(where)
            except OSError as error:
                self.stdout.write(f"{name}, {folder}: can't be seen ({error.strerror})")
                doubtful += 1
                continue
            self.stdout.write(f"{name}, {where}: {volume}")
            doubtful += volume is Volume.UNKNOWN
        if self._unseen:
            self.stdout.write(self._unseen)
        if doubtful or self._unseen:
            raise CommandError("Where the provider of the machine does not encrypt these disks, put them on LUKS.")

    def _folders(self) -> Iterator[tuple[str, Path]]:
        yield "temporary files of web servers and workers", Path(tempfile.gettempdir())
        host = str(settings.DATABASES["default"].get("HOST", ""))
        if host and not host.startswith("/") and host not in ("localhost", "127.0.0.1", "::1"):
            self._unseen = f"The database is at {host}: run this there, or ask its provider."
            return
        try:
            with connection.cursor() as cursor:
                cursor.execute("SHOW data_directory")
                folder = Path(cursor.fetchone()[0])
                cursor.execute("SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace ORDER BY 1")
                elsewhere = [(name, where) for name, where in cursor.fetchall() if where]
        except OperationalError as error:
            self._unseen = f"PostgreSQL can't be asked: {str(error).strip()}"
            return
        except DatabaseError:
            self._unseen = "Only a superuser is told where the database's folder is (SHOW data_directory)."
            return
        yield "tables and indexes", folder
        yield "write-ahead log", folder / "pg_wal"
        for name, where in elsewhere:
            yield f"tablespace {name}", Path(where)
