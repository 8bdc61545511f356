"""What is done to a whole deployment. Each scenario strikes at random instants, each time during a run of its own."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from scheduler_project.cluster.rolling import restart_all
from scheduler_project.cluster.zones import ZONES
from tests.chaos.deployment import Deployment
from tests.chaos.hour import hour
from tests.chaos.scene import Scene, begin

Scenario = Callable[[Deployment, random.Random], Scene]
CHANNELS = ("email", "push", "in_app")
# Seconds of writes that a replica may lack when it takes over.
_LAG_S = 5.0
_HOUR = timedelta(hours=1)
# Until a run is due.
_SOON_S = 2.5


def zone(world: Deployment, chance: random.Random) -> Scene:
    """kill -9 of half of all processes, a zone with its PgBouncer, under load; and back again."""
    scene = _crowd(world, "zone", chance, thinks_s=2.0)
    with world.traffic() as counted:
        for _ in scene.strikes(_runs(scene), most=8):
            zone = chance.choice(ZONES)
            scene.harm(dead=world.children("email"))
            world.cluster.kill_zone(zone)
            scene.pause_at_random(3)
            world.cluster.bring_back(zone)
        world.calm()
        scene.drain()
    scene.api_success = counted.success
    return scene


def rolling(world: Deployment, chance: random.Random) -> Scene:
    """Everything is restarted in good order, one process after another, while runs go on: nobody ends as unclear."""
    scene = _crowd(world, "rolling", chance, thinks_s=1.0)
    run = _runs(scene)

    def said(_: str) -> None:
        scene.harm()
        run()

    with world.traffic() as counted:
        run()
        scene.points = len(restart_all(world.cluster, said=said)) + 1  # the proxy
        world.calm()
        scene.drain()
    scene.api_success = counted.success
    return scene


def failover(world: Deployment, chance: random.Random) -> Scene:
    """A Redis, the broker's or one of the counters', comes back as it was five seconds ago while caps are raced."""
    scene = begin(world, "failover", chance)
    cap = chance.randint(1, 3)

    def run() -> None:
        group = f"crowd-{scene.points}"
        scene.people(400, group=group)
        scene.schedules(cap + 2, group=group, seconds=3, per_day=cap, label=group)

    for _ in scene.strikes(run, most=3):
        server = chance.choice([*world.running.counters, world.running.broker])
        world.fail_over(server, lost_s=_LAG_S, away_s=chance.uniform(0, 2))
        scene.harm()
    scene.drain()
    return scene


def memory(world: Deployment, chance: random.Random) -> Scene:
    """The broker's memory is used up: nothing can be queued, and what is taken can't be noted."""
    scene = _crowd(world, "memory", chance, thinks_s=0.5)
    refused = world.refused_for_memory()
    for _ in scene.strikes(_runs(scene), most=6):
        with world.full_broker():
            scene.harm()
            scene.pause_at_random(6)
    assert world.refused_for_memory() > refused
    world.calm()
    scene.drain()
    return scene


def pool(world: Deployment, chance: random.Random) -> Scene:
    """Every connection of a zone's PgBouncer is taken, or of both: who waits longer than ten seconds is refused."""
    scene = _crowd(world, "pool", chance, thinks_s=0.5)
    for _ in scene.strikes(_runs(scene), most=6):
        zones = chance.choice([*((each,) for each in ZONES), ZONES])
        scene.harm()
        with world.taken_places(zones):
            time.sleep(chance.uniform(1, 13))
    world.calm()
    scene.drain()
    return scene


def sluggish(world: Deployment, chance: random.Random) -> Scene:
    """PostgreSQL stands still, or nobody may write to a table, or each write takes long."""
    scene = _crowd(world, "sluggish", chance, thinks_s=0.5)
    tables = ("delivery_batch", "delivery_delivery", "schedules_schedule", "schedules_occurrence")
    for _ in scene.strikes(_runs(scene), most=6):
        slow: AbstractContextManager[None] = chance.choice(
            [
                world.still_database(),
                world.locked_table(chance.choice(tables)),
                world.slow_writes(chance.choice(tables), seconds=chance.uniform(0.1, 1)),
            ]
        )
        scene.harm()
        with slow:
            time.sleep(chance.uniform(0.5, 9))
    world.calm()
    scene.drain()
    return scene


def clocks(world: Deployment, chance: random.Random) -> Scene:
    """Business time goes ahead by hours, and back again, while runs wait and go on."""
    scene = _crowd(world, "clocks", chance, thinks_s=0.5)
    shown = [(datetime.now(UTC), scene.ahead)]

    def run() -> None:
        """Some are due at once, and some in an hour: these are sent when the clock is put there."""
        for channel in ("email", "push"):  # what lies in an inbox bears business time
            scene.schedules(channel=channel, seconds=chance.choice([_SOON_S, _SOON_S, 3_595]), grace=240)

    def put(to: timedelta) -> None:
        scene.ahead = to
        shown.append((datetime.now(UTC), to))
        world.set_clock(to)

    try:
        for _ in scene.strikes(run, most=6):
            scene.harm()
            put(chance.choice([hours * _HOUR for hours in (-1, 0, 1, 2) if hours * _HOUR != scene.ahead]))
            scene.pause_at_random(3)
        put(3 * _HOUR)  # nothing waits any more
        world.calm()
        scene.drain()
    finally:
        put(timedelta(0))
    for schedule in scene.plan.schedules.values():
        (span,) = schedule.spans
        schedule.spans = [replace(span, at=reached(span.at, after=span.begun, shown=shown))]
    return scene


def reached(instant: datetime, *, after: datetime, shown: Sequence[tuple[datetime, timedelta]]) -> datetime:
    """When ``instant`` was first reached after a real instant, by a clock that was so far ahead from when on."""
    ends = [begun for begun, _ in shown[1:]] + [datetime.max.replace(tzinfo=UTC)]
    for (begun, ahead), ended in zip(shown, ends, strict=True):
        if (real := max(instant - ahead, begun, after)) < ended:
            return real
    raise AssertionError("the last one has no end")


def _crowd(world: Deployment, name: str, chance: random.Random, *, thinks_s: float) -> Scene:
    """People for runs, and providers that take a while over each call, so that a run lasts some seconds."""
    scene = begin(world, name, chance)
    scene.people(1_500, has_device=True)
    scene.think(thinks_s)
    scene.think(thinks_s, channel="push")
    return scene


def _runs(scene: Scene) -> Callable[[], None]:
    """To all of them by e-mail, and by another channel."""

    def run() -> None:
        scene.schedules(seconds=_SOON_S)
        scene.schedules(channel=scene.chance.choice(CHANNELS), seconds=_SOON_S)

    return run


DEPLOYED: dict[str, Scenario] = {
    each.__name__: each for each in (zone, rolling, failover, memory, pool, sluggish, clocks, hour)
}
