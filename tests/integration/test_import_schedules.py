"""Importing schedules: what a file may say, which rule holds for what is there already, and the command."""

import io
import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from audit.models import AuditEvent
from schedules import operations
from schedules.imports.lines import Unreadable
from schedules.imports.schedules import import_schedules
from schedules.models import Schedule, ScheduleVersion
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory, TopicFactory

pytestmark = pytest.mark.django_db

LATER = "2026-11-22T10:00:00Z"
NEWS = {
    "key": "news",
    "name": "News",
    "channel": "email",
    "audienceQuery": {"all": []},
    "template": "welcome",
    "scheduleType": "once",
    "runAt": LATER,
}


@pytest.fixture(autouse=True)
def welcome(service):
    return TemplateFactory(name="welcome")


def bring(*lines, **options):
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return import_schedules(stream=io.BytesIO(data), by=BY, now=NOW, **options)


def told(report):
    assert not report.is_kept
    return [(each.line, each.pointer, each.code) for each in report.problems]


def test_what_is_new_is_a_draft_whatever_its_status_says(welcome):
    report = bring({**NEWS, "status": "active"}, {**NEWS, "key": "other", "status": "paused"})
    assert (report.created, report.running, report.is_kept) == (2, 0, True)
    made = Schedule.objects.get(key="news")
    assert (made.status, made.next_run_at, made.template, made.created_by) == ("draft", None, welcome, BY)
    assert [each.action for each in AuditEvent.objects.filter(schedule_id=made.pk)] == ["schedule.create"]


def test_it_is_what_its_status_says_where_that_is_asked_for():
    report = bring(
        {**NEWS, "status": "active"}, {**NEWS, "key": "b", "status": "paused"}, {**NEWS, "key": "c"}, activate=True
    )
    assert (report.created, report.running) == (3, 1)
    assert dict(Schedule.objects.values_list("key", "status")) == {"news": "active", "b": "paused", "c": "draft"}
    assert Schedule.objects.get(key="news").next_run_at == NOW + timedelta(days=1)
    assert bring({**NEWS, "status": "paused"}, {**NEWS, "key": "b", "status": "active"}, activate=True).updated == 2
    assert dict(Schedule.objects.values_list("key", "status")) == {"news": "paused", "b": "active", "c": "draft"}


def test_one_without_a_key_is_a_new_one_each_time_and_gets_one():
    line = {name: value for name, value in NEWS.items() if name != "key"}
    assert (bring(line).created, bring(line).created) == (1, 1)
    keys = list(Schedule.objects.values_list("key", flat=True))
    assert len(set(keys)) == 2
    assert all(len(key) == 36 for key in keys)


def test_a_known_key_changes_the_schedule_there_is():
    bring(NEWS)
    report = bring({**NEWS, "name": "News of today", "topic": None})
    assert (report.created, report.updated, report.unchanged) == (0, 1, 0)
    changed = Schedule.objects.get()
    assert (changed.name, changed.version) == ("News of today", 2)
    assert bring({**NEWS, "name": "News of today"}).unchanged == 1
    assert ScheduleVersion.objects.count() == 2


def test_one_that_runs_changes_only_where_that_is_asked_for():
    bring({**NEWS, "status": "active"}, activate=True)
    changed = {**NEWS, "name": "Other news", "status": "active"}
    report = bring(changed)
    assert told(report) == [(1, "/status", "wrong_state")]
    assert "runs, and this would change what it sends" in report.problems[0].message
    assert Schedule.objects.get().name == "News"
    report = bring(changed, activate=True)
    assert (report.updated, report.running) == (1, 1)
    kept = Schedule.objects.get()
    assert (kept.name, kept.status) == ("Other news", "active")
    # What runs is no draft again, by a file that was exported before it ran.
    assert bring({**changed, "status": "draft"}, activate=True).unchanged == 1


def test_one_that_is_over_never_changes_and_a_deleted_one_is_made_anew():
    made = ScheduleFactory(run_at=NOW + timedelta(days=1))
    operations.cancel(schedule_id=made.pk, by=BY, now=NOW)
    line = {**NEWS, "key": made.key}
    report = bring(line, activate=True)
    assert told(report) == [(1, "/status", "wrong_state")]
    assert "is over" in report.problems[0].message
    operations.delete(schedule_id=made.pk, by=BY, now=NOW)
    assert bring(line).created == 1
    assert Schedule.objects.live().get(key=made.key).pk != made.pk


def test_one_problem_keeps_everything_out_and_all_are_told():
    report = bring(
        NEWS,
        {**NEWS, "key": "a", "channel": "pigeon", "cron": 5, "template": "nothing", "surplus": 1},
        b"{",
        b"",
        {"key": "b"},
        {**NEWS, "key": "ä b"},
        NEWS,
        {**NEWS, "key": "c", "runAt": "2026-11-22"},
        {**NEWS, "key": "d", "runAt": "2026-11-22T10:00:00"},
        {**NEWS, "key": "e", "sendWindow": {"days": [], "from": "9", "to": "10:00"}},
        {**NEWS, "key": "f", "template": 5, "status": "finished"},
        b'["a"]',
    )
    assert told(report) == [
        (2, "/surplus", "unknown"),
        (2, "/cron", "wrong_type"),
        (2, "/template", "not_found"),
        (2, "/channel", "unknown"),
        (3, "", "unreadable"),
        (5, "/name", "required"),
        (5, "/channel", "required"),
        (5, "/scheduleType", "required"),
        (6, "/key", "invalid"),
        (7, "/key", "repeated"),
        (8, "/runAt", "wrong_type"),
        (9, "/runAt", "wrong_type"),
        (10, "/sendWindow/days", "invalid"),
        (10, "/sendWindow/from", "invalid"),
        (11, "/template", "wrong_type"),
        (11, "/status", "unknown"),
        (12, "", "unreadable"),
    ]
    assert not Schedule.objects.exists()


def test_what_shall_run_is_checked_as_any_other_that_is_made():
    """As a draft each of these would do."""
    TopicFactory(key="old")
    wrong = [
        ({"template": None}, "/template"),
        ({"runAt": "2026-11-20T10:00:00Z"}, "/runAt"),
        ({"audienceQuery": {"all": [{"field": "nothing", "op": "eq", "value": 1}]}}, "/audienceQuery/all/0/field"),
        ({"topic": "new"}, "/topic"),
        ({"timeZone": "Mars/Crater"}, "/timeZone"),
    ]
    lines = [{**NEWS, **said, "key": f"k{number}", "status": "active"} for number, (said, _) in enumerate(wrong)]
    assert bring(*lines, dry_run=True).problems == []
    report = bring(*lines, activate=True)
    assert [(each.line, each.pointer) for each in report.problems] == [
        (number, pointer) for number, (_, pointer) in enumerate(wrong, start=1)
    ]


def test_a_dry_run_tells_and_keeps_nothing():
    report = bring({**NEWS, "status": "active"}, activate=True, dry_run=True)
    assert (report.created, report.running, report.is_kept) == (1, 1, False)
    assert not Schedule.objects.exists()
    assert not AuditEvent.objects.filter(action="schedule.create").exists()


def test_many_problems_are_counted_and_the_first_are_told():
    report = bring(*[b"x"] * 150)
    assert (report.lines, report.problem_count, len(report.problems)) == (150, 150, 100)


@pytest.mark.parametrize("data", [b"", b"[{}]", b"PK\x03\x04", "ü".encode("utf-16")])
def test_what_is_no_file_of_lines_is_refused_as_a_whole(data):
    if data.startswith(b"\xff\xfe"):
        assert bring(data).problem_count
        return
    with pytest.raises(Unreadable):
        bring(data)


def command(name, *arguments):
    out = io.StringIO()
    call_command(name, *map(str, arguments), stdout=out)
    return out.getvalue()


def test_the_commands_go_out_and_in(tmp_path):
    ScheduleFactory(name="One", run_at=NOW + timedelta(days=1))
    file = tmp_path / "schedules.ndjson"
    command("export_schedules", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert command("import_schedules", file) == (
        "Imported: 0 created, 0 updated, 1 unchanged; of the first two 0 run.\n"
    )
    Schedule.objects.all().delete()
    assert "Would be imported: 1 created" in command("import_schedules", file, "--dry-run", "--activate")
    assert "1 created, 0 updated, 0 unchanged; of the first two 1 run" in command(
        "import_schedules", file, "--activate"
    )
    file.write_bytes(b'{"key": "x"}\n')
    with pytest.raises(CommandError, match=r"Nothing was imported\. Problems to correct: 3"):
        command("import_schedules", file)


def test_the_other_commands_go_out_and_in_too(tmp_path):
    folder, archive, people = tmp_path / "out", tmp_path / "out.zip", tmp_path / "people.csv"
    assert command("export_templates", folder) == f"Exported: 1 files in {folder}.\n"
    assert "Unchanged: template welcome." in command("import_templates", folder)
    with pytest.raises(CommandError, match="is not empty"):
        command("export_templates", folder)
    command("export_templates", archive)
    assert "Unchanged: template welcome." in command("import_templates", archive)
    archive.write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(CommandError, match="is no zip archive, or a damaged one"):
        command("import_templates", archive)
    command("export_recipients", people)
    assert people.read_text("utf-8-sig").startswith("external_id,email")
    for wrong in ("people.xls", "missing/people.csv"):
        with pytest.raises(CommandError):
            command("export_recipients", Path(tmp_path, wrong))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "out.zip", "people.csv"]
