import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from scheduler_project.demo import environment, guide, troubles
from scheduler_project.demo.content import CATALOGUES, LANGUAGES, templates
from scheduler_project.demo.people import PARTNER, as_profile, invent
from scheduler_project.demo.plans import next_nine
from scheduler_project.demo.run import CannotRun, Options, enter_own_world, run
from schedules.content import locale_chain, validate_catalogue
from schedules.recurrence import ZONE_NAMES, due_by_zone
from schedules.templates import check
from stubs.faults import Faults

NOW = datetime(2026, 11, 21, 14, 20, tzinfo=UTC)
PROJECT = Path(__file__).resolve().parents[2]


def test_the_same_people_are_invented_each_time() -> None:
    assert list(invent(count=300, now=NOW)) == list(invent(count=300, now=NOW))


def test_people_live_in_many_zones_with_every_kind_of_offset() -> None:
    zones = {person.time_zone for person in invent(count=100, now=NOW)} & ZONE_NAMES
    nine = datetime(2026, 12, 1, 9, tzinfo=UTC)
    instants = due_by_zone(nine.replace(tzinfo=None))
    offsets = {nine - instants[zone] for zone in zones}
    assert len(zones) >= 30
    assert {timedelta(hours=14), timedelta(hours=13), timedelta(hours=-11)} <= offsets
    assert {timedelta(hours=5, minutes=30), timedelta(hours=5, minutes=45)} <= offsets


def test_every_language_of_the_templates_is_read_by_many() -> None:
    people = list(invent(count=2_000, now=NOW))
    read = Counter(locale_chain(locale=person.locale, default_locale="en")[-2] for person in people if person.locale)
    spoken = Counter(person.locale[:2] for person in people)
    assert read["en"] > 0
    assert all(spoken[language] > 100 for language in LANGUAGES)
    assert any(person.locale == "de-AT" for person in people)


def test_people_are_as_incomplete_as_real_ones() -> None:
    people = list(invent(count=5_000, now=NOW))
    share = {
        "no zone": sum(not person.time_zone for person in people) / len(people),
        "wrong zone": sum(bool(person.time_zone) and person.time_zone not in ZONE_NAMES for person in people),
        "no address": sum(not person.email for person in people) / len(people),
        "no e-mails": sum(person.consent.get("email") is False for person in people) / len(people),
        "a device": sum(bool(person.devices) for person in people) / len(people),
    }
    assert 0.01 < share["no zone"] < 0.03
    assert share["wrong zone"] > 0
    assert 0.02 < share["no address"] < 0.04
    assert 0.03 < share["no e-mails"] < 0.05
    assert 0.55 < share["a device"] < 0.65


def test_a_profile_holds_what_the_contract_of_a_user_service_names() -> None:
    contract = yaml.safe_load((PROJECT / "docs" / "contracts" / "user-service.yaml").read_text())
    schemas = contract["components"]["schemas"]
    for person in invent(count=300, now=NOW):
        profile = as_profile(person)
        assert schemas["Profile"]["properties"].keys() - profile.keys() == {
            "updatedAt", "consentUpdatedAt", "quietHours", "quietHoursUpdatedAt",
        }  # fmt: skip
        assert profile.keys() <= schemas["Profile"]["properties"].keys()
        assert profile["externalId"] == person.external_id
        devices = [(device["token"], device["platform"]) for device in profile["devices"]]
        assert devices == person.devices
        assert {platform for _, platform in devices} <= set(schemas["Device"]["properties"]["platform"]["enum"])


def test_addresses_are_distinct_and_lie_in_reserved_domains() -> None:
    addresses = [person.email for person in invent(count=2_000, now=NOW) if person.email]
    assert len(set(addresses)) == len(addresses)
    domains = {address.partition("@")[2] for address in addresses}
    assert {"example.com", "example.org", "example.net"} <= domains
    assert all(domain.endswith((".example", "example.com", "example.org", "example.net")) for domain in domains)
    assert all(address.isascii() for address in addresses)


def test_every_way_to_fail_befalls_somebody_and_most_people_none() -> None:
    domains = Counter(person.email.partition("@")[2] for person in invent(count=3_000, now=NOW) if person.email)
    assert all(0.5 * share < domains[name] / 3_000 < 2 * share for name, share in troubles.SHARES.items())
    partners = [person for person in invent(count=3_000, now=NOW) if PARTNER in person.tags]
    assert {person.email.partition("@")[2] for person in partners if person.email} == {troubles.BOUNCES, troubles.DOWN}
    for rules in (troubles.MAIL, troubles.PUSH):
        Faults().replace(rules)


@pytest.mark.parametrize("name", templates())
def test_every_template_can_be_published(name: str) -> None:
    assert check(templates()[name], default_locale="en") == []


@pytest.mark.parametrize("locale", CATALOGUES)
def test_every_catalogue_says_the_same_keys(locale: str) -> None:
    assert validate_catalogue(locale=locale, messages=CATALOGUES[locale]) == []
    assert CATALOGUES[locale].keys() == CATALOGUES["en"].keys()


@pytest.mark.parametrize("hour", range(24))
def test_nine_oclock_lies_ahead_everywhere_and_soon(hour: int) -> None:
    now = NOW.replace(hour=hour)
    instants = due_by_zone(next_nine(now=now).replace(tzinfo=None)).values()
    assert now < min(instants) <= now + timedelta(hours=25)
    assert next_nine(now=now).hour == 9


def test_a_second_demo_is_refused_while_one_runs(tmp_path: Path) -> None:
    def begin() -> None:
        with environment.alone(tmp_path):
            pass

    with environment.alone(tmp_path), pytest.raises(environment.AlreadyRunning, match="already"):
        begin()
    begin()


def test_what_a_demo_lends_counts_only_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMAIL_PROVIDER", "somebody's own")
    held = "import os, sys, pathlib; from scheduler_project.demo import environment as demo\n" + (
        "context = demo.alone(pathlib.Path(sys.argv[1])); context.__enter__()\n"
        "demo.lend(pathlib.Path(sys.argv[1]), {'EMAIL_PROVIDER': 'ses'}); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", held, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        environment.join(tmp_path)
        assert os.environ["EMAIL_PROVIDER"] == "ses"
        process.kill()
    monkeypatch.setenv("EMAIL_PROVIDER", "somebody's own")
    environment.join(tmp_path)
    assert os.environ["EMAIL_PROVIDER"] == "somebody's own"


def test_the_demo_refuses_servers_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://shop@db/shop")
    with pytest.raises(CannotRun, match="unset DATABASE_URL"):
        run(Options(), console=None)  # type: ignore[arg-type]


def test_a_full_disk_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "BROKER_URL", "COUNTERS_URL"):
        monkeypatch.delenv(name, raising=False)
    usage = type("Usage", (), {"free": 3_000_000})()
    monkeypatch.setattr("scheduler_project.demo.run.shutil.disk_usage", lambda _: usage)
    with pytest.raises(CannotRun, match="3 MB of free space left"):
        run(Options(), console=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mailbox", "devices", "outbox"),
    [
        ("http://m", "http://d", []),
        ("", "http://d", ["shows e-mails"]),
        ("http://m", "", ["shows push messages"]),
        ("", "", ["shows e-mails and push messages"]),
    ],
)
def test_the_guide_names_a_page_for_each_channel(mailbox: str, devices: str, outbox: list[str]) -> None:
    log = Path("log")
    facts = guide.Facts(
        is_new=True,
        web="http://w",
        mailbox=mailbox,
        mail_log=log,
        devices=devices,
        push_log=log,
        logs=log,
        password="",
    )
    shown = list(guide._addresses(facts))
    assert [text.removeprefix("http://w/outbox/ ") for name, text in shown if name == "Outbox"] == outbox
    assert bool(mailbox) == ("Mailbox" in dict(shown))
    assert bool(devices) == ("Devices" in dict(shown))


def test_no_account_of_the_users_comes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, str]] = []
    monkeypatch.setattr("os.execve", lambda _, __, given: begun.append(given))
    theirs = ("AWS_PROFILE", "FCM_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS", "FIREBASE_CONFIG")
    for name in (*theirs, "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "theirs")
    enter_own_world()
    assert not begun[0].keys() & set(theirs)
    assert begun[0]["SOMETHING_ELSE"] == "theirs"
    assert begun[0]["TEST_CLOCK"] == "1"
