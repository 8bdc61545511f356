"""``/api/v1/explain``: every answer is produced through the service, and compared with the ledger and what the provider
said."""

from collections import defaultdict
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from delivery import circuits, erasure, ledger, reopening
from delivery.counters import CountersAway
from delivery.counts import REASON_CLASSES
from delivery.explain import Code
from delivery.materialise import TOO_SLOW
from delivery.models import Delivery, FailedAttempt, State
from delivery.providers.base import Answer, Verdict
from frontend.instants import instant
from schedules import operations, stops, suppressions
from schedules.models import Occurrence, Recipient, Schedule
from schedules.permissions import Role, Scope
from schedules.suppressions import Strike
from tests.accounts import account
from tests.api import Api, token
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TopicFactory
from tests.service import DAY, HOUR, MINUTE, only_occurrence

pytestmark = pytest.mark.django_db

BUSY, NO, YES = (Verdict.TRANSIENT, "transient_failure"), (Verdict.PERMANENT, "message_rejected"), (Verdict.SENT, "")
SILENCE = (Verdict.UNKNOWN, "no_answer")
PRO = {"all": [{"field": "attributes.plan", "op": "eq", "value": "pro"}]}


class World:
    """The service, its provider who says what he is told to, and Anna, who has been known for a day."""

    def __init__(self, service, provider, monkeypatch):
        self.service, self.provider, self.monkeypatch = service, provider, monkeypatch
        self.said = defaultdict(list)
        self.next = []
        provider.answer = staticmethod(self._answer)
        self.recipient_id = None

    def _answer(self, message):
        verdict, reason, *more = self.next.pop(0) if len(self.next) > 1 else (self.next or [YES])[0]
        self.said[message.recipient_id].append((verdict.value, reason))
        return Answer(message.key, verdict, reason, **(more[0] if more else {"detail": "own words"}))

    def anna(self, **fields):
        known = {"created_at": NOW - DAY, "updated_at": NOW - DAY, "external_id": "anna"}
        return RecipientFactory(**{**known, "attributes": {"plan": "pro"}, **fields})

    def run(self, *answers, **fields):
        """Anna's run, at each of its instants until nothing is due any more."""
        self.next = list(answers)
        anna = self.anna(**fields.pop("anna", {}))
        schedule = ScheduleFactory(name="News", **fields)
        for _ in answers or [YES]:
            self.service.step()
            row = Delivery.objects.filter(recipient_id=anna.pk, state=State.PENDING).first()
            if row:
                self.service.at(row.due_at)
        return schedule

    def opened(self, **fields):
        """Anna's run with its rows, before anybody is sent to."""
        self.anna(**fields.pop("anna", {}))
        schedule = ScheduleFactory(name="News", **fields)
        self.service.open()
        return schedule


@pytest.fixture
def world(service, provider, monkeypatch):
    return World(service, provider, monkeypatch)


@pytest.fixture
def api(service) -> Api:
    return Api(token())


def ask(api, schedule, person="recipient=anna", **more):
    query = "".join(f"&{name}={value}" for name, value in more.items())
    return api.get(f"explain?{person}&schedule={schedule.pk}{query}")


# Each makes one answer come about, and gives the schedule that is asked about.


def sent(world):
    return world.run(YES)


def sent_at_the_third_attempt(world):
    return world.run(BUSY, BUSY, YES)


def failed(world):
    return world.run(NO)


def failed_after_retries(world):
    return world.run(BUSY, BUSY, BUSY, BUSY)


def failed_in_rendering(world):
    schedule = world.opened()
    world.monkeypatch.setattr(
        "delivery.calls.compose", lambda claim, **_: (_ for _ in ()).throw(RuntimeError("compose"))
    )
    for _ in range(4):
        world.service.send()
        world.service.at(Delivery.objects.get().due_at)
    return schedule


def outcome_unknown(world):
    schedule = world.run(SILENCE)
    Delivery.objects.update(leased_until=NOW - DAY)
    world.service.sweep()
    return schedule


def unanswered(world):
    return world.run(SILENCE)


def will_be_retried(world):
    world.next = [BUSY]
    schedule = world.opened()
    world.service.send()
    return schedule


def throttled(world):
    world.next = [(Verdict.THROTTLED, "throttled", {"retry_after": 60.0})]
    schedule = world.opened()
    world.service.send()
    return schedule


def counters_away(world):
    def away(*args, **options):
        raise CountersAway("away")

    schedule = world.opened(max_per_user_per_day=1)
    world.monkeypatch.setattr("delivery.calls.caps.reserve", away)
    world.service.send()
    return schedule


def not_due_yet(world):
    return world.opened(run_at=NOW + MINUTE)


def about_to_be_sent(world):
    return world.opened()


def being_sent(world):
    schedule = world.opened()
    tally = ledger.Tally()
    (handout,) = world.service.publish()
    works = ledger.take_up(handout.batch_ids, now=NOW)
    ledger.claim(works, token=uuid4(), limit=50, now=NOW, tally=tally)
    tally.flush()
    return schedule


def daily_cap(world):
    world.run(YES)
    news = ScheduleFactory(name="More", max_per_user_per_day=1, run_at=NOW + HOUR)
    world.service.at(NOW + HOUR).step()
    return news


def weekly_cap(world):
    world.run(YES)
    news = ScheduleFactory(name="More", max_per_user_per_week=1, run_at=NOW + 2 * DAY)
    world.service.at(NOW + 2 * DAY).step()
    return news


def waits_for_cap(world):
    world.run(YES)
    at = NOW + timedelta(hours=23, minutes=57)
    soon = ScheduleFactory(name="Soon", max_per_user_per_day=1, run_at=at)
    world.service.at(at).step()
    return soon


def opted_out(world):
    return world.run(anna={"consent": {"email": False}})


def opted_out_of_topic(world):
    TopicFactory()
    return world.run(anna={"consent": {"news:email": False}}, topic="news")


def not_opted_in(world):
    TopicFactory(default="opted_out")
    return world.run(anna={"consent": {"email": True}}, topic="news")


def suppressed(reason):
    def happen(world):
        world.opened()
        fingerprint = suppressions.fingerprint_to_block("anna@example.com")
        suppressions.record([Strike(fingerprint, 1, reason)], now=NOW)
        world.service.send()
        return Schedule.objects.get(name="News")

    happen.__name__ = reason
    return happen


def no_address(world):
    return world.run(anna={"email": ""})


def no_device(world):
    return world.run(channel="push")


def left_audience(world):
    schedule = world.opened(audience_query=PRO, recheck_audience=True)
    Recipient.objects.update(attributes={"plan": "free"}, updated_at=NOW)
    world.service.send()
    return schedule


def cancelled(world):
    schedule = world.opened()
    world.service.cancel(schedule)
    world.service.sweep()
    return schedule


def cancelled_just_now(world):
    schedule = world.opened()
    world.service.cancel(schedule)
    return schedule


def deleted(world):
    schedule = world.opened()
    operations.delete(schedule_id=schedule.pk, by=BY, now=NOW)
    world.service.sweep()
    return schedule


def edited_out(world):
    schedule = world.opened(run_at=NOW + MINUTE)
    world.service.update(schedule, audience_query={"all": [{"field": "tags", "op": "contains", "value": "vip"}]})
    world.service.materialise()
    return schedule


def erased(world):
    schedule = world.opened()
    world.recipient_id = Recipient.objects.get().pk
    erasure.forget(recipient_id=world.recipient_id, by=BY, now=NOW)
    return schedule


def down(world):
    schedule = world.opened()
    world.service.at(NOW + 2 * HOUR).step()
    return schedule


def paused_over(world):
    schedule = world.opened()
    world.service.pause(schedule)
    world.service.at(NOW + 2 * HOUR).resume(schedule)
    world.service.step()
    return schedule


def past_zone(world):
    at = NOW + 2 * HOUR
    return world.run(anna={"time_zone": "Pacific/Kiritimati"}, time_zone_mode="user_local", run_at=at)


def occurrence_ended(world):
    schedule = world.opened()
    operations.hold_occurrence(
        occurrence_id=only_occurrence(schedule).pk, reason="failures", by=BY, now=NOW, changes={}
    )
    world.service.at(NOW + 8 * DAY).sweep()
    return schedule


def waited_too_long(world):
    schedule = world.opened(expires_after_minutes=30, misfire_grace_minutes=600)
    world.service.at(NOW + HOUR).sweep()
    return schedule


def waits_for_window(world):
    morning = {"days": ["sat"], "from": "09:00", "to": "11:30"}
    schedule = world.opened(send_window=morning, misfire_grace_minutes=600)
    world.service.at(NOW + 2 * HOUR).send()
    return schedule


def waits_for_quiet_hours(world):
    schedule = world.opened()
    Recipient.objects.update(quiet_hours={"from": "09:00", "to": "11:30"})
    world.service.send()
    return schedule


def window_in_quiet_hours(world):
    sleeping = {"quiet_hours": {"from": "09:00", "to": "11:30"}}
    return world.opened(anna=sleeping, send_window={"days": ["sat"], "from": "10:00", "to": "11:00"})


def held(world):
    schedule = world.opened()
    operations.hold_occurrence(
        occurrence_id=only_occurrence(schedule).pk, reason="failures", by=BY, now=NOW, changes={}
    )
    return schedule


def paused(world):
    schedule = world.opened()
    world.service.pause(schedule)
    return schedule


def stopped(world):
    schedule = world.opened()
    stops.stop_sending(scope="channel:email", by=BY, now=NOW)
    world.service.send()
    return schedule


def refused_account(world):
    return world.run((Verdict.MISCONFIGURED, "access_denied"))


def rendered_for_nobody(reason):
    def happen(world):
        schedule = world.opened()
        scope = circuits.of_template(schedule.template_id)
        circuits.open_circuit(scope, reason=reason, detail="timeout", now=NOW)
        world.service.send()
        return schedule

    happen.__name__ = reason
    return happen


def finding(world):
    world.anna()
    schedule = ScheduleFactory()
    world.service.tick()
    return schedule


def too_slow(world):
    schedule = finding(world)
    Occurrence.objects.update(reason=TOO_SLOW)
    return schedule


def user_service_away(world):
    schedule = finding(world)
    Occurrence.objects.update(reason="user_service_away")
    return schedule


def user_service_refused(world):
    schedule = finding(world)
    Occurrence.objects.update(reason="user_service_refused")
    return schedule


def postponed(world):
    schedule = world.opened(run_at=NOW + MINUTE)
    world.service.update(schedule, run_at=NOW + 3 * DAY)
    return schedule


def not_matched(world):
    return world.run(anna={"attributes": {"plan": "free"}}, audience_query=PRO)


def created_later(world):
    schedule = ScheduleFactory()
    world.service.step()
    world.anna(created_at=NOW + HOUR, updated_at=NOW + HOUR)
    world.service.at(NOW + 2 * HOUR)
    return schedule


def changed_later(world):
    schedule = not_matched(world)
    Recipient.objects.update(attributes={"plan": "pro"}, updated_at=NOW + HOUR)
    return schedule


def not_found_then(world):
    query = {"all": [{"field": "channels", "op": "contains", "value": "push"}]}
    schedule = world.run(audience_query=query)
    DeviceFactory(recipient=Recipient.objects.get())
    return schedule


def missed(world):
    world.anna()
    schedule = ScheduleFactory()
    world.service.tick()
    Occurrence.objects.update(state="missed", reason="not_materialised", closed_at=NOW)
    return schedule


def run_cancelled(world):
    schedule = finding(world)
    world.service.cancel(schedule)
    return schedule


def past_retention(world):
    schedule = not_matched(world)
    Occurrence.objects.update(outcomes={state.label: 0 for state in State})
    return schedule


def draft(world):
    world.anna()
    return ScheduleFactory(draft=True)


def broken(world):
    world.anna()
    schedule = ScheduleFactory(cron="0 9 * * *")
    Schedule.objects.update(status="broken", status_reason="Its cron can't be read.")
    return schedule


def ahead(world):
    world.anna(time_zone="Asia/Kathmandu")
    return ScheduleFactory(run_at=NOW + 3 * DAY, time_zone_mode="user_local")


def paused_before(world):
    world.anna()
    schedule = ScheduleFactory(run_at=NOW + 3 * DAY)
    world.service.pause(schedule)
    return schedule


def cancelled_before(world):
    world.anna()
    schedule = ScheduleFactory(run_at=NOW + 3 * DAY)
    world.service.cancel(schedule)
    return schedule


def deleted_before(world):
    world.anna()
    schedule = ScheduleFactory(run_at=NOW + 3 * DAY)
    operations.delete(schedule_id=schedule.pk, by=BY, now=NOW)
    return schedule


def finished_before(world):
    world.anna()
    schedule = ScheduleFactory(run_at=NOW + 3 * DAY)
    Schedule.objects.update(status="finished", next_run_at=None, next_occurrence_at=None)
    return schedule


# How it comes about, the code, the ledger's state and reason (None: no row), and part of the sentence.
CASES = [
    (sent, Code.SENT, "sent", "", "The provider took it at|It was sent at"),
    (sent_at_the_third_attempt, Code.SENT, "sent", "", "at attempt 3."),
    (failed, Code.FAILED, "failed", "message_rejected", "The provider rejected the message."),
    (failed_after_retries, Code.FAILED_AFTER_RETRIES, "failed", "transient_failure", "Failed after 4 attempts."),
    (failed_in_rendering, Code.FAILED_AFTER_RETRIES, "failed", "internal_error", "had an error of its own"),
    (outcome_unknown, Code.OUTCOME_UNKNOWN, "failed", "outcome_unknown", "Nobody knows whether it arrived"),
    (unanswered, Code.UNANSWERED, "unknown", "no_answer", "did not answer"),
    (will_be_retried, Code.WILL_BE_RETRIED, "pending", "transient_failure", "Attempt 1 of 4 failed."),
    (throttled, Code.PUT_OFF, "pending", "throttled", "asked to slow down"),
    (counters_away, Code.PUT_OFF, "pending", "counters_away", "The counters of the limits are away"),
    (not_due_yet, Code.NOT_DUE_YET, "pending", "", "It waits for its time."),
    (about_to_be_sent, Code.ABOUT_TO_BE_SENT, "pending", "", "about to be sent"),
    (being_sent, Code.BEING_SENT, "sending", "", "at this moment"),
    (daily_cap, Code.AT_CAP, "rate_limited", "daily_cap", "at the limit of 1 message in 24 hours."),
    (weekly_cap, Code.AT_CAP, "rate_limited", "weekly_cap", "at the limit of 1 message in 7 days."),
    (waits_for_cap, Code.WAITS_FOR_CAP, "pending", "daily_cap", "It waits. The person is at the limit"),
    (opted_out, Code.OPTED_OUT, "suppressed", "opted_out", "Opted out of this channel."),
    (opted_out_of_topic, Code.OPTED_OUT_OF_TOPIC, "suppressed", "opted_out_of_topic", "Opted out of this topic."),
    (not_opted_in, Code.NOT_OPTED_IN, "suppressed", "not_opted_in", "Has not agreed to this topic, which needs a yes."),
    (suppressed("bounced"), Code.BOUNCED, "suppressed", "bounced", "An earlier message to this address came back"),
    (suppressed("bounced_often"), Code.BOUNCED_OFTEN, "suppressed", "bounced_often", "came back within a fortnight."),
    (suppressed("complained"), Code.COMPLAINED, "suppressed", "complained", "was called spam."),
    (suppressed("blocked"), Code.BLOCKED, "suppressed", "blocked", "Somebody has blocked this address."),
    (no_address, Code.NO_ADDRESS, "unaddressable", "no_address", "no address for this channel"),
    (no_device, Code.NO_ADDRESS, "unaddressable", "no_address", "no address for this channel"),
    (left_audience, Code.LEFT_AUDIENCE, "suppressed", "left_audience", "No longer matched"),
    (cancelled, Code.CANCELLED, "cancelled", "cancelled", "The schedule was cancelled."),
    (cancelled_just_now, Code.RUN_CANCELLED, "pending", "", "The run was cancelled."),
    (deleted, Code.DELETED, "cancelled", "deleted", "The schedule was deleted."),
    (edited_out, Code.EDITED_OUT, "cancelled", "edited", "An edit took this person out"),
    (erased, Code.ERASED, "erased", "profile_gone", "The profile was erased."),
    (down, Code.SERVICE_DOWN, "expired", "down", "The service did not run"),
    (paused_over, Code.PAUSED_OVER, "expired", "paused", "was paused over the promised time"),
    (past_zone, Code.PAST_IN_ZONE, "expired", "past_zone", "had already passed"),
    (occurrence_ended, Code.RUN_ENDED, "expired", "occurrence_ended", "The run reached its end"),
    (waited_too_long, Code.WAITED_TOO_LONG, "expired", "waited_too_long", "within the time that the schedule lets"),
    (waits_for_window, Code.WAITS_FOR_WINDOW, "pending", "outside_window", "an hour at which it may reach the person"),
    (
        waits_for_quiet_hours,
        Code.WAITS_FOR_QUIET_HOURS,
        "pending",
        "quiet_hours",
        "It waits for the end of the person's quiet hours",
    ),
    (
        window_in_quiet_hours,
        Code.WINDOW_IN_QUIET_HOURS,
        "expired",
        "window_in_quiet_hours",
        "quiet hours of this person",
    ),
    (held, Code.RUN_HELD, "pending", "", "held until somebody lets it go on"),
    (paused, Code.SCHEDULE_PAUSED, "pending", "", "the schedule is paused"),
    (stopped, Code.SENDING_STOPPED, "pending", "", "somebody has stopped sending"),
    (refused_account, Code.PROVIDER_REFUSES, "pending", "access_denied", "the provider refuses the account"),
    (rendered_for_nobody("template_service_away"), Code.TEMPLATE_SERVICE_AWAY, "pending", "", "does not answer"),
    (
        rendered_for_nobody("template_service_refused"),
        Code.TEMPLATE_SERVICE_REFUSED,
        "pending",
        "",
        "refuses to render",
    ),
    (finding, Code.FINDING_RECIPIENTS, None, None, "finding its people"),
    (too_slow, Code.AUDIENCE_TOO_SLOW, None, None, "takes too long"),
    (user_service_away, Code.USER_SERVICE_AWAY, None, None, "does not answer"),
    (user_service_refused, Code.USER_SERVICE_REFUSED, None, None, "refuses to name its people"),
    (postponed, Code.POSTPONED, "pending", "", "another time"),
    (not_matched, Code.NOT_MATCHED, None, None, "This decides: people whose plan is “pro”."),
    (created_later, Code.CREATED_LATER, None, None, "made later, at 2026-11-21 11:00:00 UTC"),
    (changed_later, Code.CHANGED_LATER, None, None, "changed later, at 2026-11-21 11:00:00 UTC"),
    (not_found_then, Code.NOT_FOUND_THEN, None, None, "matches the audience today"),
    (missed, Code.RUN_MISSED, None, None, "Nobody got this run."),
    (run_cancelled, Code.RUN_CANCELLED, None, None, "The run was cancelled."),
    (past_retention, Code.PAST_RETENTION, None, None, "past the ledger's retention"),
    (draft, Code.SCHEDULE_DRAFT, None, None, "is a draft"),
    (broken, Code.SCHEDULE_BROKEN, None, None, "Its cron can't be read."),
    (ahead, Code.NOT_DUE_YET, None, None, "The person is due at 2026-11-24 10:00:00 Asia/Kathmandu (UTC+05:45)."),
    (paused_before, Code.SCHEDULE_PAUSED, None, None, "is paused, and has not run yet"),
    (cancelled_before, Code.SCHEDULE_CANCELLED, None, None, "cancelled before it ran"),
    (deleted_before, Code.SCHEDULE_DELETED, None, None, "deleted before it ran"),
    (finished_before, Code.SCHEDULE_FINISHED, None, None, "is finished"),
]


@pytest.mark.parametrize(("happen", "code", "state", "reason", "said"), CASES, ids=[case[0].__name__ for case in CASES])
def test_every_answer_is_what_the_ledger_and_the_provider_say(world, api, happen, code, state, reason, said):
    schedule = happen(world)
    pk = world.recipient_id or Recipient.objects.get(external_id="anna").pk
    person = f"recipientId={pk}" if world.recipient_id else "recipient=anna"
    answer = ask(api, schedule, person)
    assert answer.status_code == 200, answer.json()
    told = answer.json()
    assert told["code"] == code.value
    assert any(part in told["sentence"] for part in said.split("|")), told["sentence"]
    runs = list(schedule.occurrences.values_list("pk", flat=True))
    row = Delivery.objects.filter(recipient_id=pk, occurrence_id__in=runs).first()
    if state is None:
        assert row is told["delivery"] is None
        assert told["attempts"] == []
    else:
        assert (told["delivery"]["state"], told["delivery"]["reason"]) == (state, reason)
        assert (State(row.state).label, row.reason) == (state, reason)
        assert told["promise"]["dueAt"] == told["delivery"]["waveAt"] == instant(row.wave_at)
    asked = [(verdict, why) for verdict, why in world.said[pk] if verdict not in ("throttled", "misconfigured")]
    if told["cap"]:
        assert asked == [("sent", "")]  # the message that used the cap up
    elif happen is failed_in_rendering:
        assert asked == []
        assert [each["reason"] for each in told["attempts"]] == ["internal_error"] * 4
    else:
        assert [(each["verdict"], each["reason"]) for each in told["attempts"]] == asked
    assert (told["code"] == "sent") is (not told["cap"] and ("sent", "") in asked)


def test_the_cases_hold_every_code_and_every_reason_of_an_outcome():
    assert {code for _, code, *_ in CASES} == set(Code) - {Code.OTHERWISE}
    kept = {(state, reason) for _, _, state, reason, _ in CASES}
    for state, reasons in REASON_CLASSES.items():
        if state not in (State.FAILED, State.UNKNOWN):
            assert {(state.label, reason) for reason in reasons} <= kept


# Facts


def test_the_clauses_are_judged_one_by_one_and_those_that_decide_are_marked(world, api):
    query = {
        "all": [
            {"field": "locale", "op": "eq", "value": "en"},
            {"any": [
                {"field": "attributes.plan", "op": "eq", "value": "pro"},
                {"not": {"field": "tags", "op": "contains", "value": "beta"}},
            ]},
        ]
    }  # fmt: skip
    schedule = world.run(anna={"attributes": {"plan": "free"}, "tags": ["beta"]}, audience_query=query)
    audience = ask(api, schedule).json()["audience"]
    assert (audience["matches"], audience["version"], audience["asOf"]) == (False, 1, "2026-11-21T10:00:00Z")
    assert [(n["pointer"], n["kind"], n["holds"], n["decides"], n["held"]) for n in audience["nodes"]] == [
        ("", "all", False, True, None),
        ("/all/0", "clause", True, False, "en"),
        ("/all/1", "any", False, True, None),
        ("/all/1/any/0", "clause", False, True, "free"),
        ("/all/1/any/1", "not", False, True, None),
        ("/all/1/any/1/not", "clause", True, True, ["beta"]),
    ]
    assert audience["nodes"][3]["clause"] == {"field": "attributes.plan", "op": "eq", "value": "pro"}


def test_the_audience_is_that_of_the_version_that_ran(world, api):
    schedule = world.run(anna={"attributes": {"plan": "free"}}, audience_query=PRO, cron="0 * * * *")
    world.service.at(NOW + HOUR).step()
    world.service.at(NOW + HOUR + MINUTE).update(schedule, audience_query={"all": []})
    told = ask(api, schedule).json()
    assert (told["code"], told["audience"]["version"], told["occurrence"]["version"]) == ("not_matched", 1, 1)


def test_a_cap_tells_which_messages_used_it_and_when_there_is_room(world, api):
    told = ask(api, daily_cap(world)).json()
    (used,) = told["cap"]["used"]
    preview = Schedule.objects.get(name="News")
    assert used == {
        "occurrenceId": only_occurrence(preview).pk,
        "scheduleId": preview.pk,
        "scheduleName": "News",
        "at": "2026-11-21T10:00:00Z",
        "state": "sent",
    }
    assert (told["cap"]["hours"], told["cap"]["limit"], told["cap"]["freeAt"]) == (24, 1, "2026-11-22T10:00:00Z")
    assert told["delivery"]["detail"] == ""


def test_attempts_carry_the_providers_words_and_go_on_after_somebody_asks_again(world, api):
    schedule = world.run(NO)
    reopening.retry_failed(occurrence_id=only_occurrence(schedule).pk, by=BY, now=world.service.now)
    world.next = [YES]
    world.service.step()
    told = ask(api, schedule).json()
    assert [(each["number"], each["verdict"], each["detail"], each["askedAgain"]) for each in told["attempts"]] == [
        (1, "permanent", "own words", False),
        (1, "sent", "", True),
    ]
    assert FailedAttempt.objects.count() == 1


def test_of_a_push_each_device_is_told(world, api):
    anna = world.anna()
    device = DeviceFactory(recipient=anna, token="secret-token-000001")
    schedule = ScheduleFactory(channel="push")
    world.service.step()
    told = ask(api, schedule).json()
    assert told["devices"] == [{"platform": "android", "token": "…000001", "reach": "handed_over"}]
    assert told["reachable"] == {
        "channel": "push",
        "hasAddress": True,
        "address": "",
        "devices": 1,
        "optedOut": False,
        "objection": "",
        "suppressed": "",
    }
    assert device.token not in ask(api, schedule).content.decode()


def test_an_address_is_seen_by_those_alone_who_may(world):
    query = {"all": [{"field": "attributes.second", "op": "exists", "value": True}]}
    schedule = world.run(anna={"attributes": {"second": "anna@home.example"}}, audience_query=query)
    for caller, clear in (
        (Api(token()), True),
        (Api(token(scopes=Scope.READ)), False),
        (Api(token(user=account(Role.ANALYST))), False),
        (Api(token(user=account(Role.MARKETER))), True),
    ):
        body = ask(caller, schedule).content.decode()
        assert ("anna@example.com" in body) is ("anna@home.example" in body) is clear
        assert ask(caller, schedule).json()["reachable"]["address"] == (
            "anna@example.com" if clear else "a…@example.com"
        )


def test_who_is_not_meant_is_promised_no_instant(world, api):
    anna = world.anna(attributes={"plan": "free"})
    schedule = ScheduleFactory(
        run_at=NOW + 3 * HOUR, audience_query={"field": "attributes.plan", "op": "eq", "value": "pro"}
    )
    told = ask(api, schedule).json()
    assert (told["code"], told["promise"], told["audience"]["matches"]) == ("not_due_yet", None, False)
    assert "is due" not in told["sentence"]
    assert "is not in its audience" in told["sentence"]
    Recipient.objects.filter(pk=anna.pk).update(attributes={"plan": "pro"})
    assert ask(api, schedule).json()["promise"]["dueAt"] == instant(NOW + 3 * HOUR)


def test_the_latest_run_that_has_opened_is_meant_unless_another_is_named(world, api):
    world.anna()
    schedule = ScheduleFactory(cron="0 * * * *")
    world.service.run_to(NOW + 3 * HOUR)
    latest, *_, oldest = schedule.occurrences.order_by("-occurrence_at")
    assert ask(api, schedule).json()["occurrence"]["id"] == latest.pk
    told = ask(api, schedule, occurrence=oldest.pk).json()
    assert (told["occurrence"]["id"], told["promise"]["dueAt"]) == (oldest.pk, instant(oldest.occurrence_at))


@pytest.mark.parametrize("happen", [sent, failed_after_retries, daily_cap, not_matched, ahead])
def test_an_answer_takes_a_dozen_statements_at_most(world, api, happen):
    schedule = happen(world)
    ask(api, schedule)
    with CaptureQueriesContext(connection) as queries:
        ask(api, schedule)
    own = [item["sql"] for item in queries if "oauth2" not in item["sql"] and "frontend_" not in item["sql"]]
    assert len(own) <= 13, own


# Refusals


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("recipient=nobody&schedule={schedule}", 404),
        ("recipientId=999999&schedule={schedule}", 404),
        ("recipient=anna&schedule=999999", 404),
        ("recipient=anna&schedule={schedule}&occurrence=999999", 404),
        ("recipient=anna", 400),
        ("schedule={schedule}", 400),
        ("recipient=anna&recipientId=1&schedule={schedule}", 400),
        ("recipient=anna&schedule=x", 400),
        (f"recipient=anna&schedule={10**30}", 400),
        ("recipient=%00&schedule={schedule}", 400),
        ("recipient=anna&schedule={schedule}&colour=red", 400),
    ],
)
def test_what_cannot_be_explained_is_refused_with_words(world, api, query, status):
    schedule = sent(world)
    answer = api.get(f"explain?{query.format(schedule=schedule.pk)}")
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_of_somebody_erased_the_name_is_gone_and_the_number_tells_on(world, api):
    schedule = erased(world)
    answer = ask(api, schedule)
    assert answer.status_code == 404
    assert "has been erased" in answer.json()["detail"]
    told = ask(api, schedule, f"recipientId={world.recipient_id}").json()
    assert (told["recipient"], told["audience"], told["reachable"]) == (None, None, None)


def test_who_reads_may_ask(world):
    schedule = sent(world)
    assert ask(Api(), schedule).status_code == 401
    assert ask(Api(token(scopes=Scope.WRITE)), schedule).status_code == 403
    assert ask(Api(token(scopes=Scope.READ)), schedule).status_code == 200
    assert ask(Api(token(user=account(None))), schedule).status_code == 403
