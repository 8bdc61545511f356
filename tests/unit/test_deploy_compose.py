"""The compose file: as the specification says, complete against the settings, and closed where it has to be."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from deploy.compose import papers
from scheduler_project import entry
from scheduler_project.local import fleet
from tests.deployment import PINNED, ROOT, compose, example, settings_read

OURS = "${IMAGE:-notification-scheduler:local}"
SERVICES = compose()["services"]
PROCESSES = {name: service for name, service in SERVICES.items() if service["image"] == OURS and name != "papers"}
# What the laptop's embedded services, the demo and tests set for themselves, or the image and the compose file do.
NOT_FOR_AN_INSTALLATION = {
    *("LOCAL_DIR", "DEBUG", "TEST_CLOCK", "AS_APPLICATION", "SNS_ENDPOINT"),
    *("DATABASE_URL", "BROKER_URL", "COUNTERS_URL", "STATIC_ROOT", "APPLICATION_NAME"),
}
# In deploy/env for PostgreSQL, its migration and Grafana.
OF_OTHERS = ("OWNER_DATABASE_PASSWORD", "GRAFANA_PASSWORD")


def test_it_is_as_the_specification_says():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_setting_is_forgotten_and_none_is_made_up():
    of_compose = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    known = settings_read()
    assert known - example().keys() - NOT_FOR_AN_INSTALLATION == set(), "deploy/env.example lacks a setting"
    assert example().keys() - known - of_compose == set(), "deploy/env.example names what nobody reads"
    assert of_compose - example().keys() == set()
    own = {name for service in PROCESSES.values() for name in service["environment"]}
    assert own - known == {"PROMETHEUS_MULTIPROC_DIR", "APP_DATABASE_PASSWORD", *OF_OTHERS}


def test_no_process_is_told_what_others_sign_in_with():
    """All of deploy/env comes into each; with the owner's password a web server could change the audit."""
    for name, service in PROCESSES.items():
        assert {each: service["environment"].get(each) for each in OF_OTHERS} == dict.fromkeys(OF_OTHERS, ""), name
        assert ("notification_owner" in str(service["environment"])) == (name == "migrate"), name


def test_the_example_holds_no_secret():
    secret = [name for name in example() if re.search(r"KEY|PASSWORD|TOKEN|SECRET|CREDENTIALS", name)]
    given = {name: example()[name] for name in secret if example()[name]}
    assert given.keys() == {"ENCRYPTION_KEYSET", "ACCESS_TOKEN_S", "REFRESH_TOKEN_S"}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or not value or value.startswith("${"), name


def test_every_process_is_there_and_what_is_to_run_twice_does():
    roles = {name: service["command"] for name, service in PROCESSES.items()}
    for command in roles.values():
        entry._parser().parse_args(command)
    twice = {" ".join(command) for command in roles.values() if _count(command) == 2}
    assert twice == {"web", "beat", "streams", *(f"worker {queue}" for queue in fleet.CONCURRENCY)}
    assert {"migrate", "poll-ses-events"} == {" ".join(command) for command in roles.values()} - twice


def _count(command):
    return sum(
        service.get("deploy", {}).get("replicas", 1) for service in PROCESSES.values() if service["command"] == command
    )


def test_probes_ask_for_the_process_that_they_stand_beside():
    for name, service in PROCESSES.items():
        check = service["healthcheck"]
        if not check.get("disable"):
            assert check["test"] == ["CMD", "python", "-m", "scheduler_project.entry", "probe", *service["command"]], (
                name
            )


def test_each_is_hardened_limited_and_of_a_pinned_image():
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] in ("unless-stopped", "no", "on-failure:5"), name
        assert "healthcheck" in service, name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}, name
        assert service["image"] == OURS or PINNED.fullmatch(service["image"]), name


def test_the_proxy_alone_is_published_and_to_this_machine():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"proxy": ["${PROXY_ADDRESS:-127.0.0.1}:${PROXY_PORT:-8443}:8443"]}
    assert compose()["networks"]["back"]["internal"] is True
    assert all("/var/run/docker.sock" not in str(service) for service in SERVICES.values())


def test_files_that_are_mounted_are_there():
    for service in SERVICES.values():
        for each in service.get("volumes", []):
            source = each.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose()["volumes"], each


def test_what_is_waited_for_can_be_waited_for():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            is_job = SERVICES[other]["restart"] != "unless-stopped"
            assert how["condition"] == ("service_completed_successfully" if is_job else "service_healthy"), (
                name,
                other,
            )
            assert is_job or not SERVICES[other]["healthcheck"].get("disable"), (name, other)


def test_processes_get_the_time_that_they_need_to_end():
    assert all(service["stop_grace_period"] == "30s" for service in PROCESSES.values())
    assert fleet.DRAIN_S < 30


def test_the_addresses_of_the_proxy_and_the_counters_are_those_that_are_trusted():
    (front,) = SERVICES["proxy"]["networks"].values()
    assert example()["TRUSTED_PROXIES"] == f"{front['ipv4_address']}/32"
    nodes = {SERVICES[f"counters-{number}"]["networks"]["back"]["ipv4_address"] for number in (1, 2, 3)}
    assert nodes < set(papers.SERVERS["redis"])
    assert all(node in str(SERVICES["counters-joined"]["command"]) for node in nodes)


def test_the_deployment_check_is_content_with_the_example(tmp_path):
    """``manage.py check --deploy`` in a web server's environment: push alone sends nothing, as the example says."""
    _drawn(tmp_path)
    given = {name: value for name, value in example().items() if value and _is_set(name)}
    given |= {name: os.urandom(32).hex() for name, value in example().items() if not value and _is_set(name)}
    variables = {**given, **SERVICES["web-a"]["environment"]}
    filled = {name: _interpolated(value, given) for name, value in variables.items()}
    filled |= {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    filled.pop("PROMETHEUS_MULTIPROC_DIR")
    filled = {name: value.replace("/authority/", f"{tmp_path}/authority/") for name, value in filled.items()}
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "ERROR"],
        cwd=ROOT, env=filled, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert set(re.findall(r"\(([a-z_]+\.E[0-9]+)\)", done.stderr)) == {"scheduler_project.E013"}, done.stderr
    assert "of the channel push go into the outbox" in done.stderr


def _is_set(name):
    return re.search(rf"^{name}=", (ROOT / "deploy" / "env.example").read_text(), re.MULTILINE)


def _interpolated(value, given):
    return re.sub(r"\$\{([A-Z_]+)[^}]*\}", lambda found: given[found[1]], value)


NOW = datetime.now(UTC)
PASSWORDS = {"APP_DATABASE_PASSWORD": 'with " in it', "REDIS_PASSWORD": "0123"}


def _drawn(folder, *, now=NOW):
    for name in ("authority", "papers"):
        (folder / name).mkdir(exist_ok=True)
    return papers.draw(folder / "authority", folder / "papers", passwords=PASSWORDS, now=now)


def test_what_is_added_to_pgbouncers_file_takes_nothing_back():
    """It includes a file that ends in its main section; another header of that section would reset all of it."""
    added = (ROOT / "deploy" / "compose" / "pgbouncer.ini").read_text()
    own = (ROOT / "deploy" / "pgbouncer" / "pgbouncer.ini").read_text()
    assert not re.search(r"^\[", added, re.MULTILINE)
    assert re.findall(r"^\[.*\]$", own, re.MULTILINE)[-1] == "[pgbouncer]"


def test_pgbouncer_lets_in_whom_the_papers_name(tmp_path):
    _drawn(tmp_path)
    added = (ROOT / "deploy" / "compose" / "pgbouncer.ini").read_text()
    named = re.findall(r"^(?:\w+_file) = /(.*)$", added, re.MULTILINE)
    assert "papers/userlist.txt" in named
    assert [each for each in named if not (tmp_path / each).is_file()] == []


def test_papers_are_drawn_once_and_anew_before_they_end(tmp_path):
    assert _drawn(tmp_path)
    first = (tmp_path / "papers" / "redis.pem").read_bytes()
    assert not _drawn(tmp_path)
    assert (tmp_path / "papers" / "redis.pem").read_bytes() == first
    assert _drawn(tmp_path, now=NOW + timedelta(days=370))
    assert (tmp_path / "papers" / "redis.pem").read_bytes() != first


def test_papers_name_their_servers_and_keys_are_nobody_elses(tmp_path):
    _drawn(tmp_path)
    authority = x509.load_pem_x509_certificate((tmp_path / "authority" / "ca.pem").read_bytes())
    for name, called in papers.SERVERS.items():
        shown = x509.load_pem_x509_certificate((tmp_path / "papers" / f"{name}.pem").read_bytes())
        shown.verify_directly_issued_by(authority)
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(each.value) for each in names] == list(called)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "papers").iterdir()} == {0o600}
    assert (tmp_path / "papers" / "userlist.txt").read_text() == '"notification_app" "with "" in it"\n'


def test_papers_without_passwords_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("REDIS_PASSWORD", raising=False)
    monkeypatch.setenv("APP_DATABASE_PASSWORD", "x")
    assert papers.main([str(tmp_path), str(tmp_path)]) == 1
    assert "REDIS_PASSWORD must be set" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("haproxy"), reason="No HAProxy found: its configuration with TLS is not checked")
def test_the_proxy_reads_both_its_files(tmp_path):
    _drawn(tmp_path)
    servers = {f"{kind}_{zone}": "127.0.0.1:1" for kind in ("WEB", "STREAMS") for zone in "AB"}
    files = [part for each in ("haproxy.cfg", "tls.cfg") for part in ("-f", str(ROOT / "deploy" / "haproxy" / each))]
    done = subprocess.run(
        [shutil.which("haproxy"), "-c", *files],
        env={**servers, "PROXY_TLS_PAPERS": str(tmp_path / "papers" / "proxy-both.pem")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
