"""Redis servers that a test may flush, silence and kill, while the shared counters stay as they are; rivals."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from delivery import caps, counters
from delivery.models import State
from scheduler_project.local.redis import Server, running_server
from scheduler_project.local.redis_cluster import Cluster, running_cluster
from tests.cap_oracle import Books
from tests.counting import flush
from tests.factories import ScheduleFactory, people
from tests.interleaving import Meeting
from tests.races import claim_some


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


@contextmanager
def _counters_on(servers: Sequence[Server], settings: Any) -> Iterator[None]:
    settings.COUNTERS_URL = servers[0].url
    counters._client.cache_clear()
    counters._pause.until = 0.0
    flush(servers)
    yield
    counters._client.cache_clear()
    counters._pause.until = 0.0


@pytest.fixture
def own_counters(redis_server: Server, settings: Any) -> Iterator[Server]:
    """The counters are on a server of the test's own."""
    with _counters_on([redis_server], settings):
        yield redis_server


@pytest.fixture
def cluster_counters(redis_cluster: Cluster, settings: Any) -> Iterator[Cluster]:
    """The counters are on the three nodes of the session's cluster."""
    with _counters_on(redis_cluster.nodes, settings):
        yield redis_cluster


@pytest.fixture(params=["single", "cluster"])
def servers(request: pytest.FixtureRequest) -> Sequence[Server]:
    """The counters are on one server, and in another run on the three nodes of a cluster."""
    if request.param == "single":
        return [request.getfixturevalue("own_counters")]
    return request.getfixturevalue("cluster_counters").nodes


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    """A ledger in memory, which the caps ask in the place of the real one."""
    books = Books()
    monkeypatch.setattr(caps, "usage", books)
    return books


@pytest.fixture
def meeting(service, monkeypatch):
    met = Meeting(monkeypatch)
    yield met
    met.close()


@pytest.fixture
def started(service, provider):
    """A schedule of 120 people, 50 of them sent to, the rest published to a worker: (schedule, batch ids)."""
    people(120)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    claim_some(message.batch_ids, settle_as=State.SENT)
    return schedule, message.batch_ids
