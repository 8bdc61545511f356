"""What most tests need: the ledger's partitions, the service at a fixed instant, a provider that takes notes."""

from collections.abc import Iterator

import pytest

# What goes over the same lines again and again, races, or drives processes of its own: to be measured would cost it
# half as much again, and what it reaches is reached by others.
UNMEASURED = frozenset(
    {
        "test_admin_access",
        "test_any_order",
        "test_api_deliveries",
        "test_api_explain",
        "test_api_inbox",
        "test_brake",
        "test_broker_loss",
        "test_caps",
        "test_caps_against_oracle",
        "test_caps_away",
        "test_caps_raced",
        "test_demo",
        "test_every_provider",
        "test_fcm_stub",
        "test_figures",
        "test_forecast",
        "test_import_recipients",
        "test_local_services",
        "test_mixed_work",
        "test_oauth",
        "test_pace",
        "test_page_access",
        "test_page_queries",
        "test_races_of_claims",
        "test_races_of_edits",
        "test_races_of_stops",
        "test_races_of_ticks",
        "test_races_of_writes",
        "test_redis_cluster",
        "test_ses_stub",
        "test_state_machine",
        "test_unkeepable_audiences",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in UNMEASURED or item.path.parent.name == "surface":
            item.add_marker(pytest.mark.no_cover)


def pytest_configure() -> None:
    """What pages say in German is compiled by ``make setup``; whoever runs pytest alone has it too."""
    from scheduler_project import catalogue

    catalogue.compile_all()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker) -> Iterator[None]:
    """Once the tables are made, tests are the application's role."""
    from tests import roles

    with django_db_blocker.unblock():
        roles.enter()
    yield
    with django_db_blocker.unblock():
        roles.leave()


@pytest.fixture(scope="session", autouse=True)
def _emptied_between_tests() -> Iterator[None]:
    """Django empties every table after a test that commits; of the audit that is refused to all but a superuser."""
    from django.db import connection
    from django.test import TransactionTestCase

    from tests import roles

    def as_superuser(case: TransactionTestCase) -> None:
        with roles.owner():
            with connection.cursor() as cursor:
                cursor.execute("SET session_replication_role = replica")
            flush(case)
            with connection.cursor() as cursor:
                cursor.execute("SET session_replication_role = DEFAULT")

    flush = TransactionTestCase._fixture_teardown
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TransactionTestCase, "_fixture_teardown", as_superuser)
        yield


@pytest.fixture(scope="session")
def ledger_days(django_db_setup, django_db_blocker) -> None:
    """Partitions around the instant at which the tests take place."""
    from delivery import partitions
    from tests.factories import NOW

    with django_db_blocker.unblock():
        partitions.ensure_around(today=NOW.date())


@pytest.fixture
def service(ledger_days, db, monkeypatch, settings) -> Iterator["Service"]:  # noqa: F821 - Django isn't set up yet
    """The service, standing at ``NOW``. After the test the books must close."""
    from django.conf import settings as project
    from django.db import connection
    from redis import Redis

    from schedules import clock
    from tests.books import assert_books_close
    from tests.service import Service

    with Redis.from_url(project.COUNTERS_URL) as counters:  # what an earlier test has reserved or slowed down
        counters.flushall()
    driven = Service()
    settings.PUBLISH_AHEAD_S = 0.0  # the clock stands still: a worker that waited for an instant would wait for ever
    monkeypatch.setattr(clock, "now", lambda: driven.now)
    yield driven
    try:
        assert_books_close()
    finally:
        if not connection.in_atomic_block:  # Django empties only the tables it manages
            with connection.cursor() as cursor:
                cursor.execute("TRUNCATE delivery_delivery, delivery_failedattempt")


@pytest.fixture
def provider(settings) -> Iterator[type["RecordingProvider"]]:  # noqa: F821
    """Every channel leads to the recording provider."""
    from delivery.providers import registry
    from tests.recording import RecordingProvider

    path = "tests.recording.RecordingProvider"
    settings.PROVIDERS = {"email": path, "push": path, "in_app": path}
    registry.for_channel.cache_clear()
    RecordingProvider.reset()
    yield RecordingProvider
    registry.for_channel.cache_clear()
