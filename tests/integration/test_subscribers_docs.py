"""What docs/events.md tells subscribers: its code takes a real delivery, and its events have the document's fields."""

import re
from pathlib import Path

import pytest

from delivery import figures, untold
from delivery.endpoint_models import Event, EventType
from delivery.models import Delivery, News
from delivery.subscribers import operations, telling
from frontend.api import webhooks
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.http_double import HttpDouble
from tests.service import HOUR
from tests.subscribers import LOOPBACK, got, serve, subscribed

pytestmark = pytest.mark.django_db
PAGE = Path(__file__).resolve().parents[2] / "docs" / "events.md"
DATA = {
    EventType.OCCURRENCE_STARTED: webhooks.RunStartedData,
    EventType.OCCURRENCE_FINISHED: webhooks.RunFinishedData,
    EventType.DELIVERIES_SETTLED: webhooks.SettledData,
    EventType.DELIVERIES_REPORTED: webhooks.ReportedData,
    EventType.TEST: webhooks.TestData,
}


@pytest.fixture
def double(settings):
    settings.OUTGOING_ALLOWED_NETWORKS = LOOPBACK
    with HttpDouble() as double:
        yield double


def test_the_code_of_the_page_takes_what_is_sent_once_and_nothing_forged(service, double):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    theirs = {}
    exec(code, theirs)
    endpoint = subscribed(double)
    operations.test(endpoint_id=endpoint.pk, now=NOW)
    serve()
    (request,) = double.requests
    receive = theirs["receive"]
    assert receive(request.headers, request.body, endpoint.secret)["type"] == "endpoint.test"
    assert receive(request.headers, request.body, endpoint.secret) is None
    new = operations.rotate(endpoint_id=endpoint.pk, by=BY, now=NOW).secret
    for headers, body, secret in (
        (request.headers, request.body + b" ", endpoint.secret),
        (request.headers, request.body, new),
        ({**request.headers, "webhook-id": "evt_other"}, request.body, endpoint.secret),
    ):
        with pytest.raises(ValueError, match="not signed"):
            receive(headers, body, secret)


def test_every_event_has_the_fields_of_the_document_and_stands_on_the_page(service, provider, double):
    endpoint = subscribed(double)
    people(2)
    ScheduleFactory()
    service.run_to(NOW + HOUR)
    row = Delivery.objects.first()
    untold.reported([untold.News(row.day, row.occurrence_id, row.recipient_id, News.DELIVERED, NOW)])
    figures.count()
    telling.tell()
    operations.test(endpoint_id=endpoint.pk, now=NOW)
    serve()
    assert {event["type"] for event in got(double)} == set(DATA)
    page = PAGE.read_text()
    for event in got(double):
        fields = DATA[event["type"]]().fields
        assert set(event["data"]) == set(fields)
        for item in event["data"].get("deliveries", ()):
            assert set(item) == set(fields["deliveries"].child.fields)
    for each in EventType:
        assert f"`{each}`" in page
    assert Event.objects.count() == 5
