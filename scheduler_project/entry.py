"""What a container runs, by name: ``python -m scheduler_project.entry web``.

The processes are those of ``scheduler_project.local.fleet``, for other machines to reach. Each takes the place of this
one, so that it hears SIGTERM itself; only ``migrate`` runs two commands, one after the other.
"""

import os
import socket
import subprocess
import sys
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from scheduler_project import probes
from scheduler_project.local import fleet

_EVERYWHERE = "0.0.0.0"  # noqa: S104 - in a container, whose network says who may
_PROJECT = Path(__file__).resolve().parents[1]
_MANAGE = (sys.executable, "manage.py")
_MIGRATING = (("migrate", "--no-input"), ("grant_roles",))


def main(arguments: Sequence[str]) -> int:
    """An exit code, where no other process takes the place of this one."""
    given = _parser().parse_args(arguments)
    os.chdir(_PROJECT)
    if given.role == "migrate":
        return _migrate()
    if given.role == "probe":
        return _probe(given)
    os.environ.setdefault("APPLICATION_NAME", application_name(given.role, getattr(given, "queue", "")))
    command = command_of(given)
    return os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def application_name(role: str, queue: str = "") -> str:
    """Which process it is, in logs, PostgreSQL's pg_stat_activity and Redis's CLIENT LIST."""
    return f"{'-'.join(filter(None, (role, queue)))}@{socket.gethostname()}"


def command_of(given: Namespace) -> tuple[str, ...]:
    """The command line of a role that stays."""
    if given.role == "web":
        return (*fleet.web(probes.WEB_PORT, host=_EVERYWHERE).command, "--workers", str(given.processes))
    if given.role == "streams":
        return tuple(fleet.streams(probes.STREAMS_PORT, host=_EVERYWHERE).command)
    if given.role == "beat":
        return tuple(fleet.beat().command)
    if given.role == "worker":
        concurrency = given.concurrency or fleet.CONCURRENCY[given.queue]
        return tuple(fleet.worker(given.queue, concurrency=concurrency).command)
    if given.role == "poll-ses-events":
        return (*_MANAGE, "poll_ses_events")
    return (*_MANAGE, *given.arguments)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="entry", description="A process of notification-scheduler.")
    roles = parser.add_subparsers(dest="role", required=True)
    web = roles.add_parser("web", help="pages and API, on port 8000")
    web.add_argument("--processes", type=_positive, default=2, help="of gunicorn (%(default)s), of four threads each")
    roles.add_parser("streams", help="streams of inboxes, on port 8030")
    roles.add_parser("beat", help="the clock; two may run")
    worker = roles.add_parser("worker", help="of one queue; as many as you like may run")
    worker.add_argument("queue", choices=tuple(fleet.CONCURRENCY))
    worker.add_argument("--concurrency", type=_positive, default=0, help="processes; as the queue needs on two cores")
    roles.add_parser("poll-ses-events", help="takes what SES tells of messages from a queue of SQS")
    roles.add_parser("migrate", help="brings tables and roles up to date, and ends; as the tables' owner")
    probe = roles.add_parser("probe", help="exits 0 while the process of this container works")
    probe.add_argument("what", choices=("web", "streams", "beat", "worker"))
    probe.add_argument("queue", nargs="?", default="", choices=("", *fleet.CONCURRENCY))
    manage = roles.add_parser("manage", help="manage.py with these arguments")
    manage.add_argument("arguments", nargs=REMAINDER)
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _migrate() -> int:
    for arguments in _MIGRATING:
        if code := subprocess.run([*_MANAGE, *arguments], check=False).returncode:  # noqa: S603
            return code
    return 0


def _probe(given: Namespace) -> int:
    if given.what in ("web", "streams"):
        return int(not probes.answers(given.what))
    name = os.environ.get("APPLICATION_NAME") or application_name(given.what, given.queue)
    return int(not probes.is_at_broker(os.environ.get("BROKER_URL", ""), name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
