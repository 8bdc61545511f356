"""What is done to the service. Each scenario makes a scene, harms what it can, and lets the scene drain."""

import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.changes import halts, marketer
from tests.chaos.messages import delayed, hasty, tenfold
from tests.chaos.scene import Scene, begin
from tests.chaos.world import Refused, World

# See tests.chaos.deadly, which belongs to the service's side.
POISON = "poison-"
Scenario = Callable[[World, random.Random], Scene]


def kills(world: World, chance: random.Random) -> Scene:
    """kill -9 of children, whole workers, beat and the clock's worker, and of a tick between claim and publish.

    Among the people of each call are some who are at their cap already: who dies may be about to turn them away.
    """
    scene = begin(world, "kills", chance)
    scene.people(world.size(1_200, 25_000), has_device=True)
    scene.people(world.size(300, 5_000), group="full", also=("all",), has_device=True)
    cap = chance.randint(1, 3)
    scene.schedules(cap, channel="in_app", group="full", label="earlier", per_day=cap)
    scene.drain(hurries=False)
    at, before = datetime.now(UTC) + timedelta(seconds=4), scene.tally("sent")
    for channel, count in (("email", 2), ("push", 1), ("in_app", 1)):
        scene.schedules(count, channel=channel, at=at, per_day=cap)
    scene.think(0.5)
    scene.think(0.5, channel="push")
    scene.await_sent(before + 1)
    first, second = world.names("email")
    # What push and in-app have in flight is repeated: under the same collapse id, or not having been written at all.
    others = ("push", "in_app", "beat", "clock")
    victims: list[tuple[int, Callable[[], object]]] = [
        (1, lambda: world.kill_child(first, chance)),
        (world.children("email"), lambda: world.kill(second)),
        *((0, lambda kind=kind: world.kill(chance.choice(world.names(kind)))) for kind in others),
        (0, lambda: _take_due_and_die(world)),
    ]
    chance.shuffle(victims)
    for dead, strike in victims * world.size(1, 3):
        scene.pause_at_random(world.size(1, 6) * 0.5)
        scene.points += 1
        scene.harm(dead=dead)
        strike()
    world.calm()
    scene.drain()
    return scene


def broker(world: World, chance: random.Random) -> Scene:
    """The broker loses everything while it runs, then is killed and comes back empty."""
    scene = begin(world, "broker", chance)
    scene.people(world.size(1_500, 30_000))
    scene.schedules(2, seconds=3)
    scene.think(0.5)
    scene.await_sent(1)
    for _ in range(world.size(1, 3)):
        scene.pause_at_random(1)
        scene.harm()
        world.running.flush(world.running.broker)
        scene.pause_at_random(2)
        scene.harm()  # a task whose broker is gone goes on
        world.running.broker.kill()
        scene.pause_at_random(world.size(2, 10))
        world.running.broker.start()
    world.calm()
    scene.drain()
    return scene


def database(world: World, chance: random.Random) -> Scene:
    """PostgreSQL crashes, and is restarted in good order, while calls are in flight."""
    scene = begin(world, "database", chance)
    scene.people(world.size(1_500, 30_000))
    scene.schedules(2, seconds=3)
    scene.think(0.5)
    scene.await_sent(1)
    for number in (signal.SIGKILL, signal.SIGINT) * world.size(1, 2):
        scene.pause_at_random(world.size(1, 5))
        scene.harm()
        world.running.restart_database(number)
    world.calm()
    scene.drain()
    return scene


def race(world: World, chance: random.Random) -> Scene:
    """Eight processes race twenty schedules on three channels to the same people, who may get a few of them a day.

    Others have got all but one of their week's messages days before.
    """
    scene = begin(world, "race", chance)
    scene.people(world.size(300, 5_000), has_device=True)
    scene.people(world.size(150, 2_000), group="weekly", has_device=True)
    a_day, a_week = chance.randint(1, 3), chance.randint(2, 4)
    earlier = scene.schedules(a_week - 1, group="weekly", label="earlier")
    scene.schedules(channel="in_app", group="weekly", counts=False, label="uncounted")
    scene.drain(hurries=False)
    scene.age(earlier, days=chance.randint(2, 6))
    at = datetime.now(UTC) + timedelta(seconds=world.size(6, 10))
    for channel, count in (("email", 12), ("push", 4), ("in_app", 4)):
        scene.schedules(count, channel=channel, at=at, per_day=a_day)
    for channel in ("email", "push", "in_app"):
        scene.schedules(2, channel=channel, group="weekly", at=at, per_day=a_week, per_week=a_week, label="weekly")
    scene.drain(hurries=False)
    return scene


def counters(world: World, chance: random.Random) -> Scene:
    """The counters of the caps are flushed, killed and away for a minute (quick: ten seconds) while caps are raced."""
    scene = begin(world, "counters", chance)
    scene.people(world.size(400, 5_000))
    cap = chance.randint(2, 4)
    scene.schedules(cap - 1, seconds=3, per_day=cap)
    scene.drain(hurries=False)
    scene.think(0.5)
    scene.schedules(5, seconds=2, per_day=cap)
    before = scene.tally("sent")
    scene.until("some of the second crowd", lambda: scene.tally("sent") > before)
    world.running.flush(*world.running.counters)
    scene.pause_at_random(1)
    scene.harm()
    node = chance.choice(world.running.counters)
    node.kill()
    time.sleep(world.size(10, 60))
    node.start()
    if not world.is_quick:
        scene.pause_at_random(5)
        scene.harm()
        node.silence()
        time.sleep(chance.uniform(5, 20))
        node.wake()
    scene.harm()
    world.calm()
    scene.drain()
    return scene


# What each crowd's provider does to it. What it accepts without saying so leaves people unclear, or gets repeated.
_MOODS: dict[str, list[dict[str, Any]]] = {
    "throttled": [{"kind": "status", "status": 429, "retry_after": 2, "count": 2}],
    "hiccup": [{"kind": "status", "status": 500, "count": 2}],
    "broken": [{"kind": "status", "status": 500}],
    "garbage": [{"kind": "garbage", "rate": 0.4}],
    "nothing": [{"kind": "garbage", "rate": 0.4, "accept": False}],
    "silent": [{"kind": "silence", "count": 1}],
    "deaf": [{"kind": "silence", "count": 1, "accept": False}],
    "half": [{"kind": "half", "rate": 0.4}],
    "reset": [{"kind": "reset", "rate": 0.4}],
}
_UNCLEAR_MOODS = ("garbage", "nothing", "silent", "deaf", "half", "reset", "short")


def moods(world: World, chance: random.Random) -> Scene:
    """429 with Retry-After, 500 twice, always 500, garbage, silence, halves, resets and single entries, at once."""
    scene = begin(world, "moods", chance)
    moods = _MOODS | {
        "short": [{"kind": "short", "rate": 0.4}],
        "patchy": [{"kind": "bulk_entry_status", "code": "TRANSIENT_FAILURE", "rate": 0.3}],
    }
    for channel in ("email", "push"):
        rules = []
        for mood, made in moods.items():
            if channel == "push" and mood in ("short", "patchy"):  # there is no bulk call
                continue
            group = f"{mood}-{channel}"
            people = scene.people(world.size(40, 400), group=group, has_device=channel == "push")
            schedule = scene.schedules(channel=channel, group=group, seconds=10, label=group)[0]
            if mood in ("broken", "patchy"):  # a patch may hit the same person each time
                schedule.refused = frozenset(person.name for person in people)
            if mood in _UNCLEAR_MOODS:
                scene.doubt(people)
            to = f"*@{group}.example" if channel == "email" else f"token-*-{group}-*"
            rules += [{**rule, "match": {"to": to}} for rule in made]
        stub = world.running.stub if channel == "email" else world.running.push_stub
        stub.fault(*rules, seed=chance.randrange(1_000_000))
    scene.drain(seconds=world.size(90, 600))
    world.calm()
    return scene


def slow(world: World, chance: random.Random) -> Scene:
    """A provider that takes half a minute over each call, beside quick ones: first push is slow, then e-mail."""
    scene = begin(world, "slow", chance)
    for slow_one, quick_one in (("push", "email"), ("email", "push")):
        group = f"{slow_one}-slow"
        people = scene.people(world.size(150, 1_000), group=group, has_device=True, oddities=False)
        scene.people(world.size(300, 5_000), group=quick_one, has_device=True)
        scene.doubt(people)
        scene.think(30, channel=slow_one)
        scene.schedules(channel=slow_one, group=group, seconds=3, label=group)
        scene.until("slow calls under way", lambda: scene.tally("sending") > 0)
        quick = [
            *scene.schedules(2, channel=quick_one, group=quick_one, seconds=3, label=f"{quick_one}-quick", within=10),
            *scene.schedules(channel="in_app", group=quick_one, seconds=3, within=10, label=f"{quick_one}-app"),
        ]
        done = [scene.ids[schedule.name] for schedule in quick]
        scene.until("the quick ones sent", lambda: scene.is_through(done), seconds=60)  # noqa: B023
        world.calm()
    scene.drain()
    return scene


def crashes(world: World, chance: random.Random) -> Scene:
    """Messages to some people kill their worker each time: the loop ends, and the others get theirs."""
    scene = begin(world, "crashes", chance)
    deadly = world.size(1, world.points // 2)
    for channel in ("email", "push"):
        group = f"deadly-{channel}"
        scene.people(world.size(600, 4_000), group=group, has_device=True)
        scene.doubt(scene.people(deadly, group=group, has_device=True, prefix=POISON, oddities=False))
        scene.schedules(channel=channel, group=group)
        scene.points += deadly
    scene.let_die(deadly)  # by e-mail nobody is tried again; by push the others are, ever farther from the deadly one
    scene.drain(hurry_s=1)
    return scene


def _take_due_and_die(world: World) -> None:
    try:
        world.door.ask("take_due_and_die")
    except Refused:
        world.door.open()


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        *(tenfold, kills, broker, database, race, counters, moods, slow, marketer, hasty, crashes),
        *(halts, delayed),
    )
}
