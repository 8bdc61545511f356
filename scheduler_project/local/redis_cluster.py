"""A Redis Cluster of three nodes on loopback, for tests and benchmarks of what must work on one."""

import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from redis import Redis as Client
from redis.exceptions import RedisError

from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.ports import LOOPBACK, is_free
from scheduler_project.local.redis import Redis, Server, started

_NODES = 3
_SLOTS = 16384
# A node's bus listens on its port + 10,000. Both lie below the ports that systems hand out to clients.
_PORTS = range(20_000, 22_700)
_BUS = 10_000
_AGREE_SECONDS = 15.0
_CONFIG = (
    "cluster-enabled yes",
    "cluster-config-file nodes.conf",
    # Real milliseconds of silence after which a node counts as failed.
    "cluster-node-timeout 1000",
    f"cluster-announce-ip {LOOPBACK}",
)


@dataclass(frozen=True)
class Cluster:
    """Three masters with a third of the slots each, without replicas: while one is down, so is the cluster."""

    nodes: list[Server]

    @property
    def url(self) -> str:
        """The first node's, by which `redis.cluster.RedisCluster.from_url` finds the others."""
        return self.nodes[0].url

    def agree(self) -> None:
        """Wait until every node sees every slot served: some 2 s after a start. Raises LocalServicesError."""
        deadline = time.monotonic() + _AGREE_SECONDS
        while not all(_is_content(node) for node in self.nodes):
            if time.monotonic() > deadline:
                raise LocalServicesError(f"the Redis Cluster did not agree; see {self.nodes[0].redis.log.parent}")
            time.sleep(0.02)


@contextlib.contextmanager
def running_cluster(*, root: Path) -> Iterator[Cluster]:
    """A cluster below `root`, for the time of the block and no longer than the thread that entered it.

    A node that was killed may be started again on its port; `agree` then waits for the others to take it back.
    Raises LocalServicesError when it does not start.
    """
    root.mkdir(parents=True, exist_ok=True)
    password = secrets.token_hex(16)
    nodes: list[Server] = []
    try:
        for number in range(1, _NODES + 1):
            nodes.append(started(_node(root, f"node-{number}", password), ports=_free_pair))
        cluster = Cluster(nodes)
        _join(nodes)
        cluster.agree()
        yield cluster
    finally:
        for node in nodes:
            node.kill()


def _node(root: Path, name: str, password: str) -> Redis:
    redis = Redis(name, root / name, root / f"{name}.log", password, _CONFIG)
    redis.prepare()
    (redis.home / "nodes.conf").unlink(missing_ok=True)  # an earlier cluster's
    return redis


def _free_pair() -> int:
    """A port that is free together with its bus port."""
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        if is_free(port) and is_free(port + _BUS):
            return port


def _join(nodes: list[Server]) -> None:
    """Deal the slots and introduce the first node to the others, which spread the word."""
    for index, node in enumerate(nodes):
        slots = range(index * _SLOTS // _NODES, (index + 1) * _SLOTS // _NODES)
        with Client.from_url(node.url) as client:
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", index + 1)  # else they first settle who is whose elder
    with Client.from_url(nodes[0].url) as client:
        for node in nodes[1:]:
            client.execute_command("CLUSTER MEET", LOOPBACK, node.port)


def _is_content(node: Server) -> bool:
    try:
        with Client.from_url(node.url, socket_timeout=1) as client:
            info = client.execute_command("CLUSTER INFO")
    except RedisError:
        return False
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == _NODES
