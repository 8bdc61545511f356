"""A scene that stands for all tests of a file: what each of them does is taken back, so it is made once."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import transaction
from django.test import override_settings
from redis import Redis

from schedules import clock
from tests.books import assert_books_close
from tests.service import Service


@pytest.fixture(scope="module")
def service(ledger_days, django_db_blocker) -> Iterator[Service]:
    """The service, standing at ``NOW``, in a transaction around those of the tests. At the end the books must close."""
    with Redis.from_url(settings.COUNTERS_URL) as counters:
        counters.flushall()
    driven = Service()
    given = {"API_RATE": 1e6, "API_BURST": 1_000_000, "PUBLISH_AHEAD_S": 0.0}
    with (
        django_db_blocker.unblock(),
        override_settings(**given),
        pytest.MonkeyPatch.context() as patched,
        transaction.atomic(),
    ):
        patched.setattr(clock, "now", lambda: driven.now)
        yield driven
        assert_books_close()
        transaction.set_rollback(True)
