"""``manage.py create_service_client``: a service that may call the API, and its secret, shown this once."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from frontend import clients
from schedules import clock

BY = "system:shell"


class Command(BaseCommand):
    help = "Let a service call the API by client credentials. Its secret is shown once and can't be read again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument(
            "--scopes",
            nargs="+",
            default=[scope.value for scope in clients.SERVICE_SCOPES],
            metavar="SCOPE",
            help="what it may ask for; default: %(default)s",
        )
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *, name: str, scopes: list[str], **options: Any) -> None:
        try:
            made = clients.create_service(name=name, scopes=scopes, by=BY, now=clock.now())
        except clients.InvalidClient as error:
            raise CommandError(str(error)) from error
        said = {"client_id": made.client.client_id, "client_secret": made.secret, "scopes": made.client.scopes}
        if options["json"]:
            self.stdout.write(json.dumps(said))
            return
        for key, value in said.items():
            self.stdout.write(f"{key:14} {value}")
        self.stdout.write("Keep the secret now: it is not shown again.")
