"""The service behind PgBouncer in transaction mode, by the file that a deployment uses."""

import io
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connection, connections

from audit import seals
from delivery import figures, heartbeats, metrics, partitions, sending
from scheduler_project.local.pgbouncer import Pgbouncer
from scheduler_project.pooling import is_pooled
from schedules import clock
from schedules.imports import recipients
from schedules.models import Recipient
from tests.books import assert_books_close
from tests.factories import BY, NOW, DeviceFactory, ScheduleFactory, people
from tests.pooler import pooled
from tests.service import states

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pooler(tmp_path, db):
    with pooled(tmp_path) as running:
        yield running


def test_a_send_of_every_channel_with_all_that_goes_on_beside_it(pooler, service, provider):
    assert is_pooled()
    lines = b"".join(b'{"external_id": "person-%d", "email": "p%d@example.com"}\n' % (n, n) for n in range(60))
    recipients.import_recipients(stream=io.BytesIO(lines), format=recipients.Format.NDJSON, by=BY, now=NOW)
    assert Recipient.objects.count() == 60
    for person in Recipient.objects.all()[:10]:
        DeviceFactory(recipient=person)
    partitions.ensure_around(today=NOW.date())
    made = [ScheduleFactory(channel=channel, max_per_user_per_day=5) for channel in ("email", "push", "in_app")]
    service.step()
    assert [states(schedule)["sent"] for schedule in made] == [60, 10, 60]
    assert set(provider.reached().values()) <= {1, 2, 3}
    figures.count()
    seals.seal(now=clock.now())
    heartbeats.beat(heartbeats.TICK)
    assert b"books_unbalanced_occurrences" in metrics.page(now=clock.now)
    service.sweep()
    assert_books_close()


def test_processes_that_do_the_same_at_once_are_told_apart_by_the_database(pooler, service, provider):
    people(40)
    schedule = ScheduleFactory()
    service.open()
    (handout,) = service.publish()

    def again(_: int) -> None:
        try:
            sending.send(batch_ids=handout.batch_ids)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(again, range(4)))
    service.send(rounds=3)
    assert states(schedule) == {"sent": 40}
    assert set(provider.reached().values()) == {1}


def test_what_a_session_would_keep_is_refused_in_words(pooler: Pgbouncer):
    with pytest.raises(psycopg.OperationalError, match="options"):
        psycopg.connect(pooler.pooled, options="-c statement_timeout=5000")


def test_the_check_names_what_needs_a_session(pooler, monkeypatch):
    def found() -> set[str]:
        said = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
        return {each.id for each in said if each.id.startswith("scheduler_project.pooled")}

    assert found() == set()
    given = connection.settings_dict
    monkeypatch.setitem(given, "DISABLE_SERVER_SIDE_CURSORS", False)
    for name, value in {"prepare_threshold": 5, "assume_role": "somebody"}.items():
        monkeypatch.setitem(given["OPTIONS"], name, value)
    assert found() == {f"scheduler_project.pooled.E00{number}" for number in (1, 2, 3)}


def test_migrations_are_refused_where_a_pooler_is_in_between(pooler):
    with pytest.raises(CommandError, match="PostgreSQL's own address"):
        call_command("migrate", verbosity=0)


def test_without_a_pooler_none_is_seen():
    assert not is_pooled()
