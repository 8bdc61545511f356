"""Operations on schedules: what they refuse, what they write, and the audit event in the same transaction."""

from datetime import datetime, timedelta, timezone

import pytest
from django.db import IntegrityError, transaction

from audit import trail
from audit.models import AuditEvent
from schedules import operations, stops
from schedules.definition import Definition, InvalidDefinition
from schedules.models import Schedule, ScheduleStatus, ScheduleVersion, StopSwitch
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, states

pytestmark = pytest.mark.django_db


def definition(**fields):
    """A definition that can be kept, but for what a test says."""
    values = {
        "name": "Offer",
        "channel": "email",
        "template_id": None,
        "schedule_type": "once",
        "audience_query": {"all": []},
        "run_at": NOW + HOUR,
        **fields,
    }
    if values["schedule_type"] == "cron" and "run_at" not in fields:
        values["run_at"] = None
    if "template_id" not in fields:
        values["template_id"] = TemplateFactory().pk
    return Definition(**values)


def create(**fields):
    return operations.create(definition=definition(**fields), by=BY, now=NOW)


def events(schedule):
    return list(AuditEvent.objects.filter(schedule_id=schedule.pk).order_by("id"))


# --- Create ----------------------------------------------------------------------------------------------------------


def test_a_new_schedule_is_active_aimed_and_versioned(service):
    schedule = create()
    schedule.refresh_from_db()
    assert (schedule.status, schedule.version, schedule.runs) == (ScheduleStatus.ACTIVE, 1, 0)
    assert schedule.next_run_at == schedule.next_occurrence_at == NOW + HOUR
    assert (schedule.created_by, schedule.created_at) == (BY, NOW)
    version = ScheduleVersion.objects.get(schedule=schedule)
    assert (version.version, version.created_by, version.definition["runAt"]) == (1, BY, "2026-11-21T11:00:00Z")


def test_the_creation_is_audited_with_everything_that_was_asked_for(service):
    schedule = create(name="Offer")
    (event,) = events(schedule)
    assert (event.action, event.actor_id, event.created_at) == ("schedule.create", BY, NOW)
    assert event.payload_diff["name"] == [None, "Offer"]
    assert event.payload_diff["runAt"] == [None, "2026-11-21T11:00:00Z"]


def test_a_user_local_schedule_is_aimed_at_its_first_wave(service):
    schedule = create(run_at=NOW + DAY, time_zone_mode="user_local")
    assert (schedule.next_run_at, schedule.next_occurrence_at) == (NOW + 10 * HOUR, NOW + DAY)


@pytest.mark.parametrize(
    ("fields", "field", "remedy"),
    [
        ({"run_at": NOW - MINUTE}, "runAt", "choose a later one"),
        ({"run_at": None}, "runAt", "2026-12-01T09:00:00Z"),
        ({"run_at": datetime.fromisoformat("2026-12-01T09:00:00")}, "runAt", "end it in Z"),
        (
            {"run_at": datetime.fromisoformat("2026-12-01T09:00:00+01:00"), "time_zone_mode": "user_local"},
            "runAt",
            "must end in Z",
        ),
        ({"max_per_user_per_day": 0}, "maxPerUserPerDay", "leave it out for no limit"),
        ({"max_per_user_per_week": 0}, "maxPerUserPerWeek", "leave it out for no limit"),
        ({"max_per_user_per_day": -1}, "maxPerUserPerDay", "Use a number from 1"),
        ({"misfire_grace_minutes": -1}, "misfireGraceMinutes", "Use 0 to"),
        ({"misfire_grace_minutes": 8 * 24 * 60}, "misfireGraceMinutes", "10080"),
        ({"name": ""}, "name", "Give the schedule a name"),
        ({"name": "two\nlines"}, "name", "on one line"),
        ({"name": "x" * 201}, "name", "at most 200"),
        ({"channel": "fax"}, "channel", "email, push, in_app"),
        ({"on_past": "maybe"}, "onPast", "skip, send_now"),
        ({"time_zone": "Mars/Olympus"}, "timeZone", "Europe/Berlin"),
        ({"time_zone_mode": "lunar"}, "timeZoneMode", "fixed, user_local"),
        ({"template_id": None}, "templateId", "Choose a template"),
        ({"template_id": 999_999}, "templateId", "no template 999999"),
        ({"audience_query": {}}, "audienceQuery", '{"all": []}'),
        ({"audience_query": {"field": "email", "op": "eq", "value": "a@b"}}, "audienceQuery", ""),
        ({"schedule_type": "cron"}, "cron", "0 9 * * MON-FRI"),
        ({"schedule_type": "cron", "cron": "* * * * * *"}, "cron", "needs five"),
        ({"schedule_type": "cron", "cron": "0 9 31 2 *"}, "cron", "choose one that exists"),
        ({"schedule_type": "cron", "cron": "0 9 * * *", "run_at": NOW + HOUR}, "runAt", "leave it out"),
        ({"schedule_type": "cron", "cron": "*/5 * * * *", "time_zone_mode": "user_local"}, "cron", "name the times"),
        ({"schedule_type": "cron", "cron": "0 9 * * *", "max_runs": 0}, "maxRuns", "leave it out for no limit"),
        (
            {"schedule_type": "cron", "cron": "0 9 * * *", "start_at": NOW + DAY, "end_at": NOW},
            "endAt",
            "move one of them",
        ),
        (
            {"schedule_type": "cron", "cron": "0 9 * * *", "start_at": NOW + DAY, "end_at": NOW + DAY},
            "endAt",
            "move one of them",
        ),
        ({"schedule_type": "cron", "cron": "0 9 * * *", "max_runs": 2**31}, "maxRuns", "leave it out for no limit"),
    ],
)
def test_what_can_not_be_kept_is_refused_with_the_field_and_the_remedy(service, fields, field, remedy):
    with pytest.raises(InvalidDefinition) as refused:
        create(**fields)
    messages = {problem.field.split("/")[0]: problem.message for problem in refused.value.problems}
    assert field in messages, messages
    assert remedy in messages[field]
    assert not Schedule.objects.exists()
    assert not AuditEvent.objects.filter(action="schedule.create").exists()


def test_all_problems_are_told_at_once(service):
    with pytest.raises(InvalidDefinition) as refused:
        create(name="", channel="fax", run_at=NOW - DAY, max_per_user_per_day=0)
    assert {problem.field for problem in refused.value.problems} >= {"name", "channel", "runAt", "maxPerUserPerDay"}


def test_a_template_without_the_channel_is_refused(service):
    template = TemplateFactory(channels=["push"])
    with pytest.raises(InvalidDefinition, match="says nothing for email"):
        create(template_id=template.pk)


def test_what_a_template_says_but_has_not_published_does_not_count(service):
    template = TemplateFactory(channels=["push"])
    template.contents.create(channel="email", locale="en", subject="Hi", text="draft")
    with pytest.raises(InvalidDefinition, match="says nothing for email"):
        create(template_id=template.pk)


@pytest.mark.parametrize(
    ("at", "accepted"),
    [
        (NOW - 11 * HOUR, True),  # 23:00 yesterday: still ahead in Baker Island only
        (NOW - 12 * HOUR, False),  # 22:00: past everywhere
    ],
)
def test_a_user_local_time_is_past_only_where_it_is_past_in_every_zone(service, at, accepted):
    if accepted:
        assert create(run_at=at, time_zone_mode="user_local").status == ScheduleStatus.ACTIVE
        return
    with pytest.raises(InvalidDefinition, match="every time zone"):
        create(run_at=at, time_zone_mode="user_local")


def test_change_and_event_are_kept_or_lost_together(service, monkeypatch):
    schedule, another = ScheduleFactory(run_at=NOW + HOUR), definition(name="Another")
    attempts = [
        lambda: operations.create(definition=another, by=BY, now=NOW),
        lambda: service.update(schedule, name="Renamed"),
        lambda: service.pause(schedule),
        lambda: service.cancel(schedule),
        lambda: operations.delete(schedule_id=schedule.pk, by=BY, now=NOW),
        lambda: stops.stop_sending(scope="all", by=BY, now=NOW),
    ]
    monkeypatch.setattr(trail, "record", fail)
    before = list(Schedule.objects.values("name", "status", "version"))
    for attempt in attempts:
        with pytest.raises(RuntimeError, match="no room"), transaction.atomic():
            attempt()
    assert list(Schedule.objects.values("name", "status", "version")) == before
    assert not StopSwitch.objects.exists()


def fail(**_):
    raise RuntimeError("no room for the event")


# --- Drafts ----------------------------------------------------------------------------------------------------------


def test_a_draft_may_be_incomplete_and_is_never_opened(service):
    draft = operations.create(definition=definition(template_id=None, run_at=None), by=BY, now=NOW, draft=True)
    draft.refresh_from_db()
    assert (draft.status, draft.next_run_at) == (ScheduleStatus.DRAFT, None)
    assert service.at(NOW + 30 * DAY).tick().occurrence_ids == []


def test_a_draft_becomes_active_when_it_is_complete(service):
    draft = operations.create(definition=definition(template_id=None, run_at=None), by=BY, now=NOW, draft=True)
    with pytest.raises(InvalidDefinition) as refused:
        operations.activate(schedule_id=draft.pk, by=BY, now=NOW)
    assert {problem.field for problem in refused.value.problems} == {"templateId", "runAt"}
    service.update(draft, template_id=TemplateFactory().pk, run_at=NOW + HOUR, channel="push")
    active = operations.activate(schedule_id=draft.pk, by=BY, now=NOW)
    assert (active.status, active.next_run_at) == (ScheduleStatus.ACTIVE, NOW + HOUR)
    assert [event.action for event in events(draft)] == ["schedule.create", "schedule.update", "schedule.activate"]
    assert events(draft)[-1].payload_diff == {"status": ["draft", "active"]}


@pytest.mark.parametrize(
    "fields",
    [{"name": ""}, {"cron": "x" * 201}, {"time_zone": "x" * 65}, {"channel": "fax"}, {"template_id": 999_999}],
    ids=lambda fields: next(iter(fields)),
)
def test_even_a_draft_must_fit(service, fields):
    with pytest.raises(InvalidDefinition):
        operations.create(definition=definition(**fields), by=BY, now=NOW, draft=True)


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_runs": "3"}, "maxRuns"),
        ({"name": None}, "name"),
        ({"template_id": "x"}, "templateId"),
        ({"template_id": 10**5000}, "templateId"),
        ({"run_at": "2026-12-01"}, "runAt"),
        ({"run_at": datetime.max.replace(tzinfo=timezone(-HOUR))}, "runAt"),
        ({"schedule_type": "cron", "cron": "0 9 * * *", "start_at": datetime.fromisoformat("2027-01-01")}, "startAt"),
        ({"schedule_type": "cron", "cron": ",".join(["0"] * 120) + " 9 * * *"}, "cron"),
        ({"cron": "\ud800"}, "cron"),
        ({"time_zone": "\0"}, "timeZone"),
    ],
)
def test_what_no_column_can_hold_is_refused_in_words(service, fields, field, draft):
    with pytest.raises(InvalidDefinition) as refused:
        operations.create(definition=definition(**fields), by=BY, now=NOW, draft=draft)
    assert field in {problem.field for problem in refused.value.problems}


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("value", [float("nan"), "a\0", "\ud800"], ids=["nan", "nul", "surrogate"])
def test_an_audience_that_no_column_can_hold_is_refused_in_words(service, value, draft):
    query = {"field": "attributes.plan", "op": "eq", "value": value}
    with pytest.raises(InvalidDefinition, match="audienceQuery"):
        operations.create(definition=definition(audience_query=query), by=BY, now=NOW, draft=draft)


@pytest.mark.parametrize("draft", [False, True])
def test_an_audience_nested_without_end_is_refused_in_words(service, draft):
    query = {"all": []}
    for _ in range(100_000):
        query = {"not": query}
    with pytest.raises(InvalidDefinition, match="audienceQuery"):
        operations.create(definition=definition(audience_query=query), by=BY, now=NOW, draft=draft)


def test_nobody_is_sent_to_by_a_forgotten_audience(service):
    forgotten = Definition("Offer", "email", TemplateFactory().pk, "once", run_at=NOW + HOUR)
    with pytest.raises(InvalidDefinition, match='"all"'):
        operations.create(definition=forgotten, by=BY, now=NOW)


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"foo": 1}, "foo", "unknown"),
        ({"max_runs": True}, "maxRuns", "wrong_type"),
        ({"misfire_grace_minutes": 60.0}, "misfireGraceMinutes", "wrong_type"),
        ({"audience_query": None}, "audienceQuery", "wrong_type"),
    ],
)
def test_an_edit_of_something_else_than_a_definition_s_fields_is_refused_in_words(service, changes, field, code):
    schedule = ScheduleFactory(run_at=NOW + HOUR)
    with pytest.raises(InvalidDefinition) as refused:
        operations.update(schedule_id=schedule.pk, changes=changes, by=BY, now=NOW)
    assert [(problem.field, problem.code) for problem in refused.value.problems] == [(field, code)]


def test_whom_an_edit_concerns_is_one_of_two(service):
    schedule = ScheduleFactory(run_at=NOW + HOUR)
    for wrong in ("bogus", None):
        with pytest.raises(InvalidDefinition, match="applyTo: Use one of: next, unsent"):
            operations.update(schedule_id=schedule.pk, changes={"name": "New"}, by=BY, now=NOW, apply_to=wrong)
    operations.update(schedule_id=schedule.pk, changes={"name": "New"}, by=BY, now=NOW, apply_to="unsent")


@pytest.mark.parametrize("end", [operations.cancel, operations.delete])
def test_a_draft_that_never_became_whole_can_be_ended(service, end):
    incomplete = Definition(name="d", channel="email", template_id=None, schedule_type="once")
    draft = operations.create(definition=incomplete, by=BY, now=NOW, draft=True)
    ended = end(schedule_id=draft.pk, by=BY, now=NOW)
    draft.refresh_from_db()
    assert draft.status == ended.status != ScheduleStatus.DRAFT
    assert events(draft)[-1].payload_diff == {"status": ["draft", draft.status]}


def test_a_page_deletes_an_incomplete_draft(service):
    incomplete = Definition(name="d", channel="email", template_id=None, schedule_type="once")
    draft = operations.create(definition=incomplete, by=BY, now=NOW, draft=True)
    address = f"/schedules/{draft.pk}/do/delete/"
    assert signed_in(Role.ADMIN).post(address).status_code == 302
    draft.refresh_from_db()
    assert draft.status == ScheduleStatus.DELETED


@pytest.mark.parametrize("status", ["active", "paused", "finished", "broken"])
def test_what_has_run_or_may_run_is_complete(service, status):
    incomplete = Definition(name="d", channel="email", template_id=None, schedule_type="once")
    draft = operations.create(definition=incomplete, by=BY, now=NOW, draft=True)
    with pytest.raises(IntegrityError, match="schedule_complete_to_run"), transaction.atomic():
        Schedule.objects.filter(pk=draft.pk).update(status=status)


def test_what_is_active_is_not_activated_again(service):
    schedule = ScheduleFactory()
    with pytest.raises(operations.NotAllowed):
        operations.activate(schedule_id=schedule.pk, by=BY, now=NOW)


# --- Edit ------------------------------------------------------------------------------------------------------------


def test_an_edit_is_audited_with_what_changed_and_nothing_else(service):
    schedule = ScheduleFactory(name="Old", run_at=NOW + HOUR)
    service.update(schedule, name="New", run_at=NOW + 2 * HOUR)
    event = events(schedule)[-1]
    assert (event.action, event.created_at) == ("schedule.update", NOW)
    assert event.payload_diff == {
        "name": ["Old", "New"],
        "runAt": ["2026-11-21T11:00:00Z", "2026-11-21T12:00:00Z"],
    }
    assert [version.definition["name"] for version in schedule.versions.order_by("version")] == ["Old", "New"]


def test_a_time_that_has_passed_since_does_not_stop_an_edit_of_something_else(service, provider):
    people(1)
    schedule = ScheduleFactory()
    service.at(NOW + MINUTE).open()
    service.update(schedule, name="New")
    service.send()
    assert states(schedule) == {"sent": 1}


# --- Pause, resume, cancel, delete -----------------------------------------------------------------------------------


def test_pausing_and_resuming_twice_is_once(service):
    schedule = ScheduleFactory(run_at=NOW + HOUR)
    for _ in range(2):
        service.pause(schedule)
    for _ in range(2):
        service.after(MINUTE).resume(schedule)
    schedule.refresh_from_db()
    assert (schedule.status, schedule.paused_at, schedule.resumed_at) == ("active", NOW, NOW + MINUTE)
    assert [event.action for event in events(schedule)][1:] == ["schedule.pause", "schedule.resume"]
    assert events(schedule)[1].payload_diff == {"status": ["active", "paused"]}


def test_the_reason_of_a_pause_is_kept_while_it_lasts(service):
    schedule = ScheduleFactory(run_at=NOW + HOUR)
    operations.pause(schedule_id=schedule.pk, by=BY, now=NOW, reason="wrong price")
    assert Schedule.objects.get().status_reason == "wrong price"
    service.resume(schedule)
    assert Schedule.objects.get().status_reason == ""


def test_a_resumed_run_goes_on_where_it_stopped(service, provider, settings):
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 40
    people(120)
    schedule = ScheduleFactory()
    service.open()
    service.send()
    service.pause(schedule)
    before = states(schedule)
    service.send(rounds=3)
    assert states(schedule) == before
    service.resume(schedule)
    service.send(rounds=5)
    assert states(schedule) == {"sent": 120}
    assert set(provider.reached().values()) == {1}


def test_cancelling_ends_the_schedule_and_what_of_it_is_open(service, provider):
    people(2)
    schedule = ScheduleFactory(cron="1 10 * * *")
    service.open()
    service.cancel(schedule)
    schedule.refresh_from_db()
    assert (schedule.status, schedule.next_run_at) == (ScheduleStatus.CANCELLED, None)
    service.run_to(NOW + 3 * DAY)
    assert reasons(schedule) == {"cancelled: cancelled": 2}
    assert only_occurrence(schedule).closed_at is not None
    assert events(schedule)[-1].payload_diff == {"status": ["active", "cancelled"]}


def test_cancelling_what_was_put_off_cancels_its_people(service, provider):
    people(2)
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    service.update(schedule, run_at=NOW + 3 * DAY)
    service.cancel(schedule)
    service.run_to(NOW + 4 * DAY)
    assert reasons(schedule) == {"cancelled: cancelled": 2}


def test_a_deleted_schedule_is_out_of_every_list_and_stays_in_the_records(service, provider):
    people(2)
    schedule = ScheduleFactory()
    service.step()
    for _ in range(2):
        operations.delete(schedule_id=schedule.pk, by=BY, now=NOW)
    assert not Schedule.objects.live().exists()
    assert states(schedule) == {"sent": 2}
    told = ["schedule.create", "occurrence.finish", "schedule.finish", "schedule.delete"]
    assert [event.action for event in events(schedule)] == told


@pytest.mark.parametrize("operation", [operations.pause, operations.resume, operations.cancel, operations.activate])
def test_what_is_deleted_can_not_be_changed(service, operation):
    schedule = ScheduleFactory(run_at=NOW + HOUR)
    operations.delete(schedule_id=schedule.pk, by=BY, now=NOW)
    with pytest.raises(operations.NotAllowed, match="deleted"):
        operation(schedule_id=schedule.pk, by=BY, now=NOW)


@pytest.mark.parametrize("operation", [operations.pause, operations.cancel, operations.delete])
def test_what_does_not_exist_is_said_to(service, operation):
    with pytest.raises(Schedule.DoesNotExist):
        operation(schedule_id=999_999, by=BY, now=NOW)


# --- Stop and go -----------------------------------------------------------------------------------------------------


def test_stopping_and_going_are_audited_once_each(service):
    for _ in range(2):
        stops.stop_sending(scope="channel:email", by=BY, now=NOW, reason="provider down")
    assert stops.go_sending(scope="channel:email", by=BY, now=NOW)
    assert not stops.go_sending(scope="channel:email", by=BY, now=NOW)
    kept = AuditEvent.objects.filter(action__startswith="sending.").order_by("id").values_list("action", "payload_diff")
    assert list(kept) == [
        ("sending.stop", {"scope": [None, "channel:email"], "reason": [None, "provider down"]}),
        ("sending.go", {"scope": ["channel:email", None]}),
    ]


@pytest.mark.parametrize("scope", ["", "everything", "channel:fax", "schedule:one", "schedule:", "all "])
def test_a_scope_that_stops_nothing_is_refused_with_what_there_is(service, scope):
    with pytest.raises(ValueError, match="all, channel:NAME or schedule:ID"):
        stops.stop_sending(scope=scope, by=BY, now=NOW)
    assert not StopSwitch.objects.exists()


@pytest.mark.parametrize("scope", ["all", "channel:email", "schedule"])
def test_a_stop_holds_up_a_run_and_go_lets_it_go_on(service, provider, settings, scope):
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 40
    people(120)
    schedule = ScheduleFactory()
    scope = f"schedule:{schedule.pk}" if scope == "schedule" else scope
    service.open()
    service.send()
    before = states(schedule)
    stops.stop_sending(scope=scope, by=BY, now=NOW)
    service.send(rounds=3)
    assert states(schedule) == before
    stops.go_sending(scope=scope, by=BY, now=NOW)
    service.send(rounds=5)
    assert states(schedule) == {"sent": 120}


# --- The database's own word -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"status": "sleeping"},
        {"channel": "fax"},
        {"max_per_user_per_day": 0},
        {"run_at": None},
        {"cron": "0 9 * * *"},
        {"next_occurrence_at": None},
        {"template_id": None},
        {"start_at": NOW, "end_at": NOW - timedelta(days=1)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_database_refuses_a_schedule_that_makes_no_sense(service, broken):
    ScheduleFactory(run_at=NOW + HOUR)
    with pytest.raises(IntegrityError), transaction.atomic():
        Schedule.objects.update(**broken)
