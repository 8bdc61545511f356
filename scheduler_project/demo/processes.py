"""The processes of the demo, and how each shows that it works."""

import http.client
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from django.conf import settings
from django.db import connection
from redis import Redis

from delivery import tasks
from scheduler_project.demo import troubles
from scheduler_project.local.fleet import BEHIND, fleet, streams, web
from scheduler_project.local.ports import LOOPBACK
from scheduler_project.local.supervisor import Process
from schedules.models import Channel

_HTTP_S = 5.0
# Never a real account, whatever the user's home knows of one.
_NO_ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "demo",
    "AWS_SECRET_ACCESS_KEY": "demo",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_EVENTS = "events"
# They take nothing from a queue of the broker's.
_WITHOUT_QUEUE = ("beat", _EVENTS)
TEMPLATE_SERVICE = "scheduler_project.demo.template_service"
_LOGGING = {"LOG_LEVEL": "INFO", "LOG_JSON": "0"}


def processes(
    *, web_port: int, streams_port: int, stubs: Iterable[Process], variables: Mapping[str, str]
) -> list[Process]:
    """``stubs`` take what the providers send; ``variables`` are given to all."""
    chosen = [
        *stubs,
        web(web_port, ready=partial(_answers, web_port, "/admin/login/")),
        streams(streams_port, ready=partial(_answers, streams_port, "/healthz")),
        *fleet(beside_web=True),
    ]
    broker = Redis.from_url(settings.BROKER_URL)

    def is_empty(queue: str) -> bool:
        return not broker.llen(queue)

    return [
        replace(
            each,
            env={**each.env, **variables, **_NO_ACCOUNT, **_LOGGING, "APPLICATION_NAME": _application(each.name)},
            cwd=settings.BASE_DIR,
            ready=each.ready or partial(_reads_database if each.name in _WITHOUT_QUEUE else is_empty, each.name),
        )
        for each in chosen
    ]


def knock() -> None:
    """Leave a message without consequences for each worker: that it is gone shows the worker."""
    for channel in Channel.values:
        tasks.send.apply_async(kwargs={"batch_ids": []}, queue=channel)
    tasks.materialise_occurrences.apply_async(kwargs={"occurrence_ids": []}, queue="materialise")
    tasks.sweep.apply_async(queue="clock")


def mailbox(*, port: int, log: Path) -> Process:
    """The stub of Amazon SES."""
    return _stub("mailbox", port, log, troubles.MAIL, "--no-send-events", "--events", json.dumps(troubles.EVENTS))


def events() -> Process:
    """Takes what the stub of Amazon SES tells of messages, from the queue that it is too."""
    return Process(_EVENTS, (*BEHIND, sys.executable, "manage.py", "poll_ses_events"))


def devices(*, port: int, log: Path, credentials: Path, project: str) -> Process:
    """The stub of FCM; ``credentials`` is the file of the service account that it takes for ``project``."""
    return _stub("devices", port, log, troubles.PUSH, "--credentials", str(credentials), "--project", project)


def user_service(*, port: int, people: Path, log: Path, token: str) -> Process:
    """The reference service of the user service's contract, with those people."""
    command = (sys.executable, "-m", "stubs.user_service", "--port", str(port), "--log", str(log))
    given = (*command, "--people", str(people), "--token", token)
    return Process("user_service", given, ready=partial(_answers, port, "/stats"))


def template_service(*, port: int, templates: Path, catalogues: Path, log: Path, token: str) -> Process:
    """The reference service of the template service's contract, with those templates."""
    command = (sys.executable, "-m", TEMPLATE_SERVICE, "--port", str(port), "--log", str(log))
    given = (*command, "--templates", str(templates), "--catalogues", str(catalogues), "--token", token)
    return Process("template_service", given, ready=partial(_answers, port, "/stats"))


def shop(*, port: int, service: str, streams: str) -> Process:
    """A page of somebody else's with the bell; the addresses are those of the web server and of the streams'."""
    command = (sys.executable, "-m", "scheduler_project.demo.shop", "--port", str(port))
    return Process("shop", (*command, "--service", service, "--streams", streams), ready=partial(_answers, port, "/"))


def _stub(name: str, port: int, log: Path, faults: Sequence[Mapping[str, object]], *options: str) -> Process:
    command = (sys.executable, "-m", f"scheduler_project.demo.{name}", "--port", str(port), "--log", str(log))
    given = (*command, "--bodies", "--faults", json.dumps(faults), *options)
    return Process(name, given, ready=partial(_answers, port, "/stats"))


def _application(name: str) -> str:
    return f"demo {name}"


def _reads_database(name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %s)", [_application(name)])
        return bool(cursor.fetchone()[0])


def _answers(port: int, path: str) -> bool:
    try:
        asked = http.client.HTTPConnection(LOOPBACK, port, timeout=_HTTP_S)
        asked.request("GET", path)
        status = asked.getresponse().status
        asked.close()
    except (OSError, http.client.HTTPException):
        return False
    return status < http.client.INTERNAL_SERVER_ERROR
