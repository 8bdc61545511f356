"""The processes of a whole service on one machine, for the `Supervisor`: beat and a worker for each queue.

A queue has a worker of its own so that one slow provider delays no other channel and no materialising delays the tick.
"""

import sys
from collections.abc import Callable, Mapping

from scheduler_project.local.ports import LOOPBACK
from scheduler_project.local.supervisor import Process

_CELERY = (sys.executable, "-m", "celery", "-A", "scheduler_project.celery")
# Where a web server shares the machine, what answers people and programs comes before bulk work: a send takes every
# processor there is. Linux shares processors out between sessions first (sched(7), "The autogroup feature"), and
# every worker leads one, so the session has to step back as well; no more than ten a second may.
BEHIND = (
    "sh",
    "-c",
    "for _ in 1 2 3 4 5; do echo 10 > /proc/self/autogroup && break; sleep 0.2; done 2> /dev/null;"
    ' exec nice -n 10 "$@"',
    "behind",
)
# Seconds that a process may take to end in order, of the thirty after which it is killed wherever it runs.
DRAIN_S = 25
# Processes of each queue's worker, fit for two cores. Materialising has two, since one may be importing people.
CONCURRENCY: Mapping[str, int] = {"clock": 1, "materialise": 2, "email": 3, "push": 2, "in_app": 1, "events": 1}


def beat(*, name: str = "beat", env: Mapping[str, str] | None = None, restarts: int = 5) -> Process:
    """Celery beat. Two of them may run: the tick is idempotent."""
    return Process(name, (*_CELERY, "beat", "--loglevel=WARNING", "--pidfile="), env=env or {}, restarts=restarts)


def worker(
    *queues: str,
    concurrency: int = 1,
    name: str = "",
    env: Mapping[str, str] | None = None,
    restarts: int = 5,
    behind: bool = False,
) -> Process:
    """A worker that serves ``queues``; its children are what is killed, raced and counted.

    ``behind``: it gives way to what else runs here.
    """
    name = name or "-".join(queues)
    first = BEHIND if behind else ()
    options = ("-Q", ",".join(queues), "-n", f"{name}@%h", "-c", str(concurrency), "--loglevel=WARNING")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return Process(name, (*first, *_CELERY, "worker", *options, *quiet), env=env or {}, restarts=restarts)


def web(
    port: int,
    *,
    host: str = LOOPBACK,
    name: str = "web",
    env: Mapping[str, str] | None = None,
    ready: Callable[[], bool] | None = None,
    restarts: int = 5,
) -> Process:
    """Pages and API, for this machine alone unless ``host`` says otherwise."""
    command = (sys.executable, "-m", "gunicorn", "scheduler_project.wsgi", "--bind", f"{host}:{port}")
    options = ("--workers", "2", "--threads", "4", "--graceful-timeout", str(DRAIN_S), "--no-control-socket")
    return Process(name, (*command, *options), env=env or {}, ready=ready, restarts=restarts)


def streams(
    port: int,
    *,
    host: str = LOOPBACK,
    name: str = "streams",
    env: Mapping[str, str] | None = None,
    ready: Callable[[], bool] | None = None,
    restarts: int = 5,
) -> Process:
    """Streams of inboxes, for this machine alone unless ``host`` says otherwise."""
    command = (sys.executable, "manage.py", "serve_streams", "--host", host, "--port", str(port))
    return Process(name, command, env=env or {}, ready=ready, restarts=restarts)


def fleet(
    *, concurrency: Mapping[str, int] = CONCURRENCY, env: Mapping[str, str] | None = None, beside_web: bool = False
) -> list[Process]:
    """Beat and one worker a queue; ``beside_web``: all but the clock's give way to a web server on the same machine."""
    workers = [
        worker(queue, concurrency=count, env=env, behind=beside_web and queue != "clock")
        for queue, count in concurrency.items()
    ]
    return [beat(env=env), *workers]
