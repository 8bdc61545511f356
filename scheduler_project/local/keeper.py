"""The process that starts the embedded services, watches over them, and stops them after their last user.

Run as `python -m scheduler_project.local.keeper ROOT` by `services.ensure`. It detaches itself; its own words
go to `logs/keeper.log`. Only the standard library and this package are imported, so that it starts quickly.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.layout import (
    ALL,
    BROKER,
    COUNTERS,
    DATABASE,
    Layout,
    read_json,
    read_secret,
    write_private,
)
from scheduler_project.local.locks import open_lock, try_lock, unlock
from scheduler_project.local.ports import free_port, is_free
from scheduler_project.local.postgres import Postgres
from scheduler_project.local.redis import Redis

_POLL_SECONDS = 0.3
_LINGER_SECONDS = 1.0
# A database that was killed replays up to max_wal_size first.
_READY_SECONDS = 600.0
_PORT_ATTEMPTS = 5
_RESTARTS = 5  # within _RESTARTS_SECONDS
_RESTARTS_SECONDS = 60.0
_LOG_LIMIT_BYTES = 10_000_000


class Service(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path: ...
    def prepare(self) -> None: ...
    def launch(self, *, port: int) -> subprocess.Popen[bytes]: ...
    def ready(self, *, port: int) -> bool: ...
    def stop(self, process: subprocess.Popen[bytes]) -> None: ...
    def url(self, *, port: int) -> str: ...


@dataclass
class Keeper:
    layout: Layout
    services: dict[str, Service]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    errors: dict[str, tuple[str, str]] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)
    stopping: bool = False

    def serve(self) -> None:
        """Run until nobody uses the services any more. The users' lock is held on return, for good."""
        users = open_lock(self.layout.users_lock)
        used = time.monotonic()
        while not self.stopping:
            self._start_wanted()
            self._restart_ended()
            time.sleep(_POLL_SECONDS)
            if not try_lock(users):
                used = time.monotonic()
            elif time.monotonic() - used >= _LINGER_SECONDS:
                for name in ALL:
                    self.layout.wanted(name).unlink(missing_ok=True)
                return
            else:
                unlock(users)

    def stop(self) -> None:
        """First withdraw the offer, so that nobody attaches to what is going away."""
        if read_json(self.layout.state).get("keeper") == os.getpid():
            self.layout.state.unlink(missing_ok=True)
        for name, process in self.running.items():
            self.services[name].stop(process)
            say(f"{name} stopped")

    def _start_wanted(self) -> None:
        for name in sorted(ALL - self.running.keys()):
            request = read_text(self.layout.wanted(name))
            if not request or self.errors.get(name, ("", ""))[0] == request:
                continue
            try:
                self._start(name)
                self.errors.pop(name, None)
            except LocalServicesError as error:
                self.errors[name] = (request, str(error))
                say(f"{name}: {error}")
            self._publish()

    def _restart_ended(self) -> None:
        ended = [name for name, process in self.running.items() if process.poll() is not None]
        for name in ended:
            now = time.monotonic()
            self.ends = [*(end for end in self.ends if now - end < _RESTARTS_SECONDS), now]
            say(f"{name} ended by itself ({self.running.pop(name).returncode}), {len(self.ends)} in a minute")
            if len(self.ends) > _RESTARTS:
                raise LocalServicesError(f"{name} keeps ending by itself:\n{tail(self.services[name].log)}")
            self._publish()
            self._start(name)
            self._publish()

    def _start(self, name: str) -> None:
        service = self.services[name]
        service.prepare()
        port = self.ports.get(name) or read_json(self.layout.ports).get(name, 0)
        for _ in range(_PORT_ATTEMPTS):
            if not (port and is_free(port)):
                port = free_port()
            process = service.launch(port=port)
            if _await_ready(service, process, port):
                self.running[name], self.ports[name] = process, port
                say(f"{name} listens on port {port}, process {process.pid}")
                return
            service.stop(process)
            if is_free(port):  # so the port was not the reason
                break
        raise LocalServicesError(f"{name} did not start; the end of {service.log}:\n{tail(service.log)}")

    def _publish(self) -> None:
        urls = {name: self.services[name].url(port=port) for name, port in self.ports.items() if name in self.running}
        state = {"keeper": os.getpid(), "urls": urls, "errors": self.errors}
        write_private(self.layout.ports, json.dumps({**read_json(self.layout.ports), **self.ports}))
        write_private(self.layout.state, json.dumps(state))


def main() -> None:
    layout = Layout(Path(sys.argv[1]))
    keeper_lock = open_lock(layout.keeper_lock)
    if not try_lock(keeper_lock):
        say("another keeper is at work")
        sys.exit(1)
    if os.fork():  # the lock stays with the child, which becomes init's
        os._exit(0)
    os.setsid()
    keep(layout)


def keep(layout: Layout) -> None:
    """Serve, then stop. What goes wrong is left in `failure.txt` for whoever waits for us."""
    for log in map(layout.log, ALL):
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
    keeper = Keeper(layout=layout, services=_services(layout))

    def ask_to_stop(*_: object) -> None:
        keeper.stopping = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        keeper.serve()
    except Exception as error:
        layout.failure.write_text(f"the keeper of the embedded services gave up: {error}")
        raise
    finally:
        keeper.stop()


def say(text: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} keeper {os.getpid()}: {text}\n")
    sys.stderr.flush()


def tail(log: Path, lines: int = 12) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({log}: {error.strerror})"


def read_text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _services(layout: Layout) -> dict[str, Service]:
    # Kept beside the data, since the database knows only its hash.
    password = read_secret(layout.password)
    return {
        DATABASE: Postgres(DATABASE, layout.home(DATABASE), layout.log(DATABASE), password),
        BROKER: Redis(BROKER, layout.home(BROKER), layout.log(BROKER), password),
        COUNTERS: Redis(COUNTERS, layout.home(COUNTERS), layout.log(COUNTERS), password),
    }


def _await_ready(service: Service, process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if service.ready(port=port):
            return True
        time.sleep(0.01)
    return False


if __name__ == "__main__":
    main()
