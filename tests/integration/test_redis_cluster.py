"""The Redis servers of the tests themselves: they are real, they break as told, and they end with their owner."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.redis import Server
from scheduler_project.local.redis_cluster import running_cluster

ONCE = Retry(NoBackoff(), 0)


def client_of(server):
    return Redis.from_url(server.url, socket_timeout=0.3, retry=ONCE, decode_responses=True)


def test_a_cluster_serves_every_slot_from_three_nodes(redis_cluster):
    with RedisCluster.from_url(redis_cluster.url, decode_responses=True) as client:
        owners = set()
        for bucket in range(64):
            client.set(f"{{c{bucket}}}:u1", bucket)
            owners.add(client.get_node_from_key(f"{{c{bucket}}}:u1").port)
        assert [client.get(f"{{c{bucket}}}:u1") for bucket in range(64)] == [str(bucket) for bucket in range(64)]
    assert owners == {node.port for node in redis_cluster.nodes}


def test_a_script_of_two_buckets_is_refused_and_of_one_is_not(redis_cluster):
    with RedisCluster.from_url(redis_cluster.url) as client:
        assert client.eval("return #KEYS", 2, "{c1}:u1", "{c1}:u65") == 2
    with Redis.from_url(redis_cluster.url) as node, pytest.raises(ResponseError, match="slot"):
        node.eval("return #KEYS", 2, "{c1}:u1", "{c2}:u2")


def test_nobody_gets_in_without_the_password(redis_cluster, redis_server):
    for server in (*redis_cluster.nodes, redis_server):
        with Redis(port=server.port, retry=ONCE) as client, pytest.raises(RedisError, match="authenticated"):
            client.ping()


def test_a_cluster_is_up_soon_and_outlives_a_killed_node(tmp_path):
    began = time.monotonic()
    with running_cluster(root=tmp_path) as cluster:
        # Two seconds are Redis's own: a fresh master waits so long before it writes. The rest is the machine's.
        assert time.monotonic() - began < 60
        with RedisCluster.from_url(cluster.url) as client:
            before = client.info("server", target_nodes=client.get_node("127.0.0.1", cluster.nodes[1].port))["run_id"]
        cluster.nodes[1].kill()
        with pytest.raises(RedisConnectionError):
            client_of(cluster.nodes[1]).ping()
        cluster.nodes[1].start()
        cluster.agree()
        with RedisCluster.from_url(cluster.url) as client:
            after = client.info("server", target_nodes=client.get_node("127.0.0.1", cluster.nodes[1].port))["run_id"]
            client.mset_nonatomic({f"{{c{bucket}}}": 1 for bucket in range(64)})
    assert before != after
    assert [node.process.poll() for node in cluster.nodes] == [-signal.SIGKILL] * 3


def test_a_cluster_starts_again_in_the_same_folder(tmp_path):
    for _ in range(2):
        with running_cluster(root=tmp_path) as cluster, RedisCluster.from_url(cluster.url) as client:
            assert client.get("key") is None
            client.set("key", 1)


def test_a_killed_server_refuses_and_comes_back_empty_on_its_port(redis_server):
    client = client_of(redis_server)
    client.set("key", 1)
    before = client.info("server")["run_id"]
    redis_server.kill()
    with pytest.raises(RedisConnectionError):
        client.get("key")
    redis_server.start()
    assert client.get("key") is None
    assert client.info("server")["run_id"] != before


def test_a_silenced_server_lets_clients_wait_and_answers_when_woken(redis_server):
    client = client_of(redis_server)
    client.ping()
    redis_server.silence()
    with pytest.raises(RedisTimeoutError):
        client.ping()
    redis_server.wake()
    assert client.ping()


def test_a_taken_port_is_refused_in_words(redis_server, tmp_path):
    redis = replace(redis_server.redis, name="other", home=tmp_path / "other", password="another")
    redis.prepare()
    other = Server(redis, redis_server.port)
    with pytest.raises(LocalServicesError, match="does not answer"):
        other.start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("silenced", [False, True])
def test_servers_end_with_an_owner_who_is_killed(tmp_path, silenced):
    program = (
        "import sys, time; from pathlib import Path\n"
        "from scheduler_project.local.redis import running_server\n"
        "with running_server(root=Path(sys.argv[1])) as server:\n"
        f"    {'server.silence()' if silenced else ''}\n"
        "    print(server.process.pid, flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    os.kill(pid, 0)
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 60
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
