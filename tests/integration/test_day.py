"""The benchmark's day is what it says: each schedule fires once, to whom its audience finds, and all books close."""

from collections import Counter
from datetime import timedelta

import pytest

from benchmarks import people
from benchmarks.day import check
from benchmarks.runs import Wrong
from benchmarks.traffic import Traffic
from delivery import advance
from delivery.models import Delivery
from schedules import clock
from schedules.models import Occurrence, Schedule, ScheduleStatus
from tests.service import DAY

TRAFFIC = Traffic(deliveries=160, schedules=8, idle=2, people=60, seed=4)


@pytest.mark.django_db(transaction=True)
def test_a_small_day_reaches_everybody_it_is_meant_for(provider, settings):
    settings.TEST_CLOCK = True
    clock.forget()
    midnight = (clock.now() + DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    clock.advance_to(midnight)
    TRAFFIC.insert_people()
    template = people.save_template(now=midnight)
    chosen = TRAFFIC.insert_schedules(template=template.pk, now=midnight)
    with pytest.raises(Wrong):
        check(TRAFFIC, chosen, midnight, {})

    assert len([*advance.advance(to=midnight + timedelta(hours=51), drive=advance.work)]) > 1
    clock.forget()

    check(TRAFFIC, chosen, midnight, {})
    runs = Counter(Occurrence.objects.values_list("schedule_id", flat=True))
    assert len(runs) == runs.total() == TRAFFIC.firing
    assert Delivery.objects.count() == sum(audience.size for audience in chosen)
    ahead = Schedule.objects.filter(status=ScheduleStatus.ACTIVE, next_run_at__gt=midnight + 2 * DAY)
    assert ahead.count() == TRAFFIC.schedules
