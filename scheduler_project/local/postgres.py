"""One private PostgreSQL cluster: on loopback, with a password, as root or not."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scheduler_project.local.children import die_with_parent, end, end_leftovers
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.ports import LOOPBACK
from scheduler_project.local.postgres_launcher import Launcher, find_launcher
from scheduler_project.local.postgres_settings import fsync_wanted, settings_text

DATABASE_NAME = "notification_scheduler"
USER_NAME = "notification_scheduler"
# Fast shutdown (open transactions are rolled back), then immediate; postgres(1).
_STOP = [(int(signal.SIGINT), 60.0), (int(signal.SIGQUIT), 10.0)]


@dataclass(frozen=True)
class Postgres:
    """`home` is the data directory, created when missing; `log` gets the server's output."""

    name: str
    home: Path
    log: Path
    password: str

    def prepare(self) -> None:
        """Leave a cluster that this launcher's binaries can run and nothing runs.

        Raises LocalServicesError when the data is of another major version or of another user.
        """
        end_leftovers(home=self.home, program="postgres", pidfile=self._pidfile, signals=_STOP)
        launcher = find_launcher()
        if not self.home.exists():
            self._create(launcher)
        self._check_version(launcher)
        launcher.own(self.home)
        # Nothing works in there any more, so what the file names is gone or a stranger with its number.
        self._pidfile.unlink(missing_ok=True)

    def launch(self, *, port: int) -> subprocess.Popen[bytes]:
        launcher = find_launcher()
        (self.home / "postgresql.conf").write_text(settings_text(port=port))
        (self.home / "local.conf").touch()
        with self.log.open("ab") as log:
            return launcher.popen(
                "postgres",
                ["-D", str(self.home)],
                cwd=self.home,
                output=log,
                preexec_fn=die_with_parent(signal.SIGINT),
            )

    def ready(self, *, port: int) -> bool:
        """The server writes its port and "ready" into its pid file, where pg_ctl looks too."""
        with contextlib.suppress(OSError):
            lines = self._pidfile.read_text().splitlines()
            return len(lines) >= 8 and lines[3] == str(port) and lines[7].strip() == "ready"
        return False

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        end(process, signals=_STOP)

    def url(self, *, port: int) -> str:
        return f"postgresql://{USER_NAME}:{self.password}@{LOOPBACK}:{port}/{DATABASE_NAME}"

    @property
    def _pidfile(self) -> Path:
        return self.home / "postmaster.pid"

    def _create(self, launcher: Launcher) -> None:
        """initdb elsewhere, then rename: a half-made cluster never carries the name of a whole one."""
        for leftover in self.home.parent.glob(f"{self.home.name}.*.new"):
            shutil.rmtree(leftover)
        draft = self.home.with_name(f"{self.home.name}.{secrets.token_hex(4)}.new")
        draft.mkdir(mode=0o700)
        launcher.own(draft)
        pwfile = draft.with_suffix(".pw")
        pwfile.touch(mode=0o600)
        pwfile.write_text(self.password)
        launcher.own(pwfile)
        try:
            launcher.run("initdb", ["-D", str(draft), f"--pwfile={pwfile}", *_initdb_options(launcher.major)])
            create_database = f"CREATE DATABASE {DATABASE_NAME};\n"
            launcher.run("postgres", ["--single", "-D", str(draft), "postgres"], stdin=create_database)
        finally:
            pwfile.unlink()
        draft.rename(self.home)

    def _check_version(self, launcher: Launcher) -> None:
        marker = self.home / "PG_VERSION"
        try:
            version = marker.read_text().strip()
        except PermissionError as error:
            raise LocalServicesError(
                f"{self.home} belongs to user {self.home.stat().st_uid}, not to you ({os.geteuid()}). "
                "Remove it, or set LOCAL_DIR to another folder."
            ) from error
        except FileNotFoundError as error:
            raise LocalServicesError(
                f"{self.home} holds no PostgreSQL data (PG_VERSION is missing). Move it away."
            ) from error
        if version != str(launcher.major):
            raise LocalServicesError(
                f"{self.home} was made by PostgreSQL {version}, but {launcher.folder} is {launcher.major}. "
                f"To keep the data, dump it with version {version} first; then move the folder away, "
                "and a new one is made."
            )


def _initdb_options(major: int) -> list[str]:
    # C.UTF-8 sorts by code point the same everywhere; from version 17 on without the system's help.
    locale = (
        ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"] if major >= 17 else ["--locale=C.UTF-8"]
    )
    no_sync = [] if fsync_wanted() else ["--no-sync"]
    return ["-U", USER_NAME, "-A", "scram-sha-256", "-E", "UTF8", *locale, *no_sync]
