"""What is done to the service. Each scenario makes a scene, harms what it can, and lets the scene drain."""

import random
import signal
from collections.abc import Callable

from celery import Celery

from tests.chaos.world import CALLS_IN_FLIGHT, EMAIL_PROCESSES, EMAIL_WORKERS, Refused, Scene, World

Scenario = Callable[[World, random.Random], Scene]


def tenfold(world: World, chance: random.Random) -> Scene:
    """Every message ten times, to workers, materialiser and clock; two beats tick all the while."""
    scene = world.scene("tenfold", chance)
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
            broker.send_task("delivery.materialise", kwargs={"occurrence_id": occurrence}, queue="materialise")
        broker.send_task("delivery.tick", queue="clock")
        broker.send_task("delivery.sweep", queue="clock")
    scene.drain(hurries=False)
    return scene


def kills(world: World, chance: random.Random) -> Scene:
    """kill -9 of a child, a whole worker, beat and the clock's worker, and of a tick between claim and publish."""
    scene = world.scene("kills", chance)
    scene.people(world.size(1_500, 30_000))
    scene.schedules(2, seconds=3)
    scene.think(world.size(1, 1) * 0.5)
    scene.await_sent(1)
    victims = [
        lambda: world.kill_child(EMAIL_WORKERS[0], chance),
        lambda: world.kill(EMAIL_WORKERS[1]),
        lambda: world.kill("beat-1"),
        lambda: world.kill("clock"),
        lambda: _take_due_and_die(world),
    ]
    chance.shuffle(victims)
    for strike in victims * world.size(1, 3):
        scene.pause_at_random(world.size(1, 6) * 0.5)
        scene.harm(unclear_calls=CALLS_IN_FLIGHT * EMAIL_PROCESSES)
        strike()
    world.running.stub.clear_faults()
    scene.drain()
    return scene


def broker(world: World, chance: random.Random) -> Scene:
    """The broker loses everything while it runs, then is killed and comes back empty."""
    scene = world.scene("broker", chance)
    scene.people(world.size(1_500, 30_000))
    scene.schedules(2, seconds=3)
    scene.think(0.5)
    scene.await_sent(1)
    for _ in range(world.size(1, 3)):
        scene.pause_at_random(1)
        scene.harm()
        world.running.flush(world.running.broker)
        scene.pause_at_random(2)
        scene.harm(unclear_calls=CALLS_IN_FLIGHT * EMAIL_PROCESSES * 2)
        world.running.broker.kill()
        scene.pause_at_random(world.size(2, 10))
        world.running.broker.start()
    world.running.stub.clear_faults()
    scene.drain()
    return scene


def database(world: World, chance: random.Random) -> Scene:
    """PostgreSQL crashes, and is restarted in good order, while calls are in flight."""
    scene = world.scene("database", chance)
    scene.people(world.size(1_500, 30_000))
    scene.schedules(2, seconds=3)
    scene.think(0.5)
    scene.await_sent(1)
    for number in (signal.SIGKILL, signal.SIGINT) * world.size(1, 2):
        scene.pause_at_random(world.size(1, 5))
        scene.harm()
        world.running.restart_database(number)
    world.running.stub.clear_faults()
    scene.drain()
    return scene


def _column(scene: Scene, statement: str) -> list[int]:
    return [pk for (pk,) in scene.world.running.sql(statement, [*scene.ids.values()])]


def _take_due_and_die(world: World) -> None:
    try:
        world.door.ask("take_due_and_die")
    except Refused:
        world.door.open()


SCENARIOS: dict[str, Scenario] = {each.__name__: each for each in (tenfold, kills, broker, database)}
