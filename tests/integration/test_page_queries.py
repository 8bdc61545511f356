"""How many statements a page asks the database: as many for twenty rows as for two."""

from collections.abc import Iterable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from schedules.permissions import Role
from tests.accounts import signed_in
from tests.furniture import add, furnish
from tests.pages import PAGES, PARTS, addresses

pytestmark = pytest.mark.django_db

# Of each page at most, at whichever of its addresses takes most: session, person, role and what stands on top of every
# page are in it (5).
QUERIES: dict[str, int] = {
    "audit": 14,
    "audit-csv": 7,
    "calendar": 14,
    "catalogue": 8,
    "catalogue-message": 7,
    "catalogue-new": 6,
    "catalogues": 8,
    "dashboard": 18,
    "dashboard-csv": 8,
    "dashboard-health": 13,
    "delivery": 17,
    "endpoint": 10,
    "endpoint-edit": 8,
    "endpoint-new": 7,
    "endpoints": 9,
    "explain": 6,
    "inbox": 8,
    "inbox-message": 10,
    "ledger": 17,
    "occurrence": 18,
    "occurrence-people": 6,
    "occurrence-person": 18,
    "occurrence-progress": 16,
    "occurrences": 14,
    "outbox": 8,
    "outbox-body": 5,
    "outbox-message": 10,
    "recipient": 22,
    "recipient-edit": 9,
    "recipient-erase": 8,
    "recipient-import": 8,
    "recipient-import-report": 6,
    "recipient-imports": 8,
    "recipient-new": 7,
    "recipients": 16,
    "recipients-file": 10,
    "schedule": 12,
    "schedule-do": 8,
    "schedule-edit": 15,
    "schedule-forecast": 14,
    "schedule-history": 12,
    "schedule-import": 7,
    "schedule-people": 12,
    "schedule-test": 8,
    "schedule-test-result": 8,
    "schedules": 12,
    "schedules-file": 8,
    "template": 15,
    "template-body": 8,
    "template-import": 7,
    "template-new": 8,
    "template-versions": 10,
    "templates": 12,
    "templates-file": 12,
    "topic": 8,
    "topic-new": 6,
    "topics": 9,
    "wizard": 9,
    "wizard-body": 9,
    "wizard-look": 20,
    "wizard-people": 12,
    "wizard-step": 26,
    "wizard-templates": 10,
    "wizard-test": 7,
}


def asked(client: Client, paths: Iterable[str]) -> dict[str, int]:
    """Statements by path."""
    found = {}
    for path in paths:
        with CaptureQueriesContext(connection) as queries:
            assert client.get(path).status_code == 200, path
        found[path] = len(queries)
    return found


def test_a_page_asks_as_much_for_twenty_rows_as_for_two(service):
    values = furnish(service)
    add(service, 2)
    client = signed_in(Role.ADMIN)
    names = {path: name for name, path in addresses({**PAGES, **PARTS}, values)}
    asked(client, names)  # the first visit fills Django's own caches
    few = asked(client, names)
    add(service, 18)
    many = asked(client, names)
    many |= asked(client, [path for path in names if many[path] > few[path]])  # so may the first one after a change
    # One more where something is there at all that was not before, such as a first batch that is not counted yet.
    assert {path: (few[path], many[path]) for path in few if many[path] > few[path] + 1} == {}
    most = {name: max(count for path, count in many.items() if names[path] == name) for name in set(names.values())}
    assert most.keys() == QUERIES.keys()
    assert {name: count for name, count in most.items() if count > QUERIES[name]} == {}
