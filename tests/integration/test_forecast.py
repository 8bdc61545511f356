"""A forecast against what the service then does: the same people in the same waves, and the same turned away."""

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from delivery import forecast
from delivery.forecast import Forecast
from delivery.models import Delivery, State, ZoneSource
from schedules import operations
from schedules.definition import Definition
from schedules.models import Occurrence, Recipient, Schedule
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, TemplateFactory
from tests.service import DAY, MINUTE, Service

pytestmark = pytest.mark.django_db

ZONES = [
    "", "Mars/Base", "europe/berlin", "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Asia/Tokyo",
    "Pacific/Kiritimati", "Etc/GMT+12", "Pacific/Chatham", "Australia/Lord_Howe", "America/Havana", "America/St_Johns",
]  # fmt: skip
# The clock changes in Europe in the night after the first, in America after the second, in Europe back after the third.
DAYS = [NOW, datetime(2027, 3, 27, 14, tzinfo=UTC), datetime(2027, 3, 13, 17, tzinfo=UTC)]


def crowd(chance: random.Random, count: int = 60) -> None:
    """People of many zones, some of whom can't be reached or don't want to be."""
    for _ in range(count):
        opted_out = chance.choice([{}, {}, {}, {"email": False}, {"push": False}, {"email": True}])
        person = RecipientFactory.create(
            time_zone=chance.choice(ZONES), consent=opted_out, attributes={"group": chance.randrange(3)}
        )
        if chance.random() < 0.15:
            Recipient.objects.filter(pk=person.pk).update(email="")
        if chance.random() < 0.6:
            DeviceFactory.create(recipient=person, active=chance.random() < 0.8)


def audience(chance: random.Random) -> dict[str, Any]:
    return chance.choice([{"all": []}, {"field": "attributes.group", "op": "in", "value": [0, 1]}])


def timing(chance: random.Random, at: datetime, *, minute: int) -> dict[str, Any]:
    """Something that fires within two days; of two minutes no two zones meet at one instant."""
    mode = chance.choice(["fixed", "user_local", "user_local"])
    zone = chance.choice(["UTC", "Europe/Berlin", "America/New_York"])
    common = {"time_zone_mode": mode, "time_zone": zone}
    if chance.random() < 0.5:
        return {**common, "schedule_type": "cron", "cron": f"{minute} {chance.choice([2, 9, 18])} * * *"}
    hours = chance.randint(1, 30) if mode == "fixed" else chance.randint(-8, 26)
    run_at = at.replace(minute=minute) + timedelta(hours=hours)
    return {**common, "schedule_type": "once", "run_at": run_at}


def caps(chance: random.Random) -> dict[str, Any]:
    return {
        "max_per_user_per_day": chance.choice([None, 1, 2]),
        "max_per_user_per_week": chance.choice([None, 1, 3]),
        "counts_toward_caps": chance.random() < 0.85,
    }


def keep(definition: Definition, *, now: datetime) -> Schedule:
    return operations.create(definition=definition, by=BY, now=now)


def rows_of(schedule: Schedule, at: datetime) -> list[Delivery]:
    occurrence = Occurrence.objects.get(schedule=schedule, occurrence_at=at)
    return list(Delivery.objects.filter(occurrence_id=occurrence.pk))


def compare(told: Forecast, rows: list[Delivery]) -> None:
    """Every number of the forecast against the ledger."""
    states = Counter(State(row.state) for row in rows)
    assert set(states) <= {State.SENT, State.SUPPRESSED, State.UNADDRESSABLE, State.RATE_LIMITED, State.EXPIRED}
    skipped = [row for row in rows if row.state == State.EXPIRED]
    assert {row.reason for row in skipped} <= {"past_zone"}
    assert told.targeted == len(rows)
    assert {wave.at: wave.people for wave in told.waves} == Counter(
        row.wave_at for row in rows if row.state != State.EXPIRED
    )
    assert (told.suppressed, told.unaddressable) == (states[State.SUPPRESSED], states[State.UNADDRESSABLE])
    assert told.capped == forecast.Capped(states[State.RATE_LIMITED], is_estimate=False, sample=None)
    assert told.attempted == states[State.SENT]
    sources = Counter(ZoneSource(row.zone_source) for row in rows)
    assert (told.missing, told.invalid) == (sources[ZoneSource.MISSING], sources[ZoneSource.INVALID])
    # Whoever's own zone did not decide stands under the schedule's.
    zones = dict(Recipient.objects.values_list("pk", "time_zone"))
    fallback = Schedule.objects.latest("id").time_zone
    seen: dict[datetime, Counter[str]] = defaultdict(Counter)
    gone: Counter[str] = Counter()
    for row in rows:
        name = zones[row.recipient_id] if row.zone_source == ZoneSource.PROFILE else fallback
        if row.state == State.EXPIRED or (row.wave_at == told.as_of and name in {each.zone for each in told.past}):
            gone[name] += 1
        if row.state != State.EXPIRED:
            seen[row.wave_at][name] += 1
    assert {wave.at: {each.zone: each.people for each in wave.zones} for wave in told.waves} == seen
    assert {each.zone: each.people for each in told.past} == gone
    if told.on_past == "send_now":
        assert not skipped


@pytest.mark.parametrize("seed", range(14))
def test_a_forecast_comes_true(service: Service, provider: Any, seed: int) -> None:
    chance = random.Random(seed)
    now = DAYS[seed % len(DAYS)]
    template = TemplateFactory.create().pk
    crowd(chance)
    # What people got before, what is under way, and what is to come.
    service.at(now - 2 * DAY)
    starts = sorted(now - chance.choice([2, 0]) * DAY for _ in range(chance.randrange(4)))
    for minute, at in zip([7, 11, 13], starts, strict=False):
        service.run_to(at)
        other = Definition(
            name=f"Other {minute}",
            channel=chance.choice(["email", "push", "in_app"]),
            template_id=template,
            audience_query=audience(chance),
            **timing(chance, at, minute=minute),
            **caps(chance),
        )
        keep(other, now=at)
    service.run_to(now)

    definition = Definition(
        name="Planned",
        channel=chance.choice(["email", "email", "push", "in_app"]),
        template_id=template,
        audience_query=audience(chance),
        on_past=chance.choice(["skip", "send_now"]),
        **timing(chance, now, minute=30 if seed % 2 else 0),
        **caps(chance),
    )
    told = forecast.forecast(definition=definition, now=now)
    at = told.firing.occurrence_at
    if definition.schedule_type == "cron" and chance.random() < 0.4:
        at += DAY if definition.time_zone_mode == "user_local" else timedelta(0)
        told = forecast.forecast(definition=definition, now=now, occurrence_at=at)

    schedule = keep(definition, now=now)
    service.run_to(told.firing.closes_at + 10 * MINUTE)
    compare(told, rows_of(schedule, at))
