"""Where things lie below the root of the embedded services (normally `.local/`)."""

import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATABASE = "database"
BROKER = "broker"
COUNTERS = "counters"
ALL = frozenset({DATABASE, BROKER, COUNTERS})


@dataclass(frozen=True)
class Layout:
    """Paths below `root`, which must be absolute and free of symbolic links.

    Three locks, all held with flock, hence dropped by the kernel however their holder ends:
    `users` shared by every process that uses the services, exclusively by a keeper that is stopping them;
    `start` by the one process that is starting a keeper; `keeper` by the keeper for its life.
    """

    root: Path

    @property
    def users_lock(self) -> Path:
        return self.root / "users.lock"

    @property
    def start_lock(self) -> Path:
        return self.root / "start.lock"

    @property
    def keeper_lock(self) -> Path:
        return self.root / "keeper.lock"

    @property
    def state(self) -> Path:
        """What runs: `{"keeper": pid, "urls": {name: url}, "errors": {name: [request, text]}}`."""
        return self.root / "state.json"

    @property
    def failure(self) -> Path:
        """Why the last keeper gave up, in words for the user."""
        return self.root / "failure.txt"

    @property
    def ports(self) -> Path:
        """Ports of the last start, taken again when free, so that URLs survive a restart."""
        return self.root / "ports.json"

    @property
    def password(self) -> Path:
        return self.root / "password"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def wanted(self, name: str) -> Path:
        """Some process asked for this service; holds the request's token, with which an error answers it."""
        return self.root / f"{name}.wanted"

    def home(self, name: str) -> Path:
        """The folder of one service, its working directory."""
        return self.root / name

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; empty when the file is missing or broken."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_private(path: Path, text: str) -> None:
    """Replace `path` in one step by a file that only its owner can read."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def read_secret(path: Path) -> str:
    """The 64 hexadecimal digits in `path`, made at the first call; the same for all who call at once."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        write_private(draft, secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # another was first: his counts
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text()
