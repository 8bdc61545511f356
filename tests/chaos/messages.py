"""What befalls the broker's messages: they come ten times, too early, too late. A message is but a hint."""

import random
import threading
import time
from typing import Self

from celery import Celery
from redis import Redis

from scheduler_project.local.fleet import worker
from tests.chaos.scene import Scene, begin
from tests.chaos.world import World

QUEUES = ("clock", "materialise", "email", "push", "in_app")


def tenfold(world: World, chance: random.Random) -> Scene:
    """Every message ten times, to workers, materialiser and clock; two beats tick all the while."""
    scene = begin(world, "tenfold", chance)
    scene.people(world.size(1_000, 20_000))
    scene.schedules(seconds=4)
    scene.until("materialised", lambda: scene.tally("pending") > 0)
    occurrences = _column(scene, "SELECT id FROM schedules_occurrence WHERE schedule_id = ANY(%s)")
    batches = _column(
        scene,
        "SELECT b.id FROM delivery_batch b JOIN schedules_occurrence o ON o.id = b.occurrence_id"
        " WHERE o.schedule_id = ANY(%s)",
    )
    broker = Celery(broker=world.running.env["BROKER_URL"])
    for _ in range(10):
        broker.send_task("delivery.send", kwargs={"batch_ids": batches}, queue="email")
        for occurrence in occurrences:
            broker.send_task("delivery.materialise", kwargs={"occurrence_ids": [occurrence]}, queue="materialise")
        broker.send_task("delivery.tick", queue="clock")
        broker.send_task("delivery.sweep", queue="clock")
    scene.drain(hurries=False)
    return scene


def hasty(world: World, chance: random.Random) -> Scene:
    """The broker hands a message out again while its task still runs: a visibility timeout of two seconds."""
    scene = begin(world, "hasty", chance)
    scene.people(world.size(1_500, 20_000))
    env = {**world.running.env, "VISIBILITY_TIMEOUT_S": "2"}
    with world.running.alongside(worker("email", name=f"{scene.name}", concurrency=2, env=env)):
        time.sleep(world.size(4, 6))
        scene.think(1.5)
        scene.schedules(seconds=3)
        scene.drain(hurries=False)
    world.calm()
    return scene


def delayed(world: World, chance: random.Random) -> Scene:
    """About half of all messages come up to half a minute late, and some of those twice."""
    scene = begin(world, "delayed", chance)
    scene.people(world.size(300, 2_000), has_device=True)
    channels = ("email", "push", "in_app")
    held = _Held(world.running.broker.url, longest_s=world.size(3, 30), chance=random.Random(chance.random()))
    with held:
        for _ in scene.strikes(lambda: scene.schedules(channel=chance.choice(channels), seconds=3), most=2, quick=3):
            scene.harm()
    scene.points = held.count
    scene.drain()
    return scene


class _Held(threading.Thread):
    """Takes messages from their queues as the workers do, and brings them back later. All are back when it ends."""

    def __init__(self, broker: str, *, longest_s: float, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self._broker, self._longest_s, self._chance = broker, longest_s, chance
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        later: list[tuple[float, bytes, bytes]] = []
        with Redis.from_url(self._broker) as broker:
            while later or not self._over.is_set():
                if not self._over.is_set() and (found := broker.blpop(QUEUES, timeout=0.1)):
                    self.count += 1
                    for _ in range(self._chance.choice((1, 1, 2))):
                        later.append((time.monotonic() + self._chance.uniform(0.5, self._longest_s), *found))
                due = [each for each in later if each[0] < time.monotonic()]
                later = [each for each in later if each not in due]
                for _, queue, message in due:
                    broker.lpush(queue, message)
                if self._over.is_set():
                    time.sleep(0.1)


def _column(scene: Scene, statement: str) -> list[int]:
    return [pk for (pk,) in scene.world.running.sql(statement, [*scene.ids.values()])]
