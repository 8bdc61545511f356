"""What the demo says on its terminal: how to get in, what to look at, and now and then how things stand."""

import math
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import OperationalError, connection
from rich.console import Console

from scheduler_project.demo.accounts import PEOPLE
from scheduler_project.demo.content import LANGUAGES
from scheduler_project.demo.plans import AT_NINE
from schedules import clock
from schedules.models import Recipient, Schedule
from schedules.recurrence import ZONE_NAMES, due_by_zone

_STATUS_EVERY_S = 3.0
# Lines without anything new are left out, but not for ever: the terminal shows that all is well.
_QUIET_S = 60.0


@dataclass(frozen=True)
class Waves:
    """The waves of a user-local one-off, by the zones in the profiles."""

    count: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Facts:
    """What the guide is about. Addresses end without a slash; those of stubs are empty where there are none."""

    is_new: bool
    web: str
    mailbox: str
    mail_log: Path
    devices: str
    push_log: Path
    logs: Path
    password: str
    user_service: str = ""
    template_service: str = ""
    shop: str = ""


def show(console: Console, facts: Facts, *, seconds: float) -> None:
    """The block that begins with "Ready"; ``seconds`` is what the start took."""
    data = "with new data" if facts.is_new else "with the data of its last run"
    lines = [
        "",
        f"[bold green]Ready[/] after {seconds:.0f} s, {data}. Ctrl-C stops everything.",
        "",
        *_in_columns(_addresses(facts)),
        "",
        "[bold]What to look at[/]",
        *(f"  {number}. {line}" for number, line in enumerate(_sights(facts), start=1)),
        "",
        "[bold]In a second terminal[/]",
        *_in_columns(_commands()),
        "",
    ]
    console.print("\n".join(lines), soft_wrap=True)


def _addresses(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "Pages", f"{facts.web}/"
    yield "Log in as", f"{', '.join(PEOPLE)}; password {facts.password} (unless you have changed it)"
    if facts.mailbox:
        yield "Mailbox", f"{facts.mailbox}/ shows the last 1,000 e-mails"
        yield "", f"{_short(facts.mail_log)} has them all, a JSON line each"
    if facts.devices:
        yield "Devices", f"{facts.devices}/ shows the last 1,000 push messages"
        yield "", f"{_short(facts.push_log)} has them all, a JSON line each"
    if facts.user_service:
        yield "User service", f"{facts.user_service}/ names the people of each run; {facts.user_service}/stats counts"
    if facts.template_service:
        yield (
            "Template service",
            f"{facts.template_service}/ writes the messages; {facts.template_service}/stats counts",
        )
    if kept := [what for what, stub in (("e-mails", facts.mailbox), ("push messages", facts.devices)) if not stub]:
        yield "Outbox", f"{facts.web}/outbox/ shows {' and '.join(kept)}"
    yield "Inboxes", f"{facts.web}/inbox/ shows in-app messages"
    if facts.shop:
        yield "Bell", f"{facts.shop}/ is a page of another origin, with the bell of one of its people"
    yield "Logs", f"{_short(facts.logs)}/"


def _sights(facts: Facts) -> Iterator[str]:
    zones = set(Recipient.objects.order_by().values_list("time_zone", flat=True).distinct()) & ZONE_NAMES
    yield f"{Recipient.objects.count():,} recipients in {len(zones)} time zones; messages in {', '.join(LANGUAGES)}"
    if facts.is_new:
        yield "“Newsletter to everyone” is being sent: its books fill, and it can be paused"
    yield "“Bulletin for the team” goes to some in-app inboxes each minute" + (
        f"; the bell at {facts.shop}/ counts it without a reload" if facts.shop else ""
    )
    yield "“Evening digest” is a run in progress at any time: a push at 18:00 on each person’s own clock, wave by wave"
    if waves := _waves():
        yield (
            f"“{AT_NINE}” has {waves.count} waves, {_at(waves.first)} to {_at(waves.last)};"
            f" “clock advance {_hours_until(waves.last)}h” lets them pass before your eyes"
        )
    yield "A few messages fail on purpose: the ledger says of each why, and what was tried again"
    yield "The books: recipients targeted = the sum of what became of them, for every occurrence, at any moment"
    if ahead := clock.shift():
        yield f"The test clock is {timedelta(seconds=round(ahead.total_seconds()))} ahead: it is {_at(clock.now())}"


def _commands() -> Iterator[tuple[str, str]]:
    run = f"{_short(Path(sys.executable))} manage.py"
    yield f"{run} clock advance 27h", "every local hour passes, wave by wave"
    yield f"{run} books", "do they balance?"
    yield f"{run} stop", "nothing is sent any more, until “go”"
    yield f"{run} import_recipients FILE.csv", "people of your own"


def _in_columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max(len(left) for left, _ in rows)
    return [f"  {left:<{width}}  {right}" for left, right in rows]


def _waves() -> Waves | None:
    """Those of the one-off at nine, while they lie ahead."""
    schedule = Schedule.objects.filter(name=AT_NINE, status="active", run_at__isnull=False).first()
    if schedule is None or schedule.run_at is None:
        return None
    instants = due_by_zone(schedule.run_at.replace(tzinfo=None))
    zones = Recipient.objects.order_by().values_list("time_zone", flat=True).distinct()
    due = {instants[zone] for zone in zones if zone in instants}
    if not due or max(due) < clock.now():
        return None
    return Waves(len(due), min(due), max(due))


def _hours_until(instant: datetime) -> int:
    return math.ceil((instant - clock.now()).total_seconds() / 3600)


class Status(threading.Thread):
    """Says every few seconds what has been sent and what comes next, when that has changed."""

    def __init__(self, console: Console) -> None:
        super().__init__(name="status", daemon=True)
        self._console = console
        self._end = threading.Event()

    def end(self) -> None:
        self._end.set()

    def run(self) -> None:
        said, quiet = "", 0.0
        while not self._end.wait(_STATUS_EVERY_S):
            try:
                now = clock.now()
                line = standing(now=now)
            except OperationalError:  # the database restarts, or everything ends
                connection.close()
                continue
            quiet += _STATUS_EVERY_S
            if line != said or quiet >= _QUIET_S:
                self._console.print(f"{now:%d %b %H:%M:%S} UTC  {line}", soft_wrap=True)
                said, quiet = line, 0.0
        connection.close()


def standing(*, now: datetime) -> str:
    """Deliveries sent and to come, as one line."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT COALESCE(sum(b.sent), 0), COALESCE(sum(b.pending + b.sending), 0),
                   COALESCE(sum(b.size - b.sent - b.pending - b.sending), 0),
                   min(b.next_due_at) FILTER (WHERE s.status = 'active' AND o.state = 'running' AND b.next_due_at > %s)
            FROM delivery_batch b JOIN schedules_occurrence o ON o.id = b.occurrence_id
            JOIN schedules_schedule s ON s.id = o.schedule_id
            """,
            [now],
        )
        sent, waiting, otherwise, next_wave = cursor.fetchone()
    coming = f" · next wave {_at(next_wave)}" if next_wave else ""
    return f"{sent:,} sent · {otherwise:,} not sent, for a reason each · {waiting:,} waiting{coming}"


def _at(instant: datetime) -> str:
    return f"{instant:%a %d %b %H:%M} UTC"


def _short(path: Path) -> str:
    """As one would type it from the project's folder."""
    return str(path.relative_to(settings.BASE_DIR)) if path.is_relative_to(settings.BASE_DIR) else str(path)
