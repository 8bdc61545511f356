"""A demo from start to end: data, processes, the guide, and a clean stop."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from rich.console import Console

from scheduler_project.demo import accounts, data, environment, guide, troubles
from scheduler_project.demo.processes import (
    TEMPLATE_SERVICE,
    devices,
    events,
    knock,
    mailbox,
    processes,
    shop,
    template_service,
    user_service,
)
from scheduler_project.local import services, supervisor
from scheduler_project.local.ports import LOOPBACK, is_free
from schedules import clock
from stubs.google_account import write_account
from stubs.testing import running_template_service

MAIL_PORT = 8025
PUSH_PORT = 8026
PEOPLE_PORT = 8027
TEMPLATES_PORT = 8028
SHOP_PORT = 8029
STREAMS_PORT = 8030
REFERENCE = "reference"
"""In the place of ``USER_SERVICE_URL``: the reference service, as a process of the demo, answers audiences. In that of
``TEMPLATE_SERVICE_URL``: another one keeps the templates and writes the messages."""
_PORTS_TRIED = 100
_ROOM_BYTES = 500_000_000
_LOG_BYTES = 10_000_000
_READY_SECONDS = 150.0
_MARK = "NOTIFICATION_SCHEDULER_DEMO"
_PROJECT = "demo"  # of the service account at the stub of FCM
_ACCOUNTS = ("AUDIT_EXPORT_", "AWS_", "FCM_", "FIREBASE_", "GOOGLE_")
_USER_SERVICE = "USER_SERVICE_URL"
_TEMPLATE_SERVICE = "TEMPLATE_SERVICE_URL"
_OWN_SERVERS = ("DATABASE_URL", "BROKER_URL", "COUNTERS_URL")


class CannotRun(Exception):
    """The demo can't run here; the text names the remedy."""


@dataclass(frozen=True)
class Options:
    """``port``: where the pages are wanted; the next free one is taken. ``people`` matters for new data only.

    ``email_provider`` is ``ses`` and ``push_provider`` ``fcm`` (to their stubs), or ``outbox``. ``user_service``
    and ``template_service`` are ``REFERENCE`` or empty.
    """

    port: int = 8000
    email_provider: str = "ses"
    push_provider: str = "fcm"
    fresh: bool = False
    people: int = 10_000
    user_service: str = ""
    template_service: str = ""

    @property
    def asks_reference(self) -> bool:
        return self.user_service == REFERENCE

    @property
    def has_templates_elsewhere(self) -> bool:
        return self.template_service == REFERENCE


class _Ports(NamedTuple):
    """Those of stubs are 0 where there is none."""

    web: int
    streams: int
    shop: int
    mail: int
    push: int
    people: int
    templates: int


@dataclass(frozen=True)
class _Boxes:
    """Where messages end: the stubs and their files below ``root``."""

    root: Path

    @property
    def mail_log(self) -> Path:
        return self.root / "ses-accepted.ndjson"

    @property
    def push_log(self) -> Path:
        return self.root / "fcm-accepted.ndjson"

    @property
    def account(self) -> Path:
        return self.root / "fcm-account.json"

    @property
    def people(self) -> Path:
        return self.root / "user-service-people.ndjson"

    @property
    def people_log(self) -> Path:
        return self.root / "user-service-calls.ndjson"

    @property
    def templates(self) -> Path:
        return self.root / "template-service-templates.ndjson"

    @property
    def catalogues(self) -> Path:
        return self.root / "template-service-catalogues.json"

    @property
    def templates_log(self) -> Path:
        return self.root / "template-service-calls.ndjson"

    @property
    def templates_token(self) -> str:
        """Which the reference template service takes."""
        return services.secret(root=self.root, name="template-service-token")

    @property
    def token(self) -> str:
        """Which the reference user service takes."""
        return services.secret(root=self.root, name="user-service-token")

    def empty(self) -> None:
        kept = (self.people, self.templates, self.catalogues)
        for file in (self.mail_log, self.push_log, self.people_log, self.templates_log, *kept):
            file.unlink(missing_ok=True)

    def stubs(self, ports: _Ports) -> Iterator[supervisor.Process]:
        yield shop(port=ports.shop, service=_address(ports.web), streams=_address(ports.streams))
        if ports.mail:
            yield mailbox(port=ports.mail, log=self.mail_log)
            yield events()
        if ports.push:
            yield devices(port=ports.push, log=self.push_log, credentials=self.account, project=_PROJECT)
        if ports.people:
            yield user_service(port=ports.people, people=self.people, log=self.people_log, token=self.token)
        if ports.templates:
            yield template_service(
                port=ports.templates,
                templates=self.templates,
                catalogues=self.catalogues,
                log=self.templates_log,
                token=self.templates_token,
            )


def enter_own_world() -> None:
    """Begin anew with the environment of a demo, which the settings must see before anything else runs.

    Nothing of the user's accounts at Amazon and Google or of his proxies comes along. Returns once that has happened.
    """
    if os.environ.get(_MARK):
        return
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_ACCOUNTS)}
    direct = {"NO_PROXY": f"{LOOPBACK},localhost", "no_proxy": f"{LOOPBACK},localhost"}
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), *sys.argv[1:]]
    os.execve(sys.executable, command, {**kept, **direct, _MARK: "1", "TEST_CLOCK": "1"})  # noqa: S606


def run(options: Options, console: Console) -> int:
    """Run the demo until Ctrl-C or SIGTERM. Returns 0, or 1 when a process would not run; nothing is left running.

    Raises ``CannotRun``, ``environment.AlreadyRunning``, ``LocalServicesError``, ``OSError``, ``OperationalError``,
    and ``KeyboardInterrupt`` when asked to stop before it is ready.
    """
    begun = time.monotonic()
    _check_ground()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    root: Path = settings.LOCAL_DIR.expanduser().resolve()
    with environment.alone(root):
        if options.user_service not in ("", REFERENCE):
            raise CannotRun(f"The demo asks no user service of yours: set {_USER_SERVICE}={REFERENCE}, or unset it.")
        if options.template_service not in ("", REFERENCE):
            raise CannotRun(
                f"The demo asks no template service of yours: set {_TEMPLATE_SERVICE}={REFERENCE}, or unset it."
            )
        boxes = _Boxes(root)
        password = services.secret(root=root, name="demo-password")[:12]
        if options.fresh:
            console.print("Emptying database, queues and the logs of e-mails and pushes …")
            data.empty()
            boxes.empty()
        is_new = _prepare(options, console, password, boxes)
        ports = _ports(options, console)
        facts = guide.Facts(
            is_new=is_new,
            web=_address(ports.web),
            mailbox=_address(ports.mail),
            mail_log=boxes.mail_log,
            devices=_address(ports.push),
            push_log=boxes.push_log,
            logs=root / "logs",
            password=password,
            user_service=_address(ports.people),
            template_service=_address(ports.templates),
            shop=_address(ports.shop),
        )
        variables = _variables(options, facts, boxes)
        environment.lend(root, variables)
        children = processes(
            web_port=ports.web, streams_port=ports.streams, stubs=boxes.stubs(ports), variables=variables
        )
        return _serve(children, console, facts, begun)


def _serve(children: list[supervisor.Process], console: Console, facts: guide.Facts, begun: float) -> int:
    status = guide.Status(console)
    was_ready = False

    def ready() -> None:
        nonlocal was_ready
        was_ready = True
        if facts.user_service:
            _mirror(console)
        guide.show(console, facts, seconds=time.monotonic() - begun)
        status.start()

    console.print("Starting the processes …")
    for child in children:
        _turn_over(facts.logs / f"{child.name}.log")
    knock()
    code = supervisor.run(children, logs=facts.logs, ready_seconds=_READY_SECONDS, on_ready=ready)
    status.end()
    if code:
        console.print(f"Why stands at the end of the files in {facts.logs}.")
    elif not was_ready:
        raise KeyboardInterrupt
    else:
        console.print("Stopped. The data is kept for the next start; --fresh empties it.")
    return code


def _mirror(console: Console) -> None:
    """Have a copy of the user service's people here, so that previews count them before any run has asked for them."""
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "mirror_people"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        console.print(f"The user service's people could not be fetched: {done.stderr.strip()}", markup=False)


def _know_templates(boxes: _Boxes) -> None:
    """Have the reference keep the demo's templates, and know them here before a schedule names one.

    For that the reference runs by itself for a moment. Raises ``CannotRun``.
    """
    data.write_templates(boxes.templates, boxes.catalogues)
    data.hand_over()
    options = ["--catalogues", str(boxes.catalogues)]
    with running_template_service(
        templates=boxes.templates, token=boxes.templates_token, module=TEMPLATE_SERVICE, options=options
    ) as running:
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "mirror_templates"]
        given = {**os.environ, _USER_SERVICE: "", **running.variables()}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=given)  # noqa: S603
    if done.returncode:
        raise CannotRun(f"The template service's templates could not be fetched: {done.stderr.strip()}")


def _turn_over(log: Path) -> None:
    """Begin a new file where the old one has grown large; one old one is kept."""
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))


def _check_ground() -> None:
    if given := [name for name in _OWN_SERVERS if os.environ.get(name)]:
        raise CannotRun(f"The demo runs on servers of its own, never on yours: unset {', '.join(given)}.")
    if (room := shutil.disk_usage(settings.LOCAL_DIR).free) < _ROOM_BYTES:
        raise CannotRun(
            f"{settings.LOCAL_DIR} has {room // 1_000_000} MB of free space left, and a demo wants"
            f" {_ROOM_BYTES // 1_000_000} MB. Make room, or set LOCAL_DIR to a folder elsewhere."
        )


def _prepare(options: Options, console: Console, password: str, boxes: _Boxes) -> bool:
    """Bring tables, accounts and data up to date; whether the data is new."""
    console.print("Preparing the database …")
    data.migrate()
    accounts.open_accounts(password=password)
    is_new = not data.is_there()
    if options.has_templates_elsewhere:
        _know_templates(boxes)
    else:
        data.take_back(now=clock.now())
    if is_new:
        console.print(f"Inventing {options.people:,} people …")
        people = 0 if options.asks_reference else options.people
        data.put_in(people=people, now=clock.now(), are_templates_known=options.has_templates_elsewhere)
    if options.asks_reference and not boxes.people.exists():
        data.write_profiles(boxes.people, people=options.people, now=clock.now())
    data.renew(now=clock.now())
    return is_new


def _ports(options: Options, console: Console) -> _Ports:
    web = _free_port(options.port)
    if web != options.port:
        console.print(f"Port {options.port} is taken, so the pages are at port {web}.")
    mail = _free_port(MAIL_PORT, but_not={web}) if options.email_provider == "ses" else 0
    push = _free_port(PUSH_PORT, but_not={web, mail}) if options.push_provider == "fcm" else 0
    people = _free_port(PEOPLE_PORT, but_not={web, mail, push}) if options.asks_reference else 0
    taken = {web, mail, push, people}
    templates = _free_port(TEMPLATES_PORT, but_not=taken) if options.has_templates_elsewhere else 0
    taken.add(templates)
    shop_port = _free_port(SHOP_PORT, but_not=taken)
    streams = _free_port(STREAMS_PORT, but_not={*taken, shop_port})
    return _Ports(web, streams, shop_port, mail, push, people, templates)


def _free_port(wanted: int, *, but_not: Collection[int] = ()) -> int:
    for port in range(wanted, min(wanted + _PORTS_TRIED, 65_536)):
        if port not in but_not and is_free(port):
            return port
    raise CannotRun(f"No port from {wanted} on is free: name another one with --port.")


def _address(port: int) -> str:
    return f"http://{LOOPBACK}:{port}" if port else ""


def _variables(options: Options, facts: guide.Facts, boxes: _Boxes) -> dict[str, str]:
    variables = {
        "AS_APPLICATION": "1",  # in the database, whose owner nobody needs to be any more
        "TEST_CLOCK": "1",
        "INBOX_ORIGINS": facts.shop,
        "PUBLIC_URL": facts.web,  # where links to unsubscribe lead
        "LOG_LEVEL": "WARNING",  # on the terminal of a command; the demo's own processes say more, in their files
        "EMAIL_PROVIDER": options.email_provider,
        "PUSH_PROVIDER": options.push_provider,
        _USER_SERVICE: facts.user_service,
        "USER_SERVICE_TOKEN": boxes.token if facts.user_service else "",
        _TEMPLATE_SERVICE: facts.template_service,
        "TEMPLATE_SERVICE_TOKEN": boxes.templates_token if facts.template_service else "",
        **troubles.PACE,
    }
    if facts.mailbox:
        variables |= {f"AWS_ENDPOINT_URL_{service}": facts.mailbox for service in ("SESV2", "SQS")}
        variables |= {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"}
        variables |= {"SES_EVENTS_QUEUE_URL": f"{facts.mailbox}/demo/events"}
    if facts.devices:
        # The providers of all processes read it as they start, so it can't be left to the stub.
        write_account(boxes.account, url=facts.devices, project=_PROJECT)
        variables |= {"FCM_ENDPOINT": facts.devices, "FCM_CREDENTIALS": str(boxes.account), "FCM_PROJECT": _PROJECT}
    return variables
