"""``/api/v1/recipients:bulk``: many people as NDJSON, a result for each line."""

import json
import time

import pytest
from django.db import connection

from audit.models import AuditEvent
from frontend.api import recipients_bulk
from frontend.models import IdempotencyKey
from schedules.models import Device, Recipient
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import READ_WRITE, Api, token
from tests.factories import NOW, RecipientFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(service) -> Api:
    return Api(token())


def send(api, *lines, **options):
    body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return api.call("POST", "recipients:bulk", body, content_type="application/x-ndjson", **options)


def results(answer):
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.splitlines()]


def test_each_line_has_its_result_in_order(api):
    RecipientFactory(external_id="known", email="", locale="de", time_zone="")
    RecipientFactory(external_id="same", email="same@example.com", attributes={"a": 1})
    told = results(
        send(
            api,
            {"externalId": "new", "timeZone": "Europe/Vienna", "devices": [{"platform": "ios", "token": "t"}]},
            {"externalId": "known", "attributes": {"plan": "pro"}},
            b"",
            {"externalId": "same", "email": "same@example.com", "attributes": {"a": 1}},
        )
    )
    assert told == [
        {"line": 1, "status": "created", "externalId": "new", "errors": []},
        {"line": 2, "status": "updated", "externalId": "known", "errors": []},
        {"line": 4, "status": "unchanged", "externalId": "same", "errors": []},
    ]
    new, known, same = (Recipient.objects.get(external_id=name) for name in ("new", "known", "same"))
    assert (new.time_zone, new.devices.get().token, new.version, new.created_at) == ("Europe/Vienna", "t", 1, NOW)
    assert (known.locale, known.attributes, known.version) == ("de", {"plan": "pro"}, 2)
    assert same.version == 1
    assert known.updated_by.startswith("client:")
    event = AuditEvent.objects.get(action="recipient.import")
    assert (event.payload_diff["lines"], event.payload_diff["created"], event.payload_diff["updated"]) == (3, 1, 1)


def test_a_broken_line_concerns_itself_alone_and_tells_everything_wrong_with_it(api):
    told = results(
        send(
            api,
            b'{"externalId": "a", ',
            {"externalId": "b", "email": "no address", "consent": {"email": "yes"}, "shoe": 43},
            b"\xff\xfe\xff",
            {"externalId": "c", "attributes": {"big": "x" * 20_000}},
            {"email": "nobody@example.com"},
            {"externalId": "d"},
            {"externalId": "d", "email": "second@example.com"},
            {"externalId": "e", "devices": [{"platform": "ios", "token": "t"}]},
            {"externalId": "f", "devices": [{"platform": "ios", "token": "t"}]},
            b'{"externalId": "\\u0000"}',
            b"7",
        )
    )
    assert [(line["line"], line["status"], line["externalId"]) for line in told] == [
        (1, "invalid", None),
        (2, "invalid", "b"),
        (3, "invalid", None),
        (4, "invalid", "c"),
        (5, "invalid", None),
        (6, "created", "d"),
        (7, "invalid", "d"),
        (8, "created", "e"),
        (9, "invalid", "f"),
        (10, "invalid", None),
        (11, "invalid", None),
    ]
    assert {error["pointer"] for error in told[1]["errors"]} == {"/email", "/consent/email", "/shoe"}
    assert [error["pointer"] for error in told[3]["errors"]] == ["/attributes/big"]
    assert [error["pointer"] for error in told[4]["errors"]] == ["/externalId"]
    assert "line 6" in told[6]["errors"][0]["detail"]
    assert set(Recipient.objects.values_list("external_id", flat=True)) == {"d", "e"}
    assert AuditEvent.objects.get().payload_diff["skipped"] == 9


def test_a_device_alone_makes_a_line_an_update_also_for_whom_it_is_taken_from(api):
    send(api, {"externalId": "a", "devices": [{"platform": "ios", "token": "t"}]}, {"externalId": "b"})
    told = results(send(api, {"externalId": "b", "devices": [{"platform": "ios", "token": "t"}]}))
    assert told[0]["status"] == "updated"
    assert Device.objects.get().recipient.external_id == "b"
    assert dict(Recipient.objects.values_list("external_id", "version")) == {"a": 2, "b": 2}


@pytest.mark.parametrize("body", [b"", b"\n  \n", b'[{"externalId": "a"}]', b"PK\x03\x04rest", b"\x1f\x8brest"])
def test_a_body_that_is_no_ndjson_is_refused_as_a_whole(api, body):
    answer = send(api, body)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["type"].endswith("#unreadable")
    assert not Recipient.objects.exists()
    assert not AuditEvent.objects.exists()


def test_another_media_type_is_refused(api):
    assert api.post("recipients:bulk", {"externalId": "a"}).status_code == 415
    keyed = api.post("recipients:bulk", {"externalId": "a"}, headers={"Idempotency-Key": "k"})
    assert keyed.status_code == 415
    assert "x-ndjson" in keyed.json()["detail"]


def test_too_many_lines_or_bytes_are_refused(api, monkeypatch):
    monkeypatch.setattr(recipients_bulk, "MAX_LINES", 3)
    three = [{"externalId": name} for name in "abc"]
    assert len(results(send(api, *three))) == 3
    assert len(results(send(api, *three, b""))) == 3
    assert send(api, *three, {"externalId": "d"}).status_code == 413
    monkeypatch.setattr(recipients_bulk, "MAX_BYTES", 40)
    assert send(api, {"externalId": "e", "attributes": {"a": "x" * 40}}).status_code == 413
    assert Recipient.objects.count() == 3


def test_the_same_key_merges_once_and_answers_alike(api):
    headers = {"Idempotency-Key": "k"}
    lines = ({"externalId": "ä"}, {"externalId": "b", "email": "-"})
    first = send(api, *lines, headers=headers)
    Recipient.objects.all().delete()
    again = send(api, *lines, headers=headers)
    assert again["Idempotency-Replayed"] == "true"
    assert again.content == first.content
    assert results(again)[0]["status"] == "created"
    assert not Recipient.objects.exists()
    assert send(api, {"externalId": "other"}, headers=headers).status_code == 422


def test_only_who_may_write_people_sends_them(service):
    for role, status in ((Role.ANALYST, 403), (Role.MARKETER, 403), (Role.ADMIN, 200)):
        bearer = token(user=account(role), scopes=READ_WRITE)
        assert send(Api(bearer), {"externalId": "a"}).status_code == status
    assert send(Api(token(scopes=str(Scope.READ))), {"externalId": "a"}).status_code == 403
    assert send(Api(), {"externalId": "a"}).status_code == 401


def test_ten_thousand_people_take_seconds_and_their_answer_little_room(api, django_assert_max_num_queries):
    lines = [
        {"externalId": f"person-{n}", "email": f"person-{n}@example.com", "attributes": {"age": n % 90}}
        for n in range(10_000)
    ]
    started = time.process_time()
    with django_assert_max_num_queries(40):
        told = results(send(api, *lines, headers={"Idempotency-Key": "k"}))
    assert time.process_time() - started < 15
    assert {line["status"] for line in told} == {"created"}
    assert [line["externalId"] for line in told] == [line["externalId"] for line in lines]
    assert Recipient.objects.count() == 10_000
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_column_size(body), length(body) FROM {IdempotencyKey._meta.db_table}")
        kept, whole = cursor.fetchone()
    assert kept < whole / 3


@pytest.mark.parametrize("name", ["external_id", "time_zone", "Time-Zone", "e-mail", "tz", "attributes.plan", "a/b~c"])
def test_a_field_has_one_name_in_bulk_as_alone(api, name):
    (told,) = results(send(api, {"externalId": "a", "email": "a@example.com", name: "x"}))
    assert (told["status"], told["externalId"]) == ("invalid", "a")
    (error,) = told["errors"]
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    assert (error["pointer"], error["code"]) == (pointer, "unknown")
    assert "use externalId, email, locale, timeZone, tags" in error["detail"]
    alone = api.call("PUT", "recipients/a", {name: "x"})
    assert alone.status_code == 400
    assert [(each["pointer"], each["code"]) for each in alone.json()["errors"]] == [(pointer, "unknown")]
    assert not Recipient.objects.exists()


def test_what_is_no_person_is_told_how_one_is_written(api):
    (told,) = results(send(api, b"42"))
    assert '"externalId": "42"' in told["errors"][0]["detail"]
