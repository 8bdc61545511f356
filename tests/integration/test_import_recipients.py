"""Importing people: what a file does to the profiles, and the command as a person or program uses it."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from audit.models import AuditEvent
from schedules import encryption
from schedules.audience.compiler import compile
from schedules.audience.parser import parse
from schedules.fields import place
from schedules.imports.lines import Unreadable
from schedules.imports.merging import Written
from schedules.imports.recipients import MAX_KEPT, Format, Stage, import_recipients
from schedules.models import Device, Recipient
from tests.service import of_the_tests

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = place("schedules_device", "token")
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
LATER = datetime(2027, 3, 2, 12, tzinfo=UTC)


def bring(text, *, format=Format.CSV, now=NOON, **options):
    data = text if isinstance(text, bytes) else text.encode()
    return import_recipients(stream=io.BytesIO(data), format=format, by="user:1", now=now, **options)


def bring_people(*people, **options):
    return bring("\n".join(json.dumps(person) for person in people), format=Format.NDJSON, **options)


def profile(external_id="1"):
    return Recipient.objects.get(external_id=external_id)


def everyone():
    return list(Recipient.objects.order_by("external_id").values_list("external_id", flat=True))


# What becomes of profiles


def test_every_change_raises_the_version_of_whom_it_concerns_and_says_who_made_it():
    bring("id,plan,devices\n1,a,ios:t1\n2,a,\n3,a,\n4,a,\n")
    assert set(Recipient.objects.values_list("version", "updated_by")) == {(1, "user:1")}
    data = b"id,plan,devices\n1,a,\n2,a,ios:t1\n3,b,\n4,a,\n"
    import_recipients(stream=io.BytesIO(data), format=Format.CSV, by="user:2", now=LATER)
    changed = {each.external_id: (each.version, each.updated_by, each.updated_at) for each in Recipient.objects.all()}
    raised = (2, "user:2", LATER)
    assert changed == {"1": raised, "2": raised, "3": raised, "4": (1, "user:1", NOON)}


def test_a_file_creates_people_with_all_that_is_said_of_them():
    report = bring(
        "External ID;E-Mail;Locale;Time Zone;tags;consent_email;consent_push;devices;plan;age:number\n"
        "7;eva@example.com;de-AT;Europe/Vienna;vip|beta;yes;no;ios:t1|android:t2;pro;30\n"
    )
    assert report.written == Written(created=1, devices_added=2)
    person = profile("7")
    assert (person.email, person.locale, person.time_zone) == ("eva@example.com", "de-AT", "Europe/Vienna")
    assert (person.tags, person.consent) == (["vip", "beta"], {"email": True, "push": False})
    assert person.attributes == {"plan": "pro", "age": 30}
    assert person.created_at == person.updated_at == NOON
    devices = [(each.token, each.platform, each.active, each.created_at) for each in person.devices.all()]
    assert sorted(devices) == [("t1", "ios", True, NOON), ("t2", "android", True, NOON)]


def test_a_column_replaces_what_was_there_and_what_has_no_column_stays():
    bring("id,email,locale,tz,tags,consent_push,plan\n1,old@example.com,de,Europe/Berlin,a|b,no,free\n")
    report = bring("id,email,tags\n1,new@example.com,c\n", now=LATER)
    assert report.written == Written(updated=1)
    person = profile()
    assert (person.email, person.tags) == ("new@example.com", ["c"])
    assert (person.locale, person.time_zone) == ("de", "Europe/Berlin")
    assert (person.consent, person.attributes) == ({"push": False}, {"plan": "free"})
    assert (person.created_at, person.updated_at) == (NOON, LATER)


def test_an_empty_cell_empties_its_field_but_never_takes_back_an_objection():
    bring("id,email,locale,tz,tags,consent_email,plan,city\n1,a@example.com,de,UTC,a,no,free,Wien\n")
    bring("id,email,locale,tz,tags,consent_email,plan\n1,,,,,,\n", now=LATER)
    person = profile()
    assert (person.email, person.locale, person.time_zone, person.tags) == ("", "", "", [])
    assert person.attributes == {"city": "Wien"}
    assert person.consent == {"email": False}


def test_attributes_and_consent_are_merged_by_key_and_null_removes_an_attribute():
    bring_people({"id": "1", "attributes": {"a": 1, "b": {"x": 1}, "c": 3}, "consent": {"email": False, "push": True}})
    bring_people(
        {"id": "1", "attributes": {"b": {"y": 2}, "c": None, "d": 4}, "consent": {"push": False, "email": None}}
    )
    assert profile().attributes == {"a": 1, "b": {"y": 2}, "d": 4}
    assert profile().consent == {"email": False, "push": False}


def test_quiet_hours_are_set_kept_without_a_column_and_taken_away_by_an_empty_cell():
    bring("id,Quiet Hours\n1,22:00-07:00\n2,\n3, 21:30 – 06:00 \n")
    night = {"from": "22:00", "to": "07:00"}
    assert [profile(who).quiet_hours for who in everyone()] == [night, None, {"from": "21:30", "to": "06:00"}]
    assert profile().quiet_hours_source == {"by": "user:1", "at": NOON.isoformat()}
    assert profile("2").quiet_hours_source is None
    assert bring("id,quiet_hours\n1,22:00-07:00\n").written.unchanged == 1
    assert bring("id,locale\n1,de\n").written.updated == 1
    assert profile().quiet_hours == night
    bring_people({"external_id": "1", "quiet_hours": {"from": "12:00", "to": "13:00"}}, {"id": "3", "quietHours": None})
    assert (profile().quiet_hours, profile("3").quiet_hours) == ({"from": "12:00", "to": "13:00"}, None)
    assert bring("id,quiet_hours\n1,\n").written.updated == 1
    assert profile().quiet_hours is None


def test_what_are_no_quiet_hours_makes_the_line_bad():
    report = bring("id,quiet_hours\n1,22:00\n2,22:00-22:00\n3,10pm-7am\n4,22:00-07:00\n")
    assert [(bad.line, bad.field) for bad in report.bad] == [(line, "quiet_hours") for line in (2, 3, 4)]
    assert "ends when it begins" in report.bad[1].reason
    lines = bring_people({"id": "1", "quiet_hours": "22:00-07:00"}, {"id": "2", "quiet_hours": {"from": "22:00"}})
    assert [(bad.line, bad.field) for bad in lines.bad] == [(1, "quiet_hours"), (2, "quiet_hours")]
    assert not everyone()


def test_the_same_file_twice_changes_nothing_the_second_time():
    file = "id,email,tags,consent_push,devices,plan,none\n1,a@example.com,x|y,yes,web:t,pro,\n2,,,,,,\n"
    assert bring(file).written == Written(created=2, devices_added=1)
    assert bring(file, now=LATER).written == Written(unchanged=2)
    assert profile().updated_at == NOON


def test_created_updated_and_unchanged_are_told_apart():
    bring("id,plan\n1,a\n2,a\n3,a\n")
    report = bring("id,plan\n2,a\n3,b\n4,a\n", now=LATER)
    assert (report.lines, report.written) == (3, Written(created=1, updated=1, unchanged=1))
    assert {person.external_id for person in Recipient.objects.filter(updated_at=LATER)} == {"3", "4"}


def test_a_device_is_added_renewed_or_moves_to_the_person_the_file_gives_it():
    bring("id,devices\n1,ios:t1|ios:t2\n2,ios:t3\n")
    Device.objects.filter(token_index=encryption.index_of_token("t2")).update(active=False)
    report = bring("id,devices\n2,ios:t1|ios:t3\n1,android:t2|web:t4\n3,\n", now=LATER)
    assert report.written == Written(created=1, updated=2, devices_added=1, devices_moved=1, devices_renewed=1)
    held = Device.objects.values_list("token", "recipient__external_id", "platform", "active")
    assert sorted(held) == [
        ("t1", "2", "ios", True),
        ("t2", "1", "android", True),
        ("t3", "2", "ios", True),
        ("t4", "1", "web", True),
    ]


def test_devices_that_a_file_does_not_name_stay():
    bring("id,devices\n1,ios:t1\n")
    bring("id,devices\n1,ios:t2\n")
    bring("id,devices\n1,\n")
    assert profile().devices.count() == 2


def test_a_typed_column_can_be_asked_for_greater_and_less():
    bring("id,age:number,age_text\n1,30,30\n2,31,31\n3,7,7\n")

    def who(field):
        query = parse({"field": f"attributes.{field}", "op": "gt", "value": 30})
        return [person.external_id for person in Recipient.objects.filter(compile(query, now=NOON))]

    assert who("age") == ["2"]
    assert who("age_text") == []


# Bad lines


def test_with_a_bad_line_nothing_is_written():
    report = bring("id,email\n1,a@example.com\n2,nonsense\n3,c@example.com\n")
    assert (report.is_kept, report.lines, report.bad_lines, report.written) == (False, 3, 1, Written())
    assert [(line.line, line.field) for line in report.bad] == [(3, "email")]
    assert everyone() == []
    assert not AuditEvent.objects.exists()


def test_bad_lines_can_be_left_out():
    report = bring("id,email\n1,a@example.com\n2,nonsense\n3,c@example.com\n", skip_bad=True)
    assert (report.is_kept, report.bad_lines, report.written) == (True, 1, Written(created=2))
    assert everyone() == ["1", "3"]


def test_an_id_that_stands_twice_is_bad_but_for_its_first_line():
    file = 'id,note\n1,a\n2,"b\nc"\n1,d\n2,e\n1,f\n'
    report = bring(file)
    assert [(line.line, line.field) for line in report.bad] == [
        (5, "external_id"),
        (6, "external_id"),
        (7, "external_id"),
    ]
    assert [line.reason for line in report.bad] == [
        "stands on line 2 already: keep one of the two",
        "stands on line 3 already: keep one of the two",
        "stands on line 2 already: keep one of the two",
    ]
    assert everyone() == []
    report = bring(file, skip_bad=True)
    assert report.written == Written(created=2)
    assert profile("1").attributes == {"note": "a"}


def test_an_id_whose_first_line_is_bad_is_taken_from_the_next_one():
    report = bring("id,email\n1,nonsense\n1,a@example.com\n", skip_bad=True)
    assert (report.bad_lines, profile().email) == (1, "a@example.com")


def test_a_device_of_two_people_makes_the_second_line_bad():
    report = bring("id,devices\n1,ios:t1\n2,ios:t2|ios:t1\n3,ios:t3\n", skip_bad=True)
    assert [(line.line, line.field) for line in report.bad] == [(3, "devices")]
    assert "somebody else has on line 2" in report.bad[0].reason
    assert everyone() == ["1", "3"]
    assert Device.objects.count() == 2


def test_of_many_bad_lines_the_first_are_kept_and_all_are_told():
    told = []
    report = bring("id,email\n" + "x,nonsense\n" * (MAX_KEPT + 5), on_bad=told.append)
    assert report.bad_lines == len(told) == MAX_KEPT + 5
    assert [line.line for line in report.bad] == list(range(2, MAX_KEPT + 2))


def test_unknown_zones_and_locales_are_kept_counted_and_no_reason_to_refuse():
    report = bring(
        "id,tz,locale\n1,Mars/Olympus,xx\n2,Mars/Olympus,german\n3,europe/berlin,de-XX\n4,,\n5,UTC,de_AT.UTF-8\n"
    )
    assert report.written.created == 5
    assert report.unknown_zones == {"Mars/Olympus": 2, "europe/berlin": 1}
    assert report.unknown_locales == {"german": 1, "xx": 1}
    assert profile("1").time_zone == "Mars/Olympus"


@pytest.mark.parametrize("format", list(Format))
def test_an_empty_file_is_refused(format):
    with pytest.raises(Unreadable, match="is empty"):
        bring("", format=format)


def test_a_header_alone_imports_nobody():
    assert bring("id,email\n").written == Written()


# One transaction


def test_a_dry_run_tells_what_would_happen_and_keeps_nothing():
    bring("id,plan\n1,a\n2,a\n")
    before = AuditEvent.objects.count()
    report = bring("id,plan,devices\n1,b,ios:t\n2,a,\n3,a,\n", now=LATER, dry_run=True)
    assert report.written == Written(created=1, updated=1, unchanged=1, devices_added=1)
    assert not report.is_kept
    assert everyone() == ["1", "2"]
    assert profile().attributes == {"plan": "a"}
    assert AuditEvent.objects.count() == before


def test_an_error_in_the_middle_leaves_nothing_behind():
    class Torn(io.BytesIO):
        def read(self, size=-1):
            if data := super().read(size):
                return data
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        import_recipients(stream=Torn(b"id\n1\n2\n"), format=Format.CSV, by="user:1", now=NOON)
    assert everyone() == []


def test_the_audit_tells_who_imported_how_many_and_nobody_s_data():
    bring("id,email,devices\n1,secret@example.com,ios:hidden\n2,nonsense,\n", skip_bad=True)
    event = AuditEvent.objects.get()
    assert (event.action, event.actor_id, event.created_at) == ("recipient.import", "user:1", NOON)
    assert event.payload_diff == {
        "lines": 2, "skipped": 1, "created": 1, "updated": 0, "unchanged": 0,
        "devices_added": 1, "devices_moved": 0, "devices_renewed": 0, "left_out": 0,
    }  # fmt: skip
    assert "secret" not in str(event.payload_diff)


def test_progress_goes_through_its_stages():
    seen = []
    bring(
        "id\n" + "".join(f"{n}\n" for n in range(12_000)), progress=lambda stage, people: seen.append((stage, people))
    )
    assert seen == [
        (Stage.READ, 5_000),
        (Stage.READ, 10_000),
        (Stage.READ, 12_000),
        (Stage.CHECK, 12_000),
        (Stage.WRITE, 12_000),
    ]


# The command


def run(*arguments, **options):
    out = io.StringIO()
    call_command("import_recipients", *map(str, arguments), stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def people_csv(tmp_path):
    """10,000 people as Python's csv module writes them for Excel."""
    path = tmp_path / "people.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, dialect="excel")
        writer.writerow(["customer_id", "Email", "Language", "Time Zone", "City", "Note"])
        for n in range(10_000):
            writer.writerow(
                [f"c{n}", f"c{n}@example.com", "de-AT", "Europe/Vienna", "Köln, Mitte", f'said "{n}"\nand left']
            )
    return path


def test_ten_thousand_people_of_another_program_are_imported(people_csv):
    out = run(people_csv)
    assert "Imported: 10,000 created, 0 updated, 0 unchanged; left out: 0." in out
    person = profile("c9999")
    assert (person.email, person.locale, person.time_zone) == ("c9999@example.com", "de-AT", "Europe/Vienna")
    assert person.attributes == {"City": "Köln, Mitte", "Note": 'said "9999"\nand left'}
    assert "0 created, 0 updated, 10,000 unchanged" in run(people_csv)


def test_a_spreadsheet_s_semicolons_byte_order_mark_and_line_ends_are_understood(tmp_path):
    rows = ["Kundennummer;External ID;E-Mail;Ort"] + [f"{n};k{n};k{n}@example.com;Zürich" for n in range(10_000)]
    path = tmp_path / "people.csv"
    path.write_bytes("\r\n".join([*rows, ""]).encode("utf-8-sig"))
    assert "Imported: 10,000 created" in run(path)
    assert profile("k7").attributes == {"Kundennummer": "7", "Ort": "Zürich"}


def test_lines_that_awk_writes_are_imported_from_the_standard_input(tmp_path):
    path = tmp_path / "people.csv"
    program = 'BEGIN { print "id,email"; for (n = 0; n < 10000; n++) printf "a%d,a%d@example.com\\n", n, n }'
    with path.open("wb") as file:
        subprocess.run(["awk", program], stdout=file, check=True)
    with path.open("rb") as file, replaced_stdin(file):
        assert "10,000 created" in run("-", format="csv")
    assert Recipient.objects.count() == 10_000


@contextmanager
def replaced_stdin(file):
    before, sys.stdin = sys.stdin, SimpleNamespace(buffer=file)
    try:
        yield
    finally:
        sys.stdin = before


def test_bad_lines_are_listed_with_number_and_reason_and_the_command_fails(tmp_path):
    path = tmp_path / "people.ndjson"
    path.write_text('{"id": "1"}\ngarbage\n{"id": "3", "email": "nonsense"}\n' + '{"id": "1"}\n' * 30)
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"Nothing was imported because of the bad lines.* --skip-bad") as error:
        call_command("import_recipients", str(path), stdout=out)
    assert error.value.returncode == 1
    assert "Bad lines: 32" in out.getvalue()
    assert "line 2: the line is no JSON (Expecting value, character 1)" in out.getvalue()
    assert "line 3: email is no e-mail address" in out.getvalue()
    assert "line 4: external_id stands on line 1 already" in out.getvalue()
    assert "and 12 more; --report FILE writes them all" in out.getvalue()
    assert "People in the file: 33, of which bad: 32." in out.getvalue()
    assert everyone() == []


def test_the_report_file_holds_every_bad_line(tmp_path):
    path, report = tmp_path / "people.csv", tmp_path / "bad.ndjson"
    path.write_text("id,email\n" + "1,nonsense\n" * 150)
    out = run(path, "--skip-bad", "--report", report)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert len(lines) == 150
    assert (lines[-1]["line"], lines[-1]["field"]) == (151, "email")
    assert f"All bad lines: {report}" in out


def test_the_report_speaks_of_what_a_person_would_not_expect(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("id,First Name,age,tz,locale,devices\n1,Eva,30,Mars/Olympus,german,ios:t\n")
    out = run(path, "--dry-run")
    assert "Column “First Name” became the attribute First_Name." in out
    assert "Kept as texts, though they look like numbers: age." in out
    assert "age:number" in out
    assert "Unknown time zones, kept as they are: 'Mars/Olympus' (1)" in out
    assert "Unknown locales, kept as they are: 'german' (1)" in out
    assert "Would be imported: 1 created" in out
    assert "Devices: 1 added, 0 moved" in out
    assert everyone() == []


def test_types_and_encoding_and_delimiter_are_options(tmp_path):
    path = tmp_path / "people.txt"
    path.write_bytes("id|x,1\tage\tcity\n5\t30\tKöln\n".replace("id|x,1", "id").encode("cp1252"))
    run(path, "--encoding", "cp1252", "--delimiter", "tab", "--infer-types")
    assert profile("5").attributes == {"age": 30, "city": "Köln"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "none.csv: No such file or directory. Nothing was imported."),
        ("empty.csv", b"", "empty.csv: the file is empty. Nothing was imported."),
        ("columns.csv", b"email\na@example.com\n", "has no column external_id"),
        ("latin.csv", "größe,id\n1,2\n".encode("cp1252"), r"header \(line 1\) that is not valid UTF-8.*cp1252"),
        ("people.dat", b"id\n1\n", "people.dat: .*add --format csv or ndjson"),
        ("book.xlsx", b"PK\x03\x04", "add --format"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_the_remedy(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=words):
        run(path)


def test_a_folder_and_a_report_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(CommandError, match=r"Is a directory\. Nothing was imported"):
        run(tmp_path, "--format", "csv")
    path = tmp_path / "people.csv"
    path.write_text("id\n1\n")
    with pytest.raises(CommandError, match=r"nowhere/bad\.ndjson: No such file or directory\. Nothing"):
        run(path, "--report", tmp_path / "nowhere" / "bad.ndjson")
    assert everyone() == []


def test_the_report_never_goes_over_the_file_that_is_read(tmp_path):
    path, link = tmp_path / "people.csv", tmp_path / "link.csv"
    path.write_text("id,email\n1,nonsense\n")
    link.symlink_to(path)
    for report in (path, link):
        with pytest.raises(CommandError, match=r"is the file to import: name another\. Nothing was imported"):
            run(path, "--report", report)
    with path.open("rb") as file, replaced_stdin(file), pytest.raises(CommandError, match="is the file to import"):
        run("-", "--report", path, format="csv")
    assert path.read_text() == "id,email\n1,nonsense\n"


@pytest.mark.parametrize("text", [b"id\n1\n", b"", b"\xff\xfe\x00\x00"])
def test_a_report_is_not_made_or_emptied_before_there_is_a_bad_line(tmp_path, text):
    path, report = tmp_path / "people.csv", tmp_path / "bad.ndjson"
    path.write_bytes(text)
    report.write_text("kept")
    with suppress(CommandError):
        assert f"All bad lines: none, so {report} was not written" in run(path, "--report", report)
    assert report.read_text() == "kept"


# Real processes


@contextmanager
def importing(*arguments):
    """The command in a process of its own, on the tests' database; its standard input is a pipe."""
    name = f"import-{os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, "manage.py", "import_recipients", *arguments],
        cwd=ROOT,
        env={**of_the_tests(), "APPLICATION_NAME": name},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell makes its background jobs, hence perhaps these tests, deaf to Ctrl-C; a terminal's programs hear it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process, name
    finally:
        process.kill()
        process.communicate()


def wait_for(name, condition, *, count=1):
    """Until so many connections of the process satisfy the condition."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees what it saw first
            cursor.execute(
                f"SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND ({condition})", [name]
            )
            if cursor.fetchone()[0] == count:
                return
        time.sleep(0.05)
    raise AssertionError(f"never: {condition}")


def test_an_import_killed_while_it_reads_leaves_nothing_behind():
    with importing("-", "--format", "csv") as (process, name):
        process.stdin.write(b"id\n" + b"".join(b"%d\n" % n for n in range(50_000)))
        process.stdin.flush()
        wait_for(name, "query LIKE 'COPY pg_temp.import_people%%'")
        process.kill()
        wait_for(name, "true", count=0)
    assert everyone() == []


def test_an_import_killed_after_it_wrote_people_leaves_nothing_behind(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("id,devices\n1,ios:t1\n2,ios:t2\n")
    with psycopg.connect(of_the_tests()["DATABASE_URL"]) as other:
        # The import waits for the fate of this device, its people being written.
        other.execute(
            "INSERT INTO schedules_recipient (external_id, email, locale, time_zone, attributes, tags, consent) "
            "VALUES ('3', '', '', '', '{}', '[]', '{}')"
        )
        other.execute(
            "INSERT INTO schedules_device (recipient_id, token, token_index, platform, active) "
            "SELECT id, %s, %s, 'ios', true FROM schedules_recipient",
            [encryption.encrypt("t2", TOKEN), encryption.index_of_token("t2")],
        )
        with importing(str(path)) as (process, name):
            wait_for(name, "wait_event = 'transactionid' AND query LIKE '%%schedules_device%%'")
            process.kill()
            other.rollback()
            wait_for(name, "true", count=0)
    assert everyone() == []


def test_ctrl_c_stops_an_import_that_waits_for_its_turn_and_says_that_nothing_was_written(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("id\n1\n2\n")
    bring("id\n3\n")  # this test's transaction has its turn now
    with importing(str(path)) as (process, name):
        wait_for(name, "wait_event = 'advisory'")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert b"Stopped. Nothing was imported." in out
    assert process.returncode == 130
    assert everyone() == ["3"]


def test_a_file_of_100_mb_takes_no_more_memory_than_a_small_one(tmp_path):
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    for path, people in ((small, 10), (large, 7_000)):
        with path.open("w") as file:
            file.write("id,note\n")
            for n in range(people):
                file.write(f"{n},{n:05d}{'lorem ipsum ' * 1_280}\n")
    assert large.stat().st_size > 100 * 1024 * 1024
    peaks = {}
    for path in (small, large):
        with importing(str(path), "--dry-run") as (process, _):
            _, status, usage = os.wait4(process.pid, 0)
            assert b"Would be imported" in process.stdout.read()
            assert os.waitstatus_to_exitcode(status) == 0
            process.returncode = 0
            peaks[path] = usage.ru_maxrss  # KiB
    assert peaks[large] < peaks[small] + 16 * 1024
