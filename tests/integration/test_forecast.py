"""A forecast against what the service then does: the same people in the same waves, and the same turned away."""

import random
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from delivery import cap_forecast, forecast, placing
from delivery.forecast import Forecast
from delivery.models import Delivery, State, ZoneSource
from schedules import encryption, operations
from schedules.definition import Definition, InvalidDefinition
from schedules.models import Occurrence, Recipient, Schedule
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.service import DAY, HOUR, MINUTE, Service

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
            Recipient.objects.filter(pk=person.pk).update(email="", email_index=None)
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


def capped_daily(**changes: Any) -> Definition:
    template = TemplateFactory.create().pk
    common: dict[str, Any] = {"name": "Planned", "channel": "email", "template_id": template, "schedule_type": "once"}
    return Definition(**{**common, "audience_query": {"all": []}, "max_per_user_per_day": 1, **changes})


@pytest.mark.parametrize(("minutes", "capped"), [(-1, 0), (0, 0), (4, 0), (6, 3)])
def test_a_cap_that_is_about_to_free_turns_nobody_away(
    service: Service, provider: Any, minutes: int, capped: int
) -> None:
    people(3)
    earlier = NOW - DAY + timedelta(minutes=minutes)
    service.at(earlier - HOUR)
    ScheduleFactory.create(run_at=earlier, now=service.now)
    service.run_to(NOW - HOUR)
    definition = capped_daily(run_at=NOW)
    told = forecast.forecast(definition=definition, now=service.now)
    schedule = keep(definition, now=service.now)
    service.run_to(NOW + 10 * MINUTE)
    assert told.capped.people == capped
    compare(told, rows_of(schedule, NOW))


def test_a_message_that_is_turned_away_itself_turns_nobody_away(service: Service, provider: Any) -> None:
    people(2)
    for minute in (10, 20, 30):
        ScheduleFactory.create(run_at=NOW + minute * MINUTE, max_per_user_per_day=1)
    definition = capped_daily(run_at=NOW + HOUR, max_per_user_per_day=2)
    told = forecast.forecast(definition=definition, now=NOW)
    schedule = keep(definition, now=NOW)
    service.run_to(NOW + 2 * HOUR)
    assert told.capped.people == 0
    compare(told, rows_of(schedule, NOW + HOUR))


def test_a_schedule_that_is_paused_or_does_not_count_turns_nobody_away(service: Service) -> None:
    people(2)
    ScheduleFactory.create(run_at=NOW + 10 * MINUTE, counts_toward_caps=False)
    paused = ScheduleFactory.create(run_at=NOW + 10 * MINUTE)
    service.pause(paused)
    definition = capped_daily(run_at=NOW + HOUR)
    assert forecast.forecast(definition=definition, now=NOW).capped.people == 0
    service.resume(paused)
    assert forecast.forecast(definition=definition, now=NOW).capped.people == 2


def test_a_run_whose_people_are_just_being_found_counts_already(service: Service) -> None:
    people(2)
    ScheduleFactory.create(run_at=NOW + MINUTE)
    cron = ScheduleFactory.create(cron="0 9 1 1 *", time_zone_mode="user_local")
    operations.run_now(schedule_id=cron.pk, by=BY, now=NOW)
    service.after(MINUTE / 2).tick()
    at = NOW + MINUTE / 2
    assert Occurrence.objects.filter(state="materialising").count() == 2
    definition = replace(capped_daily(run_at=NOW + HOUR), max_per_user_per_day=2)
    assert forecast.forecast(definition=definition, now=at).capped.people == 2
    service.materialise()
    assert Occurrence.objects.filter(state="running").count() == 2
    assert forecast.forecast(definition=definition, now=at).capped.people == 2


def test_a_large_audience_is_judged_by_a_sample(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    people(30, attributes={"group": 1})
    people(30)
    ScheduleFactory.create(run_at=NOW + MINUTE, audience_query={"field": "attributes.group", "op": "eq", "value": 1})
    definition = capped_daily(run_at=NOW + HOUR)
    monkeypatch.setattr(forecast, "EXACT", 59)
    monkeypatch.setattr(forecast, "SAMPLE", 40)
    told = forecast.forecast(definition=definition, now=NOW).capped
    assert (told.is_estimate, told.sample) == (True, 40)
    assert 15 <= told.people <= 45
    monkeypatch.setattr(forecast, "EXACT", 60)
    assert forecast.forecast(definition=definition, now=NOW).capped == forecast.Capped(30, False, None)


@pytest.mark.parametrize(("bound", "value"), [("MAX_SCHEDULES", 1), ("MAX_FIRINGS", 2), ("MAX_JUDGED", 12)])
def test_where_not_everything_is_looked_at_the_answer_is_an_estimate(
    service: Service, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    people(10)
    for minute in (1, 2, 3):
        ScheduleFactory.create(run_at=NOW + minute * MINUTE)
    definition = capped_daily(run_at=NOW + HOUR)
    whole = forecast.forecast(definition=definition, now=NOW).capped
    assert whole == forecast.Capped(10, is_estimate=False, sample=None)
    monkeypatch.setattr(cap_forecast, bound, value)
    told = forecast.forecast(definition=definition, now=NOW).capped
    assert told.is_estimate
    assert told.people == 10


def test_only_the_most_frequent_of_invalid_zones_are_named(service: Service) -> None:
    for number in range(23):
        people(1 + (number < 2), time_zone=f"Zone/{number}")
    definition = capped_daily(run_at=NOW, time_zone_mode="user_local")
    told = forecast.forecast(definition=definition, now=NOW - HOUR)
    assert told.invalid == told.targeted == 25
    assert len(told.invalid_names) == placing.TOLD_INVALID
    assert told.invalid_names[:2] == (("Zone/0", 2), ("Zone/1", 2))
    assert [(wave.at, wave.people) for wave in told.waves] == [(NOW, 25)]


def test_waves_are_sent_one_after_the_other_at_the_rate_that_is_set(service: Service, settings: Any) -> None:
    settings.SEND_RATE_PER_S = {"email": 0.01}  # a hundred seconds each
    people(40, time_zone="Europe/Berlin")
    people(2, time_zone="Africa/Lagos")
    people(1, time_zone="UTC")
    definition = capped_daily(run_at=NOW + 3 * HOUR, time_zone_mode="user_local")
    told = forecast.forecast(definition=definition, now=NOW)
    assert [wave.people for wave in told.waves] == [42, 1]
    assert told.duration == forecast.Duration(0.01, 4300.0, NOW + 2 * HOUR + timedelta(seconds=4300))


def test_a_firing_that_is_none_is_refused(service: Service) -> None:
    cron = capped_daily(schedule_type="cron", cron="0 9 * * *")
    with pytest.raises(InvalidDefinition):
        forecast.forecast(definition=cron, now=NOW, occurrence_at=NOW)


def test_of_a_cron_that_fires_too_often_the_latest_runs_are_looked_at(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(3)
    cron = capped_daily(schedule_type="cron", cron="*/10 * * * *", max_per_user_per_day=3)
    at = NOW + 5 * DAY
    monkeypatch.setattr(cap_forecast, "MAX_FIRINGS_EACH", 1_000)
    whole = forecast.forecast(definition=cron, now=NOW, occurrence_at=at).capped
    assert whole == forecast.Capped(3, is_estimate=False, sample=None)
    monkeypatch.setattr(cap_forecast, "MAX_FIRINGS_EACH", 100)
    told = forecast.forecast(definition=cron, now=NOW, occurrence_at=at).capped
    assert told == forecast.Capped(3, is_estimate=True, sample=3)


def test_who_has_an_address_is_known_without_reading_any(db, monkeypatch):
    found = [RecipientFactory(), RecipientFactory(email=""), DeviceFactory().recipient]
    monkeypatch.setattr(encryption, "decrypt", None)
    judged = cap_forecast.people([person.pk for person in found])
    assert [sorted(person.channels) for person in judged] == [
        ["email", "in_app"],
        ["in_app"],
        ["email", "in_app", "push"],
    ]
