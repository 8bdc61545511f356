"""``manage.py stop``: no provider call starts from a few seconds after it on, until ``manage.py go``."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from schedules import clock, stops
from schedules.models import Channel, StopSwitch

BY = "system:shell"


def add_scope(parser: ArgumentParser) -> None:
    """What is stopped: everything, unless one of these is given."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--channel", choices=Channel.values)
    group.add_argument("--schedule", type=int, metavar="ID")


def scope_of(*, channel: str | None, schedule: int | None) -> str:
    if channel:
        return f"channel:{channel}"
    return f"schedule:{schedule}" if schedule is not None else StopSwitch.ALL


class Command(BaseCommand):
    help = "Stop sending: everything, a channel or a schedule. What is due waits, within its grace."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_scope(parser)
        parser.add_argument("--reason", default="", help="shown to everyone who looks")

    def handle(self, *, channel: str | None, schedule: int | None, reason: str, **_: Any) -> None:
        scope = scope_of(channel=channel, schedule=schedule)
        try:
            stops.stop_sending(scope=scope, by=BY, now=clock.now(), reason=reason)
        except (stops.InvalidScope, stops.InvalidReason, stops.NoSuchSchedule) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Stopped: {scope}. Calls already started end within seconds; “manage.py go” goes on.")
