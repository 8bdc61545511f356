"""What most tests need: the ledger's partitions, the service at a fixed instant, a provider that takes notes."""

import functools
import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest

# No example fails by slowness alone: by default each has a fifth of a second.
hypothesis.settings.register_profile("unhurried", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("unhurried")

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
        "test_arrivals",
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
        "test_inbox_stream",
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
        "test_template_service_mirror",
        "test_template_service_sending",
        "test_templates",
        "test_test_sends",
        "test_unreadable_people",
        "test_unreadable_values",
        "test_user_service_faults",
        "test_user_service_mirror",
        "test_user_service_resolving",
        "test_wizard",
    }
)
# The unit tests that go over the same lines with hundreds of examples.
REPEATING = frozenset({"test_hostile_templates", "test_recurrence_properties", "test_rendering_properties"})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """The others are not measured, their fixtures included, which pytest-cov's own marker would leave measured."""
    coverage = getattr(item.config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    is_unit = item.path.parent.name == "unit" and item.path.stem not in REPEATING
    if coverage is None or is_unit or item.path.stem in MEASURED:
        return (yield)
    coverage.pause()
    try:
        return (yield)
    finally:
        coverage.resume()


def pytest_collection_finish() -> None:
    # What was imported stays. Else it is looked through for garbage all the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_configure() -> None:
    import botocore.session
    from django.conf import settings
    from django.contrib.auth.hashers import PBKDF2PasswordHasher

    from scheduler_project import catalogue

    # Half a second for each password, which guards nothing here.
    PBKDF2PasswordHasher.iterations = 1_000
    # Else each session of boto3 reads what it knows of a service anew: 110 ms.
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)

    # What pages say in German is compiled by ``make setup``; whoever runs pytest alone has it too.
    catalogue.compile_all()
    # Else each test client reads the names of all static files anew: 50 ms.
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings) -> None:
    """On servers of ours the test's database is a copy of the one that they came with, which is migrated."""
    from django.conf import settings
    from django.db import connections

    if "DATABASE_URL" not in os.environ:
        given = connections["default"].settings_dict
        given["TEST"] |= {"TEMPLATE": settings.DATABASES["default"]["NAME"], "MIGRATE": False}


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
    """After a test that commits, its rows are deleted by a superuser: of the audit that is refused to all others.

    Django would truncate each table, and write content types and permissions anew: 150 ms.
    """
    from django.db import connection
    from django.test import TransactionTestCase

    from delivery import partitions
    from tests import roles

    @functools.cache
    def statements() -> str:
        managed = connection.introspection.django_table_names(only_existing=True, include_views=False)
        names = {*managed, *partitions.TABLES} - {"django_content_type", "auth_permission"}
        deleting = [f"DELETE FROM {name}" for name in sorted(names)]
        # Without triggers, so in any order.
        return "; ".join(["SET session_replication_role = replica", *deleting, "RESET session_replication_role"])

    def empty(case: TransactionTestCase) -> None:
        with roles.owner(), connection.cursor() as cursor:
            cursor.execute(statements())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TransactionTestCase, "_fixture_teardown", empty)
        yield


@pytest.fixture(scope="session", autouse=True)
def _patient() -> Iterator[None]:
    """Servers that all tests of a process share are waited for: what a busy machine takes is nothing to judge."""
    from delivery import counters, metrics

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(counters, "TIMEOUT_S", 15.0)
        patched.setattr(metrics, "TIMEOUT_MS", 20_000)
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
    from redis import Redis

    from delivery import sending
    from schedules import clock
    from tests.books import assert_books_close
    from tests.service import Service

    with Redis.from_url(project.COUNTERS_URL) as counters:  # what an earlier test has reserved or slowed down
        counters.flushall()
    driven = Service()
    settings.PUBLISH_AHEAD_S = 0.0  # the clock stands still: a worker that waited for an instant would wait for ever
    monkeypatch.setattr(sending, "PERMIT_S", 20.0)
    monkeypatch.setattr(clock, "now", lambda: driven.now)
    yield driven
    assert_books_close()


@pytest.fixture
def provider(settings) -> Iterator[type["RecordingProvider"]]:  # noqa: F821
    """Every channel leads to the recording provider."""
    from delivery.providers import registry
    from tests.recording import RecordingProvider

    path = "tests.recording.RecordingProvider"
    settings.PROVIDERS = {"email": path, "push": path, "in_app": path}
    registry.chain.cache_clear()
    RecordingProvider.reset()
    yield RecordingProvider
    registry.chain.cache_clear()
