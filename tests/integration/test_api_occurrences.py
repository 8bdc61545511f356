"""``/api/v1/occurrences``: what a run did, and what may be decided about it."""

from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit.models import Action, AuditEvent
from delivery import books
from delivery.models import Batch, Delivery, State
from delivery.providers.base import Answer, Verdict
from schedules import operations
from schedules.models import Occurrence, OccurrenceState, Recipient
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import Api, token
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, people
from tests.service import HOUR, MINUTE, only_occurrence, states

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(service) -> Api:
    return Api(token())


@pytest.fixture
def mixed(service, provider):
    """Five who got it, three whom the provider rejects, one busy, one without an address."""
    fine, rejected, busy = people(5), people(3), people(1)
    RecipientFactory(external_id="nowhere", email="")
    fate = {person.pk: (Verdict.PERMANENT, "message_rejected") for person in rejected}
    fate |= {person.pk: (Verdict.TRANSIENT, "transient_failure") for person in busy}
    provider.answer = staticmethod(lambda m: Answer(m.key, *fate.get(m.recipient_id, (Verdict.SENT, ""))))
    schedule = ScheduleFactory(name="News")
    service.step()
    assert len(fine) == states(schedule)["sent"]
    return schedule


def counted(answer):
    return {name: people for name, people in answer.items() if people}


def test_a_runs_books_progress_and_waves_are_what_really_happened(api, service, provider, mixed):
    run = only_occurrence(mixed)
    answer = api.get(f"occurrences/{run.pk}")
    assert answer.status_code == 200
    told = answer.json()
    asked = len(provider.messages())
    assert counted(told["counted"]) == {"sent": 5, "failed": 3, "unaddressable": 1, "pending": 1}
    assert asked == 9
    assert told["books"]["rows"] == told["books"]["counted"] == told["counted"]
    assert (told["books"]["targeted"], told["books"]["closes"], told["books"]["differences"]) == (10, True, [])
    assert (told["books"]["isOpen"], told["books"]["isArchived"]) == (True, False)
    assert (told["progress"]["done"], told["progress"]["targeted"]) == (9, 10)
    assert told["progress"]["perSecond"] == 9.0
    assert told["progress"]["eta"] == f"{Batch.objects.get().next_due_at:%Y-%m-%dT%H:%M:%S.%fZ}"
    (wave,) = told["waves"]
    assert (wave["dueAt"], wave["people"], wave["open"], wave["sent"]) == ("2026-11-21T10:00:00Z", 10, 1, 5)
    assert (wave["startedAt"], wave["lateSeconds"]) == ("2026-11-21T10:00:00Z", 0)
    assert (told["state"], told["heldReason"], told["atOnce"]) == ("running", "", False)
    assert (told["version"], told["templateVersion"], told["scheduleId"]) == (1, 1, mixed.pk)
    rows = Delivery.objects.exclude(called_at=None).filter(attempt=1, due_at=NOW)
    assert told["punctuality"]["people"] == rows.count() == 8
    assert -0.1 < told["punctuality"]["p50"] <= told["punctuality"]["p99"] < 0.1  # the clock stands still
    assert told["punctuality"]["isSample"] is False

    provider.reset()
    service.at(Batch.objects.get().next_due_at).step()
    told = api.get(f"occurrences/{run.pk}").json()
    assert counted(told["counted"]) == {"sent": 6, "failed": 3, "unaddressable": 1}
    assert (told["state"], told["books"]["isOpen"]) == ("finished", False)
    assert (told["progress"]["done"], told["progress"]["eta"]) == (10, None)


def test_waves_of_many_and_of_few_people_are_told_alike(api, service):
    people(60, time_zone="Europe/Berlin")
    people(3, time_zone="Asia/Tokyo")
    people(2, time_zone="Asia/Kathmandu")
    schedule = ScheduleFactory(time_zone_mode="user_local", run_at=NOW + 24 * HOUR)
    service.run_to(NOW + 16 * HOUR)
    told = api.get(f"occurrences/{only_occurrence(schedule).pk}").json()
    waves = {wave["dueAt"]: (wave["people"], wave["sent"], wave["lateSeconds"]) for wave in told["waves"]}
    assert waves == {
        "2026-11-22T01:00:00Z": (3, 3, 0),
        "2026-11-22T04:15:00Z": (2, 0, None),
        "2026-11-22T09:00:00Z": (60, 0, None),
    }
    assert told["progress"]["eta"] == "2026-11-22T09:00:00Z"


def test_a_run_is_not_through_before_the_last_of_a_few_people_who_share_a_batch(api, service):
    people(3, time_zone="Asia/Tokyo")
    people(2, time_zone="Pacific/Honolulu")
    schedule = ScheduleFactory(time_zone_mode="user_local", run_at=NOW + 24 * HOUR)
    for at in (NOW + 14 * HOUR, NOW + 16 * HOUR):
        service.run_to(at)
        assert Batch.objects.count() == 1
        told = api.get(f"occurrences/{only_occurrence(schedule).pk}").json()
        assert told["progress"]["eta"] == "2026-11-22T20:00:00Z"


def test_the_rows_of_a_large_run_are_counted_when_asked_for(api, mixed, monkeypatch):
    monkeypatch.setattr(books, "AT_ONCE", 3)
    run = only_occurrence(mixed)
    told = api.get(f"occurrences/{run.pk}").json()["books"]
    assert (told["rows"], told["closes"]) == (None, True)
    told = api.get(f"occurrences/{run.pk}?rows=true").json()["books"]
    assert told["rows"] == told["counted"]


def test_books_that_do_not_close_say_what_does_not_agree(api, mixed, monkeypatch):
    run = only_occurrence(mixed)
    Occurrence.objects.filter(pk=run.pk).update(targeted=11)
    told = api.get(f"occurrences/{run.pk}").json()["books"]
    assert (told["closes"], told["differences"]) == (False, ["targeted 11, counted 10", "targeted 11, rows 10"])
    monkeypatch.setattr(books, "AT_ONCE", 3)
    told = api.get(f"occurrences/{run.pk}").json()["books"]
    assert (told["closes"], told["differences"]) == (False, ["targeted 11, counted 10"])
    Occurrence.objects.filter(pk=run.pk).update(targeted=10)


def test_nothing_that_waits_for_a_person_has_an_eta(api, service, mixed):
    run = only_occurrence(mixed)
    operations.hold_occurrence(occurrence_id=run.pk, reason="failures", by=BY, now=NOW, changes={})
    told = api.get(f"occurrences/{run.pk}").json()
    assert (told["heldReason"], told["heldAt"], told["progress"]["eta"]) == ("failures", "2026-11-21T10:00:00Z", None)
    operations.release_occurrence(occurrence_id=run.pk, by=BY, now=NOW)
    service.pause(mixed)
    assert api.get(f"occurrences/{run.pk}").json()["progress"]["eta"] is None


def test_a_run_past_its_retention_keeps_its_counts(api, mixed):
    run = only_occurrence(mixed)
    kept = {state.label: 0 for state in State} | {"sent": 10}
    Occurrence.objects.filter(pk=run.pk).update(outcomes=kept, closed_at=NOW, state=OccurrenceState.FINISHED)
    told = api.get(f"occurrences/{run.pk}").json()
    assert counted(told["counted"]) == {"sent": 10}
    assert told["books"]["isArchived"] is True
    assert api.get(f"schedules/{mixed.pk}/occurrences").json()["items"][0]["counted"]["sent"] == 10
    Occurrence.objects.filter(pk=run.pk).update(outcomes=None, closed_at=None, state=OccurrenceState.RUNNING)


def test_the_runs_of_a_schedule_come_newest_first_a_page_at_a_time(api, service):
    people(2)
    cron = ScheduleFactory(cron="0 * * * *")
    ScheduleFactory(name="another")
    service.run_to(NOW + 5 * HOUR)
    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"schedules/{cron.pk}/occurrences?limit=2{cursor and f'&cursor={cursor}'}").json()
        seen += page["items"]
        cursor = page["nextCursor"]
    assert [item["occurrenceAt"] for item in seen] == [f"2026-11-21T{hour}:00:00Z" for hour in (15, 14, 13, 12, 11)]
    assert {item["counted"]["sent"] for item in seen} == {2}
    assert api.get(f"schedules/{cron.pk}/occurrences?state=running").json()["items"] == []
    counts = []
    for limit in (1, 5):
        with CaptureQueriesContext(connection) as queries:
            api.get(f"schedules/{cron.pk}/occurrences?limit={limit}")
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("occurrences/999999", 404),
        (f"occurrences/{10**30}", 404),
        ("schedules/999999/occurrences", 404),
        ("occurrences/1?rows=yes", 400),
        ("occurrences/1?colour=red", 400),
    ],
)
def test_what_there_is_not_or_makes_no_sense_is_refused(api, path, status):
    answer = api.get(path)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"


# Trying again


def retry(api, schedule, body=None, **options):
    return api.post(f"occurrences/{only_occurrence(schedule).pk}:retry-failed", body, **options)


def test_all_who_failed_are_tried_again_and_asking_twice_does_no_harm(api, service, provider, mixed):
    answer = retry(api, mixed)
    assert (answer.status_code, answer.json()["reopened"]) == (200, 3)
    assert retry(api, mixed).json()["reopened"] == 0
    assert states(mixed) == Counter(sent=5, pending=4, unaddressable=1)
    before = provider.reached()
    provider.reset()
    service.after(MINUTE).step()
    assert states(mixed) == Counter(sent=9, unaddressable=1)
    assert sum(provider.reached().values()) == 4
    assert not any(before[pk] > 1 for pk in provider.reached())
    event = AuditEvent.objects.get(action=Action.DELIVERY_RETRY)
    assert event.actor_id.startswith("client:")


def test_a_key_makes_the_same_answer_of_a_repeated_request(api, mixed):
    headers = {"Idempotency-Key": "again-1"}
    first = retry(api, mixed, {}, headers=headers)
    second = retry(api, mixed, {}, headers=headers)
    assert first.json() == second.json()
    assert second.json()["reopened"] == 3
    assert second["Idempotency-Replayed"] == "true"


def test_one_person_or_one_reason_is_tried_again_alone(api, mixed):
    row = Delivery.objects.filter(state=State.FAILED).first()
    external_id = Recipient.objects.get(pk=row.recipient_id).external_id
    assert retry(api, mixed, {"recipient": "nowhere"}).json()["reopened"] == 0
    assert retry(api, mixed, {"reason": "something_else"}).json()["reopened"] == 0
    assert retry(api, mixed, {"recipient": external_id}).json()["reopened"] == 1
    assert states(mixed)["failed"] == 2
    assert retry(api, mixed, {"reason": "message_rejected"}).json()["reopened"] == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"recipient": "who?"}, "/recipient"),
        ({"recipient": 5}, "/recipient"),
        ({"reason": None}, "/reason"),
        ({"people": "all"}, "/people"),
    ],
)
def test_a_senseless_wish_changes_nothing(api, mixed, body, pointer):
    answer = retry(api, mixed, body)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert states(mixed)["failed"] == 3


def test_what_cannot_be_tried_again_is_refused_with_words(api, service, mixed):
    service.at(NOW + timedelta(days=8))
    answer = retry(api, mixed)
    assert answer.status_code == 409
    assert "has reached the end of its seven days" in answer.json()["detail"]
    service.at(NOW).cancel(mixed)
    answer = retry(api, mixed)
    assert (answer.status_code, answer.json()["type"].rpartition("#")[2]) == (409, "wrong-state")
    assert states(mixed)["failed"] == 3


def test_a_held_run_is_released_once(api, service, provider, mixed):
    run = only_occurrence(mixed)
    assert api.post(f"occurrences/{run.pk}:release").json() == {"occurrenceId": run.pk, "released": False}
    operations.hold_occurrence(occurrence_id=run.pk, reason="failures", by=BY, now=NOW, changes={})
    assert api.post(f"occurrences/{run.pk}:release", {}).json()["released"] is True
    assert api.post(f"occurrences/{run.pk}:release", {}).json()["released"] is False
    provider.reset()
    service.after(MINUTE).step()
    assert states(mixed)["sent"] == 6
    assert api.post("occurrences/999999:release", {}).status_code == 404


def test_who_only_reads_decides_nothing(service, mixed):
    run = only_occurrence(mixed)
    paths = [f"occurrences/{run.pk}:retry-failed", f"occurrences/{run.pk}:release"]
    analyst = Api(token(user=account(Role.ANALYST)))
    reader = Api(token(scopes=Scope.READ))
    marketer = Api(token(user=account(Role.MARKETER)))
    for path in paths:
        assert Api().post(path).status_code == 401
        assert analyst.post(path).status_code == 403
        assert reader.post(path).status_code == 403
        assert marketer.post(path).status_code == 200
    for path in (f"occurrences/{run.pk}", f"schedules/{mixed.pk}/occurrences"):
        assert Api().get(path).status_code == 401
        assert analyst.get(path).status_code == reader.get(path).status_code == 200
        assert Api(token(scopes=Scope.WRITE)).get(path).status_code == 403


def test_trying_again_for_nobody_says_so_as_other_bodies_do(api, service):
    schedule = ScheduleFactory()
    service.step()
    answer = api.post(f"occurrences/{only_occurrence(schedule).pk}:retry-failed", {"recipient": "nobody"})
    assert answer.status_code == 400
    assert [(each["pointer"], each["code"]) for each in answer.json()["errors"]] == [("/recipient", "not_found")]
