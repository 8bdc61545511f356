"""PgBouncer on loopback, from the file that a deployment uses, in front of a PostgreSQL of ours."""

from collections.abc import Mapping
from configparser import RawConfigParser
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scheduler_project.local.layout import write_private
from scheduler_project.local.ports import LOOPBACK, answers
from scheduler_project.local.postgres_launcher import find_launcher
from scheduler_project.local.programs import find
from scheduler_project.local.supervisor import Process

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "pgbouncer" / "pgbouncer.ini"


@dataclass(frozen=True)
class Pgbouncer:
    """In front of the server of ``url``, for the role and the database in it. ``home`` is its folder.

    ``more`` are settings beside the deployment's, or in their place. ``every``: all databases of that server.
    """

    name: str
    home: Path
    port: int
    url: str
    more: Mapping[str, str] = field(default_factory=dict)
    every: bool = False

    @property
    def pooled(self) -> str:
        """The address for those who come by here."""
        given = urlsplit(self.url)
        user, _, _ = given.netloc.rpartition("@")
        return given._replace(netloc=f"{user}@{LOOPBACK}:{self.port}").geturl()

    def process(self) -> Process:
        """Raises LocalServicesError where there is no PgBouncer."""
        found = find("pgbouncer")
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self.home / "userlist.txt", self._users())
        write_private(self.home / "pgbouncer.ini", self._config())
        # As PostgreSQL, it refuses to run as root.
        launcher = find_launcher()
        launcher.own(self.home)
        as_user = ("-u", launcher.user.pw_name) if launcher.user else ()
        command = (*launcher.prefix, str(found), "-q", *as_user, str(self.home / "pgbouncer.ini"))
        return Process(self.name, command, cwd=self.home, restarts=10_000, ready=lambda: answers(self.port))

    def _users(self) -> str:
        given = urlsplit(self.url)
        names = (unquote(given.username or ""), unquote(given.password or ""))
        return " ".join('"{}"'.format(name.replace('"', '""')) for name in names) + "\n"

    def _config(self) -> str:
        """The deployment's, with addresses of our own."""
        given, config = urlsplit(self.url), RawConfigParser(comment_prefixes=(";",))
        config.read_string(CONFIG.read_text())
        config["databases"] = {
            "*" if self.every else given.path.lstrip("/"): f"host={given.hostname} port={given.port}"
        }
        own = {"listen_addr": LOOPBACK, "listen_port": self.port, "auth_file": self.home / "userlist.txt"}
        config["pgbouncer"].update({name: str(value) for name, value in (own | dict(self.more)).items()})
        written = StringIO()
        config.write(written)
        return written.getvalue()
