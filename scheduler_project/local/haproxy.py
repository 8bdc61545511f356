"""HAProxy on loopback, from the file that a deployment uses, and its own socket, by which servers are drained."""

import csv
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scheduler_project.local.ports import LOOPBACK, answers
from scheduler_project.local.programs import find
from scheduler_project.local.supervisor import Process

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
_ASKED_S = 5.0


@dataclass(frozen=True)
class Haproxy:
    """``web`` and ``streams`` are the ports of the zones' servers, by zone; the others its own.

    ``ready_path`` is what a web server that may be used answers with 200.
    """

    port: int
    state_port: int
    admin_port: int
    web: Mapping[str, int]
    streams: Mapping[str, int]
    ready_path: str = "/readyz"

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def state(self) -> str:
        """The page with the state of its servers."""
        return f"http://{LOOPBACK}:{self.state_port}/"

    def process(self) -> Process:
        """Raises LocalServicesError where there is no HAProxy."""
        # With a master, who on SIGUSR2 has a new worker take over the sockets while the old one ends in peace.
        command = (str(find("haproxy")), "-W", "-f", str(CONFIG))
        return Process("haproxy", command, env=self.variables(), restarts=10_000, ready=lambda: answers(self.port))

    def variables(self) -> dict[str, str]:
        """What its file asks for."""
        servers = {f"WEB_{zone.upper()}": port for zone, port in self.web.items()}
        servers |= {f"STREAMS_{zone.upper()}": port for zone, port in self.streams.items()}
        return {
            **{name: f"{LOOPBACK}:{port}" for name, port in servers.items()},
            "PROXY_BIND": f"{LOOPBACK}:{self.port}",
            "PROXY_STATE": f"{LOOPBACK}:{self.state_port}",
            "PROXY_ADMIN": f"ipv4@{LOOPBACK}:{self.admin_port}",
            "PUBLIC_SCHEME": "http",
            "WEB_READY": self.ready_path,
        }

    def drain(self, server: str) -> None:
        """Lead nobody new to ``server``, ``web/web-a`` for one; requests under way go on. Raises OSError."""
        self._tell(f"set server {server} state drain")

    def use(self, server: str) -> None:
        """Lead people to ``server`` again, as soon as its checks agree. Raises OSError."""
        self._tell(f"set server {server} state ready")

    def states(self) -> dict[str, str]:
        """UP, DOWN, DRAIN and the like, by server. Raises OSError."""
        return {name: row["status"] for name, row in self._servers().items()}

    def sessions(self, server: str) -> int:
        """Requests under way at ``server``. Raises OSError."""
        return int(self._servers()[server]["scur"])

    def worker(self) -> str:
        """Id of the process that answers at the moment; empty while none does."""
        try:
            info = dict(line.split(": ", 1) for line in self._tell("show info").splitlines() if ": " in line)
        except OSError:
            return ""
        return info.get("Pid", "")

    def _servers(self) -> dict[str, dict[str, str]]:
        """Its figures of each server (management guide, 9.1: of all proxies, servers only)."""
        rows = csv.DictReader(self._tell("show stat -1 4 -1").lstrip("# ").splitlines())
        return {f"{row['pxname']}/{row['svname']}": row for row in rows}

    def _tell(self, command: str) -> str:
        with socket.create_connection((LOOPBACK, self.admin_port), timeout=_ASKED_S) as connection:
            connection.sendall(f"{command}\n".encode())
            with connection.makefile("r") as answer:
                return answer.read()
