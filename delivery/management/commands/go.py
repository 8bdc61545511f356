"""``manage.py go``: take a stop back."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from delivery.management.commands.stop import BY, add_scope, scope_of
from schedules import clock, stops
from schedules.models import StopSwitch


class Command(BaseCommand):
    help = "Go on sending what was stopped with the same options."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_scope(parser)

    def handle(self, *, channel: str | None, schedule: int | None, **_: Any) -> None:
        scope = scope_of(channel=channel, schedule=schedule)
        if not stops.go_sending(scope=scope, by=BY, now=clock.now()):
            raise CommandError(f"Nothing was stopped for {scope}.{_standing()}")
        self.stdout.write(f"Going on: {scope}.{_standing()}")


def _standing() -> str:
    scopes = list(StopSwitch.objects.order_by("scope").values_list("scope", flat=True))
    return f" Still stopped: {', '.join(scopes)}." if scopes else ""
