"""Stubs as child processes, for tests and benchmarks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen


@dataclass(frozen=True, slots=True)
class RunningStub:
    """A stub that answers at `url`; this one speaks as Amazon SES."""

    url: str
    process: subprocess.Popen[str]

    def variables(self) -> dict[str, str]:
        """The environment of a service that sends its messages here."""
        return {
            "EMAIL_PROVIDER": "ses",
            "AWS_ENDPOINT_URL_SESV2": self.url,
            "AWS_ACCESS_KEY_ID": "stub",
            "AWS_SECRET_ACCESS_KEY": "stub",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stats(self) -> dict[str, Any]:
        """{"requests", "accepted", "calls", "answers", "faults"}, counted since the start; see stubs.server."""
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
        content = self._send(method, path, None if body is None else json.dumps(body).encode())
        return json.loads(content) if content else None

    def _send(self, method: str, path: str, data: bytes | None) -> bytes:
        with urlopen(Request(self.url + path, data, method=method), timeout=10) as answer:  # noqa: S310
            content: bytes = answer.read()
        return content


@dataclass(frozen=True, slots=True)
class RunningFcm(RunningStub):
    """The FCM stub; `credentials` is the file of a service account of `project`."""

    credentials: Path
    project: str

    def variables(self) -> dict[str, str]:
        """The environment of a service that sends its messages here."""
        return {
            "PUSH_PROVIDER": "fcm",
            "FCM_ENDPOINT": self.url,
            "FCM_CREDENTIALS": str(self.credentials),
            "FCM_PROJECT": self.project,
        }

    def shown(self, token: str) -> list[dict[str, str]]:
        """The messages of the mailbox that the device shows, the newest first: those that none has replaced."""
        found = [message for message in self.messages(to=token, limit=10_000) if message["to"] == token]
        replaced = {message["replaces"] for message in found}
        return [message for message in found if message["message_id"] not in replaced]

    def revoke(self) -> None:
        """No access token given out so far is worth anything any more."""
        self._ask("DELETE", "/tokens")


@dataclass(frozen=True, slots=True)
class RunningUserService(RunningStub):
    """The reference of the user service."""

    token: str

    def variables(self) -> dict[str, str]:
        """The environment of a service whose audiences it answers."""
        return {"USER_SERVICE_URL": self.url, "USER_SERVICE_TOKEN": self.token}

    def put(self, *profiles: dict[str, Any]) -> None:
        """Each takes the place of the one with its externalId."""
        self._send("POST", "/people", "\n".join(map(json.dumps, profiles)).encode())

    def remove(self, external_id: str) -> None:
        self._send("DELETE", f"/people?externalId={quote(external_id)}", None)


@dataclass(frozen=True, slots=True)
class RunningTemplateService(RunningStub):
    """The reference of the template service."""

    token: str

    def variables(self) -> dict[str, str]:
        """The environment of a service whose messages it writes."""
        return {"TEMPLATE_SERVICE_URL": self.url, "TEMPLATE_SERVICE_TOKEN": self.token}

    def put(self, *templates: dict[str, Any]) -> None:
        """Each is the next version of the one with its id, or a new one."""
        self._send("POST", "/keep", "\n".join(map(json.dumps, templates)).encode())

    def remove(self, template_id: str, *, version: str = "") -> None:
        """Forget a template, or one version of it."""
        self._send("DELETE", f"/keep?id={quote(template_id)}&version={quote(version)}", None)


@contextmanager
def running_ses(
    *,
    log: Path | None = None,
    bodies: bool = False,
    port: int = 0,
    module: str = "stubs.ses",
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[RunningStub]:
    """The SES stub, up to the end of the block, or of this process however it ends.

    `module` is a stub of one's own that takes the same options; `env` is the whole environment, by default ours.
    `options` are further ones of its command line.
    """
    with _running(module, [*_options(port, log, bodies), *options], env) as (url, process):
        yield RunningStub(url, process)


@contextmanager
def running_fcm(
    *,
    credentials: Path,
    project: str = "demo-project",
    log: Path | None = None,
    bodies: bool = False,
    port: int = 0,
    module: str = "stubs.fcm",
    env: Mapping[str, str] | None = None,
) -> Iterator[RunningFcm]:
    """The FCM stub, likewise. It writes a service account into the file `credentials`, whose token_uri is its own."""
    options = [*_options(port, log, bodies), "--credentials", str(credentials), "--project", project]
    with _running(module, options, env) as (url, process):
        yield RunningFcm(url, process, credentials, project)


@contextmanager
def running_user_service(
    *,
    people: Path | None = None,
    token: str = "",
    port: int = 0,
    module: str = "stubs.user_service",
    env: Mapping[str, str] | None = None,
) -> Iterator[RunningUserService]:
    """The reference of the user service, likewise; ``people``: NDJSON with a profile on each line."""
    options = [*_options(port, None, False), "--token", token, *(["--people", str(people)] if people else [])]
    with _running(module, options, env) as (url, process):
        yield RunningUserService(url, process, token)


@contextmanager
def running_template_service(
    *,
    templates: Path | None = None,
    token: str = "",
    port: int = 0,
    module: str = "stubs.template_service",
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[RunningTemplateService]:
    """The reference of the template service, likewise; ``templates``: NDJSON with a template on each line."""
    given = [*_options(port, None, False), "--token", token, *(["--templates", str(templates)] if templates else [])]
    with _running(module, [*given, *options], env) as (url, process):
        yield RunningTemplateService(url, process, token)


def _options(port: int, log: Path | None, bodies: bool) -> list[str]:
    options = ["--port", str(port), "--until-stdin-closes"]
    options += [] if log is None else ["--log", str(log)]
    return options + (["--bodies"] if bodies else [])


@contextmanager
def _running(
    module: str, options: list[str], env: Mapping[str, str] | None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", module, *options]
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    try:
        ready = re.search(r"http://\S+", process.stdout.readline())
        if ready is None:
            raise RuntimeError(f"{' '.join(command)} ended at its start, with code {process.wait(5)}")
        yield ready[0], process
    finally:
        process.terminate()
        process.communicate(timeout=10)
