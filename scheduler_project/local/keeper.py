"""The process that starts the embedded services, watches over them, and stops them after their last user.

Run as `python -m scheduler_project.local.keeper ROOT` by `services.ensure`. It detaches itself; its own words
go to `logs/keeper.log`. Only the standard library and this package are imported, so that it starts quickly.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.layout import ALL, BROKER, COUNTERS, DATABASE, Layout, read_json, write_private
from scheduler_project.local.locks import open_lock, try_lock, unlock
from scheduler_project.local.ports import free_port, is_free
from scheduler_project.local.postgres import Postgres
from scheduler_project.local.redis import Redis

_POLL_SECONDS = 0.3
_LINGER_SECONDS = 1.0
_READY_SECONDS = 45.0
_PORT_ATTEMPTS = 5
_RESTARTS = 5
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
    errors: dict[str, str] = field(default_factory=dict)
    restarts: int = 0
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
                return
            else:
                unlock(users)

    def stop(self) -> None:
        for name, process in self.running.items():
            self.services[name].stop(process)
            say(f"{name} stopped")
        if read_json(self.layout.state).get("keeper") == os.getpid():
            self.layout.state.unlink(missing_ok=True)
        for name in ALL:
            self.layout.wanted(name).unlink(missing_ok=True)

    def _start_wanted(self) -> None:
        wanted = [name for name in sorted(ALL) if self.layout.wanted(name).exists()]
        missing = [name for name in wanted if name not in self.running and name not in self.errors]
        for name in missing:
            try:
                self.services[name].prepare()
                self._start(name)
            except LocalServicesError as error:
                self.errors[name] = str(error)
                say(f"{name}: {error}")
        if missing:
            self._publish()

    def _restart_ended(self) -> None:
        for name, process in list(self.running.items()):
            if process.poll() is None:
                continue
            self.restarts += 1
            say(f"{name} ended by itself ({process.returncode}), restart {self.restarts} of {_RESTARTS}")
            if self.restarts > _RESTARTS:
                raise LocalServicesError(f"{name} keeps ending by itself:\n{tail(self.services[name].log)}")
            self.services[name].prepare()
            self._start(name)
            self._publish()

    def _start(self, name: str) -> None:
        service = self.services[name]
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
        urls = {name: self.services[name].url(port=port) for name, port in self.ports.items()}
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
    for name in ("keeper", *ALL):
        log = layout.log(name)
        if name != "keeper" and log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
    keeper = Keeper(layout=layout, services=_services(layout))

    def ask_to_stop(*_: object) -> None:
        keeper.stopping = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        keeper.serve()
    except Exception as error:
        layout.failure.write_text(str(error))
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


def _services(layout: Layout) -> dict[str, Service]:
    password = _password(layout)
    return {
        DATABASE: Postgres(DATABASE, layout.home(DATABASE), layout.log(DATABASE), password),
        BROKER: Redis(BROKER, layout.home(BROKER), layout.log(BROKER), password),
        COUNTERS: Redis(COUNTERS, layout.home(COUNTERS), layout.log(COUNTERS), password),
    }


def _password(layout: Layout) -> str:
    """Kept beside the data: the database knows only its hash."""
    if not layout.password.exists():
        write_private(layout.password, secrets.token_hex(16))
    return layout.password.read_text()


def _await_ready(service: Service, process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if service.ready(port=port):
            return True
        time.sleep(0.01)
    return False


if __name__ == "__main__":
    main()
