import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler_project.local import fleet
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.supervisor import Process, Supervisor

PROJECT = Path(__file__).resolve().parents[2]
SLEEP = (sys.executable, "-c", "import time; print('up'); time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(60)",
)
# Starts a grandchild, says who it is, and waits.
FAMILY = (
    sys.executable,
    "-c",
    "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid); time.sleep(60)",
)
RUN = """
import sys
from scheduler_project.local.supervisor import Process, run
command = [sys.executable, "-c", sys.argv[1]]
sys.exit(run([Process("one", command, restarts=1)], on_ready=lambda: print("Ready", flush=True)))
"""


def eventually(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether it runs; a dead one that nobody has reaped yet does not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1] not in {"", "Z"}


def test_output_comes_line_by_line_with_the_name_in_front() -> None:
    output = io.StringIO()
    talk = (
        sys.executable,
        "-c",
        "import time; print('one'); print('two', end='', flush=True); time.sleep(60)",
    )
    with Supervisor([Process("talk", talk), Process("sleeper", SLEEP)], output=output):
        eventually(lambda: "talk    | one\n" in output.getvalue() and "sleeper | up\n" in output.getvalue())
        assert "two" not in output.getvalue()
    assert "talk    | two\n" in output.getvalue()


def test_output_goes_to_a_file_for_each_when_a_folder_is_given(tmp_path: Path) -> None:
    with Supervisor([Process("one", SLEEP)], logs=tmp_path / "logs"):
        eventually(lambda: (tmp_path / "logs" / "one.log").read_text() == "up\n")


def test_leaving_stops_all_with_sigterm(tmp_path: Path) -> None:
    polite = (
        sys.executable,
        "-c",
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')))\n"
        "print('up'); time.sleep(60)",
    )
    log = tmp_path / "one.log"
    with Supervisor([Process("one", polite)], logs=tmp_path) as supervisor:
        pid = supervisor.pid("one")
        eventually(lambda: log.exists() and "up" in log.read_text())
    assert log.read_text() == "up\nbye\n"
    assert not is_alive(pid)


def test_what_ignores_sigterm_is_killed_with_its_children_after_the_grace(tmp_path: Path) -> None:
    processes = [Process("stubborn", STUBBORN), Process("family", FAMILY)]
    supervisor = Supervisor(processes, logs=tmp_path)
    supervisor.start()
    eventually(lambda: all((tmp_path / f"{name}.log").stat().st_size for name in ("stubborn", "family")))
    grandchild = int((tmp_path / "family.log").read_text())
    pid = supervisor.pid("stubborn")
    begun = time.monotonic()
    supervisor.stop(grace_seconds=0.3)
    assert 0.3 <= time.monotonic() - begun < 50  # they sleep for a minute
    assert not is_alive(pid)
    assert not is_alive(grandchild)


def test_one_that_is_killed_is_reported_and_comes_back() -> None:
    output = io.StringIO()
    with Supervisor([Process("one", FAMILY)], output=output) as supervisor:
        eventually(lambda: output.getvalue().endswith("\n"))
        grandchild = int(output.getvalue().split()[-1])
        before = supervisor.pid("one")
        supervisor.kill("one")
        assert not is_alive(before)
        supervisor.wait_ready("one", seconds=120)
        assert supervisor.pid("one") != before
        assert not is_alive(grandchild)
        assert supervisor.given_up == []
    assert "one | ended (SIGKILL); starting again in 0.2 s" in output.getvalue()


def test_one_without_restarts_stays_down() -> None:
    output = io.StringIO()
    processes = [Process("one", SLEEP, restarts=0), Process("two", SLEEP)]
    with Supervisor(processes, output=output) as supervisor:
        supervisor.kill("one")
        eventually(lambda: supervisor.given_up == ["one"])
        assert not supervisor.is_running("one")
        assert supervisor.is_running("two")
        with pytest.raises(LookupError, match="one is not running"):
            supervisor.pid("one")
        with pytest.raises(LocalServicesError, match="one kept ending"):
            supervisor.wait_ready(seconds=1)
        supervisor.wait_ready("two", seconds=120)
    assert "one | ended (SIGKILL); not started again" in output.getvalue()


def test_readiness_is_waited_for_and_its_lack_named() -> None:
    asked = iter([False, False, True])
    processes = [
        Process("slow", SLEEP, ready=lambda: next(asked)),
        Process("never", SLEEP, ready=lambda: False),
    ]
    with Supervisor(processes, output=io.StringIO()) as supervisor:
        supervisor.wait_ready("slow", seconds=120)
        with pytest.raises(LocalServicesError, match="never not ready within 0 s"):
            supervisor.wait_ready(seconds=0.1)


def test_a_command_that_cant_be_started_is_said() -> None:
    output = io.StringIO()
    with Supervisor([Process("one", ["/nowhere/to/be/found"])], output=output) as supervisor:
        assert supervisor.given_up == ["one"]
    assert "one | can't be started: [Errno 2]" in output.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_with_zero_when_asked_to_stop(number: int) -> None:
    with _run("import time; time.sleep(60)") as process:
        assert process.stdout
        assert process.stdout.readline() == "Ready\n"
        process.send_signal(number)
        assert process.wait(120) == 0


def test_run_ends_with_one_when_a_process_keeps_ending() -> None:
    with _run("raise SystemExit(3)") as process:
        output, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "one | ended (exit code 3); not started again" in output
    assert "one kept ending; everything was stopped" in error


def test_children_end_when_the_supervisor_is_killed_on_linux() -> None:
    show_and_sleep = "import os, time; print(os.getpid()); time.sleep(60)"
    with _run(show_and_sleep) as process:
        assert process.stdout
        lines = [process.stdout.readline(), process.stdout.readline()]
        child = int(next(line for line in lines if "|" in line).split()[-1])
        assert is_alive(child)
        process.kill()
        eventually(lambda: not is_alive(child))


def _run(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, code],
        cwd=PROJECT,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_bulk_work_steps_back_with_its_whole_session() -> None:
    """Linux weighs sessions before it weighs processes, so a nice worker in a session of its own is not behind."""
    session = Path("/proc/self/autogroup")
    tell = f"import os, pathlib; print(os.nice(0), pathlib.Path('{session}').read_text() if {session.exists()} else '')"
    command = (*fleet.BEHIND, sys.executable, "-c", tell)
    told = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=True)
    assert told.stderr == ""
    behind = min(os.nice(0) + 10, 19)
    assert told.stdout.split()[0] == str(behind)
    if session.exists():
        assert told.stdout.split()[-2:] == ["nice", "10"]
