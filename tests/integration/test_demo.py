"""The demo as its users meet it: real processes on servers of its own, started and stopped like on a terminal."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from audit.models import AuditEvent
from scheduler_project.demo import accounts, data, guide
from scheduler_project.demo.devices import Devices
from scheduler_project.demo.mailbox import Mailbox, OnTestClock
from scheduler_project.demo.plans import EACH_MINUTE
from schedules import clock
from schedules.models import Device, MessageTemplate, Recipient, Schedule
from schedules.permissions import Role, roles_of
from stubs.log import Log
from tests import migrated
from tests.api import Api
from tests.running import read_log

PROJECT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 21, 14, 20, tzinfo=UTC)
# Of a slow machine, which starts a dozen processes at once: nothing here is about speed.
PATIENCE_S = 120.0
# Of 150 people those who get the newsletter at least.
ENOUGH = 150 - 20
_SEAL = "from audit import seals; from django.utils import timezone; seals.seal(now=timezone.now())"


@pytest.mark.django_db
def test_the_data_holds_one_schedule_of_each_kind_that_is_worth_watching() -> None:
    data.put_in(people=200, now=NOW)
    data.renew(now=NOW)
    kinds = {(each.channel, each.schedule_type, each.time_zone_mode, each.status) for each in Schedule.objects.all()}
    assert kinds == {
        ("email", "once", "fixed", "active"),
        ("in_app", "cron", "fixed", "active"),
        ("email", "once", "user_local", "active"),
        ("push", "cron", "user_local", "active"),
        ("push", "cron", "fixed", "active"),
        ("email", "cron", "fixed", "paused"),
        ("email", "once", "fixed", "draft"),
    }
    assert Recipient.objects.count() == 200
    assert Device.objects.values("recipient").distinct().count() > 80
    assert MessageTemplate.objects.filter(version=1).count() == 6
    assert data.is_there()


@pytest.mark.django_db
def test_the_reference_service_knows_whom_the_demo_knows(tmp_path: Path) -> None:
    path = tmp_path / "people.ndjson"
    data.write_profiles(path, people=60, now=NOW)
    invented = [json.loads(line) for line in path.read_text().splitlines()]
    data.put_in(people=60, now=NOW)
    Recipient.objects.update(created_at=NOW)
    data.write_profiles(path, people=7, now=NOW)
    assert [json.loads(line) for line in path.read_text().splitlines()] == invented
    assert {(person["updatedAt"], person["createdAt"]) for person in invented} == {(NOW.isoformat(), NOW.isoformat())}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.django_db
def test_the_bulletin_of_each_minute_is_renewed_once_it_has_ended() -> None:
    data.put_in(people=1, now=NOW)
    for hours in (0, 1, 4, 4):
        data.renew(now=NOW + timedelta(hours=hours))
    ends = Schedule.objects.filter(name=EACH_MINUTE).order_by("end_at").values_list("end_at", flat=True)
    assert list(ends) == [NOW + timedelta(hours=3), NOW + timedelta(hours=7)]


@pytest.mark.django_db
def test_the_audit_names_the_demo_as_whoever_put_the_data_in() -> None:
    data.put_in(people=10, now=NOW)
    assert set(AuditEvent.objects.values_list("actor_id", flat=True)) == {data.BY}


@pytest.mark.django_db
def test_each_role_has_an_account_and_keeps_its_password() -> None:
    accounts.open_accounts(password="first")
    accounts.open_accounts(password="second")
    assert User.objects.get(username="analyst").check_password("first")
    roles = {user.username: roles_of(user) for user in User.objects.all()}
    assert roles == {"marketer": {Role.MARKETER}, "analyst": {Role.ANALYST}, "admin": {Role.ADMIN}}


@pytest.mark.django_db
def test_the_shop_has_a_customer_whom_the_bulletin_reaches_and_a_token_for_that_inbox_alone() -> None:
    assert accounts.customer() == ""
    data.put_in(people=3, now=NOW)
    name = accounts.customer()
    assert "team" in Recipient.objects.get(external_id=name).tags
    for _ in range(2):
        shop = Api(accounts.token_for(name))
        assert shop.get("inbox/unread-count").json() == {"unread": 0}
        assert shop.get("schedules").status_code == 403


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stub", [Mailbox, Devices])
def test_a_stub_stamps_what_it_accepts_with_the_test_clock(
    settings: Settings, tmp_path: Path, stub: type[OnTestClock]
) -> None:
    settings.TEST_CLOCK = True
    mailbox = stub(Log(tmp_path / "log"))
    try:
        clock.advance_to(clock.now() + timedelta(hours=27))
        assert abs(mailbox.now() - clock.now()) < timedelta(seconds=1)
        assert mailbox.now() - datetime.now(UTC) > timedelta(hours=26)
    finally:
        mailbox.close()


@pytest.mark.django_db
def test_the_standing_names_what_was_sent_and_what_waits() -> None:
    assert guide.standing(now=NOW) == "0 sent · 0 not sent, for a reason each · 0 waiting"


@pytest.mark.timeout(900)
def test_the_demo_works_stops_without_a_trace_and_starts_again_with_its_data(tmp_path: Path) -> None:
    """On the data of its second start the afternoon in docs/security.md is followed to the letter."""
    port = free_port()
    with demo(tmp_path, "--recipients", "150", "--port", str(port)) as running:
        shown = running.until("In a second terminal")
        assert "150 recipients in" in shown
        assert f"http://127.0.0.1:{port}/" in shown
        assert "marketer, analyst, admin; password " in shown
        assert status_of(f"http://127.0.0.1:{port}/admin/login/") == 200
        mailbox, devices = re.findall(r"http://127\.0\.0\.1:\d+(?=/ shows the last)", shown)
        (shop,) = re.findall(r"http://127\.0\.0\.1:\d+(?=/ is a page of another origin)", shown)
        assert "<notification-bell" in body_of(shop)

        second = manage(tmp_path, "demo")
        assert second.returncode == 1
        assert "runs in" in second.stderr
        assert manage(tmp_path, "clock", "show").returncode == 0

        log = tmp_path / "ses-accepted.ndjson"
        eventually(lambda: len(read_log(log)) > ENOUGH)
        assert "<iframe" in body_of(mailbox + newest_mail(mailbox))
        # The basket reminder of twenty past, pushed by the provider of production.
        assert manage(tmp_path, "clock", "advance", "61m").returncode == 0
        eventually(lambda: "FCM stub: 0 accepted" not in body_of(devices))
        assert '"replaces"' in body_of(f"{devices}/messages")
        running.process.send_signal(signal.SIGINT)
        assert "Stopped. The data is kept" in running.rest()
        assert running.process.wait(PATIENCE_S) == 0
    eventually(lambda: processes_of(tmp_path) == [])
    mails = [mail["delivery"] for mail in read_log(log)]
    assert len(set(mails)) == len(mails)

    with demo(tmp_path, "--port", str(port)) as running:
        shown = running.until("In a second terminal")
        assert "with the data of its last run" in shown
        assert "150 recipients in" in shown
        assert manage(tmp_path, "shell", "-c", _SEAL).returncode == 0  # a minute is not waited for
        every_command_of_the_afternoon_shows_what_it_says(tmp_path)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE_S) == 0
    eventually(lambda: processes_of(tmp_path) == [])


def every_command_of_the_afternoon_shows_what_it_says(root: Path) -> None:
    """Of docs/security.md, as somebody would follow it who has this demo's folder."""
    prepared, refused, audit, files, erased = _followed(root)
    assert prepared == ""
    answers = re.findall("ERROR: .*", refused)
    assert len(answers) == 5
    assert all("permission denied" in answer or "must be owner" in answer for answer in answers), refused

    tampered, _, mended = audit.partition("DROP TABLE")
    assert re.search(r"tampered with: row \d+ was changed.*\n1\n", tampered), audit
    assert re.search(r"The audit is as it was sealed(.*\n)+0\n", mended), audit

    assert "Imported: 1 created" in files
    found = [line for line in files.splitlines() if line.startswith(str(root))]
    assert found, "the id is nowhere, so that of the address nothing is shown"
    assert not [path for path in found if b"zebulon@example.com" in Path(path).read_bytes()]
    assert all(path.startswith(f"{root}/database/") for path in found), files

    assert '"noCallStartsAfter"' in erased
    assert not [line for line in erased.splitlines() if "zebulon" in line.lower() and not line.startswith("{")]
    assert "closed" in erased


def _followed(root: Path) -> list[str]:
    """What each block of commands prints, errors included; all run in one shell."""
    page = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
    (afternoon,) = re.findall(r"## An afternoon\n(.*?)\n## ", page, re.DOTALL)
    blocks = re.findall(r"```bash\n(.*?)```", afternoon, re.DOTALL)
    commands = "\necho '<next>'\n".join(blocks).replace(".venv", sys.prefix)
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=PROJECT,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=4 * PATIENCE_S,
        check=False,
    )
    return done.stdout.split("<next>\n")


def test_a_taken_port_is_stepped_over_and_an_early_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    migrated.copy(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with demo(tmp_path, "--recipients", "10", "--port", str(port)) as running:
            assert f"Port {port} is taken" in running.until("Starting the processes")
            running.process.send_signal(signal.SIGINT)
            assert "Nothing is left running." in running.rest()
            assert running.process.wait(PATIENCE_S) == 130
    eventually(lambda: processes_of(tmp_path) == [])


@pytest.mark.timeout(600)
def test_two_variables_have_services_name_the_people_and_write_the_messages_and_all_is_as_before(
    tmp_path: Path,
) -> None:
    migrated.copy(tmp_path)
    log = tmp_path / "ses-accepted.ndjson"
    both = {"TEMPLATE_SERVICE_URL": "reference", "USER_SERVICE_URL": "reference"}
    with demo(tmp_path, "--recipients", "150", "--port", str(free_port()), **both) as running:
        shown = running.until("In a second terminal")
        assert "150 recipients in" in shown
        (people,) = re.findall(r"User service +(http://127\.0\.0\.1:\d+)/ ", shown)
        (templates,) = re.findall(r"Template service +(http://127\.0\.0\.1:\d+)/ ", shown)
        eventually(lambda: len(read_log(log)) > ENOUGH)
        asked = json.loads(body_of(f"{people}/stats"))["calls"]
        assert sum(asked.values()) >= 2  # for the copy, and for the newsletter
        assert json.loads(body_of(f"{templates}/stats"))["calls"]["Render"] >= 1
        assert manage(tmp_path, "books").returncode == 0
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(PATIENCE_S) == 0
    eventually(lambda: processes_of(tmp_path) == [])
    mails = read_log(log)
    assert len({mail["delivery"] for mail in mails}) == len(mails)
    greeted = {mail["subject"].partition(",")[0] for mail in mails if "this is new in" in mail["subject"]}
    assert greeted
    assert not [mail for mail in mails if "{{" in mail["subject"] + mail["text"]]


def test_the_demo_asks_no_template_service_of_ones_own(tmp_path: Path) -> None:
    refused = manage(tmp_path, "demo", TEMPLATE_SERVICE_URL="https://templates.example.com")
    assert refused.returncode == 1
    assert "set TEMPLATE_SERVICE_URL=reference, or unset it" in " ".join(refused.stderr.split())
    eventually(lambda: processes_of(tmp_path) == [])


def test_the_demo_asks_no_user_service_of_ones_own(tmp_path: Path) -> None:
    refused = manage(tmp_path, "demo", USER_SERVICE_URL="https://people.example.com")
    assert refused.returncode == 1
    assert "set USER_SERVICE_URL=reference, or unset it" in refused.stderr
    eventually(lambda: processes_of(tmp_path) == [])


class Running:
    """A demo and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def until(self, words: str) -> str:
        """All lines up to the one with ``words``."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return self.said
        raise AssertionError(f"{words!r} was not said:\n{self.said}")

    def rest(self) -> str:
        assert self.process.stdout
        return self.process.stdout.read()


@contextlib.contextmanager
def demo(root: Path, *options: str, **variables: str) -> Iterator[Running]:
    command = [sys.executable, "manage.py", "demo", *options]
    env = {**environment(root), **variables}
    process = subprocess.Popen(
        command, cwd=PROJECT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.wait()


def manage(root: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *words]
    env = {**environment(root), **variables}
    return subprocess.run(
        command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "LOCAL_DIR": str(root), "COLUMNS": "160"}


def processes_of(root: Path) -> list[int]:
    """Those that inherited the folder, the servers and workers among them; zombies have no environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"LOCAL_DIR={root}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def newest_mail(mailbox: str) -> str:
    link = re.search(r'href="(/mail/[^"]+)"', body_of(mailbox))
    assert link
    return link[1]


def body_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        text: str = response.read().decode()
        return text


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        status: int = response.status
        return status


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
