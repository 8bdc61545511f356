"""What the service leaves in clear: whether it lies on encrypted volumes, and what is said where nobody can see it."""

from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError

from scheduler_project.volumes import Volume
from tests import roles

pytestmark = pytest.mark.django_db(transaction=True)


def test_folders_on_disks_that_nobody_is_seen_to_encrypt_are_named(monkeypatch):
    seen = []

    def look(folder):
        seen.append(folder)
        return Volume.UNKNOWN if folder.name == "pg_wal" else Volume.ENCRYPTED

    monkeypatch.setattr("scheduler_project.management.commands.check_volumes.volume_of", look)
    told = StringIO()
    with roles.owner(), pytest.raises(CommandError, match="LUKS"):
        call_command("check_volumes", stdout=told)
    assert f"write-ahead log, {seen[2]}: not seen to be encrypted" in told.getvalue()
    assert (seen[1] / "PG_VERSION").exists()


def _away(monkeypatch):
    def refused(*_, **__):
        raise OperationalError("connection refused")

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", refused)


@pytest.mark.parametrize("why", ["Only a superuser", "db.example.com: run this there", "PostgreSQL can't be asked"])
def test_what_can_not_be_seen_of_the_database_is_no_comfort(monkeypatch, why):
    monkeypatch.setattr("scheduler_project.management.commands.check_volumes.volume_of", lambda _: Volume.ENCRYPTED)
    if "example.com" in why:
        monkeypatch.setitem(settings.DATABASES["default"], "HOST", "db.example.com")
    elif "asked" in why:
        _away(monkeypatch)
    told = StringIO()
    with pytest.raises(CommandError, match="LUKS"):  # the application's role is not told where the files are
        call_command("check_volumes", stdout=told)
    assert why in told.getvalue()


def test_the_log_and_tablespaces_are_looked_for_where_they_are_linked_to(monkeypatch, tmp_path):
    data, log, more = (tmp_path / name for name in ("data", "log", "more"))
    for folder in (data, log, more):
        folder.mkdir()
    (data / "pg_wal").symlink_to(log)
    command = "scheduler_project.management.commands.check_volumes"
    folders = [("tables and indexes", data), ("write-ahead log", data / "pg_wal"), ("tablespace gone", more / "gone")]
    monkeypatch.setattr(f"{command}.Command._folders", lambda _: iter(folders))
    monkeypatch.setattr(f"{command}.volume_of", lambda _: Volume.ENCRYPTED)
    told = StringIO()
    with pytest.raises(CommandError, match="LUKS"):
        call_command("check_volumes", stdout=told)
    assert f"write-ahead log, {log.resolve()}: encrypted" in told.getvalue()
    assert "tablespace gone" in told.getvalue()
    assert "can't be seen" in told.getvalue()
