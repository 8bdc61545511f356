"""The commands: what they read, what they refuse in a line of words, and what they print."""

import io
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import structlog.testing
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django_celery_beat.models import PeriodicTask

from audit.models import AuditEvent
from delivery import advance, materialise, partitions, tasks
from delivery.checks import check_sizes
from delivery.materialise import attempts
from scheduler_project.celery import app
from scheduler_project.tasks import export_audit, tidy
from schedules import clock, operations, stops
from schedules.audience.sources import LocalSource
from schedules.models import Occurrence, StopSwitch
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.service import DAY, HOUR, only_occurrence, states

pytestmark = pytest.mark.django_db
PROJECT = Path(__file__).resolve().parents[2]


def run(name, *arguments):
    out = io.StringIO()
    call_command(name, *map(str, arguments), stdout=out, stderr=out)
    return out.getvalue()


# --- Stop and go -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "scope"), [([], "all"), (["--channel", "push"], "channel:push"), (["--schedule"], "schedule:")]
)
def test_stop_puts_a_switch_and_go_takes_it_away(service, options, scope):
    if scope == "schedule:":
        pk = ScheduleFactory().pk
        options, scope = [*options, pk], f"schedule:{pk}"
    assert f"Stopped: {scope}." in run("stop", *options, "--reason", "Bounces")
    stop = StopSwitch.objects.get()
    assert (stop.scope, stop.reason, stop.created_by) == (scope, "Bounces", "system:shell")
    assert f"Going on: {scope}." in run("go", *options)
    assert not StopSwitch.objects.exists()


def test_go_tells_what_else_is_stopped_and_fails_where_nothing_was(service):
    run("stop", "--channel", "email")
    with pytest.raises(CommandError, match=r"Nothing was stopped for all\. Still stopped: channel:email\."):
        run("go")
    with pytest.raises(CommandError, match="Nothing was stopped for schedule:"):
        run("go", "--schedule", "9" * 39)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--reason", "r" * 600], "has 600 characters: use at most 500"),
        (["--reason", "a\0b"], "holds a NUL"),
        (["--reason", "a\udcffb"], "half a surrogate pair"),
        (["--schedule", "-5"], "'schedule:-5' can't be stopped: use all, channel:NAME or schedule:ID"),
        (["--schedule", "0"], "'schedule:0' can't be stopped"),
        (["--schedule", "9" * 39], "can't be stopped"),
        (["--schedule", "9" * 19], "There is no schedule 9{19}, so nothing was stopped"),
        (["--schedule", "99999"], "There is no schedule 99999, so nothing was stopped"),
    ],
)
def test_a_stop_that_can_not_be_kept_is_refused_in_words(service, options, words):
    arguments = [f"{options[0]}={options[1]}"]
    with pytest.raises(CommandError, match=words):
        run("stop", *arguments)
    assert not StopSwitch.objects.exists()
    assert not AuditEvent.objects.filter(action="sending.stop").exists()


@pytest.mark.parametrize("reason", ["r" * 501, "a\0b", "\ud800"])
def test_a_pause_with_a_reason_that_can_not_be_kept_changes_nothing(service, reason):
    schedule = ScheduleFactory(run_at=NOW + HOUR)
    with pytest.raises(stops.InvalidReason, match="The reason"):
        operations.pause(schedule_id=schedule.pk, by=BY, now=NOW, reason=reason)
    schedule.refresh_from_db()
    assert schedule.status == "active"


# --- Books -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ran(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.run_to(NOW + HOUR)
    assert states(schedule) == {"sent": 3}
    return only_occurrence(schedule)


def test_the_books_are_shown_as_a_table_and_as_json(ran):
    assert "closed" in run("books")
    (line,) = run("books", "--json").splitlines()
    figures = json.loads(line)
    assert (figures["occurrence"], figures["targeted"], figures["sent"], figures["closes"]) == (ran.pk, 3, 3, True)


def test_the_books_of_one_occurrence_come_with_its_waves(ran):
    shown = run("books", "--occurrence", ran.pk)
    assert "Waves" in shown
    assert "2026-11-21 10:00:00" in shown
    with pytest.raises(CommandError, match=r"There is no occurrence 0\."):
        run("books", "--occurrence", 0)


def test_the_books_of_the_last_days_leave_out_what_was_before(ran, service):
    assert len(run("books", "--json", "--days", 1).splitlines()) == 1
    service.at(NOW + 3 * DAY)
    assert run("books", "--json", "--days", 1) == ""


@pytest.mark.parametrize("days", [9_999_999, 0, -5])
def test_days_that_no_calendar_has_are_refused(service, days):
    with pytest.raises(CommandError, match=rf"--days {days}: give a number from 1 to 36500"):
        run("books", f"--days={days}")


def test_books_that_do_not_balance_fail_the_command_and_are_named(ran):
    Occurrence.objects.filter(pk=ran.pk).update(targeted=4)
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 1 books do not balance") as error:
        call_command("books", stdout=out, stderr=out)
    assert error.value.returncode == 1
    assert f"occurrence {ran.pk} does not balance: targeted 4, counted 3; targeted 4, rows 3" in out.getvalue()
    Occurrence.objects.filter(pk=ran.pk).update(targeted=3)


def test_before_the_first_migration_the_books_say_what_to_do(service):
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE schedules_occurrence RENAME TO elsewhere")
        with pytest.raises(CommandError, match=r"no books yet: run manage\.py migrate"), transaction.atomic():
            run("books")
        transaction.set_rollback(True)


# --- The test clock --------------------------------------------------------------------------------------------------


@pytest.fixture
def test_clock(ledger_days, db, settings):
    settings.TEST_CLOCK = True
    settings.PUBLISH_AHEAD_S = 0.0
    clock.forget()
    yield
    clock.forget()


def test_the_clock_is_shown_and_reset(test_clock):
    assert "UTC, 0:00:00 ahead of the real time" in run("clock", "show")
    assert "1 day, 0:00:00 ahead" in run("clock", "advance", "1d", "--inline")
    assert clock.shift() > timedelta(hours=23)
    assert "UTC, 0:00:00 ahead" in run("clock", "reset")
    assert clock.shift() == timedelta(0)


def test_advancing_inline_does_what_falls_due_on_the_way(test_clock, provider):
    people(3)
    now = clock.now()
    schedule = ScheduleFactory(run_at=now + 5 * HOUR, now=now)
    run("clock", "advance", "6h", "--inline")
    assert states(schedule) == {"sent": 3}


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("2020-01-01T00:00:00Z", "is before the clock's present; only 'reset' goes back"),
        ("99999999d", "is too far: advance by 366 days at the most"),
        ("999999999999999999d", "is too far: advance by 366 days at the most"),
        ("367d", "is too far: advance by 366 days at the most"),
        ("9999-12-31T23:59:59Z", "is too far: advance by 366 days at the most"),
        ("9999-12-31T23:59:59-12:00", "is too far: advance by 366 days at the most"),
        ("2036-01-01T00:00:00", "has no zone: end it in Z"),
        ("tomorrow", "is neither a duration"),
        ("", "is neither a duration"),
    ],
)
def test_an_advance_that_makes_no_sense_moves_nothing(test_clock, to, words):
    with pytest.raises(CommandError, match=words):
        run("clock", "advance", to, "--inline")
    assert clock.shift() == timedelta(0)


def test_where_the_test_clock_is_off_the_command_says_how_to_turn_it_on(service):
    with pytest.raises(CommandError, match="TEST_CLOCK=1"):
        run("clock", "reset")


@pytest.mark.parametrize("drive", [["--inline"], []])
def test_an_advance_with_an_audience_that_takes_too_long_names_the_occurrence(
    test_clock, provider, settings, monkeypatch, drive
):
    settings.MATERIALISE_STATEMENT_TIMEOUT = 20
    monkeypatch.setattr(advance, "STUCK_S", 0.1)
    monkeypatch.setattr(LocalSource, "sql", lambda *_, **__: (SLOW, ()))
    people(3)
    schedule = ScheduleFactory(run_at=clock.now() + HOUR, now=clock.now())
    with pytest.raises(CommandError, match=r"The audience of occurrence \d+ takes longer than MATERIALISE_STATEMENT"):
        run("clock", "advance", "2h", *drive)
    assert only_occurrence(schedule).reason == "audience_too_slow"


# --- One attempt to materialise --------------------------------------------------------------------------------------

SLOW = "SELECT id, time_zone FROM schedules_recipient WHERE pg_sleep(0.1) IS NOT NULL"


def test_a_slow_audience_is_written_on_the_occurrence_until_an_attempt_succeeds(service, settings, monkeypatch):
    people(3)
    schedule = ScheduleFactory()
    service.tick()
    occurrence = only_occurrence(schedule)
    with monkeypatch.context() as patched:
        settings.MATERIALISE_STATEMENT_TIMEOUT = 20
        patched.setattr(LocalSource, "sql", lambda *_, **__: (SLOW, ()))
        assert materialise.attempt(occurrence_id=occurrence.pk, now=NOW) is None
    assert only_occurrence(schedule).reason == "audience_too_slow"
    assert materialise.attempt(occurrence_id=occurrence.pk, now=NOW) is None  # the lease still stands
    materialise.give_back(occurrence.pk)
    settings.MATERIALISE_STATEMENT_TIMEOUT = 5_000
    tasks.materialise_occurrences(occurrence_ids=[occurrence.pk])
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.reason, occurrence.targeted) == ("running", "", 3)


def test_an_attempt_that_was_overtaken_gives_the_occurrence_back(service, monkeypatch):
    schedule = ScheduleFactory()
    service.tick()

    def overtaken(**_):
        raise materialise.Superseded

    with monkeypatch.context() as patched:
        patched.setattr(attempts, "materialise", overtaken)
        assert materialise.attempt(occurrence_id=only_occurrence(schedule).pk, now=NOW) is None
    assert materialise.attempt(occurrence_id=only_occurrence(schedule).pk, now=NOW) is not None


# --- The clock's tasks -----------------------------------------------------------------------------------------------


def test_every_entry_of_the_clock_names_a_task_that_there_is_and_what_may_take_long_is_not_on_its_queue(db):
    entries = PeriodicTask.objects.exclude(task__startswith="celery.")
    slow = {export_audit, tasks.mirror_templates, tasks.read_accounts, tasks.call_endpoints}
    quick = {tasks.tick, tasks.sweep, tasks.count_figures, tasks.housekeeping, tasks.seal_audit, tidy}
    quick |= {tasks.tell_subscribers}
    assert {entry.task for entry in entries} == {task.name for task in quick | slow}
    assert {entry.task for entry in entries} <= set(app.tasks)
    assert {entry.task for entry in entries if entry.queue != "clock"} == {task.name for task in slow}
    assert {entry.queue for entry in entries} == {"clock", "materialise", "events"}
    assert all(entry.enabled for entry in entries)


def test_the_hourly_task_makes_days_and_warns_of_rows_whose_day_was_missing(service, provider):
    people(2)
    schedule = ScheduleFactory()
    service.run_to(NOW)
    service.at(NOW + 40 * DAY)
    wanted = f"delivery_delivery_{service.now + partitions.AHEAD_DAYS * DAY:%Y%m%d}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", [wanted])
        assert cursor.fetchone() == (None,)
        cursor.execute(
            "INSERT INTO delivery_failedattempt (day, occurrence_id, recipient_id, attempt, at, verdict, reason,"
            " detail) VALUES (%s, 1, 1, 1, now(), 'transient', 'x', '')",
            [service.now.date() + 100 * DAY],
        )
    with structlog.testing.capture_logs() as logs:
        tasks.housekeeping()
    assert {"event": "rows_in_default_partition", "rows": 1, "log_level": "warning"} in logs
    assert states(schedule) == {"sent": 2}
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)::text", [wanted])
        assert cursor.fetchone() == (wanted,)
        cursor.execute("DELETE FROM delivery_failedattempt_default")


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "least"), [("BATCH_SIZE", 0, 1), ("CALLS_IN_FLIGHT", 0, 1), ("PUBLISH_WINDOW_ROWS", 9, 10)]
)
def test_a_size_with_which_nothing_moves_is_found_at_the_start(settings, name, value, least):
    assert check_sizes(None) == []
    setattr(settings, name, value)
    (problem,) = [each for each in run_checks() if each.id == "delivery.E003"]
    assert problem.msg == f"{name} is {value}: nothing would ever be sent."
    assert f"Set {name} to {least} or more" in problem.hint


@pytest.mark.parametrize(
    ("given", "words"), [({}, "SECRET_KEY"), ({"SECRET_KEY": "x", "BATCH_SIZE": "many"}, "BATCH_SIZE")]
)
def test_a_setting_that_is_missing_or_unreadable_is_one_line_with_its_remedy(given, words):
    hosts = {"DATABASE_URL": "postgres://nowhere/x", "BROKER_URL": "redis://nowhere", "COUNTERS_URL": "redis://nowhere"}
    env = {name: value for name, value in os.environ.items() if name != "SECRET_KEY"}
    ended = subprocess.run(
        [sys.executable, "manage.py", "check"],
        env={**env, **hosts, **given},
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert words in line
    assert "Set it in the environment" in line
