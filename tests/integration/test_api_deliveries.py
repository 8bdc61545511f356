"""``/api/v1/deliveries``: the ledger over the API, each row once, at a bounded cost."""

import base64
import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from delivery import erasure, listing
from delivery.models import Delivery, State
from delivery.providers.base import Answer, Verdict
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import Api, token
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, people
from tests.service import HOUR, only_occurrence

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(service) -> Api:
    return Api(token())


@pytest.fixture
def several(service, provider):
    """Three runs of seven people: of the second the provider rejects three; nobody opted out gets any by mail."""
    named = [
        *people(5),
        RecipientFactory(external_id="anna"),
        RecipientFactory(external_id="ben", consent={"email": False}),
    ]
    rejected = {person.pk for person in named[:3]}
    first = ScheduleFactory(name="First")
    service.step()
    second = ScheduleFactory(name="Second", run_at=NOW + HOUR)
    provider.answer = staticmethod(
        lambda m: Answer(m.key, *((Verdict.PERMANENT, "refused") if m.recipient_id in rejected else (Verdict.SENT, "")))
    )
    service.at(NOW + HOUR).step()
    third = ScheduleFactory(name="Third", channel="in_app", run_at=NOW + 2 * HOUR)
    provider.reset()
    service.at(NOW + 2 * HOUR).step()
    return first, second, third


def everything(api, query="", limit=200):
    """The items of all pages."""
    found, cursor, pages = [], "", 0
    while cursor is not None:
        answer = api.get(f"deliveries?{query}&limit={limit}{cursor and f'&cursor={cursor}'}".replace("?&", "?"))
        assert answer.status_code == 200, answer.json()
        page = answer.json()
        assert len(page["items"]) <= limit
        found += page["items"]
        cursor, pages = page["nextCursor"], pages + 1
        assert pages < 100
    return found


def keys(items):
    return [(item["occurrenceId"], item["recipientId"]) for item in items]


def test_a_row_says_who_what_when_and_why(api, several):
    first, second, _ = several
    run = only_occurrence(second)
    (ben,) = api.get(f"deliveries?recipient=ben&occurrence={run.pk}").json()["items"]
    row = Delivery.objects.get(occurrence_id=run.pk, recipient_id=ben["recipientId"])
    assert ben == {
        "scheduleId": second.pk,
        "occurrenceId": run.pk,
        "recipient": "ben",
        "recipientId": row.recipient_id,
        "state": "suppressed",
        "reason": "opted_out",
        "reasonWords": "Opted out of this channel.",
        "waveAt": "2026-11-21T11:00:00Z",
        "timeZone": "UTC",
        "zoneSource": "fixed",
        "dueAt": "2026-11-21T11:00:00Z",
        "attempt": 0,
        "version": 1,
        "calledAt": None,
        "settledAt": "2026-11-21T11:00:00Z",
        "providerId": "",
        "detail": "",
        "feedback": None,
    }
    (anna,) = api.get(f"deliveries?recipient=anna&schedule={first.pk}").json()["items"]
    assert (anna["state"], anna["providerId"][:3], anna["attempt"]) == ("sent", "id-", 1)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
@pytest.mark.parametrize(
    "query", ["", "outcome=sent", "outcome=failed", "reason=opted_out", "recipient=anna", "schedule=2"]
)
def test_every_row_is_listed_once_whatever_the_page(api, several, query, limit):
    query = f"schedule={several[1].pk}" if query == "schedule=2" else query
    found = everything(api, query, limit)
    rows = {
        "": Delivery.objects.all(),
        "outcome=sent": Delivery.objects.filter(state=State.SENT),
        "outcome=failed": Delivery.objects.filter(state=State.FAILED),
        "reason=opted_out": Delivery.objects.filter(reason="opted_out"),
        "recipient=anna": Delivery.objects.filter(recipient_id=next(iter(keys(found)))[1]),
    }.get(query, Delivery.objects.filter(occurrence_id=only_occurrence(several[1]).pk))
    expected = set(rows.values_list("occurrence_id", "recipient_id"))
    assert len(expected) > 1
    assert sorted(keys(found)) == sorted(expected)
    assert [pk for pk, _ in keys(found)] == sorted((pk for pk, _ in expected), reverse=True)


def test_filters_can_be_joined(api, several):
    first, second, _ = several
    assert len(everything(api, f"schedule={second.pk}&outcome=failed")) == 3
    assert everything(api, f"schedule={first.pk}&outcome=failed") == []
    assert len(everything(api, f"occurrence={only_occurrence(second).pk}&reason=refused")) == 3
    assert everything(api, f"occurrence={only_occurrence(second).pk}&schedule={first.pk}") == []
    assert [item["recipient"] for item in everything(api, "recipient=ben&outcome=suppressed")] == ["ben", "ben"]


def test_pages_stand_still_while_rows_come(api, service, several):
    page = api.get("deliveries?limit=5").json()
    ScheduleFactory(name="Newer", run_at=NOW + 3 * HOUR)
    service.at(NOW + 3 * HOUR).step()
    rest, cursor = [], page["nextCursor"]
    while cursor:
        answer = api.get(f"deliveries?limit=5&cursor={cursor}").json()
        rest, cursor = rest + answer["items"], answer["nextCursor"]
    seen = keys(page["items"]) + keys(rest)
    assert len(seen) == len(set(seen)) == 21


def test_without_a_filter_only_the_latest_days_are_looked_through(api, service, several):
    service.at(NOW + timedelta(days=8))
    assert everything(api) == everything(api, "outcome=sent") == []
    assert len(everything(api, "recipient=anna")) == 3
    assert len(everything(api, f"schedule={several[0].pk}")) == 7


def test_of_somebody_erased_the_number_remains(api, several):
    (row,) = api.get(f"deliveries?recipient=anna&schedule={several[0].pk}").json()["items"]
    erasure.forget(recipient_id=row["recipientId"], by=BY, now=NOW)
    assert api.get("deliveries?recipient=anna").json()["items"] == []
    (left,) = [
        each for each in everything(api, f"schedule={several[0].pk}") if each["recipientId"] == row["recipientId"]
    ]
    assert (left["recipient"], left["state"]) == (None, "sent")


@pytest.mark.parametrize("query", ["", "outcome=sent", "outcome=failed", "reason=opted_out", "recipient=anna"])
def test_a_page_asks_the_same_few_questions_whatever_its_size(api, several, query):
    counts = []
    for limit in (2, 21):
        with CaptureQueriesContext(connection) as queries:
            api.get(f"deliveries?{query}&limit={limit}".replace("?&", "?"))
        counts.append(len(queries))
        on_ledger = [item["sql"] for item in queries if "delivery_delivery" in item["sql"]]
        assert len(on_ledger) <= 1
        assert all("day" in sql.partition("WHERE ")[2] and "LIMIT" in sql for sql in on_ledger)
    assert counts[0] == counts[1]


def test_what_is_looked_through_for_one_page_is_bounded(api, several, monkeypatch):
    monkeypatch.setattr(listing, "BATCHES_A_PAGE", 1)
    monkeypatch.setattr(listing, "OCCURRENCES_A_PAGE", 1)
    assert len(everything(api)) == 21
    assert len(everything(api, "reason=refused")) == 3
    assert len(everything(api, "outcome=suppressed", limit=1)) == 2


def forged(place):
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def test_a_filter_that_nothing_fits_gives_an_empty_page_whatever_it_is(api, several):
    for query in ("recipient=nobody", "recipientId=999999", "schedule=999999", "occurrence=999999", "reason=none"):
        answer = api.get(f"deliveries?{query}")
        assert (answer.status_code, answer.json()) == (200, {"items": [], "nextCursor": None}), query


def test_the_rows_of_somebody_erased_are_found_by_the_number_that_they_show(api, several):
    row = everything(api)[0]
    before = everything(api, f"recipient={row['recipient']}")
    assert api.delete(f"recipients/{row['recipient']}").status_code == 200
    assert everything(api, f"recipient={row['recipient']}") == []
    after = everything(api, f"recipientId={row['recipientId']}")
    assert [each["occurrenceId"] for each in after] == [each["occurrenceId"] for each in before]
    assert {each["recipient"] for each in after} == {None}


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("recipient=eva&recipientId=1", "recipient"),
        ("recipientId=0", "recipientId"),
        ("recipient=%00", "recipient"),
        ("schedule=x", "schedule"),
        ("schedule=0", "schedule"),
        (f"occurrence={10**30}", "occurrence"),
        ("outcome=lost", "outcome"),
        ("reason=" + "a" * 61, "reason"),
        ("limit=0", "limit"),
        ("colour=red", "colour"),
        ("outcome=sent&outcome=failed", "outcome"),
        ("cursor=nonsense", "cursor"),
        (f"cursor={forged(['-id', 5, 5])}", "cursor"),
        (f"cursor={forged(['deliveries', '20261121.1'])}", "cursor"),
        (f"cursor={forged(['deliveries', '20261121.1.' + '9' * 30])}", "cursor"),
        (f"cursor={forged(['deliveries', '20261399.1.1'])}", "cursor"),
    ],
)
def test_a_senseless_question_is_refused_with_its_place(api, query, parameter):
    answer = api.get(f"deliveries?{query}")
    assert answer.status_code == 400
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]


@pytest.mark.parametrize("place", ["20261121.999999.1", "20261121.999999.1.7", "20261121.1.1.999999"])
def test_a_cursor_of_what_is_gone_leads_nowhere_and_harms_nobody(api, several, place):
    for query in ("", "outcome=sent&", "recipient=anna&"):
        assert api.get(f"deliveries?{query}cursor={forged(['deliveries', place])}").status_code == 200


def test_who_reads_lists(service, several):
    assert Api().get("deliveries").status_code == 401
    assert Api(token(scopes=Scope.WRITE)).get("deliveries").status_code == 403
    assert Api(token(user=account(Role.ANALYST))).get("deliveries").status_code == 200
    assert Api(token(user=account(None))).get("deliveries").status_code == 403
