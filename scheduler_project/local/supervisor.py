"""Runs named long-running commands side by side: for the demo, and for real worker processes in tests.

A child that ends is reported and started again, with growing pauses, until its `restarts` are used up. On
Linux the children also get SIGTERM when the supervisor itself is killed with -9 (`children.die_with_parent`);
elsewhere they would go on. Libraries such as honcho do neither.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TextIO

from scheduler_project.local.children import die_with_parent
from scheduler_project.local.errors import LocalServicesError

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 20.0
_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS = 60.0
_COLOURS = (36, 33, 32, 35, 34, 31)


@dataclass(frozen=True)
class Process:
    """A command to keep running. `env` is added to ours; `ready` says whether it can be used yet.

    `restarts`: how often it is started again when it ends by itself; counted anew after a steady minute.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    restarts: int = 5
    ready: Callable[[], bool] | None = None


@dataclass
class _Child:
    process: Process
    colour: int
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    again_at: float | None = 0.0  # in monotonic seconds; None once it is given up
    is_ready: bool = False
    is_held: bool = False
    rest: bytes = b""


class Supervisor:
    """Starts `processes` and watches over them from a thread of its own, which is their parent.

    Output goes to `logs/NAME.log` when `logs` is given, else by lines to `output`, with the name in front.
    As a context manager it starts on entry, without waiting for readiness, and stops on leaving.
    """

    def __init__(self, processes: Iterable[Process], *, logs: Path | None = None, output: TextIO | None = None) -> None:
        self._children = {
            process.name: _Child(process, _COLOURS[place % len(_COLOURS)]) for place, process in enumerate(processes)
        }
        self._logs = logs
        self._output = output or sys.stdout
        self._selector = selectors.DefaultSelector()
        self._halt, self._launched = threading.Event(), threading.Event()
        self._grace_seconds = _GRACE_SECONDS
        # A daemon, so that an owner who forgets to stop can still end; the children then end with it.
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all, in the order given. Returns once each has been launched.

        Raises OSError when `logs` can't be made. A command that can't be started is said and given up.
        """
        if self._logs is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self._launched.wait()

    def stop(self, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        """SIGTERM to each, `grace_seconds` for all together, then SIGKILL to what is left of their groups."""
        self._grace_seconds = grace_seconds
        self._halt.set()
        if self._thread.is_alive():
            self._thread.join()

    def hurry(self) -> None:
        """Cut short the patience of a `stop` under way."""
        self._grace_seconds = 0.0

    def waiting(self) -> list[str]:
        """Names that don't run, or whose `ready` has not said yes yet; each is asked until it has."""
        for name, child in self._children.items():
            if not child.is_ready and self.is_running(name):
                child.is_ready = child.process.ready is None or child.process.ready()
        return sorted(name for name, child in self._children.items() if not child.is_ready)

    def wait_ready(self, *names: str, seconds: float) -> None:
        """Returns when none of `names` (default: all) is `waiting`, be it for the first time or again.

        Raises LocalServicesError naming what did not get ready.
        """
        deadline = time.monotonic() + seconds
        wanted = set(names or self._children)
        while waiting := sorted(wanted & set(self.waiting())):
            if given_up := sorted(wanted & set(self.given_up)):
                raise LocalServicesError(f"{', '.join(given_up)} kept ending; see the output")
            if time.monotonic() > deadline:
                raise LocalServicesError(f"{', '.join(waiting)} not ready within {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal. SIGKILL goes to the whole group and is waited for, as when a container is killed."""
        popen = self._children[name].popen
        if popen is None:
            return
        if number == signal.SIGKILL:
            self.kill_together(name)
        else:
            popen.send_signal(number)

    def kill_together(self, *names: str) -> None:
        """SIGKILL to the whole groups of several at one moment, as when a machine is lost."""
        found = [(name, popen) for name in names if (popen := self._children[name].popen)]
        for _, popen in found:
            _signal_group(popen.pid, signal.SIGKILL)
        for name, popen in found:
            popen.wait(5)
            self._children[name].is_ready = False

    def hold(self, name: str) -> None:
        """Once it has ended it is not started again, until it is let go."""
        self._children[name].is_held = True

    def let_go(self, name: str) -> None:
        """What was held may run again: at once where it has ended. Its failures are forgotten."""
        child = self._children[name]
        child.failures, child.again_at, child.is_held = 0, 0.0, False

    def pid(self, name: str) -> int:
        """The process id, which is its group's too. Raises LookupError while it isn't running."""
        popen = self._children[name].popen
        if popen is None or popen.poll() is not None:
            raise LookupError(f"{name} is not running")
        return popen.pid

    def is_running(self, name: str) -> bool:
        popen = self._children[name].popen
        return popen is not None and popen.poll() is None

    @property
    def given_up(self) -> list[str]:
        """Names whose restarts are used up."""
        return sorted(name for name, child in self._children.items() if child.again_at is None)

    def _watch(self) -> None:
        try:
            while not self._halt.is_set():
                for child in self._children.values():
                    self._tend(child)
                self._launched.set()
                self._relay(_POLL_SECONDS)
        finally:
            self._launched.set()
            self._end_all()

    def _tend(self, child: _Child) -> None:
        if child.popen is None:
            if not child.is_held and child.again_at is not None and time.monotonic() >= child.again_at:
                self._launch(child)
        elif child.popen.poll() is not None:
            self._note_end(child, child.popen)

    def _launch(self, child: _Child) -> None:
        child.started = time.monotonic()
        child.again_at = child.started
        with self._sink(child.process.name) as sink:
            try:
                child.popen = subprocess.Popen(  # noqa: S603
                    list(child.process.command),
                    cwd=child.process.cwd,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **child.process.env},
                    stdin=subprocess.DEVNULL,
                    stdout=sink or subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGTERM),
                )
            except OSError as error:
                self._say(child, f"can't be started: {error}")
                child.again_at = None
                return
        if child.popen.stdout is not None:
            os.set_blocking(child.popen.stdout.fileno(), False)
            self._selector.register(child.popen.stdout, selectors.EVENT_READ, child)

    def _note_end(self, child: _Child, popen: subprocess.Popen[bytes]) -> None:
        child.failures = 1 if time.monotonic() - child.started > _STEADY_SECONDS else child.failures + 1
        # What is left of the group would work on unseen beside its successor.
        _signal_group(popen.pid, signal.SIGKILL)
        child.popen, child.is_ready = None, False
        if child.is_held:
            return
        if child.failures > child.process.restarts:
            child.again_at = None
            self._say(child, f"ended ({_cause(popen.returncode)}); not started again")
            return
        pause = _PAUSES_SECONDS[min(child.failures, len(_PAUSES_SECONDS)) - 1]
        child.again_at = time.monotonic() + pause
        self._say(child, f"ended ({_cause(popen.returncode)}); starting again in {pause} s")

    def _end_all(self) -> None:
        alive = [child.popen for child in self._children.values() if child.popen]
        for popen in alive:
            popen.terminate()
        begun = time.monotonic()
        while any(popen.poll() is None for popen in alive) and time.monotonic() - begun < self._grace_seconds:
            self._relay(_POLL_SECONDS)
        for popen in alive:
            _signal_group(popen.pid, signal.SIGKILL)
            popen.wait()
        self._relay(0)
        self._selector.close()

    def _sink(self, name: str) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        if self._logs is None:
            return contextlib.nullcontext()
        return (self._logs / f"{name}.log").open("ab")

    def _relay(self, seconds: float) -> None:
        """Pass on what the children have written, in whole lines, waiting up to `seconds` for some."""
        for key, _ in self._selector.select(seconds):
            child: _Child = key.data
            chunk = os.read(key.fd, 65536)
            *lines, child.rest = (child.rest + chunk).split(b"\n")
            if not chunk:
                self._selector.unregister(key.fileobj)
                os.close(key.fd)
                lines, child.rest = ([child.rest] if child.rest else []), b""
            for line in lines:
                self._say(child, line.decode(errors="replace"))

    def _say(self, child: _Child, text: str) -> None:
        width = max(map(len, self._children))
        name = f"{child.process.name:<{width}} |"
        if self._output.isatty() and not os.environ.get("NO_COLOR"):
            name = f"\x1b[{child.colour}m{name}\x1b[0m"
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone; the children still need their end
            self._output.write(f"{name} {text}\n")
            self._output.flush()


def run(
    processes: Sequence[Process],
    *,
    logs: Path | None = None,
    ready_seconds: float = 120.0,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Run until Ctrl-C or SIGTERM and return 0, or until one is given up or not ready in time and return 1.

    Call it from the main thread. `on_ready` is called once all are ready. A second Ctrl-C kills at once.
    """
    asked = threading.Event()
    supervisor = Supervisor(processes, logs=logs)

    def ask(*_: object) -> None:
        if asked.is_set():
            supervisor.hurry()
        asked.set()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in signals}
    try:
        with supervisor:
            failure = _serve(supervisor, asked, ready_seconds, on_ready)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failure:
        sys.stderr.write(f"{failure}\n")
    return 1 if failure else 0


def _serve(
    supervisor: Supervisor, asked: threading.Event, ready_seconds: float, on_ready: Callable[[], None] | None
) -> str:
    """Returns why it can't go on; "" when asked to stop."""
    deadline = time.monotonic() + ready_seconds
    is_ready = False
    while not asked.is_set():
        if given_up := supervisor.given_up:
            return f"{', '.join(given_up)} kept ending; everything was stopped"
        if not is_ready:
            waiting = supervisor.waiting()
            is_ready = not waiting
            if is_ready and on_ready:
                on_ready()
            if waiting and time.monotonic() > deadline:
                return f"{', '.join(waiting)} not ready within {ready_seconds:.0f} s; everything was stopped"
        asked.wait(_POLL_SECONDS)
    return ""


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _cause(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
