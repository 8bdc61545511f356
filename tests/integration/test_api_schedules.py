"""``/api/v1/schedules``: kept, read, changed and ended, each answer as promised."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection

from audit.models import AuditEvent
from frontend.api import idempotency
from frontend.instants import instant
from frontend.keysets import encode
from frontend.models import IdempotencyKey
from schedules import operations
from schedules.models import Catalogue, Schedule
from tests.api import Api, token
from tests.factories import NOW, RecipientFactory, ScheduleFactory, TemplateFactory, people

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(service) -> Api:
    return Api(token())


def definition(**changes: object) -> dict[str, object]:
    return {
        "name": "Winter sale",
        "channel": "email",
        "audienceQuery": {"all": []},
        "templateId": TemplateFactory.create().pk,
        "scheduleType": "once",
        "runAt": instant(NOW + timedelta(hours=1)),
        **changes,
    }


def test_a_schedule_is_created_read_changed_and_deleted(api):
    asked = definition()
    created = api.post("schedules", asked)
    assert created.status_code == 201, created.json()
    kept = created.json()
    assert created["Location"] == f"/api/v1/schedules/{kept['id']}"
    assert created["ETag"] == '"1"'
    assert kept["status"] == "active"
    assert kept["runAt"] == kept["nextRunAt"] == "2026-11-21T11:00:00Z"
    assert kept["createdBy"].startswith("client:")

    read = api.get(f"schedules/{kept['id']}")
    assert read.json() == kept
    assert read["ETag"] == '"1"'

    changed = api.patch(f"schedules/{kept['id']}", {"name": "Spring sale"}, version=1)
    assert changed.status_code == 200
    assert changed["ETag"] == '"2"'
    assert changed.json()["name"] == "Spring sale"

    replaced = api.put(f"schedules/{kept['id']}", asked, version=2)
    assert replaced.json()["name"] == "Winter sale"
    assert replaced.json()["version"] == 3

    deleted = api.delete(f"schedules/{kept['id']}", version=3)
    assert deleted.status_code == 200
    assert deleted.json()["status"] == "deleted"
    assert api.get(f"schedules/{kept['id']}").status_code == 404
    assert api.get("schedules").json()["items"] == []
    actions = list(AuditEvent.objects.order_by("id").values_list("action", flat=True))
    assert actions[-4:] == ["schedule.create", "schedule.update", "schedule.update", "schedule.delete"]


def test_the_request_id_stands_in_the_answer_and_in_the_audit(api):
    created = api.post("schedules", definition(), headers={"X-Request-ID": "order-17"})
    assert created["X-Request-ID"] == "order-17"
    assert AuditEvent.objects.latest("id").request_id == "order-17"
    for unusable in ("order\n18", "anna@example.com"):
        refused = api.post("schedules", {}, headers={"X-Request-ID": unusable})
        assert refused.json()["requestId"] == refused["X-Request-ID"] != unusable


def test_every_problem_is_told_at_once_each_with_its_pointer(api):
    answer = api.post(
        "schedules",
        {
            "name": "",
            "channel": "fax",
            "audienceQuery": {"all": [{"field": "shoe", "op": "eq", "value": 1}]},
            "templateId": "7",
            "scheduleType": "once",
            "runAt": "2020-01-01T00:00:00Z",
            "maxPerUserPerDay": 0,
            "colour": "red",
            "id": 5,
        },
    )
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    told = {error["pointer"]: error["code"] for error in answer.json()["errors"]}
    assert set(told) >= {"/name", "/channel", "/audienceQuery/all/0/field", "/templateId", "/runAt"}
    assert "/maxPerUserPerDay" in told
    assert told["/colour"] == "unknown"
    assert told["/id"] == "read_only"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 5),
        ("templateId", "1"),
        ("templateId", 1.0),
        ("templateId", True),
        ("countsTowardCaps", "true"),
        ("countsTowardCaps", 1),
        ("maxPerUserPerDay", "3"),
        ("runAt", 1700000000),
        ("runAt", "2026-12-01T09:00:00"),
        ("runAt", "2026-12-01"),
        ("audienceQuery", "[]"),
        ("sendWindow", ["mon"]),
        ("expiresAfterMinutes", "30"),
        ("maxPerMinute", 0.5),
        ("channel", None),
    ],
)
def test_nothing_is_made_into_something_else(api, field, value):
    answer = api.post("schedules", definition(**{field: value}))
    assert answer.status_code == 400
    assert f"/{field}" in {
        error["pointer"].rpartition("/all")[0] or error["pointer"] for error in answer.json()["errors"]
    }
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b'"text"',
        b'{"name": NaN}',
        b'{"name": "a", "name": "b"}',
        b'{"name": "\\u0000"}',
        b'{"name": "\\ud800"}',
        b"\xff\xfe",
        b'{"name": 1e400}',
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
        b"9" * 5_000,
    ],
)
def test_a_body_that_is_no_json_object_is_a_problem_and_no_failure(api, body):
    answer = api.post("schedules", body, content_type="application/json")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"


def test_what_is_wrong_with_a_request_as_such_is_a_problem_too(api):
    assert api.post("schedules", b"name=x", content_type="application/x-www-form-urlencoded").status_code == 415
    assert api.post("schedules", b'"' + b"a" * 1_100_000 + b'"').status_code == 413
    assert api.call("TRACE", "schedules").status_code == 405
    refused = api.call("DELETE", "schedules")
    assert refused.status_code == 405
    assert refused["Allow"] == "GET, POST, HEAD"
    for path in ("schedule", "schedules/", "schedules/x", f"schedules/{10**30}", "schedules/-1"):
        missing = api.get(path)
        assert missing.status_code == 404
        assert missing["Content-Type"] == "application/problem+json"
    assert Api().get("schedules").status_code == 401
    assert Api("wrong").get("schedules")["WWW-Authenticate"].startswith("Bearer")


def test_a_change_says_which_version_it_means(api):
    schedule = ScheduleFactory.create()
    path = f"schedules/{schedule.pk}"
    assert api.call("PATCH", path, {"name": "x"}).status_code == 428
    assert api.call("DELETE", path).status_code == 428
    operations.update(schedule_id=schedule.pk, changes={"name": "Other"}, by="user:7", now=NOW)
    stale = api.patch(path, {"name": "x"}, version=1)
    assert stale.status_code == 412
    assert stale.json()["changedBy"] == "user:7"
    assert stale.json()["changedAt"] == instant(NOW)
    assert stale.json()["currentVersion"] == 2
    assert api.delete(path, version=1).status_code == 412
    assert api.patch(path, {"name": "x"}, version="*").status_code == 200
    schedule.refresh_from_db()
    assert (schedule.name, schedule.version) == ("x", 3)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ('"3"', 200),
        ('"1", "3"', 200),
        (',"3" ,, "7",', 200),
        ('W/"3", "3"', 200),
        ('W/"3"', 412),  # RFC 9110, 13.1.1: compared strongly, and so never the same
        ('"1", "2"', 412),
        ('"x"', 412),
        ('"03"', 412),
        ('""', 412),
        ('"1,"', 412),
        ("3", 400),
        ('w/"3"', 400),
        ('"3" "4"', 400),
        ('*, "3"', 400),
        ('"3', 400),
        ("", 400),
    ],
)
def test_a_change_takes_any_strong_tag_of_a_list(api, given, status):
    schedule = ScheduleFactory.create()
    recipient = RecipientFactory.create(version=3)
    template = TemplateFactory.create()
    for text in "ab":
        operations.update(schedule_id=schedule.pk, changes={"name": text}, by="user:7", now=NOW)
        contents = [{"channel": "email", "locale": "en", "subject": text, "text": text}]
        assert api.patch(f"templates/{template.pk}", {"contents": contents}).status_code == 200
    catalogue = Catalogue.objects.create(locale="de", messages={}, updated_by="user:7", version=3)
    for path in (f"schedules/{schedule.pk}", f"recipients/{recipient.external_id}", f"templates/{template.pk}"):
        answer = api.call("PATCH", path, {}, headers={"If-Match": given})
        assert answer.status_code == status, (path, answer.json())
        if status == 400:
            assert [each["header"] for each in answer.json()["errors"]] == ["If-Match"]
    put = api.call("PUT", f"catalogues/{catalogue.locale}", {"messages": {}}, headers={"If-Match": given})
    assert put.status_code == status


@pytest.mark.django_db(transaction=True)
def test_of_two_writers_one_wins(service):
    schedule = ScheduleFactory.create()
    bearer = token()

    def write(name: str) -> int:
        try:
            return int(Api(bearer).patch(f"schedules/{schedule.pk}", {"name": name}, version=1).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(write, [f"name {n}" for n in range(8)]))
    assert statuses == [200] + [412] * 7
    assert schedule.versions.count() == 2


# --- Idempotency ------------------------------------------------------------------------------------------------------


def test_the_same_post_again_is_answered_alike_and_done_once(api):
    body = definition()
    first = api.post("schedules", body, headers={"Idempotency-Key": "k1"})
    again = api.post("schedules", body, headers={"Idempotency-Key": "k1"})
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again["ETag"] == first["ETag"]
    assert again["Location"] == first["Location"]
    assert Schedule.objects.count() == 1
    other = api.post("schedules", {**body, "name": "Other"}, headers={"Idempotency-Key": "k1"})
    assert other.status_code == 422
    assert Api(token()).post("schedules", body, headers={"Idempotency-Key": "k1"}).status_code == 201
    assert api.post("schedules", body, headers={"Idempotency-Key": "x" * 256}).status_code == 400


def test_a_refused_request_may_be_mended_and_sent_with_its_key(api):
    assert api.post("schedules", definition(name=""), headers={"Idempotency-Key": "k"}).status_code == 400
    assert not IdempotencyKey.objects.exists()
    assert api.post("schedules", definition(), headers={"Idempotency-Key": "k"}).status_code == 201


def test_a_crash_before_the_answer_is_kept_loses_schedule_and_key_alike(api, monkeypatch):
    def die(*_: object) -> None:
        raise MemoryError

    body = definition()
    with monkeypatch.context() as broken:
        broken.setattr(idempotency, "_keep", die)
        assert api.post("schedules", body, headers={"Idempotency-Key": "k"}).status_code == 500
    assert not Schedule.objects.exists()
    assert not AuditEvent.objects.filter(action="schedule.create").exists()
    assert api.post("schedules", body, headers={"Idempotency-Key": "k"}).status_code == 201
    assert Schedule.objects.count() == 1


def test_a_key_lasts_a_day(api):
    body = definition()
    api.post("schedules", body, headers={"Idempotency-Key": "k"})
    IdempotencyKey.objects.update(created_at=NOW - timedelta(days=400))
    assert api.post("schedules", {**body, "name": "Other"}, headers={"Idempotency-Key": "k"}).status_code == 201
    assert IdempotencyKey.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_fifty_at_once_with_one_key_make_one_schedule(service):
    body = definition()
    bearer = token()

    def send(_: int) -> tuple[int, bytes]:
        try:
            answer = Api(bearer).post("schedules", body, headers={"Idempotency-Key": "one"})
            return answer.status_code, answer.content if answer.status_code == 201 else b""
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(send, range(50)))
    assert Schedule.objects.count() == 1
    assert {status for status, _ in answers} <= {201, 409}
    assert len({content for status, content in answers if status == 201}) == 1


# --- Lists ------------------------------------------------------------------------------------------------------------


def test_pages_hold_still_while_rows_come_and_go(api):
    made = [ScheduleFactory.create(name=f"Schedule {n:02}") for n in range(7)]
    first = api.get("schedules?limit=3&order=id").json()
    ScheduleFactory.create(name="Late")
    operations.delete(schedule_id=made[1].pk, by="user:1", now=NOW)
    operations.delete(schedule_id=made[3].pk, by="user:1", now=NOW)
    second = api.get(f"schedules?limit=3&order=id&cursor={first['nextCursor']}").json()
    third = api.get(f"schedules?limit=3&order=id&cursor={second['nextCursor']}").json()
    assert [each["id"] for each in first["items"]] == [each.pk for each in made[:3]]
    assert [each["id"] for each in second["items"]] == [each.pk for each in made[4:7]]
    assert [each["name"] for each in third["items"]] == ["Late"]
    assert third["nextCursor"] is None


@pytest.mark.parametrize("order", ["id", "-id", "name", "-name", "nextRunAt", "-nextRunAt", "updatedAt", "-updatedAt"])
def test_every_order_gives_each_schedule_once(api, order):
    for n in range(5):
        ScheduleFactory.create(name="same" if n < 3 else f"other {n}")
    draft = operations.duplicate(schedule_id=ScheduleFactory.create().pk, by="user:1", now=NOW)
    assert draft.next_run_at is None
    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"schedules?limit=2&order={order}" + (f"&cursor={cursor}" if cursor else "")).json()
        seen += [each["id"] for each in page["items"]]
        cursor = page["nextCursor"]
    assert len(seen) == len(set(seen)) == 7


def test_the_list_is_filtered(api):
    push = ScheduleFactory.create(name="Push to talk", channel="push")
    cron = ScheduleFactory.create(name="50 % off_", cron="0 9 * * *")
    paused = ScheduleFactory.create(name="Paused one")
    operations.pause(schedule_id=paused.pk, by="user:1", now=NOW)

    def ids(query: str) -> list[int]:
        return [each["id"] for each in api.get(f"schedules?{query}").json()["items"]]

    assert ids("channel=push") == [push.pk]
    assert ids("status=paused") == [paused.pk]
    assert ids("text=TALK") == [push.pk]
    assert ids("text=%25") == [cron.pk]
    assert ids("createdBy=user:1&scheduleType=cron") == [cron.pk]
    assert set(ids("createdBy=user:1")) >= {push.pk, paused.pk}
    assert ids("nextRunFrom=2030-01-01T00:00:00Z") == []
    assert ids("nextRunFrom=2030-01-01T00:00:00%2B22:30") == []  # an offset that no clock has


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=201", "limit=x", "order=shoe", "status=deleted", "colour=red", "cursor=!!", "cursor=bnVsbA",
        "cursor=WzEsMiwzXQ", f"cursor={encode(['name', chr(0), 5])}&order=name", "limit=1_0", "limit=%D9%A3",
        "limit=5.0", "nextRunFrom=yesterday", "status=active&status=paused", "text=%00",
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_read_is_refused_by_name(api, query):
    answer = api.get(f"schedules?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


# --- Actions ----------------------------------------------------------------------------------------------------------


def test_pausing_says_whom_it_touches(api, service, provider):
    people(3)
    schedule = ScheduleFactory.create()
    service.open()
    paused = api.post(f"schedules/{schedule.pk}/pause", {"reason": "Wrong price"}).json()
    assert paused["status"] == "paused"
    assert paused["statusReason"] == "Wrong price"
    (touched,) = paused["touched"]
    assert touched["effect"] == "paused"
    assert touched["left"] == 3
    assert touched["done"] == {}
    assert api.post(f"schedules/{schedule.pk}/resume").json()["status"] == "active"
    assert api.post(f"schedules/{schedule.pk}/cancel").json()["touched"][0]["effect"] == "cancelled"
    refused = api.post(f"schedules/{schedule.pk}/pause")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("#wrong-state")


def test_a_copy_is_a_draft_that_can_be_activated(api):
    schedule = ScheduleFactory.create(name="x" * 200)
    copy = api.post(f"schedules/{schedule.pk}/duplicate")
    assert copy.status_code == 201
    draft = copy.json()
    assert draft["status"] == "draft"
    assert draft["name"] == "Copy of " + "x" * 192
    assert draft["runAt"] is None
    assert api.post(f"schedules/{draft['id']}/activate").status_code == 400
    api.patch(f"schedules/{draft['id']}", {"runAt": instant(NOW + timedelta(days=1))})
    assert api.post(f"schedules/{draft['id']}/activate").json()["status"] == "active"


def test_its_history_tells_each_change(api):
    schedule = ScheduleFactory.create(name="One")
    operations.update(schedule_id=schedule.pk, changes={"name": "Two"}, by="user:2", now=NOW)
    operations.update(schedule_id=schedule.pk, changes={"max_per_user_per_day": 3}, by="user:3", now=NOW)
    page = api.get(f"schedules/{schedule.pk}/history?limit=2").json()
    assert [(each["version"], each["changes"]) for each in page["items"]] == [
        (3, [{"field": "maxPerUserPerDay", "before": None, "after": 3}]),
        (2, [{"field": "name", "before": "One", "after": "Two"}]),
    ]
    last = api.get(f"schedules/{schedule.pk}/history?limit=2&cursor={page['nextCursor']}").json()
    assert [each["version"] for each in last["items"]] == [1]


def test_next_runs_are_those_that_fire(api):
    created = api.post(
        "schedules",
        definition(
            scheduleType="cron", runAt=None, cron="30 2 * * *", timeZone="Europe/Berlin", startAt="2027-03-27T00:00:00Z"
        ),
    ).json()
    runs = api.get(f"schedules/{created['id']}/next-runs?count=3").json()
    assert [each["wallTime"] for each in runs["items"]] == [
        "2027-03-27T02:30:00", "2027-03-28T03:30:00", "2027-03-29T02:30:00",
    ]  # fmt: skip
    assert runs["items"][1]["occurrenceAt"] == "2027-03-28T01:30:00Z"
    assert runs["sentence"]


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_a_client_that_asks_too_often_is_told_when_to_come_back(service, settings):
    settings.API_RATE, settings.API_BURST = 0.5, 3
    api = Api(token())
    answers = [api.get("schedules") for _ in range(5)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
    assert answers[0]["RateLimit"].startswith('"client";r=2')
    assert 1 <= int(answers[3]["Retry-After"]) <= 2
    assert answers[3].json()["type"].endswith("#too-many-requests")
    assert Api(token()).get("schedules").status_code == 200


def test_without_redis_nobody_is_limited(service, settings, monkeypatch):
    from delivery import counters
    from frontend import buckets

    def away(*_: object) -> None:
        raise counters.CountersAway("gone")

    monkeypatch.setattr(buckets._TAKE, "run", away)
    monkeypatch.setattr(buckets._Rest, "until", 0.0)
    answer = Api(token()).get("schedules")
    assert answer.status_code == 200
    assert "RateLimit" not in answer

    # One that hangs is not waited for at each request.
    monkeypatch.setattr(buckets._TAKE, "run", lambda *_: pytest.fail("asked again at once"))
    assert Api(token()).get("schedules").status_code == 200


def test_running_now_adds_an_occurrence_that_moves_no_firing(api, service, provider):
    people(2)
    people(1, time_zone="Pacific/Kiritimati")
    schedule = ScheduleFactory.create(cron="0 9 * * *", time_zone_mode="user_local", max_runs=5)
    before = api.get(f"schedules/{schedule.pk}/next-runs").json()
    assert len(before["items"]) == 5
    answer = api.post(f"schedules/{schedule.pk}/run-now")
    assert answer.status_code == 202
    service.open()
    service.send(rounds=2)
    assert len(provider.reached()) == 3  # each at once, whatever the zone
    assert answer["Location"] == f"/api/v1/occurrences/{answer.json()['occurrenceId']}"
    after = api.get(f"schedules/{schedule.pk}/next-runs").json()["items"]
    assert after == before["items"][1:]  # today's own firing has opened meanwhile
    service.run_to(NOW + timedelta(days=1))
    schedule.refresh_from_db()
    assert schedule.runs == 2  # today's and tomorrow's
    assert AuditEvent.objects.filter(action="schedule.run_now").count() == 1


def test_running_a_one_off_now_runs_it_once(api, service, provider):
    people(2)
    schedule = ScheduleFactory.create(run_at=NOW + timedelta(days=2), time_zone_mode="user_local")
    answer = api.post(f"schedules/{schedule.pk}/run-now")
    assert answer.status_code == 202
    assert answer.json()["occurrenceId"] is None
    service.run_to(NOW + timedelta(days=3))
    assert sorted(provider.reached().values()) == [1, 1]
    again = api.post(f"schedules/{schedule.pk}/run-now")
    assert again.status_code == 409


def test_only_an_active_schedule_runs_now(api):
    schedule = ScheduleFactory.create(cron="0 9 * * *")
    operations.pause(schedule_id=schedule.pk, by="user:1", now=NOW)
    assert api.post(f"schedules/{schedule.pk}/run-now").status_code == 409


def test_an_edit_of_a_running_schedule_says_who_is_done_and_what_happens_to_the_rest(api, service, provider):
    people(4)
    schedule = ScheduleFactory.create(time_zone_mode="user_local", run_at=NOW + timedelta(days=1), now=NOW)
    people(3, time_zone="Asia/Tokyo")
    service.at(NOW + timedelta(hours=15)).open()
    service.send(rounds=2)
    done = len(provider.reached())
    assert done == 3
    edited = api.patch(f"schedules/{schedule.pk}?applyTo=unsent", {"name": "New name"}).json()
    (touched,) = edited["touched"]
    assert touched["done"] == {"1": 3}
    assert touched["left"] == 4
    assert touched["leftVersion"] == 2
    kept = api.patch(f"schedules/{schedule.pk}", {"name": "Newer name"}).json()["touched"][0]
    assert kept["effect"] == "untouched"
    assert kept["leftVersion"] == 2


def test_programs_are_spoken_to_in_english_whatever_they_prefer(api):
    wrong = {"name": "", "channel": "email", "runAt": "soon", "scheduleType": "once", "templateId": "x"}
    told = [api.post("schedules", wrong, headers={"Accept-Language": language}).json() for language in ("en", "de")]
    assert told[0]["errors"]
    assert told[0]["errors"] == told[1]["errors"]


def test_a_problems_type_leads_to_its_words(api, client):
    problem = api.get("schedules/999999").json()
    address, _, slug = problem["type"].partition("#")
    page = client.get(address.removeprefix("http://testserver"))
    assert page.status_code == 200
    assert f'id="{slug}"' in page.content.decode()


@pytest.mark.parametrize("path", ["/api/docs", "/api/reference", "/api/problems"])
def test_its_pages_load_nothing_from_elsewhere(client, path):
    page = client.get(path).content.decode()
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)


MERGE_PATCH = "application/merge-patch+json"


def test_a_merge_patch_is_merged_into_what_there_is(api):
    query = {"field": "attributes.plan", "op": "eq", "value": "pro"}
    schedule = ScheduleFactory.create(audience_query=query)
    path = f"schedules/{schedule.pk}"
    patch = {"name": "Renamed", "audienceQuery": {"value": "free"}, "maxRuns": None}
    assert api.patch(path, patch).status_code == 400  # replaced whole, the query says neither field nor operator
    changed = api.patch(path, patch, version=1, content_type=f"{MERGE_PATCH}; charset=utf-8")
    assert changed.status_code == 200, changed.json()
    assert changed.json()["name"] == "Renamed"
    assert changed.json()["audienceQuery"] == {**query, "value": "free"}
    other = api.patch(
        path, {"audienceQuery": {"field": None, "op": None, "value": None, "all": []}}, content_type=MERGE_PATCH
    )
    assert other.json()["audienceQuery"] == {"all": []}
    refused = api.patch(path, {"audienceQuery": None, "colour": "red"}, content_type=MERGE_PATCH)
    assert {each["pointer"] for each in refused.json()["errors"]} == {"/audienceQuery", "/colour"}
    deep = b'{"audienceQuery": ' + b'{"not": ' * 900 + b"1" + b"}" * 901
    assert api.call("PATCH", path, deep, headers={"If-Match": "*"}, content_type=MERGE_PATCH).status_code == 400


def test_only_a_change_is_a_merge_patch(api):
    schedule = ScheduleFactory.create()
    assert api.post("schedules", definition(), content_type=MERGE_PATCH).status_code == 415
    assert api.put(f"schedules/{schedule.pk}", definition(), content_type=MERGE_PATCH).status_code == 415
    refused = api.patch(f"schedules/{schedule.pk}", {"name": "x"}, content_type="application/json-patch+json")
    assert refused.status_code == 415
    assert refused["Accept-Patch"] == f"application/json, {MERGE_PATCH}"


def test_a_send_window_is_kept_as_it_was_said_and_what_is_wrong_with_it_named(api):
    window = {"days": ["mon", "fri"], "from": "22:00", "to": "06:00"}
    made = api.post("schedules", definition(sendWindow=window, expiresAfterMinutes=90, maxPerMinute=600)).json()
    assert (made["sendWindow"], made["expiresAfterMinutes"], made["maxPerMinute"]) == (window, 90, 600)
    refused = api.post("schedules", definition(sendWindow={"days": [], "from": "9", "to": "06:00"}))
    assert {error["pointer"] for error in refused.json()["errors"]} == {"/sendWindow/days", "/sendWindow/from"}
