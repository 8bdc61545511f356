"""What the planner makes of the send path: where it knows nothing, since each day's partition is new and not analysed,
and where it has learnt that hardly any row is pending, as at nearly all times."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from delivery import cap_forecast, sending, usage
from schedules.models import Recipient
from tests.factories import NOW, ScheduleFactory, people

pytestmark = pytest.mark.django_db

# The columns that narrow a statement down to the rows of one batch or of one person.
NARROW = ("recipient_id", "batch_id")


def plan_of(sql: str) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) " + sql)
        (answer,) = cursor.fetchone()
    return (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def test_a_claim_and_its_outcome_read_no_more_than_their_own_rows(service, provider):
    people(3_000)
    ScheduleFactory()
    service.open()
    (message, *_) = service.publish()
    on_ledger = ledger_statements(message.batch_ids[:1])
    scans = [(node, sql) for sql in on_ledger for node in nodes(plan_of(sql)) if is_of_ledger(node)]
    assert len(provider.messages()) == 500
    assert scans
    for node, sql in scans:
        assert any(column in node.get("Index Cond", "") for column in NARROW), (node, sql)


def test_no_row_of_a_claim_is_compared_with_each_other_one(service, provider):
    """Of several small batches, whose rows are looked up by several indexes."""
    people(20)
    ScheduleFactory.create_batch(30)
    service.step()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    ScheduleFactory.create_batch(5)
    service.open()
    (message, *_) = service.publish()
    plans = [plan_of(sql) for sql in ledger_statements(message.batch_ids)]
    assert len(provider.messages()) == 700
    for plan in plans:
        for node in nodes(plan):
            assert "recipient_id" not in node.get("Join Filter", ""), node


def test_what_counts_toward_a_cap_is_read_by_key_however_many_versions_there_are(service):
    """For the sender who builds the counters, and for the forecast."""
    people(100)
    ScheduleFactory.create_batch(3)
    service.step()
    ScheduleFactory.create_batch(300, run_at=NOW + timedelta(days=30))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    ids = list(Recipient.objects.values_list("pk", flat=True))
    with CaptureQueriesContext(connection) as executed:
        assert len(usage.uses(ids, now=service.now)) == 300
        cap_forecast._waiting(ids, until=service.now, now=service.now, editing=None)
    plans = [plan_of(query["sql"]) for query in executed]
    assert len(plans) == 3
    for node in (node for plan in plans for node in nodes(plan)):
        assert not {"version", "schedule_id"} & set(re.findall(r"\w+", node.get("Join Filter", ""))), node
        if node.get("Relation Name") == "schedules_scheduleversion":
            assert "schedule_id" in node.get("Index Cond", ""), node


def test_no_row_of_a_cancelled_batch_is_compared_with_each_other_one(service, provider):
    people(500)
    ScheduleFactory()
    service.step()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    schedule = ScheduleFactory()
    service.open()
    service.cancel(schedule)
    with CaptureQueriesContext(connection) as executed:
        service.sweep()
    plans = [plan_of(sql) for sql in touching_the_ledger(executed) if not sql.startswith("EXPLAIN")]
    assert plans
    for node in (node for plan in plans for node in nodes(plan)):
        assert "recipient_id" not in node.get("Join Filter", ""), node


def ledger_statements(batch_ids: list[int]) -> list[str]:
    """What sending these batches asks of the ledger."""
    with CaptureQueriesContext(connection) as executed:
        sending.send(batch_ids=batch_ids)
    return touching_the_ledger(executed)


def touching_the_ledger(executed: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in executed if "delivery_delivery" in query["sql"]]


def is_of_ledger(node: dict[str, Any]) -> bool:
    """Whether the node reads rows of the ledger; a bitmap is judged by the index scans below it."""
    if node["Node Type"] == "Seq Scan":
        return str(node["Relation Name"]).startswith("delivery_delivery")
    return "Index Name" in node and node["Index Name"].startswith("delivery_delivery")
