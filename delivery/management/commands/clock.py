"""``manage.py clock show|advance|reset``: the test clock of demo and tests."""

import re
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from delivery import advance, tasks
from schedules import clock

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Command(BaseCommand):
    help = "Show, advance or reset the test clock (only with TEST_CLOCK=1; make demo sets it)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["show", "advance", "reset"])
        parser.add_argument(
            "to", nargs="?", help="for advance: a duration such as 90s, 15m, 27h, 1h30m, 2d, or an instant ending in Z"
        )
        parser.add_argument("--inline", action="store_true", help="do what falls due in this process, without workers")

    def handle(self, *, action: str, to: str | None, inline: bool, **_: Any) -> None:
        try:
            if action == "advance":
                self._advance(to or "", inline=inline)
            elif action == "reset":
                clock.reset()
        except (clock.ClockDisabled, advance.NobodyWorks, ValueError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{clock.now():%Y-%m-%d %H:%M:%S} UTC, {_words(clock.shift())} ahead of the real time")

    def _advance(self, to: str, *, inline: bool) -> None:
        start = clock.now()
        end = _read(to, now=start)
        drive = advance.work if inline else tasks.catch_up
        with Progress(
            TextColumn("{task.fields[at]}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(file=cast(IO[str], self.stdout)),
        ) as progress:
            task = progress.add_task("", total=(end - start).total_seconds(), at=f"{start:%d %b %H:%M:%S} UTC")
            for instant in advance.advance(to=end, drive=drive):
                done = (instant - start).total_seconds()
                progress.update(task, completed=done, at=f"{instant:%d %b %H:%M:%S} UTC")


def _read(to: str, *, now: datetime) -> datetime:
    """An instant from ``27h``, ``1h30m`` or ``2026-03-29T01:00:00Z``. Raises ``ValueError``."""
    try:
        return _instant(to, now=now)
    except OverflowError as error:
        raise ValueError(f"{to!r} is too far: advance by {advance.FARTHEST.days} days at the most.") from error


def _instant(to: str, *, now: datetime) -> datetime:
    if re.fullmatch(r"([0-9]{1,18}[smhd])+", to):
        return now + timedelta(seconds=sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9]+)([smhd])", to)))
    try:
        instant = datetime.fromisoformat(to)
    except ValueError as error:
        raise ValueError(f"{to!r} is neither a duration (27h, 1h30m) nor an instant (2026-03-29T01:00Z).") from error
    if instant.tzinfo is None:
        raise ValueError(f"{to!r} has no zone: end it in Z for UTC.")
    return instant.astimezone(UTC)


def _words(shift: timedelta) -> str:
    whole = timedelta(seconds=round(shift.total_seconds()))
    return str(whole)
