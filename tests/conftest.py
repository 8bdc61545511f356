"""What most tests need: the ledger's partitions, the service at a fixed instant, a provider that takes notes."""

from collections.abc import Iterator

import pytest

# The integration tests whose coverage is counted: they reach 97 of 100 branches that all of them reach, in a fifth of
# the time. To be measured costs a test nearly as much again; the others go over the same lines in other orders, race,
# or drive processes of their own.
MEASURED = frozenset(
    {
        "test_api_bodies",
        "test_api_occurrences",
        "test_api_planning",
        "test_api_previews",
        "test_api_recipients",
        "test_api_recipients_bulk",
        "test_api_schedules",
        "test_api_templates",
        "test_audience_compiler",
        "test_audience_sources",
        "test_audit_export",
        "test_audit_rows",
        "test_caps_from_ledger",
        "test_check_volumes",
        "test_clock",
        "test_commands",
        "test_devices",
        "test_dispatch",
        "test_encryption_at_rest",
        "test_erased_stay_away",
        "test_erasure_receipt",
        "test_erasure_scan",
        "test_import_templates",
        "test_metrics_heartbeats",
        "test_pages_audit",
        "test_pages_dashboard",
        "test_pages_import",
        "test_pages_occurrence",
        "test_pages_recipients",
        "test_pages_schedules",
        "test_pages_templates",
        "test_partitions",
        "test_person_doors",
        "test_schedule_edit",
        "test_second_factor",
        "test_sending",
        "test_story",
        "test_stub_connections",
        "test_surface_headers",
        "test_surface_pages",
        "test_sweep",
        "test_templates",
        "test_test_sends",
        "test_unreadable_people",
        "test_unreadable_values",
        "test_wizard",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem not in MEASURED and item.path.parent.name != "unit":
            item.add_marker(pytest.mark.no_cover)


def pytest_configure() -> None:
    from django.conf import settings

    from scheduler_project import catalogue

    # What pages say in German is compiled by ``make setup``; whoever runs pytest alone has it too.
    catalogue.compile_all()
    # Else each test client reads the names of all static files anew: 50 ms.
    settings.WHITENOISE_AUTOREFRESH = True


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
