"""``manage.py create_app_client``: an app through which people sign in to the API."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from frontend import clients
from frontend.management.commands.create_service_client import BY
from schedules import clock
from schedules.permissions import Scope


class Command(BaseCommand):
    help = "Let people sign in to the API through an app: authorization code with PKCE, without a secret."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument(
            "--redirect-uri", action="append", required=True, metavar="URI", help="where people are sent back to"
        )
        parser.add_argument(
            "--scopes",
            nargs="+",
            default=[scope.value for scope in Scope],
            metavar="SCOPE",
            help="what it may ask for; default: %(default)s",
        )
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *, name: str, redirect_uri: list[str], scopes: list[str], **options: Any) -> None:
        try:
            made = clients.create_app(name=name, redirect_uris=redirect_uri, scopes=scopes, by=BY, now=clock.now())
        except clients.InvalidClient as error:
            raise CommandError(str(error)) from error
        said = {"client_id": made.client.client_id, "scopes": made.client.scopes}
        if options["json"]:
            self.stdout.write(json.dumps(said))
            return
        for key, value in said.items():
            self.stdout.write(f"{key:14} {value}")
