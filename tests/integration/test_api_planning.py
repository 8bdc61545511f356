"""``schedules:validate`` and ``schedules:forecast``: told before it is kept, and nothing kept by it."""

from datetime import timedelta
from typing import Any

import pytest

from audit.models import AuditEvent
from frontend.instants import instant
from frontend.models import IdempotencyKey
from schedules.models import Occurrence, Schedule
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import Api, token
from tests.factories import NOW, DeviceFactory, ScheduleFactory, TemplateFactory, people
from tests.service import DAY, HOUR, Service, states

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(service: Service) -> Api:
    return Api(token())


def definition(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Winter sale",
        "channel": "email",
        "audienceQuery": {"all": []},
        "templateId": TemplateFactory.create().pk,
        "scheduleType": "once",
        "runAt": instant(NOW + HOUR),
        **changes,
    }


def local(**changes: Any) -> dict[str, Any]:
    """At noon of the day, on each recipient's own clock; it is ten in the morning in UTC."""
    return definition(timeZoneMode="user_local", runAt="2026-11-21T12:00:00Z", timeZone="Europe/Berlin", **changes)


# Valid?


def test_a_valid_definition_is_valid_and_nothing_is_kept(api: Api) -> None:
    before = AuditEvent.objects.count() + 1  # the template's own
    answer = api.post("schedules:validate", definition())
    assert (answer.status_code, answer.json()) == (200, {"valid": True, "errors": []})
    assert (Schedule.objects.count(), AuditEvent.objects.count()) == (0, before)


def test_a_validation_tells_what_a_creation_would_refuse(api: Api) -> None:
    wrong = definition(
        name="",
        channel="fax",
        runAt="2020-01-01T00:00:00Z",
        audienceQuery={"all": [{"field": "shoe", "op": "eq", "value": 1}]},
        maxPerUserPerDay="2",
        colour="red",
    )
    refused = api.post("schedules", wrong)
    told = api.post("schedules:validate", wrong)
    assert refused.status_code == 400
    assert told.json() == {"valid": False, "errors": refused.json()["errors"]}
    pointers = {error["pointer"] for error in told.json()["errors"]} - {"/templateId"}  # it says nothing by fax
    assert pointers == {"/name", "/channel", "/runAt", "/audienceQuery/all/0/field", "/maxPerUserPerDay", "/colour"}


def test_a_draft_may_be_incomplete(api: Api) -> None:
    draft = definition(audienceQuery={}, status="draft")
    assert api.post("schedules:validate", draft).json()["valid"] is True
    assert api.post("schedules:validate", {**draft, "status": "active"}).json()["valid"] is False


@pytest.mark.parametrize("body", [[], "text", 5, None, True])
def test_what_is_no_object_can_not_be_validated(api: Api, body: Any) -> None:
    answer = api.post("schedules:validate", b"null" if body is None else body)
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"pointer": "", "code": "wrong_type", "detail": "Send an object."}]


# Forecast


def test_a_forecast_tells_waves_zones_and_who_gets_nothing(api: Api) -> None:
    for zone, count in {"Europe/Berlin": 2, "America/New_York": 3, "Asia/Tokyo": 4, "": 1, "Mars/Base": 1}.items():
        people(count, time_zone=zone)
    people(1, time_zone="America/New_York", consent={"email": False})
    people(1, time_zone="America/New_York", email="")
    people(1, time_zone="Asia/Tokyo", email="")  # past, so that nobody looks at the address
    answer = api.post("schedules:forecast", local())
    assert answer.status_code == 200, answer.json()
    berlin = {
        "timeZone": "Europe/Berlin",
        "people": 4,
        "at": "2026-11-21T11:00:00Z",
        "localTime": "2026-11-21T12:00:00+01:00",
    }
    new_york = {
        "timeZone": "America/New_York",
        "people": 5,
        "at": "2026-11-21T17:00:00Z",
        "localTime": "2026-11-21T12:00:00-05:00",
    }
    tokyo = {
        "timeZone": "Asia/Tokyo",
        "people": 5,
        "at": "2026-11-21T03:00:00Z",
        "localTime": "2026-11-21T12:00:00+09:00",
    }
    assert answer.json() == {
        "asOf": "2026-11-21T10:00:00Z",
        "sentence": "Once, on 2026-11-21 at 12:00 on each recipient's own clock",
        "occurrenceAt": "2026-11-21T12:00:00Z",
        "opensAt": "2026-11-20T22:00:00Z",
        "closesAt": "2026-11-22T00:00:00Z",
        "targeted": 14,
        "userService": None,
        "waves": [
            {"at": "2026-11-21T11:00:00Z", "people": 4, "zones": [berlin]},
            {"at": "2026-11-21T17:00:00Z", "people": 5, "zones": [new_york]},
        ],
        "past": {"people": 5, "onPast": "skip", "zones": [tokyo]},
        "expiring": 0,
        "fallback": {
            "timeZone": "Europe/Berlin",
            "missing": 1,
            "invalid": 1,
            "invalidNames": [{"name": "Mars/Base", "people": 1}],
        },
        "suppressed": 1,
        "unaddressable": 1,
        "capped": {"people": 0, "isEstimate": False, "sampleSize": None},
        "attempted": 7,
        "duration": {"peoplePerSecond": 4300.0, "seconds": 0.002, "endsAt": "2026-11-21T17:00:00.001163Z"},
        "notes": [],
        "isScan": True,
    }
    assert not Schedule.objects.exists()
    assert not IdempotencyKey.objects.exists()


def test_who_is_past_is_sent_to_at_once_where_that_is_asked(api: Api) -> None:
    people(2, time_zone="Asia/Tokyo")
    told = api.post("schedules:forecast", local(onPast="send_now")).json()
    assert [(wave["at"], wave["people"]) for wave in told["waves"]] == [("2026-11-21T10:00:00Z", 2)]
    assert told["past"]["people"] == 2
    assert told["attempted"] == 2


def test_a_forecast_counts_what_another_schedule_will_send_before(api: Api, service: Service, provider: Any) -> None:
    people(3, attributes={"plan": "pro"})
    people(2)
    ScheduleFactory.create(
        run_at=NOW + timedelta(minutes=30), audience_query={"field": "attributes.plan", "op": "eq", "value": "pro"}
    )
    asked = definition(maxPerUserPerDay=1)
    told = api.post("schedules:forecast", asked).json()
    assert told["capped"] == {"people": 3, "isEstimate": False, "sampleSize": None}
    kept = api.post("schedules", asked).json()
    service.run_to(NOW + 2 * HOUR)
    assert states(Schedule.objects.get(pk=kept["id"])) == {"rate_limited": 3, "sent": 2}


def test_a_schedule_is_not_counted_beside_its_own_new_definition(api: Api) -> None:
    people(2)
    standing = api.post("schedules", definition(maxPerUserPerDay=1)).json()
    asked = definition(maxPerUserPerDay=1, runAt=instant(NOW + 2 * HOUR))
    assert api.post("schedules:forecast", asked).json()["capped"]["people"] == 2
    editing = {**asked, "scheduleId": standing["id"]}
    assert api.post("schedules:forecast", editing).json()["capped"]["people"] == 0


def test_a_later_run_of_a_cron_follows_its_earlier_ones(api: Api) -> None:
    people(2)
    daily = definition(scheduleType="cron", cron="0 9 * * *", runAt=None, maxPerUserPerWeek=2)
    told = [
        api.post("schedules:forecast", {**daily, "occurrenceAt": f"2026-11-{day}T09:00:00Z"}).json()
        for day in (22, 23, 24, 29)
    ]
    assert [each["capped"]["people"] for each in told] == [0, 0, 2, 0]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"occurrenceAt": "2026-11-22T09:30:00Z"}, "no_firing"),
        ({"occurrenceAt": "2026-11-20T09:00:00Z"}, "no_firing"),
        ({"occurrenceAt": "2026-11-23T09:00:00Z", "maxRuns": 1}, "no_firing"),
        ({"occurrenceAt": "0001-01-01T00:00:00Z"}, "no_firing"),
        ({"occurrenceAt": "9999-12-31T23:59:59Z"}, "no_firing"),
        ({"occurrenceAt": "2026-11-22T09:00:00"}, "naive"),
        ({"scheduleType": "once", "cron": "", "runAt": "2026-11-22T09:00:00Z",
          "occurrenceAt": "2026-11-22T09:00:00Z"}, "not_applicable"),
    ],
)  # fmt: skip
def test_an_occurrence_that_is_none_is_refused(api: Api, changes: dict[str, Any], code: str) -> None:
    cron = definition(scheduleType="cron", cron="0 9 * * *", runAt=None)
    answer = api.post("schedules:forecast", {**cron, **changes})
    assert answer.status_code == 400
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [("/occurrenceAt", code)]


def test_a_definition_that_is_wrong_is_not_forecast(api: Api) -> None:
    answer = api.post("schedules:forecast", definition(cron="* * *", templateId=10**12))
    assert answer.status_code == 400
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/cron", "/templateId"}


def test_clock_changes_of_the_next_ten_runs_are_told(service: Service, api: Api) -> None:
    service.at(NOW + 120 * DAY)  # 21 March
    cron = definition(scheduleType="cron", cron="30 2 * * *", timeZone="Europe/Berlin", runAt=None)
    (note,) = api.post("schedules:forecast", cron).json()["notes"]
    assert (note["occurrenceAt"], note["kind"]) == ("2027-03-28T01:30:00Z", "moved")
    assert note["zones"] == ["Europe/Berlin"]


def test_a_forecast_asks_the_same_number_of_questions_of_any_audience(
    api: Api, django_assert_max_num_queries: Any
) -> None:
    ScheduleFactory.create(run_at=NOW + timedelta(minutes=30))
    asked = definition(maxPerUserPerDay=1, channel="push")
    for count in (2, 40):
        for person in people(count, time_zone="Asia/Tokyo"):
            DeviceFactory.create(recipient=person)
        with django_assert_max_num_queries(32):
            answer = api.post("schedules:forecast", asked)
        assert answer.json()["capped"]["people"] == answer.json()["targeted"]


def test_a_forecast_opens_nothing(api: Api) -> None:
    people(1)
    api.post("schedules:forecast", definition())
    assert not Occurrence.objects.exists()


@pytest.mark.parametrize("path", ["schedules:validate", "schedules:forecast", "audiences:preview", "templates:preview"])
def test_whoever_may_read_may_ask(service: Service, path: str) -> None:
    read, write = str(Scope.READ), str(Scope.WRITE)
    analyst, nobody = account(Role.ANALYST), account(None)
    assert Api().post(path, {}).status_code == 401
    assert Api(token(scopes=write)).post(path, {}).status_code == 403
    assert Api(token(scopes=read, user=nobody)).post(path, {}).status_code == 403
    for bearer in (token(scopes=read), token(scopes=read, user=analyst)):
        assert Api(bearer).post(path, {}).status_code in (200, 400)
    assert Api(token()).get(path).status_code == 405
