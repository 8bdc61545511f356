"""Figures at ``/metrics`` that somebody is called for: they are 0 or 1 while all is well, and tell when it is not."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from prometheus_client.parser import text_string_to_metric_families

from audit import seals
from delivery import books, counters, metrics, pace, partitions
from delivery.models import Batch, ProviderAccount
from tests.factories import NOW, ScheduleFactory, people

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def read(service):
    """The page's samples by name and label values."""

    def page() -> dict[tuple[str, ...], float]:
        text = metrics.page(now=lambda: service.now).decode()
        families = text_string_to_metric_families(text)
        return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}

    return page


@pytest.fixture
def ran(service, provider):
    """A run that is over and one that is under way."""
    people(30)
    ScheduleFactory.create()
    service.open()
    service.send()
    service.sweep()
    ScheduleFactory.create(name="Under way")
    service.open()


@pytest.mark.parametrize(
    "deed",
    [
        "DELETE FROM delivery_delivery WHERE ctid = (SELECT ctid FROM delivery_delivery LIMIT 1)",
        "UPDATE delivery_delivery SET state = 11, reason = 'changed' WHERE (tableoid, ctid) ="
        " (SELECT tableoid, ctid FROM delivery_delivery WHERE state = 10 LIMIT 1)",
        "UPDATE schedules_occurrence SET targeted = targeted + 1 WHERE closed_at IS NULL",
    ],
)
def test_books_that_somebody_has_changed_are_counted(ran, read, deed):
    assert Batch.objects.count() < books.BY_CHANCE
    assert read()["books_unbalanced_occurrences",] == 0

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(deed)
        assert books.unbalanced() == 1
        transaction.set_rollback(True)


def test_batches_are_looked_at_by_chance_and_all_of_them_in_time(ran, monkeypatch):
    monkeypatch.setattr(books, "BY_CHANCE", 1)
    assert Batch.objects.count() > 1
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE delivery_delivery SET state = 11, reason = 'changed' WHERE state = 10")
        looks = {books.unbalanced() for _ in range(200)}
        transaction.set_rollback(True)

    assert looks == {0, 1}


def test_counters_that_are_away_are_told_and_nothing_else_is_missing(read, monkeypatch):
    assert read()["counters_up",] == 1

    def refuse():
        raise ConnectionError("refused")

    monkeypatch.setattr(counters, "_client", refuse)
    samples = read()

    assert samples["counters_up",] == 0
    assert samples["notification_database_up",] == 1
    assert samples["audit_unsealed_rows",] == 0


def test_the_pace_is_there_once_a_provider_has_asked_to_slow_down(read):
    assert ("provider_pace_people_per_second", "push") not in read()
    pace.slow_down("push", wait_s=0)
    assert read()["provider_pace_people_per_second", "push"] > 0


def test_what_an_account_allows_stands_beside_what_is_left_of_it(read):
    ProviderAccount.objects.create(scope="email", per_s=14, per_day=50_000, left=2_500, read_at=NOW)
    samples = read()
    assert samples["provider_account_people_left", "email"] == 2_500
    assert samples["provider_account_people_per_day", "email"] == 50_000


def test_the_age_of_the_oldest_row_without_a_seal_grows_until_it_is_sealed(read, service):
    service.pause(ScheduleFactory.create())
    age = read()["audit_oldest_unsealed_seconds",]
    service.after(timedelta(minutes=20))
    assert read()["audit_oldest_unsealed_seconds",] == age + 1_200

    seals.seal(now=service.now)
    assert read()["audit_oldest_unsealed_seconds",] == 0


def test_the_days_for_which_the_ledger_is_ready_are_counted(read):
    today = NOW.date()
    assert read()["ledger_partitions_ahead",] > partitions.AHEAD_DAYS
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE delivery_feedback_{today + timedelta(days=3):%Y%m%d}")
        assert partitions.days_ahead(today=today) == 3
        transaction.set_rollback(True)
    assert partitions.days_ahead(today=today + timedelta(days=4_000)) == 0
