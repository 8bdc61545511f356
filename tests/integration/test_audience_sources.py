"""The local source: counts, samples, zones and pages, read-only and within a time limit."""

from datetime import UTC, datetime

import psycopg
import pytest
from django.db import InternalError, OperationalError, connection

from schedules.audience.parser import parse
from schedules.audience.sources import AudienceTooSlow, LocalSource, limited
from schedules.audience.tree import EVERYONE
from schedules.models import Recipient

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRO = parse({"field": "attributes.plan", "op": "eq", "value": "pro"})
ZONES = ["Europe/Berlin", "Mars/Olympus", ""]


@pytest.fixture
def ids():
    people = [
        Recipient(external_id=f"user-{n}", time_zone=ZONES[n % 3], attributes={"plan": "pro" if n % 2 else "free"})
        for n in range(60)
    ]
    return [recipient.pk for recipient in Recipient.objects.bulk_create(people)]


@pytest.fixture
def source():
    return LocalSource()


def show(setting):
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s)", [setting])
        return cursor.fetchone()[0]


def test_counts(ids, source):
    assert source.count(EVERYONE, now=NOW) == 60
    assert source.count(PRO, now=NOW) == 30


def test_people_per_zone_as_the_profiles_have_it(ids, source):
    assert source.zones(PRO, now=NOW) == {"Europe/Berlin": 10, "Mars/Olympus": 10, "": 10}
    assert source.zones(parse({"field": "tags", "op": "exists", "value": True}), now=NOW) == {}


def test_a_sample_is_fixed_by_its_seed(ids, source):
    sample = source.sample(PRO, now=NOW, n=5, seed=7)
    assert len(set(sample)) == 5
    assert set(sample) <= set(ids[1::2])
    assert sample == source.sample(PRO, now=NOW, n=5, seed=7)
    assert sample[:3] == source.sample(PRO, now=NOW, n=3, seed=7)
    assert sample != source.sample(PRO, now=NOW, n=5, seed=-8)
    assert set(source.sample(PRO, now=NOW, n=1_000)) == set(ids[1::2])


def test_pages_give_each_recipient_once_in_order(ids, source):
    read, lengths = [], []
    while page := source.page(PRO, now=NOW, after_id=read[-1] if read else 0, limit=7):
        read += page
        lengths.append(len(page))
    assert lengths == [7, 7, 7, 7, 2]
    assert read == ids[1::2]


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_a_page_is_bounded(source, limit):
    with pytest.raises(ValueError, match="ask for 1 to 10000 recipients"):
        source.page(EVERYONE, now=NOW, limit=limit)


@pytest.mark.parametrize("n", [0, 5_001])
def test_a_sample_is_bounded(source, n):
    with pytest.raises(ValueError, match="ask for 1 to 5000 recipients"):
        source.sample(EVERYONE, now=NOW, n=n)


def test_the_statement_stands_inside_a_larger_one(ids, source):
    # Every kind of clause at once, with per cent signs and quotes in the values.
    node = parse(
        {
            "all": [
                {"field": "attributes.plan", "op": "in", "value": ["pro", "50% off", "%s", "it's"]},
                {"field": "external_id", "op": "contains", "value": "r-"},
                {"not": {"field": "external_id", "op": "starts_with", "value": "100%"}},
                {"not": {"field": "attributes.plan", "op": "contains", "value": "%(x)s"}},
                {"not": {"field": "attributes.plan", "op": "within_last", "value": "7d"}},
                {"field": "channels", "op": "in", "value": ["push", "in_app"]},
                {"field": "tags", "op": "not_in", "value": ["50%"]},
            ]
        }
    )
    sql, params = source.sql(node, now=NOW)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE taken ON COMMIT DROP AS "
            f"SELECT %s::int AS run, id, time_zone FROM ({sql}) AS audience",
            [7, *params],
        )
        cursor.execute("SELECT run, id, time_zone FROM taken ORDER BY id")
        taken = cursor.fetchall()
    assert taken == [(7, pk, ZONES[n % 3]) for n, pk in enumerate(ids) if n % 2]


def test_the_statement_binds_on_the_server_too(ids, source):
    sql, params = source.sql(PRO, now=NOW)
    with connection.cursor() as cursor:
        raw = psycopg.Cursor(cursor.connection)
        assert len(raw.execute(sql, params).fetchall()) == 30


def test_reading_can_not_write():
    with pytest.raises(InternalError, match="read-only transaction"), limited(timeout_ms=1_000):
        Recipient.objects.create(external_id="x")


def test_the_transaction_around_keeps_its_own_rights_and_limit(ids, source):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '77s'")
    assert source.count(EVERYONE, now=NOW) == 60
    assert show("statement_timeout") == "77s"
    assert show("transaction_read_only") == "off"
    Recipient.objects.create(external_id="still-writable")
    assert source.count(EVERYONE, now=NOW) == 61


def test_too_slow_is_one_clear_error_and_leaves_the_connection_usable(ids):
    expected = pytest.raises(AudienceTooSlow, match=r"within 20 ms\. Add a clause that an index serves")
    with expected as caught, limited(timeout_ms=20), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(5)")
    assert caught.value.timeout_ms == 20
    assert LocalSource().count(EVERYONE, now=NOW) == 60
    assert show("transaction_read_only") == "off"


def test_other_database_errors_are_not_taken_for_slowness():
    with pytest.raises(OperationalError), limited(timeout_ms=1_000), connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '57P03'; END $$")


def test_the_limit_comes_from_the_settings_unless_given(settings):
    settings.AUDIENCE_STATEMENT_TIMEOUT = 1_234
    assert LocalSource().timeout_ms == 1_234
    assert LocalSource(timeout_ms=60_000).timeout_ms == 60_000


def test_no_limit_is_no_value():
    with pytest.raises(ValueError, match="positive number of milliseconds"), limited(timeout_ms=0):
        pass
