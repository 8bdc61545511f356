"""How long the forecast of a schedule for 1,000,000 people takes.

    python -m benchmarks.forecast [--people 1000000] [--runs 5]

``forecast_1m_ms`` is of an e-mail to everyone at their own nine o'clock under a daily cap, which the API answers with;
``forecast_1m_push_ms`` the same by push, where every person's devices are looked at. Everyone has got ``USED`` messages
within the last week, and ``OTHERS`` schedules for everyone fire before the one that is asked for. The peer is the least
that a forecast can cost: people counted by zone.
"""

import argparse
from dataclasses import replace
from datetime import timedelta

from benchmarks import past, people
from benchmarks.harness import emit, median_ms, note, prepare, query
from delivery import forecast
from schedules import clock, operations
from schedules.definition import Definition

NAME = "forecast"
PEER = "people counted by zone"
USED = 3
OTHERS = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="What a forecast costs.")
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median is told")
    options = parser.parse_args()
    prepare()
    note(f"Inserting {options.people:,} recipients")
    people.insert(options.people)
    template = people.save_template(now=clock.now())
    past.fill(occurrences=USED, template=template, now=clock.now())
    definition = Definition(
        name="Everyone's morning",
        channel="email",
        template_id=template.pk,
        schedule_type="cron",
        cron="0 9 * * *",
        time_zone_mode="user_local",
        audience_query={"all": []},
        max_per_user_per_day=USED,
        max_per_user_per_week=USED + OTHERS // 2,
    )
    measure(definition, runs=options.runs, total=options.people)


def measure(definition: Definition, *, runs: int, total: int) -> None:
    """Emit the figures for ``definition``, whose audience is everyone."""
    for number in range(OTHERS):
        other = replace(definition, name=f"Other {number}", cron=f"{number} {number % 24} * * *")
        operations.create(definition=other, by="benchmark", now=clock.now())
    at = clock.now() + timedelta(days=2)

    def ask(channel: str) -> None:
        asked = replace(definition, channel=channel)
        occurrence_at = at.replace(hour=9, minute=0, second=0, microsecond=0)
        told = forecast.forecast(definition=asked, now=clock.now(), occurrence_at=occurrence_at)
        if told.targeted != total or not told.capped.is_estimate or not told.capped.people:
            raise SystemExit(f"benchmark failed: {told.targeted:,} of {total:,} were found, {told.capped}")

    ask("email")
    floor = median_ms(lambda: query("SELECT time_zone, count(*) FROM schedules_recipient GROUP BY 1"), runs=runs)
    for figure, channel in (("forecast_1m_ms", "email"), ("forecast_1m_push_ms", "push")):
        taken = median_ms(lambda channel=channel: ask(channel), runs=runs)  # type: ignore[misc]
        emit(NAME, figure, taken, "ms", peer=PEER, ratio=floor / taken)
    emit(NAME, "peer_ms", floor, "ms")


if __name__ == "__main__":
    main()
