"""One service for the quick scenarios of a file: they come one after the other, each with people of its own."""

from collections.abc import Iterator

import pytest

from tests.chaos.world import World, running_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("chaos"), is_quick=True) as world:
        yield world


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left alone with one in the end."""
    first = ["test_faults", "test_every_page", "test_more_faults", "test_us07", "test_wizard", "test_metrics"]
    items.sort(key=lambda item: first.index(item.path.stem) if item.path.stem in first else len(first))
