"""Days of the ledger: made ahead, filled by their own day alone, and dropped when nothing in them is open."""

from datetime import date, timedelta

import pytest
from django.db import connection

from delivery import books, partitions, tasks
from delivery.models import Batch, Delivery, FailedAttempt, TestSend
from delivery.providers.base import Verdict
from tests.books import assert_books_close
from tests.factories import NOW, ScheduleFactory, people
from tests.service import DAY, MINUTE, only_occurrence, states

pytestmark = pytest.mark.django_db

# Far from the days that the other tests have.
FIRST = date(2031, 3, 1)


def table_of(model, **conditions):
    """The partition in which the model's only row lies."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT tableoid::regclass::text FROM {table}")
        return [name for (name,) in cursor.fetchall()]


def options(table):
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = %s", [table])
        return cursor.fetchone()[0]


# --- Made ------------------------------------------------------------------------------------------------------------


def test_each_day_has_a_table_for_deliveries_one_for_failures_and_one_for_feedback(service):
    made = partitions.ensure(first=FIRST, last=FIRST + timedelta(days=1))
    assert sorted(made) == [
        "delivery_delivery_20310301",
        "delivery_delivery_20310302",
        "delivery_failedattempt_20310301",
        "delivery_failedattempt_20310302",
        "delivery_feedback_20310301",
        "delivery_feedback_20310302",
    ]
    assert options("delivery_delivery_20310301") == options("delivery_feedback_20310301") == ["fillfactor=70"]
    assert partitions.ensure(first=FIRST, last=FIRST + timedelta(days=1)) == []


def test_a_fortnight_ahead_and_a_week_behind_are_made(service):
    made = partitions.ensure_around(today=FIRST)
    assert len(made) == 3 * (8 + 1 + 14)
    assert "delivery_delivery_20310221" in made
    assert "delivery_delivery_20310315" in made


def test_a_day_carries_the_indexes_and_constraints_of_the_ledger(service):
    partitions.ensure(first=FIRST, last=FIRST)
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'delivery_delivery_20310301'")
        indexes = sorted(definition.split("USING")[1].strip() for (definition,) in cursor.fetchall())
        cursor.execute("SELECT count(*) FROM pg_constraint WHERE conrelid = 'delivery_delivery_20310301'::regclass")
        constraints = cursor.fetchone()[0]
    assert indexes == ["btree (batch_id, day)", "btree (day, occurrence_id, recipient_id)", "btree (recipient_id)"]
    assert constraints >= 5


def test_the_ledger_has_no_index_on_a_column_that_changes(service):
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'delivery_delivery%'")
        definitions = [definition for (definition,) in cursor.fetchall()]
    for column in ("state", "due_at", "attempt", "claim_token", "leased_until", "settled_at", "reason", "version"):
        assert not any(column in definition.split("USING")[1] for definition in definitions), column


def test_nothing_has_a_foreign_key_to_or_from_the_ledger(service):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'f' AND "
            "('delivery_delivery'::regclass IN (conrelid, confrelid)"
            " OR 'delivery_failedattempt'::regclass IN (conrelid, confrelid))"
        )
        assert cursor.fetchall() == []


# --- Filled ----------------------------------------------------------------------------------------------------------


def test_rows_lie_in_the_day_of_their_occurrence_whenever_they_are_sent(service, provider):
    people(2, time_zone="Pacific/Pago_Pago")
    schedule = ScheduleFactory(run_at=NOW.replace(hour=20), time_zone_mode="user_local")
    provider.answers(Verdict.TRANSIENT, "busy")
    service.run_to(NOW + DAY)
    assert only_occurrence(schedule).day == date(2026, 11, 21)
    assert min(Delivery.objects.values_list("due_at", flat=True)).date() == date(2026, 11, 22)
    assert table_of(Delivery) == ["delivery_delivery_20261121"]
    assert table_of(FailedAttempt) == ["delivery_failedattempt_20261121"]


def test_a_one_off_that_moves_to_another_day_keeps_its_rows_where_they_are(service, provider):
    people(2)
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    service.update(schedule, run_at=NOW + 3 * DAY)
    service.run_to(NOW + 3 * DAY)
    assert states(schedule) == {"sent": 2}
    assert table_of(Delivery) == ["delivery_delivery_20261121"]


def test_rows_of_a_day_that_was_not_made_are_kept_and_counted(service, provider):
    people(2)
    schedule = ScheduleFactory(run_at=NOW + 300 * DAY)
    assert partitions.rows_in_default() == 0
    service.at(NOW + 300 * DAY).step()
    assert states(schedule) == {"sent": 2}
    assert partitions.rows_in_default() == 2


def test_rows_of_a_day_that_was_not_made_move_there_when_it_is(service, provider):
    people(3)
    schedule, other = ScheduleFactory(run_at=NOW + 300 * DAY), ScheduleFactory(run_at=NOW + 301 * DAY)
    provider.answers(Verdict.TRANSIENT, "busy", retry_after=60.0)
    service.at(NOW + 300 * DAY).step()
    service.at(NOW + 301 * DAY).open()
    day = (NOW + 300 * DAY).date()
    assert f"delivery_delivery_{day:%Y%m%d}" in partitions.ensure(first=day, last=day)
    assert_books_close()
    assert partitions.rows_in_default() == 3  # the other day's
    assert table_of(FailedAttempt) == [f"delivery_failedattempt_{day:%Y%m%d}"]
    provider.reset()
    service.after(5 * MINUTE).step()
    assert states(schedule) == states(other) == {"sent": 3}


# --- Dropped ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def past(service, provider):
    """A schedule that was sent on the day of ``NOW``, and another three days later."""
    people(2)
    first, second = ScheduleFactory(), ScheduleFactory(run_at=NOW + 3 * DAY)
    service.run_to(NOW + 3 * DAY)
    return first, second


def test_a_day_past_its_retention_is_dropped_with_its_batches(service, past):
    dropped = partitions.drop(before=(NOW + DAY).date())
    assert "delivery_delivery_20261121" in dropped
    assert "delivery_failedattempt_20261121" in dropped
    assert "delivery_delivery_20261124" not in dropped
    assert set(Delivery.objects.values_list("day", flat=True)) == {date(2026, 11, 24)}
    assert set(Batch.objects.values_list("day", flat=True)) == {date(2026, 11, 24)}
    kept = books.of(only_occurrence(past[0]).pk)
    assert (kept.is_archived, kept.closes, kept.rows["sent"]) == (True, True, 2)
    assert partitions.drop(before=(NOW + DAY).date()) == []


@pytest.mark.parametrize(
    "left", ["pending", "unknown", "paused", "materialising", "waiting"], ids=lambda name: f"while one is {name}"
)
def test_a_day_with_something_open_is_not_dropped(service, provider, left):
    people(2)
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    if left == "materialising":
        service.tick()
    else:
        service.open()
    if left == "unknown":
        provider.answers(Verdict.UNKNOWN, "read_timeout")
        service.at(NOW + MINUTE).step()
    if left == "paused":
        service.pause(schedule)
    if left == "waiting":
        service.update(schedule, run_at=NOW + 3 * DAY)
    before = only_occurrence(schedule).targeted
    with pytest.raises(partitions.PartitionInUse, match="2026-11-21"):
        partitions.drop(before=(NOW + DAY).date())
    assert Delivery.objects.count() == before


def test_a_day_is_dropped_once_what_was_open_has_its_outcome(service, provider):
    people(2)
    schedule = ScheduleFactory()
    service.open()
    service.pause(schedule)
    with pytest.raises(partitions.PartitionInUse):
        partitions.drop(before=(NOW + DAY).date())
    service.at(NOW + 8 * DAY).sweep()
    assert states(schedule) == {"expired": 2}
    assert partitions.drop(before=(NOW + DAY).date())
    assert books.of(only_occurrence(schedule).pk).rows["expired"] == 2


def test_an_open_day_holds_back_no_closed_one(service, past):
    people(1)
    paused = ScheduleFactory(run_at=NOW + 4 * DAY)
    service.run_to(NOW + 4 * DAY - MINUTE)
    service.pause(paused)
    with pytest.raises(partitions.PartitionInUse, match="2026-11-25"):
        partitions.drop(before=(NOW + 10 * DAY).date())
    assert set(Delivery.objects.values_list("day", flat=True)) == {date(2026, 11, 25)}


def test_where_nothing_is_old_nothing_is_dropped(service):
    assert partitions.drop(before=date(2020, 1, 1)) == []


def test_a_statement_of_one_day_does_not_even_look_at_the_others(service):
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN SELECT * FROM delivery_delivery WHERE day = '2026-11-21' AND occurrence_id = 1")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert plan.count("delivery_delivery_2026") >= 1
    assert "delivery_delivery_20261122" not in plan


def test_tests_go_when_the_ledgers_days_of_their_time_do(service, settings):
    kept = timedelta(days=settings.LEDGER_RETENTION_DAYS)
    for at in (service.now - kept - MINUTE, service.now - kept + MINUTE):
        TestSend.objects.create(schedule_id=1, recipient_id=1, channel="email", created_at=at)
    tasks.housekeeping()
    assert TestSend.objects.get().created_at == service.now - kept + MINUTE
