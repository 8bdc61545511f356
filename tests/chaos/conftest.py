"""One service for all quick scenarios: they come one after the other, each with people of its own."""

from collections.abc import Iterator

import pytest

from tests.chaos.world import World, running_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("chaos"), is_quick=True) as world:
        yield world
