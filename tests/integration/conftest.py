"""Redis servers that a test may flush, silence and kill: the shared counters stay as they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler_project.local.redis import Server, running_server
from scheduler_project.local.redis_cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, shared by the tests of a session: leave all of them running."""
    with running_cluster(root=tmp_path_factory.mktemp("redis-cluster")) as cluster:
        yield cluster


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own."""
    with running_server(root=tmp_path) as server:
        yield server
