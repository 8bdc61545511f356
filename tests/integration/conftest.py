"""Redis servers that a test may flush, silence and kill, the shared counters being left alone; rivals; buckets."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from audit.bucket import Bucket
from delivery import caps, continuity, counters, remote_rendering
from delivery.materialise import resolving
from delivery.models import State
from scheduler_project.local.redis import Server, running_server
from scheduler_project.local.redis_cluster import Cluster, running_cluster
from schedules.models import Occurrence
from schedules.template_service import mirror
from stubs.testing import RunningTemplateService, RunningUserService
from tests import template_service as template_service_double
from tests.cap_oracle import Books
from tests.counting import flush
from tests.factories import ScheduleFactory, people
from tests.interleaving import Meeting
from tests.races import claim_some
from tests.service import Service, only_occurrence
from tests.template_service import TemplateService
from tests.user_service import UserService, running_reference, used_by


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


@pytest.fixture(scope="session")
def reference() -> Iterator[RunningUserService]:
    """The reference of the user service, shared by the tests of a session; see ``user_service``."""
    with running_reference() as running:
        yield running


@pytest.fixture
def user_service(reference: RunningUserService, settings: Any) -> Iterator[UserService]:
    """Audiences are answered by a user service that knows nobody yet."""
    with used_by(settings, reference) as made:
        yield made


@pytest.fixture(scope="session")
def template_reference() -> Iterator[RunningTemplateService]:
    """The reference of the template service, shared by the tests of a session; see ``template_service``."""
    with template_service_double.running_reference() as running:
        yield running


@pytest.fixture
def template_service(template_reference: RunningTemplateService, settings: Any) -> Iterator[TemplateService]:
    """There is a template service, which has no template yet; nothing is remembered of another one."""
    remote_rendering.forget()
    mirror._asked.forget()
    settings.TEMPLATE_SERVICE_TIMEOUT_S = 20.0  # a busy machine takes longer than a call waits
    with template_service_double.used_by(settings, template_reference) as made:
        yield made


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody sleeps between two questions to the user service; the seconds for which it would have been."""
    slept: list[float] = []
    monkeypatch.setattr(resolving, "time", SimpleNamespace(sleep=slept.append, monotonic=time.monotonic))
    return slept


@pytest.fixture
def opened(service: Service) -> Callable[..., Occurrence]:
    """Opens the occurrence of a new schedule, and leaves its people to be found."""

    def open_it(**fields: Any) -> Occurrence:
        schedule = ScheduleFactory.create(**fields)
        service.tick()
        return only_occurrence(schedule)

    return open_it


# Outside of tests; the counters that all share are waited for longer.
_TIMEOUT_S = counters.TIMEOUT_S


@contextmanager
def _counters_on(servers: Sequence[Server], settings: Any) -> Iterator[None]:
    settings.COUNTERS_URL = servers[0].url
    counters._client.cache_clear()
    counters._pause.until = 0.0
    flush(servers)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(counters, "TIMEOUT_S", _TIMEOUT_S)
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


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An S3 of moto's on this machine; its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket_client(s3: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whoever has the bucket's credentials."""
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return boto3.client("s3", endpoint_url=s3, region_name="eu-central-1")


@pytest.fixture
def bucket_name(request: pytest.FixtureRequest, bucket_client: Any) -> str:
    """A bucket with Object Lock of the test's own."""
    name = "audit-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    bucket_client.create_bucket(
        Bucket=name,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
    )
    return name


@pytest.fixture
def bucket(settings: Any, s3: str, bucket_name: str) -> Bucket:
    """That is where the audit is exported to, for thirty days."""
    settings.AUDIT_EXPORT_BUCKET, settings.AUDIT_EXPORT_ENDPOINT, settings.AUDIT_EXPORT_DAYS = bucket_name, s3, 30
    made = Bucket.from_settings()
    assert made is not None
    return made


@pytest.fixture
def same_numbers(db: None) -> Iterator[None]:
    """Numbers that a restored database leaves out are left out for this test alone: no rollback takes that back."""
    tables = [continuity.RUNS, *continuity.OTHERS]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT s.name, pg_sequence_last_value(s.name) FROM unnest(%s::text[]) t,"
            " LATERAL pg_get_serial_sequence(t, 'id') s(name)",
            [tables],
        )
        before = cursor.fetchall()
    yield
    with connection.cursor() as cursor:
        for name, last in before:
            cursor.execute("SELECT setval(%s, %s, %s)", [name, last or 1, last is not None])
