"""A running service, a person at its door, and a record of what was asked of it: a stage for each scenario."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from scheduler_project.local.fleet import beat, worker
from scheduler_project.local.supervisor import Process
from tests.chaos.oracle import Accepted, Person, Plan, Row, Schedule, Span, Verdict, judge
from tests.running import PROJECT, STATES, Running, read_log, running_service

# What the death of one process may leave unclear: people of a call, times calls in flight and those of a claim that was
# being made.
CALL = 50
CALLS_IN_FLIGHT = 4
CALLS_OF_A_CLAIM = 2
EMAIL_WORKERS = ("email-1", "email-2")
EMAIL_PROCESSES = 4  # of each
PUSH_PROCESSES = 2
_RESTARTS = 10_000
_POLL_S = 0.2
# Long enough for a message to be taken up before it is taken for lost.
_HURRY_S = 6.0


class Refused(Exception):
    """The service did not do what it was asked for; the text is its own."""


class Door:
    """The process at the door; see ``tests.chaos.door``. One that has died is followed by another."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = {**env, "DJANGO_SETTINGS_MODULE": "scheduler_project.settings"}
        self._process: subprocess.Popen[str] | None = None
        self._is_ready = False

    def open(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.door"],
            cwd=PROJECT, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._is_ready = False

    def await_ready(self) -> None:
        """Returns when the next request will be carried out at once."""
        if self._process is None:
            self.open()
        while not self._is_ready:
            self._is_ready = self._line() == "ready"

    def ask(self, name: str, **arguments: Any) -> tuple[datetime, datetime, Any]:
        """(begun, done, result) of an operation; raises ``Refused``."""
        self.await_ready()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        process.stdin.flush()
        while not (line := self._line()).startswith('{"begun"') and not line.startswith('{"error"'):
            pass  # the service's own log
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(f"{name}: {answer['error']}")
        return _instant(answer["begun"]), _instant(answer["done"]), answer["result"]

    def _line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise Refused("the door's process has ended")
        return line.rstrip("\n")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=10)
        self._process = None


@dataclass
class World:
    """``is_quick``: small crowds, and deadlines shortened from outside; else real ones."""

    running: Running
    door: Door
    is_quick: bool
    scenes: int = 0

    def size(self, quick: int, long: int) -> int:
        return quick if self.is_quick else long

    def scene(self, name: str, chance: random.Random) -> "Scene":
        self.scenes += 1
        return Scene(self, f"{name}-{self.scenes}", chance)

    def kill(self, name: str) -> None:
        """kill -9 of a process of the fleet with its children; its supervisor starts another."""
        self.running.supervisor.kill(name)

    def kill_child(self, name: str, chance: random.Random) -> None:
        """kill -9 of one of a worker's children."""
        children = _children(self.running.supervisor.pid(name))
        if children:
            os.kill(chance.choice(children), signal.SIGKILL)

    def calm(self) -> None:
        """Both providers behave well again."""
        self.running.stub.clear_faults()
        self.running.push_stub.clear_faults()

    def hurry(self) -> None:
        """Let the deadlines of what the dead held pass at once: leases, messages, retries, unanswered calls."""
        self.running.sql(
            "UPDATE delivery_batch SET queued_at = queued_at - interval '1 min',"
            " lease_until = lease_until - interval '1 min' WHERE queued_at IS NOT NULL OR sending > 0"
        )
        self.running.sql("UPDATE delivery_delivery SET leased_until = leased_until - interval '1 min' WHERE state = 1")


@dataclass
class Scene:
    """One scenario's people and schedules, and what was done to them. Their names begin with ``name``."""

    world: World
    name: str
    chance: random.Random
    plan: Plan = field(default_factory=Plan)
    ids: dict[str, int] = field(default_factory=dict)
    recipients: dict[str, int] = field(default_factory=dict)
    harmed: float | None = None
    recovered: float | None = None

    def people(
        self,
        count: int,
        *,
        group: str = "all",
        zones: Sequence[str] = ("",),
        has_device: bool = False,
        also: Sequence[str] = (),
        prefix: str = "",
        oddities: bool = True,
    ) -> list[Person]:
        """New people of ``group``, and of the groups ``also``.

        With ``oddities`` a few refuse every channel and a few have no address.
        """
        made = []
        for number in range(count):
            key = f"{prefix}{self.name}-{group}-{number}"
            is_odd = oddities and number % 50 == 7
            has_none = oddities and number % 50 == 11
            made.append(
                Person(
                    name=key,
                    groups=frozenset(f"{self.name}-{name}" for name in (group, *also)),
                    zone=zones[number % len(zones)],
                    email="" if has_none else f"{key}@{group}.example",
                    tokens=(f"token-{key}",) if has_device and not has_none else (),
                    refuses=frozenset({"email", "push", "in_app"}) if is_odd else frozenset(),
                )
            )
        self.plan.people |= {person.name: person for person in made}
        self._insert(made)
        return made

    def _insert(self, people: Sequence[Person]) -> None:
        sql = self.world.running.sql
        rows = sql(
            "INSERT INTO schedules_recipient (external_id, email, locale, time_zone, attributes, tags, consent)"
            " SELECT name, email, 'en', zone, '{}', tags, consent FROM unnest(%s::text[], %s::text[], %s::text[],"
            " %s::jsonb[], %s::jsonb[]) AS v(name, email, zone, tags, consent)"
            " ON CONFLICT (external_id) DO UPDATE SET email = EXCLUDED.email RETURNING external_id, id",
            [person.name for person in people],
            [person.email for person in people],
            [person.zone for person in people],
            [json.dumps(sorted(person.groups)) for person in people],
            [json.dumps(dict.fromkeys(sorted(person.refuses), False)) for person in people],
        )
        self.recipients |= dict(rows)
        devices = [(self.recipients[person.name], token) for person in people for token in person.tokens]
        sql(
            "INSERT INTO schedules_device (recipient_id, token, platform, active)"
            " SELECT recipient, token, 'android', true FROM unnest(%s::bigint[], %s::text[]) AS v(recipient, token)"
            " ON CONFLICT (token) DO NOTHING",
            [recipient for recipient, _ in devices],
            [token for _, token in devices],
        )

    def schedules(
        self,
        count: int = 1,
        *,
        channel: str = "email",
        group: str = "all",
        seconds: float = 3.0,
        at: datetime | None = None,
        local: bool = False,
        on_past: str = "skip",
        per_day: int | None = None,
        per_week: int | None = None,
        label: str = "",
        within: float | None = None,
    ) -> list[Schedule]:
        """One-offs due in ``seconds``, or ``at``, to a group of this scene."""
        self.world.door.await_ready()
        due = at or datetime.now(UTC) + timedelta(seconds=seconds)
        names = [f"{self.name}-{label or channel}-{len(self.ids) + number}" for number in range(count)]
        asked = [
            {
                "name": name, "words": f"{name} first", "channel": channel, "group": f"{self.name}-{group}",
                "at": due.isoformat(), "time_zone_mode": "user_local" if local else "fixed", "on_past": on_past,
                "max_per_user_per_day": per_day, "max_per_user_per_week": per_week,
            }
            for name in names
        ]  # fmt: skip
        begun, done, ids = self.world.door.ask("create", schedules=asked)
        self.ids |= dict(zip(names, ids, strict=True))
        made = []
        for name in names:
            span = Span(begun, done, f"{self.name}-{group}", due, f"{name} first")
            schedule = Schedule(name, channel, [span], local, on_past=on_past, per_day=per_day, per_week=per_week)
            schedule.within = None if within is None else timedelta(seconds=within)
            made.append(schedule)
        self.plan.schedules |= {schedule.name: schedule for schedule in made}
        return made

    def change(self, schedule: Schedule, kind: str) -> None:
        """Pause, resume, cancel or delete, and write down when."""
        begun, done, _ = self.world.door.ask(kind, schedule=self.ids[schedule.name])
        schedule.change(kind, begun=begun, done=done)

    def edit(self, schedule: Schedule, *, words: str = "", group: str = "", at: datetime | None = None) -> None:
        """Change what has not been sent yet."""
        last = schedule.spans[-1]
        what = {
            "words": f"{schedule.name} {words}" if words else last.words,
            "group": f"{self.name}-{group}" if group else last.group,
        }
        moved = at.isoformat() if at else ""
        asked = {"schedule": self.ids[schedule.name], "channel": schedule.channel, "apply_to": "unsent", "at": moved}
        begun, done, _ = self.world.door.ask("edit", **asked, **what)
        schedule.change("edit", begun=begun, done=done, **what, at=at or last.at)

    def erase(self, person: Person) -> None:
        _, done, _ = self.world.door.ask("erase", recipient=self.recipients[person.name])
        self.plan.erased[person.name] = done

    def think(self, seconds: float, *, channel: str = "email") -> None:
        """The channel's stub takes that long over each call, so that a run lasts."""
        stub = self.world.running.stub if channel == "email" else self.world.running.push_stub
        stub.fault({"kind": "latency", "seconds": seconds})
        self.plan.latency = max(self.plan.latency, timedelta(seconds=seconds))

    def harm(self, *, dead: int = 0) -> None:
        """Something is broken now, ``dead`` sending processes by it; recovery counts from the last time."""
        self.harmed = time.monotonic()
        self.plan.unclear += dead * CALL * (CALLS_IN_FLIGHT + CALLS_OF_A_CLAIM)

    def pause_at_random(self, most: float) -> None:
        time.sleep(self.chance.uniform(0, most))

    def until(self, what: str, found: Callable[[], bool], *, seconds: float = 60.0) -> None:
        """Wait for it; the books must close at every look. Raises AssertionError when it takes too long."""
        self.world.running.wait_for(f"{self.name}: {what}", found, seconds=seconds)

    def tally(self, *states: str, of: Sequence[int] = ()) -> int:
        """Rows in these states, of the scene or of some of its schedules, as their batches count them."""
        rows = self.world.running.sql(
            f"SELECT COALESCE(sum({'+'.join(states)}), 0) FROM delivery_batch b"
            " JOIN schedules_occurrence o ON o.id = b.occurrence_id WHERE o.schedule_id = ANY(%s)",
            [*(of or self.ids.values())],
        )
        return int(rows[0][0])

    def is_through(self, schedules: Sequence[int] = ()) -> bool:
        """Everybody has been found, and nobody waits or is being sent to any more."""
        wanted = [*(schedules or self.ids.values())]
        found = self.world.running.sql(
            "SELECT count(*) FROM schedules_occurrence WHERE schedule_id = ANY(%s)"
            " AND state NOT IN ('materialising', 'waiting')",
            wanted,
        )
        return found[0][0] == len(wanted) and not self.tally("pending", "sending", of=wanted)

    def await_sent(self, count: int, *, seconds: float = 60.0) -> None:
        self.until(f"{count} sent", lambda: self.tally("sent") >= count, seconds=seconds)

    def drain(self, *, seconds: float = 0.0, hurries: bool = True, hurry_s: float = _HURRY_S) -> None:
        """Until every row has an outcome and every occurrence is closed, or ``seconds`` have passed.

        Held answers are let run out at once: nothing else is shown by fifteen minutes of waiting. In the quick version
        so are the deadlines of the dead, now and then, as long as ``hurries``.
        """
        running = self.world.running
        deadline = time.monotonic() + (seconds or self.world.size(120, 400))
        hurry_at = time.monotonic()
        while time.monotonic() < deadline:
            if self.world.is_quick and hurries and time.monotonic() > hurry_at:
                self.world.hurry()
                hurry_at = time.monotonic() + hurry_s
            running.assert_books_close()
            if self.recovered is None and self.harmed and self.is_through():
                self.recovered = time.monotonic() - self.harmed
            if not self._unsettled():
                return
            running.sql(
                "UPDATE delivery_delivery SET leased_until = leased_until - interval '15 min'"
                " WHERE state = 2 AND leased_until > clock_timestamp()"
            )
            time.sleep(_POLL_S)

    def _unsettled(self) -> list[str]:
        rows = self.world.running.sql(
            "SELECT s.name, o.state, o.held_reason FROM schedules_schedule s"
            " LEFT JOIN schedules_occurrence o ON o.schedule_id = s.id"
            " WHERE s.id = ANY(%s) AND o.closed_at IS NULL AND s.status NOT IN ('cancelled', 'deleted')"
            " OR o.schedule_id = ANY(%s) AND o.closed_at IS NULL",
            [*self.ids.values()], [*self.ids.values()],
        )  # fmt: skip
        return [f"{name}: its occurrence is {state} {held}" for name, state, held in rows]

    def verdict(self) -> Verdict:
        """What the oracle says of the scene as it stands."""
        books = [f"occurrence {row[0]}: books don't close" for row in self.world.running.open_books()]
        return judge(self.plan, self.accepted(), self._rows(), unsettled=[*self._unsettled(), *books])

    def accepted(self) -> list[Accepted]:
        """What providers took, by the stubs' logs; in the app, what lies in the inboxes."""
        running = self.world.running
        taken = [*_messages("email", read_log(running.log)), *_messages("push", read_log(running.push_log))]
        inbox = running.sql(
            "SELECT m.created_at, r.external_id, m.title FROM delivery_inboxmessage m"
            " JOIN schedules_recipient r ON r.id = m.recipient_id WHERE m.title LIKE %s",
            f"{self.name}-%",
        )
        return [*taken, *(Accepted(at, "in_app", name, title) for at, name, title in inbox)]

    def _rows(self) -> list[Row]:
        names = {recipient: name for name, recipient in self.recipients.items()}
        rows = self.world.running.sql(
            "SELECT s.name, d.recipient_id, d.state, d.reason FROM delivery_delivery d"
            " JOIN schedules_occurrence o ON o.id = d.occurrence_id JOIN schedules_schedule s ON s.id = o.schedule_id"
            " WHERE s.id = ANY(%s)",
            [*self.ids.values()],
        )
        return [
            Row(name, names.get(recipient, f"recipient {recipient}"), STATES[state], reason)
            for name, recipient, state, reason in rows
        ]


def _messages(channel: str, lines: Iterable[Mapping[str, Any]]) -> Iterator[Accepted]:
    for line in lines:
        yield Accepted(
            datetime.fromisoformat(line["at"]), channel, line["to"], line["subject"],
            line.get("collapse_id", ""), line["text_sha256"],
        )  # fmt: skip


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _children(pid: int) -> list[int]:
    shown = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in shown.stdout.split()]


def _processes(env: dict[str, str]) -> list[Process]:
    return [
        beat(name="beat-1", env=env, restarts=_RESTARTS),
        beat(name="beat-2", env=env, restarts=_RESTARTS),
        worker("clock", env=env, restarts=_RESTARTS),
        worker("materialise", env=env, restarts=_RESTARTS),
        *(worker("email", name=name, concurrency=EMAIL_PROCESSES, env=env, restarts=_RESTARTS)
          for name in EMAIL_WORKERS),
        worker("push", concurrency=PUSH_PROCESSES, env=env, restarts=_RESTARTS),
        worker("in_app", env=env, restarts=_RESTARTS),
    ]  # fmt: skip


@contextmanager
def running_world(root: Path, *, is_quick: bool, settings: Mapping[str, str] | None = None) -> Iterator[World]:
    """Two beats, eight e-mail processes in two workers, one worker for each other queue, on servers of their own."""
    shown = {
        "EMAIL_PROVIDER": "tests.chaos.deadly.DeadlySes",
        "PUSH_PROVIDER": "tests.chaos.deadly.DeadlyFcm",
        # A hundredth of the real delays, or a fifth.
        "RETRY_FIRST_DELAY_S": "0.1" if is_quick else "2",
        # What is broken here is meant to fail, and nobody is there to let it go on.
        "BRAKE_FAILURES": "1000000000",
        **(settings or {}),
    }
    with running_service(root, _processes, settings=shown) as running:
        door = Door(running.env)
        try:
            door.open()
            yield World(running, door, is_quick)
        finally:
            door.close()
