"""Each scenario of ``make chaos`` in its quick version: the oracle finds nobody lost, doubled, haunted or stuck."""

import os
import random

import pytest

from tests.chaos.scenarios import SCENARIOS
from tests.chaos.world import World

SEED = int(os.environ.get("CHAOS_SEED", "0"))
# These are in test_more_faults.
MORE = ("tenfold", "race", "moods", "slow", "marketer")
# Waits more than six seconds at each of its points; `marketer` does the same once.
LONG = ("halts",)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in MORE + LONG])
def test_nobody_is_lost_doubled_haunted_or_stuck(world, name: str) -> None:
    judge(world, name)


def judge(world: World, name: str) -> None:
    scene = SCENARIOS[name](world, random.Random(f"{name} {SEED}"))
    verdict = scene.verdict()
    assert verdict.is_clean, verdict
    assert verdict.expected > 0
    assert verdict.accepted > 0
