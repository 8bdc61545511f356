"""The figures over time are the ledger's rows, whatever happens to these."""

from collections import Counter
from contextlib import suppress
from datetime import datetime
from math import log2
from types import SimpleNamespace

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from delivery import calls, erasure, figures, pace, partitions, reopening
from delivery.models import Batch, Delivery, Figure, State
from delivery.providers.base import Verdict
from schedules.models import Occurrence
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.integration.test_state_machine import Life, picks
from tests.service import DAY, HOUR, MINUTE, in_threads, only_occurrence

pytestmark = pytest.mark.django_db

EVER = [NOW - 30 * DAY, NOW - HOUR, NOW, NOW + 15 * MINUTE, NOW + HOUR, NOW + DAY, NOW + 20 * DAY]
END = NOW + 60 * DAY


def of_rows(starts: list[datetime], until: datetime) -> tuple[Counter, Counter, Counter]:
    """The figures of a window, counted here from all rows one by one."""
    sums, reasons, lateness = Counter(), Counter(), Counter()
    channels = dict(Batch.objects.values_list("pk", "channel"))
    for row in Delivery.objects.filter(state__gte=State.SENT):
        if not starts[0] <= row.settled_at < until:
            continue
        channel = channels[row.batch_id]
        sums[sum(start <= row.settled_at for start in starts) - 1, channel, row.state] += 1
        reasons[channel, row.state, row.reason] += 1
        if row.called_at and row.attempt == 1 and row.due_at == row.wave_at:
            late = max((row.called_at - row.wave_at).total_seconds(), 0.000001)
            lateness[channel, min(80, max(-40, -int(-4 * log2(late) // 1)))] += 1
    return sums, reasons, lateness


def read(starts: list[datetime] = EVER, until: datetime = END) -> tuple[Counter, Counter, Counter]:
    found = figures.read(starts=starts, until=until)
    assert found.behind == 0
    return (
        Counter({(each.stretch, each.channel, each.state): each.people for each in found.sums}),
        Counter({(each.channel, each.state, each.reason): each.people for each in found.reasons}),
        Counter({(each.channel, each.step): each.people for each in found.lateness}),
    )


def kept() -> int:
    by_grain = {sum(Figure.objects.filter(minutes=grain).values_list("people", flat=True)) for grain in (5, 15, 60)}
    (people,) = by_grain
    return people


def outcomes() -> int:
    return Delivery.objects.filter(state__gte=State.SENT).count()


class Watched(Life):
    """Everything that may happen to the service, and somebody who counts now and then."""

    @rule()
    def the_figures_are_counted(self) -> None:
        figures.count()
        assert not Batch.objects.filter(is_counted=False).exists()
        assert kept() == outcomes()

    @rule(pick=picks)
    def failures_are_tried_again(self, pick: int) -> None:
        run = Occurrence.objects.order_by("id")[pick % max(Occurrence.objects.count(), 1) :].first()
        failed = Delivery.objects.filter(state=State.FAILED, occurrence_id=run.pk if run else 0)
        ids = [row.recipient_id for row in failed if str(row) not in self.accepted]
        if run and ids:
            with suppress(reopening.NotReopened):
                reopening.retry_failed(occurrence_id=run.pk, by=BY, now=self.service.now, recipient_ids=ids)
                for person in ids:
                    del self.rows[run.pk, person]

    @invariant()
    def figures_and_ledger_agree(self) -> None:
        assert read() == of_rows(EVER, END)
        for grain in (figures.SLOT, figures.HOUR):
            starts = [NOW + n * grain for n in range(30)]
            assert read(starts, starts[-1] + grain) == of_rows(starts, starts[-1] + grain)

    def teardown(self) -> None:
        try:
            self.live_to_the_end()
            self.figures_and_ledger_agree()
            self.the_figures_are_counted()
            assert not Batch.objects.filter(size=0).exists()
        finally:
            transaction.set_rollback(True)
            self.example.__exit__(None, None, None)


def test_whatever_happens_the_figures_are_the_ledgers(service, provider, settings, monkeypatch):
    monkeypatch.setattr(provider, "max_per_call", 4)
    monkeypatch.setattr(calls, "_rng", SimpleNamespace(random=lambda: 0.5))
    monkeypatch.setattr(calls, "log", SimpleNamespace(exception=lambda *_, **__: None))
    monkeypatch.setattr(pace, "slow_down", lambda *_, **__: None)
    settings.BATCH_SIZE = 6
    settings.CALLS_IN_FLIGHT = 1
    settings.PUBLISH_AHEAD_S = 0.0
    Watched.service, Watched.provider = service, provider
    run_state_machine_as_test(Watched, settings=QUICK)


QUICK = settings(
    max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def test_a_failure_that_is_tried_again_moves_to_the_time_of_its_success(service, provider):
    people(3)
    provider.answers(Verdict.PERMANENT)
    schedule = ScheduleFactory()
    service.step()
    figures.count()
    assert read()[0] == {(2, "email", State.FAILED): 3}
    provider.reset()
    service.after(DAY + HOUR)
    reopening.retry_failed(occurrence_id=only_occurrence(schedule).pk, by=BY, now=service.now)
    assert read()[0] == {}
    figures.count()
    assert kept() == 0
    service.step()
    figures.count()
    assert read()[0] == {(5, "email", State.SENT): 3} == of_rows(EVER, END)[0]


def test_figures_outlive_the_ledgers_rows_those_not_counted_yet_included(service, provider):
    people(4)
    ScheduleFactory()
    service.step()
    before = read()
    assert Batch.objects.filter(is_counted=False).count() == 1
    service.after(MINUTE).sweep()
    partitions.drop(before=(NOW + DAY).date())
    assert not Delivery.objects.exists()
    assert read() == before
    assert before[0] == {(2, "email", State.SENT): 4}


def test_an_erased_person_stays_in_the_figures_as_a_number(service, provider):
    persons = people(2)
    ScheduleFactory()
    service.step()
    figures.count()
    erasure.forget(recipient_id=persons[0].pk, by=BY, now=service.now)
    figures.count()
    assert read()[0] == {(2, "email", State.SENT): 2}


def test_one_more_reader_than_fits_is_told_how_far_behind_the_figures_are(service, provider, settings, monkeypatch):
    settings.BATCH_SIZE = 2
    monkeypatch.setattr(figures, "READ_AT_ONCE", 2)
    people(8)
    ScheduleFactory()
    service.step()
    found = figures.read(starts=EVER, until=END)
    assert (found.behind, sum(each.people for each in found.sums)) == (2, 4)
    figures.count()
    assert figures.read(starts=EVER, until=END).behind == 0


@pytest.mark.django_db(transaction=True)
def test_two_who_count_and_one_who_sends_at_once_miss_nobody_and_count_nobody_twice(service, provider, settings):
    settings.BATCH_SIZE = 10
    people(400)
    ScheduleFactory()
    service.open()

    def go_on_counting() -> None:
        for _ in range(30):
            figures.count()

    in_threads(lambda: service.send(rounds=3), go_on_counting, go_on_counting)
    figures.count()
    assert kept() == outcomes() == 400
    assert read() == of_rows(EVER, END)


def test_whoever_is_counted_again_is_counted_once(service, provider):
    people(1)
    ScheduleFactory()
    service.step()
    figures.count()
    Batch.objects.update(is_counted=False)
    figures.count()
    assert kept() == 1


def test_a_turn_ends_in_time_and_the_next_goes_on(service, provider, settings, monkeypatch):
    settings.BATCH_SIZE = 1
    monkeypatch.setattr(figures, "TURN_S", 0.0)
    people(3)
    ScheduleFactory()
    service.step()
    assert figures.count() == 0
    monkeypatch.setattr(figures, "TURN_S", 10.0)
    assert figures.count() == 3
    assert figures.count() == 0


def test_reading_asks_twice_and_reads_no_row_of_what_is_counted(service, provider, django_assert_num_queries):
    people(3)
    ScheduleFactory()
    service.step()
    figures.count()
    with django_assert_num_queries(2):
        assert read(EVER, END)[0] == {(2, "email", State.SENT): 3}
    with connection.cursor() as cursor:
        cursor.execute("UPDATE delivery_delivery SET reason = 'changed behind its back'")
    assert read(EVER, END)[1] == {("email", State.SENT, ""): 3}
