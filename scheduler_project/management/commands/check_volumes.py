"""``manage.py check_volumes``: whether what the service leaves in clear lies on encrypted volumes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from scheduler_project.volumes import Volume, volume_of


class Command(BaseCommand):
    help = (
        "Say of the database's folder, where it is on this machine, and of the temporary folder whether the machine "
        "encrypts the volume below. Exits 1 where it can't be seen: then the provider must, or nobody does."
    )

    def handle(self, **_: Any) -> None:
        doubtful = 0
        for name, folder in self._folders():
            volume = volume_of(folder)
            self.stdout.write(f"{name}, {folder}: {volume}")
            doubtful += volume is Volume.UNKNOWN
        if doubtful:
            raise CommandError("Where the provider of the machine does not encrypt these disks, put them on LUKS.")

    def _folders(self) -> Iterator[tuple[str, Path]]:
        yield "temporary files of web servers and workers", Path(tempfile.gettempdir()).resolve()
        host = str(settings.DATABASES["default"].get("HOST", ""))
        if host and not host.startswith("/") and host not in ("localhost", "127.0.0.1", "::1"):
            self.stdout.write(f"The database is at {host}: run this there, or ask its provider.")
            return
        try:
            with connection.cursor() as cursor:
                cursor.execute("SHOW data_directory")
                folder = Path(cursor.fetchone()[0])
        except DatabaseError:
            self.stdout.write("Only a superuser is told where the database's folder is (SHOW data_directory).")
            return
        if folder.exists():
            yield "tables, indexes and write-ahead log", folder.resolve()
