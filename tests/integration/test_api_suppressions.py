"""``/suppressions``, and what the API tells of the news of runs, deliveries and people."""

import pytest

from delivery.events.base import Kind
from delivery.models import Delivery
from schedules.models import Suppression
from schedules.permissions import Role
from tests.accounts import account
from tests.api import Api, token
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.provider_events import event, settle
from tests.service import HOUR, only_occurrence, reasons

pytestmark = pytest.mark.django_db


@pytest.fixture
def api() -> Api:
    return Api(token())


@pytest.fixture
def anna():
    return RecipientFactory(external_id="anna", email="Anna@Example.com")


def test_a_person_is_suppressed_found_and_written_to_again(api, anna, service, provider):
    made = api.post("suppressions", {"recipient": "anna"})
    assert made.status_code == 201
    said = made.json()
    assert said["since"].endswith("Z")
    assert {key: said[key] for key in ("channel", "reason", "occurrenceId", "detail", "recipients")} == {
        "channel": "email",
        "reason": "blocked",
        "occurrenceId": None,
        "detail": "",
        "recipients": ["anna"],
    }
    assert said["by"].startswith("client:")
    assert "example.com" not in made.content.decode().lower()
    assert api.get(made["Location"].removeprefix("/api/v1/")).json() == said
    again = api.post("suppressions", {"recipient": "anna"})
    assert (again.status_code, again.json()) == (200, said)
    schedule = ScheduleFactory()
    service.step()
    assert reasons(schedule) == {"suppressed: blocked": 1}
    assert api.delete(f"suppressions/{said['id']}").status_code == 204
    assert api.delete(f"suppressions/{said['id']}").status_code == 404
    assert api.get(f"suppressions/{said['id']}").status_code == 404
    assert api.get("suppressions").json() == {"items": [], "nextCursor": None}


def test_an_address_is_suppressed_before_anybody_has_it(api, service, provider):
    made = api.post("suppressions", {"address": "anna@example.com"})
    assert (made.status_code, made.json()["recipients"]) == (201, [])
    RecipientFactory(external_id="late", email="ANNA@example.com")
    assert api.get("suppressions?recipient=late").json()["items"][0]["recipients"] == ["late"]
    schedule = ScheduleFactory()
    service.step()
    assert reasons(schedule) == {"suppressed: blocked": 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"recipient": "anna", "address": "anna@example.com"}, 400),
        ({"address": "nobody"}, 400),
        ({"address": ""}, 400),
        ({"recipient": "nobody"}, 404),
        ({"recipient": "bare"}, 400),
        ({"reason": "complained", "recipient": "anna"}, 400),
    ],
)
def test_what_can_not_be_suppressed_is_said_so(api, anna, body, status):
    RecipientFactory(external_id="bare", email="")
    assert api.post("suppressions", body).status_code == status
    assert not Suppression.objects.exists()


def test_a_page_has_its_reason_and_goes_on_where_it_ended(api):
    for number in range(5):
        api.post("suppressions", {"address": f"person-{number}@example.com"})
    first = api.get("suppressions?limit=3&reason=blocked").json()
    second = api.get(f"suppressions?limit=3&reason=blocked&cursor={first['nextCursor']}").json()
    ids = [each["id"] for each in first["items"] + second["items"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 5
    assert second["nextCursor"] is None
    assert api.get("suppressions?reason=bounced").json()["items"] == []
    assert api.get("suppressions?reason=nonsense").status_code == 400
    assert api.get("suppressions?recipient=nobody").json()["items"] == []


def test_a_complaint_is_taken_back_by_an_admin_alone(anna, service, provider):
    ScheduleFactory()
    service.step()
    settle(event(Kind.COMPLAINT, Delivery.objects.get()))
    pk = Suppression.objects.get().pk
    marketer, admin = (Api(token(user=account(role))) for role in (Role.MARKETER, Role.ADMIN))
    refused = marketer.delete(f"suppressions/{pk}")
    assert (refused.status_code, "complained" in refused.json()["detail"]) == (403, True)
    assert admin.delete(f"suppressions/{pk}").status_code == 204


def test_runs_deliveries_and_explanations_tell_the_news(api, service, provider):
    persons = people(4)
    schedule = ScheduleFactory()
    service.step()
    run = only_occurrence(schedule)
    assert set(api.get(f"occurrences/{run.pk}").json()["feedback"].values()) == {0}
    first, second, third, _ = Delivery.objects.order_by("recipient_id")
    settle(
        event(Kind.DELIVERY, first, at=NOW),
        event(Kind.BOUNCE_HARD, second, at=NOW),
        event(Kind.COMPLAINT, third, at=NOW),
    )
    told = api.get(f"occurrences/{run.pk}").json()["feedback"]
    assert {key: value for key, value in told.items() if value} == {
        "delivered": 1,
        "bounced_hard": 1,
        "complained": 1,
        "awaited": 1,
    }
    rows = {row["recipientId"]: row["feedback"] for row in api.get("deliveries").json()["items"]}
    bounced = {"news": "bounced_hard", "at": "2026-11-21T10:00:00Z", "detail": "Permanent/General 5.1.1"}
    assert [rows[each.pk] for each in persons][1::2] == [bounced, None]
    explained = api.get(f"explain?schedule={schedule.pk}&recipient={persons[1].external_id}").json()
    assert explained["delivery"]["feedback"] == bounced
    assert explained["reachable"]["suppressed"] == "bounced"
    assert "It came back at 2026-11-21 10:00:00 UTC: the address takes no mail." in explained["sentence"]
    again = ScheduleFactory(run_at=NOW + HOUR)
    service.at(NOW + HOUR).step()
    explained = api.get(f"explain?schedule={again.pk}&recipient={persons[1].external_id}").json()
    assert (explained["code"], explained["delivery"]["reason"], explained["delivery"]["detail"]) == (
        "bounced",
        "bounced",
        "",
    )
    assert "An earlier message to this address came back" in explained["sentence"]
    assert "since 2026-11-21 10:00:00 UTC" in explained["sentence"]
