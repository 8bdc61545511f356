"""What a deployment and ``make cluster`` have in common: the files of HAProxy and PgBouncer, and who is held."""

import os
import subprocess
import sys
import time
from configparser import RawConfigParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from scheduler_project.cluster.cluster import Cluster
from scheduler_project.cluster.zones import Member
from scheduler_project.local.haproxy import CONFIG, Haproxy
from scheduler_project.local.pgbouncer import Pgbouncer
from scheduler_project.local.supervisor import Process, Supervisor
from tests.pooler import needed

PATIENCE_S = 60.0


def test_haproxy_takes_its_file_with_the_variables_that_a_deployment_gives():
    proxy = Haproxy(1, 2, 3, web={"a": 4, "b": 5}, streams={"a": 6, "b": 7})
    env = {**os.environ, **proxy.variables()}
    done = subprocess.run(
        [str(needed("haproxy")), "-c", "-f", str(CONFIG)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr.lower()


def test_pgbouncer_here_differs_from_a_deployments_in_its_addresses_alone(tmp_path: Path):
    needed("pgbouncer")
    pooler = Pgbouncer("pgbouncer", tmp_path / "home", 6000, 'postgresql://some%20one:a"b@127.0.0.1:5000/name')
    pooler.process()
    written, deployed = (RawConfigParser(comment_prefixes=(";",)) for _ in range(2))
    written.read(tmp_path / "home" / "pgbouncer.ini")
    deployed.read(Path("deploy/pgbouncer/pgbouncer.ini"))
    differing = {key for key, value in written["pgbouncer"].items() if deployed["pgbouncer"].get(key) != value}
    assert differing == {"listen_addr", "listen_port", "auth_file"}
    assert written["pgbouncer"]["pool_mode"] == "transaction"
    assert dict(written["databases"]) == {"name": "host=127.0.0.1 port=5000"}
    assert (tmp_path / "home" / "userlist.txt").read_text() == '"some one" "a""b"\n'
    assert pooler.pooled == 'postgresql://some%20one:a"b@127.0.0.1:6000/name'  # pragma: allowlist secret


def test_what_is_held_stays_away_when_it_has_ended_until_it_is_let_go(tmp_path: Path):
    process = Process("sleeper", (sys.executable, "-c", "import time; time.sleep(600)"))
    with Supervisor([process], logs=tmp_path) as supervisor:
        first = supervisor.pid("sleeper")
        supervisor.hold("sleeper")
        supervisor.kill("sleeper")
        time.sleep(0.5)  # longer than the pause after which it would be back
        with pytest.raises(LookupError):
            supervisor.pid("sleeper")
        supervisor.let_go("sleeper")
        deadline = time.monotonic() + PATIENCE_S
        while not supervisor.is_running("sleeper"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert supervisor.pid("sleeper") != first


def test_one_who_is_told_twice_to_end_leaves_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``timeout make cluster`` sends SIGTERM twice: once itself, and once by make."""
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    process = Process("beat-a", (sys.executable, "-c", deaf))
    supervisor = Supervisor([process], logs=tmp_path)
    cluster = Cluster(None, None, [Member("beat-a", "beat", "a", process)], supervisor)  # type: ignore[arg-type]
    supervisor.start()
    deadline = time.monotonic() + PATIENCE_S
    while not (tmp_path / "beat-a.log").exists() or not (tmp_path / "beat-a.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)

    def told_again(seconds: float) -> None:
        raise KeyboardInterrupt

    waiting = SimpleNamespace(monotonic=time.monotonic, sleep=told_again)
    monkeypatch.setattr("scheduler_project.cluster.cluster.time", waiting)
    with pytest.raises(KeyboardInterrupt):
        cluster.end()
    assert not supervisor.is_running("beat-a")
