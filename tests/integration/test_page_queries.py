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
    "audit": 13,
    "audit-csv": 6,
    "calendar": 13,
    "catalogue": 7,
    "catalogue-message": 6,
    "catalogue-new": 5,
    "catalogues": 7,
    "dashboard": 17,
    "dashboard-csv": 7,
    "dashboard-health": 12,
    "delivery": 16,
    "explain": 5,
    "inbox": 7,
    "inbox-message": 9,
    "ledger": 16,
    "occurrence": 17,
    "occurrence-people": 5,
    "occurrence-person": 17,
    "occurrence-progress": 15,
    "occurrences": 13,
    "outbox": 7,
    "outbox-body": 4,
    "outbox-message": 9,
    "recipient": 21,
    "recipient-edit": 8,
    "recipient-erase": 7,
    "recipient-import": 7,
    "recipient-import-report": 5,
    "recipient-imports": 7,
    "recipient-new": 6,
    "recipients": 15,
    "schedule": 11,
    "schedule-do": 7,
    "schedule-edit": 13,
    "schedule-forecast": 13,
    "schedule-history": 11,
    "schedule-test": 7,
    "schedule-test-result": 7,
    "schedules": 11,
    "template": 14,
    "template-body": 7,
    "template-new": 7,
    "template-versions": 9,
    "templates": 11,
    "topic": 7,
    "topic-new": 5,
    "topics": 8,
    "wizard": 7,
    "wizard-body": 8,
    "wizard-look": 19,
    "wizard-people": 11,
    "wizard-step": 24,
    "wizard-templates": 9,
    "wizard-test": 6,
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
