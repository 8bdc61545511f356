"""Real backups of a real PostgreSQL: a base backup with its archive, recovered to a point and to the end; a dump.

By the settings and commands of the pages, read from there. The service's Redis lives on, as where a database alone is
lost.
"""

import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings as project
from django.core.management import call_command
from django.db import connection
from redis import Redis

from delivery import continuity, partitions, restores
from delivery import counters as counters_room
from delivery.events.base import Kind
from delivery.models import Delivery
from delivery.providers.base import run_of
from scheduler_project.local.ports import free_port
from scheduler_project.local.postgres import Postgres
from scheduler_project.local.postgres_launcher import find_launcher
from schedules.models import Occurrence
from tests.books import assert_books_close
from tests.documents import ROOT, blocks
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.provider_events import event
from tests.service import MINUTE, Service, reasons

pytestmark = pytest.mark.django_db(transaction=True)
_READY_S = 180.0
BACKUP, RUNBOOK = "docs/backup.md", "docs/runbooks/database-restored.md"


def written(page: str, begins: str, folder: Path) -> list[str]:
    """The page's lines of code of which the first begins so, with ``folder`` for its ``/backup``."""
    (found,) = (block.text for block in blocks(ROOT / page) if block.text.startswith(begins))
    return found.replace("/backup/", f"{folder}/").splitlines()


def type_in(lines: list[str], **addresses: str) -> None:
    for line in lines:
        for name, address in addresses.items():
            line = line.replace(f"${name}", address)
        program, *arguments = shlex.split(line)
        if program == "manage.py":
            call_command(*arguments)
        else:
            find_launcher().run(program, arguments)


@contextmanager
def connected(home: Path, password: str) -> Iterator[str]:
    """A server over ``home``, to which Django's connection leads; its owner's address."""
    server, port = Postgres("postgres", home, home.with_suffix(".log"), password), free_port()
    server.prepare()
    process = server.launch(port=port)
    kept = dict(connection.settings_dict)
    try:
        deadline = time.monotonic() + _READY_S
        while not server.ready(port=port):
            assert process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        url = urlsplit(server.url(port=port))
        there = {"HOST": url.hostname, "PORT": url.port, "USER": url.username, "PASSWORD": url.password}
        connection.close()
        connection.settings_dict.update(there, NAME=url.path[1:])
        continuity.forget()
        yield url.geturl()
    finally:
        connection.close()
        connection.settings_dict.update(kept)
        continuity.forget()
        server.stop(process)


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder that another user may enter, where PostgreSQL runs as one; with a database that is migrated."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    shutil.copytree(_template() / "database", tmp_path / "first")
    return tmp_path


@pytest.fixture
def service(django_db_setup, db, monkeypatch, settings) -> Service:
    with Redis.from_url(project.COUNTERS_URL) as counters:
        counters.flushall()
    counters_room._pause.until = 0.0  # a test before may have taken it away
    driven = Service()
    settings.PUBLISH_AHEAD_S = 0.0
    monkeypatch.setattr("delivery.sending.PERMIT_S", 20.0)
    monkeypatch.setattr("schedules.clock.now", lambda: driven.now)
    return driven


def test_recovered_to_a_point_it_is_stopped_and_settled_and_recovered_whole_it_goes_on(service, provider, root):
    for folder in (root / "wal", root / "base"):
        folder.mkdir()
        folder.chmod(0o777)
    backup, whole = root / "base" / "2026-11-23", root / "whole"
    (root / "first" / "local.conf").write_text("\n".join([*written(BACKUP, "archive_mode", root), ""]))
    with connected(root / "first", _password()) as url:
        base, verified = written(BACKUP, "pg_basebackup", root)
        type_in([f"{base} --no-sync", verified], BACKUP_URL=url)  # a disk that is slow proves nothing here
        partitions.ensure_around(today=NOW.date())
        people(4)
        known = ScheduleFactory()
        service.open()
        assert continuity.look(now=service.now)
        before = _execute("SELECT clock_timestamp()::text")
        service.after(MINUTE).send()
        late = ScheduleFactory(name="made after the backup")
        run = run_of(known.pk, Occurrence.objects.get(schedule=known).occurrence_at)
        told = [event(Kind.DELIVERY, row, run=run) for row in Delivery.objects.order_by("recipient_id")[:3]]
        assert continuity.look(now=service.now)
    sent = provider.reached()
    assert set(sent.values()) == {1}, "all four have got it"

    shutil.copytree(backup, whole)
    _recover(whole, root)
    with connected(whole, _password()):
        assert _execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)") == "00000002"
        assert continuity.look(now=service.now), "another timeline, and no commit is missing: a failover"

    _recover(backup, root, to=str(before))
    with connected(backup, _password()):
        assert not continuity.look(now=service.now)
        kept = continuity.restored()
        assert (kept.restored_to, kept.last_seen_at) == (NOW, NOW + MINUTE)
        assert set(Delivery.objects.values_list("state", flat=True)) == {0}
        done = restores.settle(
            events=[told], by=BY, now=service.now, until=service.now, erase=lambda person: pytest.fail(f"{person}")
        )
        assert (done.told, done.unclear, done.unmatched) == (3, 1, 0)
        assert restores.go(scope="all", by=BY, now=service.now)
        assert continuity.look(now=service.now)
        assert ScheduleFactory(name="made after the restore").pk > late.pk + 90_000_000
        service.send(rounds=3)
        service.sweep()
        assert reasons(known) == {"sent: confirmed": 3, "failed: outcome_unknown": 1}
        assert_books_close()
    assert provider.reached() == sent, "nobody was written to twice"


def test_a_dump_of_a_minute_ago_in_another_cluster_is_stopped_even_where_redis_is_another_too(service, root):
    with connected(root / "first", _password()) as url:
        assert continuity.look(now=service.now)
        dump, *restored = written(BACKUP, "pg_dump", root)
        type_in([dump], DATABASE_URL=url)
    with Redis.from_url(project.COUNTERS_URL) as counters:
        counters.flushall()
    with connected(root / "second", "another") as url:
        type_in(restored, NEW_DATABASE_URL=url)
        assert not continuity.look(now=service.now)
        assert continuity.restored().restored_to == NOW


def _template() -> Path:
    """The cluster that the tests' servers are copies of; see tests.migrated."""
    return Path(os.environ["TESTS_SERVERS"]) / "template"


def _password() -> str:
    return (_template() / "password").read_text().strip()


def _recover(home: Path, folder: Path, *, to: str = "") -> None:
    """As the runbook says, to the instant or to the archive's end; what comes of it is not archived."""
    lines = [line for line in written(RUNBOOK, "restore_command", folder) if to or "recovery_target_time" not in line]
    lines = [re.sub(r"(recovery_target_time = ).*", rf"\1'{to}'", line) for line in lines]
    (home / "local.conf").write_text("\n".join([*lines, ""]))
    (home / "recovery.signal").touch()


def _execute(statement: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]
