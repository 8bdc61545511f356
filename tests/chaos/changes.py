"""What people do in the middle of runs: they pause, stop, edit, cancel, delete and erase."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.oracle import LAST_CALL, Person, Schedule
from tests.chaos.scene import Scene, begin
from tests.chaos.world import World

# Where the hour of UTC is the present, the past, and nobody's; where it is yet to come, they are cancelled before.
_ZONES = ("", "UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Chatham", "Mars/Olympus")
_LATER = "America/St_Johns"


def marketer(world: World, chance: random.Random) -> Scene:
    """Pause, resume, edits, cancel, delete, and people deleted, in the middle of running schedules."""
    scene = begin(world, "marketer", chance)
    crowd = world.size(1_200, 12_000)
    paused, ended, removed, edited = ("paused", "ended", "removed", "edited")
    people = {group: scene.people(crowd, group=group) for group in (paused, ended, removed)}
    scene.people(crowd // 2, group=edited)
    scene.people(crowd // 2, group=edited, also=("new",), prefix="both-")
    scene.people(crowd // 2, group="new")
    scene.people(200, group="moved", has_device=True)
    locals_ = scene.people(70, group="local", zones=(*_ZONES, _LATER))
    scene.people(60, group="late", zones=_ZONES)
    scene.think(1.5)
    world.door.await_ready()
    at = datetime.now(UTC) + timedelta(seconds=5)
    hour: dict[str, Any] = {"channel": "in_app", "at": at, "local": True}
    local = scene.schedules(group="local", zone="Europe/Berlin", label="local", **hour)[0]
    scene.schedules(group="late", zone="Asia/Tokyo", on_past="send_now", label="late", **hour)
    moved = scene.schedules(channel="push", group="moved", seconds=3_600, label="moved")[0]
    at = datetime.now(UTC) + timedelta(seconds=4)
    by_group = {group: scene.schedules(group=group, at=at, label=group)[0] for group in (*people, edited)}
    scene.edit(moved, words="second", at=datetime.now(UTC) + timedelta(seconds=8))
    scene.await_sent(1)
    changes = [
        lambda: scene.change(by_group[paused], "pause"),
        lambda: scene.change(by_group[ended], "cancel"),
        lambda: scene.change(by_group[removed], "delete"),
        lambda: scene.edit(by_group[edited], words="second", group="new"),
        *(lambda person=person: scene.erase(person) for person in chance.sample(people[paused], world.size(10, 20))),
    ]
    chance.shuffle(changes)
    for change in changes:
        scene.pause_at_random(world.size(1, 4) * 0.1)
        scene.points += 1
        change()
    time.sleep(8)
    scene.change(by_group[paused], "resume")
    punctual = sum(person.zone == "UTC" and person.is_reachable("in_app") for person in locals_)
    of_local = [scene.ids[local.name]]
    scene.until("those whose hour it is", lambda: scene.tally("sent", of=of_local) == punctual)
    scene.change(local, "cancel")
    scene.drain(hurries=False)
    world.calm()
    return scene


# How a run is ended or held up; what takes that back again, if anything does.
_HALTS = ("pause", "cancel", "delete", "schedule", "channel", "all", "erase")


def halts(world: World, chance: random.Random) -> Scene:
    """Runs are paused, cancelled, deleted, stopped (alone, their channel, everything), and people of them erased."""
    scene = begin(world, "halts", chance)
    crowd = world.size(600, 2_500)
    scene.think(world.size(1, 2) * 0.5)
    made: list[Schedule] = []
    people: list[Person] = []

    def run() -> None:
        group = f"run-{len(made)}"
        people[:] = scene.people(crowd, group=group)
        made.extend(scene.schedules(group=group, seconds=3, label=group))

    kinds = [kind for _ in range(world.points) for kind in chance.sample(_HALTS, len(_HALTS))]
    for number in scene.strikes(run, most=5, quick=3):
        undo = _halt(scene, kinds[number], made, people)
        time.sleep(LAST_CALL.total_seconds() + chance.uniform(0.5, 1.5))
        undo()
    world.calm()
    scene.drain(hurries=False)
    return scene


def _halt(scene: Scene, kind: str, made: list[Schedule], people: list[Person]) -> Callable[[], None]:
    """Do it to the run that was made last; what is returned takes it back."""
    last = made[-1]
    if kind == "erase":
        for person in scene.chance.sample(people, 5):
            scene.erase(person)
    elif kind in ("schedule", "channel", "all"):
        scopes = {"schedule": f"schedule:{scene.ids[last.name]}", "channel": f"channel:{last.channel}", "all": "all"}
        return scene.stop(scopes[kind], [last] if kind == "schedule" else made)
    else:
        scene.change(last, kind)
        if kind == "pause":
            return lambda: scene.change(last, "resume")
    return lambda: None
