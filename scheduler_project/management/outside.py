"""What commands have in common that call a service from outside."""

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scheduler_project.outside.client import Client, OutsideError

CHANNELS = ("in_app", "email")


class OutsideCommand(BaseCommand):
    """Takes the service's address, and a client's credentials from CLIENT_ID and CLIENT_SECRET."""

    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "url", metavar="URL", help="where the service is reached, https://notifications.example.com"
        )
        parser.add_argument(
            "--channel", choices=CHANNELS, default="in_app", help="default: %(default)s, which disturbs nobody"
        )
        parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each answer (%(default)s)")
        parser.add_argument(
            "--as-proxy", action="store_true", help="for a web server's own address, by http within a network of yours"
        )
        parser.add_argument("--json", action="store_true", help="for programs")

    def client(self, options: dict[str, Any]) -> Client:
        """Raises ``CommandError``."""
        missing = [name for name in ("CLIENT_ID", "CLIENT_SECRET") if not os.environ.get(name)]
        if missing:
            raise CommandError(
                f"{' and '.join(missing)} must be set: manage.py create_service_client NAME shows both, this once."
            )
        if options["timeout"] <= 0:
            raise CommandError("--timeout must be more than 0 seconds.")
        try:
            return Client(
                options["url"],
                client_id=os.environ["CLIENT_ID"],
                secret=os.environ["CLIENT_SECRET"],
                timeout_s=options["timeout"],
                as_proxy=options["as_proxy"],
            )
        except OutsideError as error:
            raise CommandError(str(error)) from error
