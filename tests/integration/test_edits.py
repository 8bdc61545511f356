"""Edits: whom they concern, what becomes of those who wait, and that nobody gets two messages."""

from datetime import datetime

import pytest

from audit.models import AuditEvent
from delivery.models import Batch, Delivery, State
from delivery.providers.base import Verdict
from schedules import operations
from schedules.definition import InvalidDefinition
from schedules.models import Occurrence, OccurrenceState, Recipient, Schedule, ScheduleStatus, ScheduleVersion
from schedules.occurrences import ApplyTo, Effect
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db


def tagged(tag):
    return {"field": "tags", "op": "contains", "value": tag}


def effects(edit):
    return [touched.effect for touched in edit.touched]


@pytest.fixture
def waiting(service, provider):
    """A one-off, materialised for three people and due in a minute."""
    people(3, tags=["a"])
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    return schedule


@pytest.fixture
def begun(service, provider, settings):
    """A one-off for 120 people that has been sent to some and is paused."""
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 40
    people(120, tags=["a"])
    schedule = ScheduleFactory(audience_query=tagged("a"))
    service.open()
    service.send()
    settings.PUBLISH_WINDOW_ROWS = 20_000
    assert {"sent", "pending"} == set(states(schedule))
    service.pause(schedule)
    return schedule


def finish(service, schedule, *, at=None):
    """Resume where it is paused, and send everything."""
    schedule.refresh_from_db()
    if schedule.status == ScheduleStatus.PAUSED:
        service.resume(schedule)
    service.run_to(at or service.now)
    service.send(rounds=9)
    service.sweep()


def nobody_twice(provider):
    return set(provider.reached().values()) <= {1}


# --- Content ---------------------------------------------------------------------------------------------------------


def test_an_edit_of_the_content_repins_what_has_not_begun(service, provider, waiting):
    other = TemplateFactory(text="other words")
    edit = service.update(waiting, template_id=other.pk)
    occurrence = only_occurrence(waiting)
    assert effects(edit) == [Effect.REPINNED]
    assert (occurrence.state, occurrence.version, occurrence.template_version) == (OccurrenceState.RUNNING, 2, 1)
    finish(service, waiting, at=NOW + MINUTE)
    assert {message.text for message in provider.messages()} == {"other words"}
    assert set(Delivery.objects.values_list("version", flat=True)) == {2}


def test_an_edit_pins_the_template_version_that_stands_then(service, provider):
    people(1)
    template = TemplateFactory(name="Offer", text="old")
    schedule = ScheduleFactory(template_id=template.pk)
    service.open()
    TemplateFactory(name="Offer", text="new")
    service.update(schedule, name="Another name")
    service.send()
    assert provider.messages()[0].text == "new"


def test_what_has_begun_ends_with_the_version_it_began_with(service, provider, begun):
    other = TemplateFactory(text="other words")
    edit = service.update(begun, template_id=other.pk)
    assert effects(edit) == [Effect.UNTOUCHED]
    finish(service, begun)
    assert {message.text for message in provider.messages()} == {"Dear , it is time."}
    assert states(begun) == {"sent": 120}


def test_the_unsent_of_what_has_begun_follow_an_edit_that_says_so(service, provider, begun):
    already = len(provider.messages())
    edit = service.update(begun, template_id=TemplateFactory(text="other words").pk, apply_to=ApplyTo.UNSENT)
    assert effects(edit) == [Effect.REPINNED]
    finish(service, begun)
    texts = [message.text for message in provider.messages()]
    assert (texts.count("Dear , it is time."), texts.count("other words")) == (already, 120 - already)
    assert nobody_twice(provider)


# --- Audience --------------------------------------------------------------------------------------------------------


def test_who_falls_out_of_the_audience_is_cancelled_and_who_joins_is_added(service, provider):
    leaving, staying = people(2, tags=["a"]), people(3, tags=["a", "b"])
    joining = people(4, tags=["b"])
    schedule = ScheduleFactory(run_at=NOW + MINUTE, audience_query=tagged("a"))
    service.open()
    edit = service.update(schedule, audience_query=tagged("b"))
    assert effects(edit) == [Effect.REMATERIALISED]
    assert only_occurrence(schedule).state == OccurrenceState.MATERIALISING
    service.materialise()
    assert only_occurrence(schedule).targeted == 9
    assert reasons(schedule) == {"cancelled: edited": 2, "pending: ": 7}
    finish(service, schedule, at=NOW + MINUTE)
    assert set(provider.reached()) == {person.pk for person in staying + joining}
    assert {row_of(schedule, person).reason for person in leaving} == {"edited"}


def test_who_comes_back_into_the_audience_is_pending_again(service, provider, waiting):
    service.update(waiting, audience_query=tagged("b"))
    service.materialise()
    assert reasons(waiting) == {"cancelled: edited": 3}
    assert not Batch.objects.exclude(pending=0).exists()
    service.update(waiting, audience_query=tagged("a"))
    service.materialise()
    assert reasons(waiting) == {"pending: ": 3}
    finish(service, waiting, at=NOW + MINUTE)
    assert states(waiting) == {"sent": 3}
    assert only_occurrence(waiting).targeted == 3


def test_an_audience_that_is_edited_again_before_it_was_found_is_found_once(service, provider, waiting):
    service.update(waiting, audience_query=tagged("b"))
    service.update(waiting, audience_query=tagged("a"))
    service.materialise()
    finish(service, waiting, at=NOW + MINUTE)
    assert states(waiting) == {"sent": 3}
    assert nobody_twice(provider)


def test_an_audience_edited_from_nobody_to_somebody_is_found(service, provider):
    people(3, tags=["a"])
    schedule = ScheduleFactory(run_at=NOW + MINUTE, audience_query=tagged("b"))
    service.open()
    service.update(schedule, audience_query=tagged("a"))
    service.materialise()
    finish(service, schedule, at=NOW + MINUTE)
    assert states(schedule) == {"sent": 3}


def test_an_edit_of_the_audience_leaves_what_has_begun_to_its_own(service, provider, begun):
    edit = service.update(begun, audience_query=tagged("b"))
    assert effects(edit) == [Effect.UNTOUCHED]
    finish(service, begun)
    assert states(begun) == {"sent": 120}


def test_the_unsent_of_what_has_begun_follow_an_edit_of_the_audience(service, provider, begun):
    gone_out = states(begun)["sent"]
    staying = Delivery.objects.filter(state=State.PENDING).order_by("recipient_id")[:10]
    Recipient.objects.filter(pk__in=[row.recipient_id for row in staying]).update(tags=["b"])
    joining = people(60, tags=["b"])
    edit = service.update(begun, audience_query=tagged("b"), apply_to=ApplyTo.UNSENT)
    assert effects(edit) == [Effect.REMATERIALISED]
    service.materialise()
    assert states(begun) == {"sent": gone_out, "pending": 70, "cancelled": 120 - gone_out - 10}
    finish(service, begun)
    assert states(begun)["sent"] == gone_out + 70
    assert nobody_twice(provider)
    assert {person.pk for person in joining} <= set(provider.reached())


def test_who_waits_in_a_run_paused_past_its_grace_is_not_lost_by_an_edit_of_the_audience(service, provider, begun):
    joining = people(10, tags=["b"])
    query = {"any": [tagged("a"), tagged("b")]}
    service.after(3 * HOUR)
    service.update(begun, audience_query=query, apply_to=ApplyTo.UNSENT)
    service.materialise()
    assert set(states(begun)) == {"sent", "pending"}
    finish(service, begun)
    assert states(begun) == {"sent": 130}
    assert {person.pk for person in joining} <= set(provider.reached())
    assert nobody_twice(provider)


def test_who_waits_in_a_local_wave_that_has_started_is_not_lost_by_an_edit_of_the_audience(service, provider, settings):
    people(90, time_zone="Asia/Kolkata", tags=["a"])
    people(3, time_zone="UTC", tags=["a"])
    schedule = ScheduleFactory(run_at=NOW + DAY, time_zone_mode="user_local", audience_query=tagged("a"))
    provider.answer = staticmethod(transient_for_some(provider.answer))
    service.run_to(NOW + DAY - 5.5 * HOUR)
    assert states(schedule)["pending"] == 45 + 3
    service.after(MINUTE)
    service.update(schedule, audience_query={"any": [tagged("a"), tagged("b")]}, apply_to=ApplyTo.UNSENT)
    service.materialise()
    assert states(schedule) == {"sent": 45, "pending": 48}
    provider.reset()
    finish(service, schedule, at=NOW + DAY)
    assert states(schedule) == {"sent": 93}


def transient_for_some(answer):
    def half(message):
        if message.recipient_id % 2:
            return answer(message)._replace(verdict=Verdict.TRANSIENT, reason="busy", retry_after=600.0)
        return answer(message)

    return half


def test_an_edit_counts_no_attempt_anew(service, provider):
    (person,) = people(1, tags=["a"])
    schedule = ScheduleFactory(audience_query=tagged("a"))
    provider.answers(Verdict.TRANSIENT, "busy")
    service.step()
    service.at(row_of(schedule, person).due_at).step()
    before = row_of(schedule, person)
    assert before.attempt == 2
    service.update(schedule, audience_query={"any": [tagged("a"), tagged("b")]}, apply_to=ApplyTo.UNSENT)
    service.materialise()
    after = row_of(schedule, person)
    assert (after.attempt, after.due_at, after.state) == (2, before.due_at, State.PENDING)


# --- The time of a one-off -------------------------------------------------------------------------------------------


def test_a_one_off_that_is_not_open_yet_simply_moves(service, provider):
    people(3)
    schedule = ScheduleFactory(run_at=NOW + DAY)
    edit = service.update(schedule, run_at=NOW + HOUR)
    assert edit.touched == []
    assert edit.schedule.next_run_at == NOW + HOUR
    service.run_to(NOW + 2 * DAY)
    assert states(schedule) == {"sent": 3}
    assert schedule.occurrences.count() == 1


@pytest.mark.parametrize("seconds", [10, 55], ids=["sooner", "a little later"])
def test_a_one_off_about_to_run_moves_with_its_people(service, provider, waiting, seconds):
    at = NOW + MINUTE * seconds / 60
    edit = service.update(waiting, run_at=at)
    assert effects(edit) == [Effect.RETIMED]
    service.materialise()
    occurrence = only_occurrence(waiting)
    assert (occurrence.occurrence_at, occurrence.opens_at, occurrence.ends_at) == (NOW + MINUTE, at, at + 7 * DAY)
    assert set(Delivery.objects.values_list("wave_at", "due_at")) == {(at, at)}
    finish(service, waiting, at=at)
    assert states(waiting) == {"sent": 3}
    service.run_to(NOW + HOUR)
    assert nobody_twice(provider)


def test_a_one_off_put_off_waits_and_finds_its_people_when_its_time_comes(service, provider, waiting):
    edit = service.update(waiting, run_at=NOW + DAY)
    assert effects(edit) == [Effect.POSTPONED]
    occurrence = only_occurrence(waiting)
    assert occurrence.state == OccurrenceState.WAITING
    assert (edit.schedule.next_run_at, edit.schedule.next_occurrence_at) == (NOW + DAY, NOW + MINUTE)
    service.run_to(NOW + HOUR)
    assert provider.calls == []
    Recipient.objects.all()[0].delete()
    joining = people(2)
    service.run_to(NOW + DAY)
    assert only_occurrence(waiting).pk == occurrence.pk
    assert states(waiting) == {"sent": 4, "cancelled": 1}
    assert {person.pk for person in joining} <= set(provider.reached())
    assert only_occurrence(waiting).targeted == 5
    assert Schedule.objects.get().status == ScheduleStatus.FINISHED


def test_a_one_off_put_off_twice_and_back_is_sent_once(service, provider, waiting):
    service.update(waiting, run_at=NOW + 3 * DAY)
    service.update(waiting, run_at=NOW + 2 * DAY)
    service.update(waiting, run_at=NOW + MINUTE / 2)
    service.run_to(NOW + 4 * DAY)
    assert states(waiting) == {"sent": 3}
    assert waiting.occurrences.count() == 1


def test_a_one_off_put_off_and_missed_lets_go_of_its_people(service, provider, waiting):
    service.update(waiting, run_at=NOW + DAY)
    service.at(NOW + 2 * DAY).step()
    service.sweep()
    assert reasons(waiting) == {"expired: down": 3}
    assert only_occurrence(waiting).closed_at is not None


def test_time_and_audience_of_a_one_off_move_together(service, provider):
    people(3, tags=["a"])
    people(2, tags=["b"])
    schedule = ScheduleFactory(run_at=NOW + MINUTE, audience_query=tagged("a"))
    service.open()
    edit = service.update(schedule, run_at=NOW + 20 * DAY, audience_query=tagged("b"))
    assert effects(edit) == [Effect.POSTPONED]
    service.run_to(NOW + 20 * DAY)
    assert reasons(schedule) == {"cancelled: edited": 3, "sent: ": 2}


def test_an_edit_of_the_audience_does_not_wake_a_one_off_that_was_put_off(service, provider, waiting):
    service.update(waiting, run_at=NOW + DAY)
    edit = service.update(waiting, audience_query=tagged("b"))
    assert effects(edit) == [Effect.REPINNED]
    assert only_occurrence(waiting).state == OccurrenceState.WAITING
    joining = people(2, tags=["b"])
    service.run_to(NOW + DAY)
    assert set(provider.reached()) == {person.pk for person in joining}


@pytest.mark.parametrize("apply_to", list(ApplyTo))
def test_the_people_who_wait_in_a_one_off_that_has_begun_move_and_nobody_else(service, provider, begun, apply_to):
    gone_out = states(begun)["sent"]
    newcomer = people(1, tags=["a"])[0]
    at = NOW + 5 * HOUR
    edit = service.update(begun, run_at=at, apply_to=apply_to)
    assert effects(edit) == [Effect.RETIMED]
    service.materialise()
    assert states(begun) == {"sent": gone_out, "pending": 120 - gone_out}
    assert set(Delivery.objects.filter(state=State.PENDING).values_list("wave_at", "due_at")) == {(at, at)}
    assert set(Delivery.objects.filter(state=State.SENT).values_list("wave_at", flat=True)) == {NOW}
    service.resume(begun)
    service.run_to(at - MINUTE)
    assert states(begun)["sent"] == gone_out
    finish(service, begun, at=at)
    assert states(begun) == {"sent": 120}
    assert nobody_twice(provider)
    assert newcomer.pk not in provider.reached()


def test_moving_a_one_off_that_has_begun_brings_nobody_back_whom_an_edit_left_out(service, provider, begun):
    gone_out = states(begun)["sent"]
    service.update(begun, audience_query=tagged("b"), apply_to=ApplyTo.UNSENT)
    service.materialise()
    service.update(begun, run_at=NOW + HOUR)
    service.materialise()
    assert states(begun) == {"sent": gone_out, "cancelled": 120 - gone_out}
    finish(service, begun, at=NOW + HOUR)
    assert states(begun)["sent"] == gone_out


def test_time_and_audience_of_the_unsent_move_together(service, provider, begun):
    gone_out = states(begun)["sent"]
    joining = people(5, tags=["b"])
    service.update(begun, run_at=NOW + HOUR, audience_query=tagged("b"), apply_to=ApplyTo.UNSENT)
    finish(service, begun, at=NOW + HOUR)
    assert states(begun) == {"sent": gone_out + 5, "cancelled": 120 - gone_out}
    assert {person.pk for person in joining} <= set(provider.reached())


def test_who_would_be_tried_again_moves_with_the_one_off(service, provider):
    (person,) = people(1)
    schedule = ScheduleFactory()
    provider.answers(Verdict.TRANSIENT, "busy")
    service.step()
    service.update(schedule, run_at=NOW + HOUR)
    service.materialise()
    row = row_of(schedule, person)
    assert (row.state, row.due_at, row.attempt) == (State.PENDING, NOW + HOUR, 0)
    provider.reset()
    service.run_to(NOW + HOUR)
    assert states(schedule) == {"sent": 1}


def test_a_one_off_that_has_run_can_not_be_moved(service, provider, waiting):
    service.run_to(NOW + MINUTE - MINUTE / 60)
    service.at(NOW + MINUTE).open()
    service.send()
    service.sweep()
    Schedule.objects.update(status=ScheduleStatus.ACTIVE)  # as between the sweep's last two steps
    with pytest.raises(InvalidDefinition) as refused:
        service.update(waiting, run_at=NOW + DAY)
    assert [(problem.field, problem.code) for problem in refused.value.problems] == [("runAt", "already_ran")]


def test_moving_a_user_local_one_off_skips_those_whose_new_time_has_passed(service, provider):
    people(1, time_zone="Asia/Kolkata")
    people(1, time_zone="UTC")
    nine = datetime.fromisoformat("2026-11-22T09:00:00Z")
    schedule = ScheduleFactory(run_at=nine, time_zone_mode="user_local")
    service.run_to(NOW + 9 * HOUR)  # 19:00 UTC: the first zones are open
    eight = nine - 6 * HOUR
    service.at(nine - 10 * HOUR)  # 23:00 UTC: three o'clock has passed in Kolkata
    service.update(schedule, run_at=eight)
    service.run_to(nine + DAY)
    assert reasons(schedule) == {"expired: past_zone": 1, "sent: ": 1}


# --- The times of a cron ---------------------------------------------------------------------------------------------


def test_an_occurrence_that_the_new_cron_does_not_name_is_cancelled(service, provider):
    people(3)
    schedule = ScheduleFactory(cron="1 10 * * *")
    service.open()
    edit = service.update(schedule, cron="30 10 * * *")
    assert effects(edit) == [Effect.CANCELLED]
    assert edit.schedule.next_run_at == NOW + 30 * MINUTE
    service.run_to(NOW + 30 * MINUTE)
    assert sorted(reasons(schedule).items()) == [("cancelled: edited", 3), ("sent: ", 3)]
    assert nobody_twice(provider)


def test_an_occurrence_that_the_new_cron_still_names_stays(service, provider):
    people(3)
    schedule = ScheduleFactory(cron="1 10 * * *")
    service.open()
    edit = service.update(schedule, cron="1 10,22 * * *")
    assert effects(edit) == [Effect.RETIMED]
    service.run_to(NOW + 23 * HOUR)
    assert schedule.occurrences.count() == 2
    assert states(schedule) == {"sent": 6}


def test_an_occurrence_cancelled_by_an_edit_comes_back_with_the_edit_that_takes_it_back(service, provider):
    people(3)
    schedule = ScheduleFactory(cron="1 10 * * *", max_runs=2)
    service.open()
    service.update(schedule, cron="30 10 * * *")
    service.sweep()
    assert reasons(schedule) == {"cancelled: edited": 3}
    service.update(schedule, cron="1 10 * * *")
    service.run_to(NOW + 5 * MINUTE)
    assert reasons(schedule) == {"sent: ": 3}
    service.run_to(NOW + 5 * DAY)
    assert schedule.occurrences.count() == 2
    assert states(schedule) == {"sent": 6}


def test_an_occurrence_cancelled_by_an_edit_is_none_of_the_crons_runs(service, provider):
    schedule = ScheduleFactory(cron="1 10 * * *", max_runs=1)
    service.open()
    service.update(schedule, cron="30 10 * * *")
    service.run_to(NOW + DAY)
    held = schedule.occurrences.exclude(state=OccurrenceState.CANCELLED)
    assert [occurrence.occurrence_at for occurrence in held] == [NOW + 30 * MINUTE]


def test_a_user_local_cron_made_fixed_is_put_off_and_comes_to_its_time(service, provider):
    people(3, time_zone="UTC")
    schedule = ScheduleFactory(cron="0 9 * * *", time_zone_mode="user_local", start_at=NOW + 2 * DAY, max_runs=1)
    schedule.refresh_from_db()
    service.at(schedule.next_run_at).open()
    nine = only_occurrence(schedule).occurrence_at
    edit = service.update(schedule, time_zone_mode="fixed")
    assert effects(edit) == [Effect.POSTPONED]
    service.run_to(nine - MINUTE)
    assert provider.calls == []
    service.run_to(nine + 3 * DAY)
    assert reasons(schedule) == {"sent: ": 3}
    assert [occurrence.occurrence_at for occurrence in schedule.occurrences.all()] == [nine]


def test_a_cron_that_has_begun_runs_on_whatever_its_new_times(service, provider, settings):
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 40
    people(120)
    schedule = ScheduleFactory(cron="0 * * * *", now=NOW - MINUTE)
    service.step()
    edit = service.update(schedule, cron="30 * * * *")
    assert effects(edit) == [Effect.UNTOUCHED]
    service.send(rounds=9)
    assert states(schedule) == {"sent": 120}


# --- Refusals --------------------------------------------------------------------------------------------------------


def everything():
    return (
        list(Schedule.objects.values()),
        list(Occurrence.objects.values()),
        list(ScheduleVersion.objects.values()),
        AuditEvent.objects.count(),
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"run_at": NOW - DAY}, "runAt"),
        ({"channel": "push"}, "channel"),
        ({"schedule_type": "cron", "run_at": None, "cron": "0 9 * * *"}, "scheduleType"),
        ({"audience_query": {"field": "address"}}, "audienceQuery"),
        ({"max_per_user_per_day": 0}, "maxPerUserPerDay"),
        ({"template_id": 999_999}, "templateId"),
        ({"name": " "}, "name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refused_edit_leaves_everything_as_it_was(service, provider, waiting, changes, field):
    before = everything()
    with pytest.raises(InvalidDefinition) as refused:
        service.update(waiting, **changes)
    assert any(problem.field.startswith(field) for problem in refused.value.problems)
    assert everything() == before


def test_an_edit_that_changes_nothing_leaves_no_version_and_no_event(service, waiting):
    before = everything()
    assert service.update(waiting, name=waiting.name).touched == []
    assert everything() == before


def test_who_edits_what_somebody_else_has_changed_meanwhile_is_told_the_version_that_stands(service, waiting):
    service.update(waiting, name="First", expected_version=1)
    before = everything()
    with pytest.raises(operations.VersionConflict) as conflict:
        service.update(waiting, name="Second", expected_version=1)
    assert conflict.value.current == 2
    assert everything() == before


@pytest.mark.parametrize("end", [operations.cancel, operations.delete], ids=["cancelled", "deleted"])
def test_what_has_ended_can_not_be_edited(service, waiting, end):
    end(schedule_id=waiting.pk, by=BY, now=NOW)
    with pytest.raises(operations.NotAllowed):
        service.update(waiting, name="Other")


def test_an_edit_of_a_paused_schedule_concerns_it_when_it_is_resumed(service, provider, waiting):
    service.pause(waiting)
    service.update(waiting, template_id=TemplateFactory(text="other words").pk)
    finish(service, waiting, at=NOW + MINUTE)
    assert {message.text for message in provider.messages()} == {"other words"}
