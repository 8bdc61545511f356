"""An hour of the test clock over thousands of schedules, by two beats: every occurrence is there, and once."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from celery import Celery

from tests.chaos.deployment import Deployment
from tests.chaos.oracle import Verdict
from tests.chaos.scene import Scene

SCHEDULES = 5_000
GROUPS = 50
# Real seconds in which the hour passes, and how often the clock is put ahead in them.
_LASTS_S = 150.0
_STEP_S = 0.2
_HOUR = timedelta(hours=1)
_NEVER = datetime.min.replace(tzinfo=UTC)
# One in so many fires twice in the hour.
_TWICE = 10
_SETTLED_S = 900.0


@dataclass
class Hour(Scene):
    """``minutes``: past which of them each schedule fires, by name; ``groups``: to whom."""

    begins: datetime = _NEVER
    minutes: dict[str, list[int]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def expected(self) -> dict[tuple[int, datetime], int]:
        """To how many people, by schedule and occurrence. The hour begins between two minutes."""
        first = self.begins.replace(minute=0, second=0)
        return {
            (self.ids[name], at if at > self.begins else at + _HOUR): self.groups[name]
            for name, minutes in self.minutes.items()
            for at in (first + timedelta(minutes=minute) for minute in minutes)
        }

    def verdict(self) -> Verdict:
        """By the occurrences that were opened, and by what lies in the inboxes."""
        sql = self.world.running.sql
        mine = [*self.ids.values()]
        opened = sql(
            "SELECT schedule_id, occurrence_at, targeted, closed_at IS NULL FROM schedules_occurrence"
            " WHERE schedule_id = ANY(%s)",
            mine,
        )
        inbox = sql(
            "SELECT o.schedule_id, o.occurrence_at, m.recipient_id FROM delivery_inboxmessage m"
            " JOIN schedules_occurrence o ON o.id = m.occurrence_id WHERE o.schedule_id = ANY(%s)",
            mine,
        )
        verdict = judge(self.expected(), Counter((pk, at) for pk, at, _, _ in opened), Counter(inbox))
        verdict.stuck += [f"schedule {pk} at {at}: not closed" for pk, at, _, is_open in opened if is_open]
        verdict.stuck += [f"occurrence {row[0]}: books don't close" for row in self.world.running.open_books()]
        return verdict


def judge(
    expected: Mapping[tuple[int, datetime], int],
    opened: Mapping[tuple[int, datetime], int],
    inbox: Mapping[tuple[int, datetime, int], int],
) -> Verdict:
    """``expected``: people, ``opened``: occurrences, both by schedule and instant; ``inbox``: copies, by person too."""
    verdict = Verdict(expected=sum(expected.values()), accepted=sum(inbox.values()))
    reached = Counter((pk, at) for pk, at, _ in inbox)
    for key in expected.keys() | opened.keys() | reached.keys():
        name = f"schedule {key[0]} at {key[1]:%H:%M:%S}"
        people = expected.get(key, 0)
        if not people:
            verdict.ghost.append(f"{name}: {opened.get(key, 0)} occurrences, where there should be none")
        elif opened.get(key, 0) != 1 or reached[key] < people:
            kind = verdict.doubled if opened.get(key, 0) > 1 else verdict.lost
            kind.append(f"{name}: {opened.get(key, 0)} occurrences, {reached[key]} of {people} people reached")
        elif reached[key] > people:
            verdict.ghost.append(f"{name}: {reached[key]} people reached, {people} were meant")
    verdict.doubled += [
        f"schedule {pk} to {person}: {copies} times" for (pk, _, person), copies in inbox.items() if copies > 1
    ]
    return verdict


def hour(world: Deployment, chance: random.Random) -> Scene:
    """Two beats, five thousand schedules, an hour: beats and clock workers are killed, ticks come ten times over."""
    world.scenes += 1
    # Between two minutes, so that none is on the edge.
    begins = datetime.now(UTC).replace(minute=0, second=30, microsecond=0) + 3 * _HOUR
    scene = Hour(world, f"hour-{world.scenes}", chance, begins=begins)
    for number in range(GROUPS):
        scene.people(chance.randint(1, 3), group=f"group-{number}", oddities=False)
    _make_schedules(scene)
    broker = Celery(broker=world.running.env["BROKER_URL"])
    harms: list[Callable[[], object]] = [
        lambda: world.kill(chance.choice(world.names("beat"))),
        lambda: world.kill(chance.choice(world.names("clock"))),
        lambda: [broker.send_task("delivery.tick", queue="clock") for _ in range(10)],
    ]
    strikes = sorted(chance.uniform(0, _LASTS_S) for _ in range(world.points))
    try:
        for passed in _passing(world, begins):
            while strikes and strikes[0] < passed:
                strikes.pop(0)
                chance.choice(harms)()
                scene.points += 1
        _await_closed(scene)
    finally:
        world.set_clock(timedelta(0))
    return scene


def _make_schedules(scene: Hour) -> None:
    asked = []
    for number in range(SCHEDULES):
        name, group = f"{scene.name}-{number}", f"{scene.name}-group-{number % GROUPS}"
        minutes = scene.chance.sample(range(60), 2 if number % _TWICE == 0 else 1)
        scene.minutes[name] = sorted(minutes)
        scene.groups[name] = sum(group in person.groups for person in scene.plan.people.values())
        asked.append({
            "name": name, "words": f"{scene.name} words", "channel": "in_app", "group": group,
            "cron": f"{','.join(map(str, sorted(minutes)))} * * * *",
            # On a slow machine the hour's work takes longer than the hour: nobody is too late by that.
            "misfire_grace_minutes": 1_440,
            "start_at": scene.begins.isoformat(), "end_at": (scene.begins + _HOUR).isoformat(),
        })  # fmt: skip
    _, _, ids = scene.world.door.ask("create", schedules=asked)
    scene.ids |= dict(zip(scene.minutes, ids, strict=True))


def _passing(world: Deployment, begins: datetime) -> Iterator[float]:
    """Let the hour pass, and some minutes; yield the real seconds that have."""
    ends = begins + _HOUR + timedelta(minutes=2)
    started = time.monotonic()
    first = begins - timedelta(seconds=90)
    speed = (ends - first).total_seconds() / _LASTS_S
    while (passed := time.monotonic() - started) < _LASTS_S:
        world.set_clock(first + timedelta(seconds=passed * speed) - datetime.now(UTC))
        yield passed
        time.sleep(_STEP_S)


def _await_closed(scene: Hour) -> None:
    deadline = time.monotonic() + _SETTLED_S
    while time.monotonic() < deadline:
        left = scene.world.running.sql(
            "SELECT count(*) FROM schedules_occurrence WHERE closed_at IS NULL AND schedule_id = ANY(%s)",
            [*scene.ids.values()],
        )
        if not left[0][0]:
            return
        time.sleep(1)
