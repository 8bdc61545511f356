"""The program: start the cluster, say where to look, tell what changes, stop."""

import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from scheduler_project.cluster.check import check
from scheduler_project.cluster.cluster import Cluster, running_cluster
from scheduler_project.demo import troubles
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.ports import is_free
from scheduler_project.local.programs import find
from scheduler_project.outside.client import OutsideError

_LOOKED_S = 1.0


class CannotRun(Exception):
    """The cluster can't run here; the text names the remedy."""


@dataclass(frozen=True)
class Options:
    """``port``: of the pages. ``seconds``: until it ends by itself; 0: not before it is told to.

    ``only_check``: it ends when the check has; ``rolling``: everything is restarted during the check's send, to
    ``people`` (0: as many as it takes).
    """

    port: int = 8080
    seconds: float = 0.0
    only_check: bool = False
    rolling: bool = False
    people: int = 0


def run(options: Options, console: Console, *, root: Path) -> int:
    """Run until Ctrl-C or SIGTERM, or as the options say. Returns 0, or 1 where a check did not come out well.

    Raises ``CannotRun``; nothing is left running.
    """
    begun = time.monotonic()
    if not is_free(options.port):
        raise CannotRun(f"Port {options.port} is taken: name another one with --port.")
    try:
        for name in ("haproxy", "pgbouncer"):
            find(name)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)

        def said(what: str) -> None:
            console.print(f"{time.monotonic() - begun:6.1f} s  {what}", markup=False, soft_wrap=True)

        is_watched = _has_prometheus(console)
        with running_cluster(
            root, port=options.port, fates=troubles.EVENTS, is_watched=is_watched, said=said
        ) as cluster:
            start_s = time.monotonic() - begun
            _show(cluster, console, start_s)
            code = 0
            if options.only_check or options.rolling:
                figures = check(cluster, rolling=options.rolling, start_s=start_s, people=options.people, said=said)
                console.print(figures.as_json(), markup=False, soft_wrap=True)
                code = 0 if figures.is_good else 1
            if not options.only_check:
                _watch(cluster, console, options.seconds)
            said("ending")
        return code
    except (LocalServicesError, OutsideError, OSError) as error:
        raise CannotRun(str(error)) from error


def _has_prometheus(console: Console) -> bool:
    """Without one all else can be looked at; said so that nobody takes it for watched."""
    try:
        find("prometheus")
    except LocalServicesError as error:
        console.print(f"NOT WATCHED: {error} No rule and no alert is looked at.", markup=False, soft_wrap=True)
        return False
    return True


def _show(cluster: Cluster, console: Console, seconds: float) -> None:
    lines = {
        "Pages and API": f"{cluster.address}/",
        "Sign in as": f"admin, marketer or analyst, with {cluster.ground.password}",
        "HAProxy": cluster.proxy.state,
        "Prometheus": cluster.prometheus.address if cluster.prometheus else "NOT THERE, nothing is watched",
        "SES, FCM (stubs)": f"{cluster.ses.url}/  {cluster.fcm.url}/",
        "PostgreSQL": "psql " + cluster.database,
        "Logs": str(cluster.ground.root / "logs"),
    }
    console.print(f"\nReady after {seconds:.0f} s: {len(cluster.processes())} processes in two zones.\n")
    for name, value in lines.items():
        console.print(f"  {name:<18}{value}", markup=False, soft_wrap=True)
    console.print(
        "\nKill what you like: kill -9 a process, or a whole zone. Ctrl-C ends all; the data is kept.\n\n"
        + "\n".join(f"  {each.name:<16} process {each.pid}" for each in cluster.processes()),
        markup=False,
    )


def _watch(cluster: Cluster, console: Console, seconds: float) -> None:
    """Tell what the proxy leads to and which processes have begun anew, whenever that changes."""
    over = threading.Event()
    deadline = time.monotonic() + seconds if seconds else float("inf")
    before: Mapping[str, object] = {}
    try:
        while time.monotonic() < deadline:
            now = _state(cluster)
            for name in sorted(now if before else ()):
                if now[name] != before.get(name):
                    console.print(f"{time.strftime('%H:%M:%S')}  {name}: {now[name]}", markup=False)
            before = now
            over.wait(min(_LOOKED_S, max(deadline - time.monotonic(), 0)))
    except KeyboardInterrupt:
        return


def _state(cluster: Cluster) -> Mapping[str, object]:
    processes = {each.name: f"process {each.pid}" if each.pid else "away" for each in cluster.processes()}
    try:
        return {**processes, **cluster.proxy.states()}
    except OSError:
        return processes
