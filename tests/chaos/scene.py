"""One scenario's people and schedules: made through the door, written down for the oracle, judged by it."""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.oracle import Accepted, Person, Plan, Row, Schedule, Span, Verdict, judge
from tests.chaos.world import UNKNOWN_S, Refused, World
from tests.running import KEYSET, STATES, read_log

# What the death of one process may leave unclear: people of a call, times calls in flight (docs/adr/0003).
CALL = 50
CALLS_IN_FLIGHT = 4
_POLL_S = 0.2
# Long enough for a message to be taken up before it is taken for lost.
_HURRY_S = 6.0
# A row held as unknown may still be answered by a worker that had lost the database.
_ANSWER_S = 4.0
# What the service says of an instant that is no more, and when that is no longer for slowness.
_PAST, _LONGEST_S = "has passed", 60.0


@dataclass
class Scene:
    """What was made for one scenario and what was done to it. All names begin with ``name``, which is nobody else's."""

    world: World
    name: str
    chance: random.Random
    plan: Plan = field(default_factory=Plan)
    ids: dict[str, int] = field(default_factory=dict)
    recipients: dict[str, int] = field(default_factory=dict)
    points: int = 0
    # How far business time is ahead of the real one.
    ahead: timedelta = timedelta(0)
    harmed: float | None = None
    recovered: float | None = None
    # The share of the API's requests that were answered meanwhile, where that is asked for.
    api_success: float | None = None

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
            "INSERT INTO schedules_recipient"
            " (external_id, email, email_index, locale, time_zone, attributes, tags, consent)"
            " SELECT name, email, index, 'en', zone, '{}', tags, consent FROM unnest(%s::text[], %s::bytea[],"
            " %s::uuid[], %s::text[], %s::jsonb[], %s::jsonb[]) AS v(name, email, index, zone, tags, consent)"
            " ON CONFLICT (external_id) DO UPDATE SET email = EXCLUDED.email RETURNING external_id, id",
            [person.name for person in people],
            [_kept(person.email, b"schedules_recipient.email") for person in people],
            [KEYSET.index_of_address(person.email) for person in people],
            [person.zone for person in people],
            [json.dumps(sorted(person.groups)) for person in people],
            [json.dumps(dict.fromkeys(sorted(person.refuses), False)) for person in people],
        )
        self.recipients |= dict(rows)
        devices = [(self.recipients[person.name], token) for person in people for token in person.tokens]
        sql(
            "INSERT INTO schedules_device (recipient_id, token, token_index, platform, active)"
            " SELECT recipient, token, index, 'android', true"
            " FROM unnest(%s::bigint[], %s::bytea[], %s::uuid[]) AS v(recipient, token, index)"
            " ON CONFLICT (token_index) DO NOTHING",
            [recipient for recipient, _ in devices],
            [_kept(token, b"schedules_device.token") for _, token in devices],
            [KEYSET.index_of_token(token) for _, token in devices],
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
        counts: bool = True,
        zone: str = "UTC",
        label: str = "",
        within: float | None = None,
        grace: int | None = None,
    ) -> list[Schedule]:
        """One-offs due in ``seconds``, or ``at``, to a group of this scene; ``zone`` is of those who have none.

        ``grace``: minutes after which it is too late to start, where that is not as usual.
        """
        names = [f"{self.name}-{label or channel}-{len(self.ids) + number}" for number in range(count)]
        asked = [
            {
                "name": name, "words": f"{name} first", "channel": channel, "group": f"{self.name}-{group}",
                "time_zone_mode": "user_local" if local else "fixed", "on_past": on_past,
                "max_per_user_per_day": per_day, "max_per_user_per_week": per_week, "counts_toward_caps": counts,
                "time_zone": zone, **({} if grace is None else {"misfire_grace_minutes": grace}),
            }
            for name in names
        ]  # fmt: skip
        due, begun, done, ids = self._create(asked, at, seconds)
        self.ids |= dict(zip(names, ids, strict=True))
        made = []
        for name in names:
            span = Span(begun, done, f"{self.name}-{group}", due, f"{name} first")
            schedule = Schedule(name, channel, [span], local, zone, on_past, per_day, per_week, counts)
            schedule.within = None if within is None else timedelta(seconds=within)
            made.append(schedule)
        self.plan.schedules |= {schedule.name: schedule for schedule in made}
        return made

    def _create(
        self, asked: Sequence[Mapping[str, Any]], at: datetime | None, seconds: float
    ) -> tuple[datetime, datetime, datetime, list[int]]:
        """(due, begun, done, ids). On a machine so slow that the instant passes meanwhile a later one is asked for."""
        self.world.door.await_ready()
        while True:
            due = at or datetime.now(UTC) + self.ahead + timedelta(seconds=seconds)
            try:
                begun, done, ids = self.world.door.ask(
                    "create", schedules=[{**each, "at": due.isoformat()} for each in asked]
                )
            except Refused as refused:
                if _PAST not in str(refused) or seconds > _LONGEST_S:
                    raise
                at, seconds = None, seconds * 2
            else:
                return due, begun, done, ids

    def change(self, schedule: Schedule, kind: str) -> None:
        """Pause, resume, cancel or delete, and write down when."""
        begun, done, _ = self.world.door.ask(kind, schedule=self.ids[schedule.name])
        schedule.change(kind, begun=begun, done=done)

    def stop(self, scope: str, schedules: Iterable[Schedule]) -> Callable[[], None]:
        """Stop sending; ``schedules`` are those of the scene under it. What is returned takes the stop back."""
        begun, done, _ = self.world.door.ask("stop", scope=scope)
        stopped = [schedule for schedule in schedules if schedule.spans[-1].sends]
        for schedule in stopped:
            schedule.change("stop", begun=begun, done=done)

        def go() -> None:
            begun, done, _ = self.world.door.ask("go", scope=scope)
            for schedule in stopped:
                schedule.change("go", begun=begun, done=done)

        return go

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

    def age(self, schedules: Iterable[Schedule], *, days: int) -> None:
        """Have the ledger say that these were sent days ago; the counters forget, and find it there."""
        for schedule in schedules:
            schedule.aged = timedelta(days=days)
            self.world.running.sql(
                "UPDATE delivery_delivery d SET claimed_at = d.claimed_at - %s FROM schedules_occurrence o"
                " WHERE o.schedule_id = %s AND d.occurrence_id = o.id",
                schedule.aged,
                self.ids[schedule.name],
            )
        self.world.running.flush(*self.world.running.counters)

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
        self.let_die(dead)

    def let_die(self, processes: int) -> None:
        """What so many deaths may leave unclear is within the promise."""
        self.plan.unclear += processes * CALL * CALLS_IN_FLIGHT

    def doubt(self, people: Iterable[Person]) -> None:
        """Their provider does not answer for these, so they may end as unclear."""
        self.plan.doubtful |= {person.name for person in people}

    def pause_at_random(self, most: float) -> None:
        time.sleep(self.chance.uniform(0, most))

    def strikes(self, run: Callable[[], object], *, most: float, quick: int = 2) -> Iterator[int]:
        """As often as there are points: after ``run``, at an instant of the following ``most`` seconds."""
        for _ in range(self.world.size(quick, self.world.points)):
            run()
            self.pause_at_random(most)
            self.points += 1
            yield self.points
            self.world.running.assert_books_close()

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

        Held answers are let run out soon: nothing else is shown by fifteen minutes of waiting. In the quick version
        so are the deadlines of the dead, now and then, as long as ``hurries``.
        """
        running = self.world.running
        deadline = time.monotonic() + (seconds or self.world.size(120, 400))
        # Whoever lives has answered by then.
        hurry_at = time.monotonic() + hurry_s
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
                "UPDATE delivery_delivery SET leased_until = clock_timestamp() WHERE state = 2"
                " AND leased_until BETWEEN clock_timestamp() AND clock_timestamp() + %s * interval '1 s'",
                UNKNOWN_S - _ANSWER_S,
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
            " JOIN schedules_recipient r ON r.id = m.recipient_id"
        )
        read = [(at, name, KEYSET.decrypt(title, b"delivery_inboxmessage.title").decode()) for at, name, title in inbox]
        mine = [each for each in read if each[2].startswith(f"{self.name}-")]
        return [*taken, *(Accepted(at, "in_app", name, title) for at, name, title in mine)]

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


def begin(world: World, name: str, chance: random.Random) -> Scene:
    """An empty scene; all chance in it comes from ``chance``."""
    world.scenes += 1
    return Scene(world, f"{name}-{world.scenes}", chance)


def _messages(channel: str, lines: Iterable[Mapping[str, Any]]) -> Iterator[Accepted]:
    for line in lines:
        yield Accepted(
            datetime.fromisoformat(line["at"]), channel, line["to"], line["subject"],
            line.get("collapse_id", ""), line["text_sha256"],
        )  # fmt: skip


def _kept(text: str, of: bytes) -> bytes:
    return KEYSET.encrypt(text.encode(), of) if text else b""
