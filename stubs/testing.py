"""Stubs as child processes, for tests, benchmarks and the demo."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


@dataclass(frozen=True, slots=True)
class RunningStub:
    """A stub that answers at `url`."""

    url: str
    process: subprocess.Popen[str]

    def stats(self) -> dict[str, Any]:
        """{"requests", "accepted", "answers", "faults"}, counted since the start."""
        found: dict[str, Any] = self._ask("GET", "/stats")
        return found

    def messages(self, *, to: str = "", limit: int = 100) -> list[dict[str, str]]:
        """The newest messages first."""
        found: list[dict[str, str]] = self._ask("GET", f"/messages?limit={limit}&to={to}")
        return found

    def fault(self, *rules: dict[str, Any], seed: int = 0) -> None:
        """Put these rules in force, instead of the present ones; see stubs.faults."""
        self._ask("POST", "/faults", {"rules": rules, "seed": seed})

    def clear_faults(self) -> None:
        """Behave well again."""
        self._ask("DELETE", "/faults")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.url + path, data, method=method), timeout=10) as answer:  # noqa: S310
            content = answer.read()
        return json.loads(content) if content else None


@contextmanager
def running_ses(
    *,
    log: Path | None = None,
    bodies: bool = False,
    port: int = 0,
    module: str = "stubs.ses",
    env: Mapping[str, str] | None = None,
) -> Iterator[RunningStub]:
    """The SES stub, up to the end of the block, or of this process however it ends.

    `module` is a stub of one's own that takes the same options; `env` is the whole environment, by default ours.
    """
    command = [sys.executable, "-m", module, "--port", str(port), "--until-stdin-closes"]
    command += [] if log is None else ["--log", str(log)]
    command += ["--bodies"] if bodies else []
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    try:
        ready = re.search(r"http://\S+", process.stdout.readline())
        if ready is None:
            raise RuntimeError(f"{' '.join(command)} ended at its start, with code {process.wait(5)}")
        yield RunningStub(ready[0], process)
    finally:
        process.terminate()
        process.communicate(timeout=10)
