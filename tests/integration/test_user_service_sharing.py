"""Runs that ask the user service the same at the same time: it is asked once, and each has its people."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from delivery import dispatch, materialise
from delivery.materialise import attempts, resolving, sharing
from delivery.models import Delivery
from schedules.imports import merging
from schedules.models import LeftAlone, Occurrence, OccurrenceState, Resolution, ResolutionPage, ResolutionUse
from schedules.user_service import left_alone
from tests.factories import NOW
from tests.service import MINUTE
from tests.user_service import Crash, attempt, crash, interrupting, let_ask, named, profile

pytestmark = pytest.mark.django_db

VIPS = {"field": "tags", "op": "contains", "value": "vip"}


def try_once(occurrence) -> Occurrence:
    """One attempt, which respects who asks at this moment and who is left alone."""
    Occurrence.objects.filter(pk=occurrence.pk).update(materialise_lease_until=None)
    materialise.attempt(occurrence_id=occurrence.pk, now=NOW)
    return Occurrence.objects.get(pk=occurrence.pk)


def seconds_left(occurrence) -> float:
    return (occurrence.materialise_lease_until - timezone.now()).total_seconds()


# --- One answer for many ----------------------------------------------------------------------------------------------


def test_runs_of_one_tick_that_ask_the_same_are_told_once(service, opened, user_service, settings):
    settings.USER_SERVICE_PAGE = 2
    names = user_service.put_people(5)
    runs = [opened() for _ in range(4)]
    for run in runs:
        assert try_once(run).targeted == 5
    assert [named(run) for run in runs] == [names] * 4
    assert user_service.pages_asked == 3
    assert Resolution.objects.count() == 1
    assert set(ResolutionUse.objects.values_list("occurrence_id", flat=True)) == {run.pk for run in runs}


def test_its_pages_stay_as_long_as_a_run_may_ask_for_them_and_no_longer(opened, user_service):
    user_service.put_people(2)
    runs = [opened() for _ in range(2)]
    try_once(runs[0])
    assert ResolutionPage.objects.exists()
    assert Resolution.objects.get().audience != ""
    try_once(runs[1])
    assert not ResolutionPage.objects.exists()
    assert Resolution.objects.get().audience == ""


def test_pages_that_nobody_has_come_for_are_dropped_within_the_hour(opened, user_service):
    user_service.put_people(2)
    first, second = opened(), opened(audience_query=VIPS)
    try_once(first)
    assert ResolutionPage.objects.exists()  # for the second, which may ask the same
    materialise.purge(before=NOW - MINUTE)
    assert not ResolutionPage.objects.exists()
    assert try_once(second).targeted == 0


def test_who_asks_something_else_is_told_something_else(opened, user_service):
    user_service.put_people(2)
    user_service.put(profile("vip", tags=["vip"]))
    everybody, vips = opened(), opened(audience_query=VIPS)
    assert (try_once(everybody).targeted, try_once(vips).targeted) == (3, 1)


def test_no_answer_is_older_than_the_question(service, opened, user_service):
    user_service.put_people(2)
    first, waiting = opened(), opened()
    try_once(first)
    user_service.put(profile("late"))
    service.at(NOW + MINUTE)
    later = opened(run_at=NOW + MINUTE)
    Occurrence.objects.filter(pk=later.pk).update(opened_at=NOW + timedelta(seconds=1))
    assert (try_once(later).targeted, try_once(waiting).targeted) == (3, 3)  # the youngest answer there is


def test_an_edit_leaves_the_others_what_they_have(service, opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(5)
    first, second = opened(), opened()
    with monkeypatch.context() as patched:
        interrupting(patched, 2, crash)
        with pytest.raises(Crash):
            try_once(first)
    assert try_once(second).targeted == 5
    service.update(first.schedule, audience_query=VIPS)
    assert try_once(first).targeted == 0
    assert user_service.pages_asked == 3 + 1


def test_who_is_edited_while_asking_leaves_the_asking_to_another(service, opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(5)
    first, second = opened(), opened()

    def meanwhile():
        assert try_once(second).materialise_lease_until is not None
        service.update(first.schedule, audience_query=VIPS)

    with monkeypatch.context() as patched:
        interrupting(patched, 2, meanwhile)
        try_once(first)
    assert second.pk in dispatch.to_materialise()
    assert try_once(second).targeted == 5
    assert user_service.pages_asked == 3


def test_pages_that_are_gone_are_asked_for_again(opened, user_service, monkeypatch):
    user_service.put_people(2)
    run, resolve = opened(), attempts._resolve

    def resolve_and_lose(*arguments, **keywords):
        told = resolve(*arguments, **keywords)
        ResolutionPage.objects.all().delete()
        return told

    with monkeypatch.context() as patched:
        patched.setattr(attempts, "_resolve", resolve_and_lose)
        assert try_once(run).materialise_lease_until is None
    assert Delivery.objects.count() == 0
    assert try_once(run).targeted == 2
    assert user_service.pages_asked == 2


# --- Who asks ---------------------------------------------------------------------------------------------------------


def test_while_one_asks_the_others_wait_and_are_woken_when_all_are_known(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    names = user_service.put_people(5)
    first, second = opened(), opened()
    seen = []

    def meanwhile():
        after = try_once(second)
        seen.append((after.state, after.reason, after.materialise_queued_at))
        assert attempts.WAITING_S / 2 - 5 < seconds_left(after) <= attempts.WAITING_S

    with monkeypatch.context() as patched:
        interrupting(patched, 2, meanwhile)
        assert try_once(first).targeted == 5
    assert seen == [(OccurrenceState.MATERIALISING, "", None)]
    assert dispatch.to_materialise() == [second.pk]
    assert try_once(second).targeted == 5
    assert (named(second), user_service.pages_asked) == (names, 3)


def test_who_finds_it_ended_while_laying_down_to_wait_does_not_wait(opened, user_service, monkeypatch):
    user_service.put_people(2)
    first, second = opened(), opened()
    seen = []
    monkeypatch.setattr(sharing, "is_over", lambda _: True)
    interrupting(monkeypatch, 1, lambda: seen.append(try_once(second).materialise_lease_until))
    try_once(first)
    assert seen == [None]


def test_who_died_is_followed_by_another_run(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(5)
    first, second = opened(), opened()
    with monkeypatch.context() as patched:
        interrupting(patched, 3, crash)
        with pytest.raises(Crash):
            try_once(first)
    Resolution.objects.update(asked_by="8f7bd6e7-3f5a-4d7e-9a39-e2c8bb4a0f4b", asked_until=timezone.now() + MINUTE)
    assert try_once(second).state == OccurrenceState.MATERIALISING  # killed: nobody has said that it has ended
    Resolution.objects.update(asked_until=timezone.now())
    assert try_once(second).targeted == 5
    assert user_service.pages_asked == 3


def test_another_address_is_another_service(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(4)
    run = opened()
    with monkeypatch.context() as patched:
        interrupting(patched, 2, crash)
        with pytest.raises(Crash):
            attempt(run)
    before = Resolution.objects.get()
    settings.USER_SERVICE_URL = settings.USER_SERVICE_URL.replace("127.0.0.1", "localhost")
    assert attempt(run).targeted == 4
    assert Resolution.objects.get().pk != before.pk
    assert user_service.pages_asked == 3


# --- A silent service -------------------------------------------------------------------------------------------------


def test_a_silent_service_costs_one_run_its_patience_and_the_others_nothing(opened, user_service, naps):
    user_service.fault("status", status=500)
    runs = [opened(), opened(audience_query=VIPS), opened()]
    for run in runs:
        after = try_once(run)
        assert after.reason == "user_service_away"
        assert seconds_left(after) > 10
    assert seconds_left(after) <= resolving.LEFT_ALONE_S + attempts.CROWDED_S
    assert after.materialise_queued_at is None
    assert user_service.pages_asked == resolving.TRIES
    assert LeftAlone.objects.get().failures == 1


def test_after_a_while_one_asks_once_and_the_others_when_it_was_answered(opened, user_service, naps):
    user_service.fault("status", status=500)
    runs = [opened(), opened(audience_query=VIPS)]
    try_once(runs[0])
    LeftAlone.objects.update(until=timezone.now())
    try_once(runs[1])
    assert user_service.pages_asked == resolving.TRIES + 1
    (left,) = LeftAlone.objects.all()
    assert left.failures == 2
    assert 20 < (left.until - timezone.now()).total_seconds() <= 2 * resolving.LEFT_ALONE_S
    LeftAlone.objects.update(until=timezone.now())
    user_service.running.clear_faults()
    assert [try_once(run).state for run in runs] == [OccurrenceState.RUNNING] * 2
    assert not LeftAlone.objects.exists()


def test_while_one_finds_out_nobody_else_asks(opened, user_service, naps, monkeypatch):
    runs = [opened(), opened(audience_query=VIPS)]
    left_alone.failed(left_alone.PAGES, first_s=0.0, longest_s=0.0)
    seen = []
    interrupting(monkeypatch, 1, lambda: seen.append(try_once(runs[1]).reason))
    assert try_once(runs[0]).state == OccurrenceState.RUNNING
    assert seen == ["user_service_away"]


def test_an_audience_that_makes_no_sense_concerns_itself_alone(opened, user_service, naps):
    run, other = opened(), opened(audience_query=VIPS)
    user_service.fault("garbage", count=resolving.TRIES)
    assert try_once(run).reason == "user_service_away"
    assert try_once(other).state == OccurrenceState.RUNNING


# --- Others who write people ------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_page_does_not_wait_for_a_long_import(opened, user_service, settings, monkeypatch):
    monkeypatch.setattr(resolving, "PATIENCE", "100ms")
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(4)
    run = opened()
    rival = connection.copy()
    try:
        rival.set_autocommit(False)
        with rival.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [merging._TURN])
        after = attempt(run)
        assert (after.state, after.reason, after.materialise_queued_at) == (OccurrenceState.MATERIALISING, "", None)
        assert 0 < seconds_left(after) <= attempts.CROWDED_S
        assert Resolution.objects.get().pages == 0
    finally:
        rival.close()
    let_ask()
    assert try_once(run).targeted == 4
