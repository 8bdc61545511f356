"""Each scenario of ``make chaos`` in its quick version: the oracle finds nobody lost, doubled, haunted or stuck."""

import os
import random

import pytest

from tests.chaos.scenarios import SCENARIOS

SEED = int(os.environ.get("CHAOS_SEED", "0"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_nobody_is_lost_doubled_haunted_or_stuck(world, name: str) -> None:
    scene = SCENARIOS[name](world, random.Random(f"{name} {SEED}"))
    verdict = scene.verdict()
    assert verdict.is_clean, verdict
    assert verdict.expected > 0
    assert verdict.accepted > 0
