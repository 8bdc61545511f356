"""``manage.py go``: take a stop back."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from delivery import restores
from delivery.management.commands.stop import BY, add_scope, scope_of
from schedules import clock
from schedules.models import StopSwitch


class Command(BaseCommand):
    help = "Go on sending what was stopped with the same options."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_scope(parser)
        parser.add_argument(
            "--settled-otherwise",
            action="store_true",
            help="go on in a restored database although settle_restored was not run: nothing was sent since the backup,"
            " or people may get it twice",
        )

    def handle(self, *, channel: str | None, schedule: int | None, settled_otherwise: bool, **_: Any) -> None:
        scope = scope_of(channel=channel, schedule=schedule)
        try:
            went = restores.go(scope=scope, by=BY, now=clock.now(), settled_otherwise=settled_otherwise)
        except restores.NotSettled as error:
            raise CommandError(str(error)) from error
        if not went:
            raise CommandError(f"Nothing was stopped for {scope}.{_standing()}")
        self.stdout.write(f"Going on: {scope}.{_standing()}")


def _standing() -> str:
    scopes = list(StopSwitch.objects.order_by("scope").values_list("scope", flat=True))
    return f" Still stopped: {', '.join(scopes)}." if scopes else ""
