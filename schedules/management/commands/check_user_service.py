"""``manage.py check_user_service``: is an organisation's user service as the contract says?"""

from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from schedules.management.checking import CheckCommand
from schedules.user_service.client import Client
from schedules.user_service.conformance import suite
from schedules.user_service.conformance.subject import Subject


class Command(CheckCommand):
    help = (
        "Check a user service against docs/contracts/user-service.yaml, over HTTP and with the people it has: what was "
        "asked, what came, what the contract says, and the remedy. No person's data is printed."
    )
    setting = "USER_SERVICE"
    path = "/audience"
    example = "https://users.example.com/notifications"
    checks = suite.CHECKS

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--show-people",
            action="store_true",
            help="print the ids and values that were asked for and came: the output then holds personal data",
        )

    def subject(self, url: str, *, token: str, timeout_s: float, show_people: bool = False, **options: Any) -> Subject:
        client = Client(url, token=token, timeout_s=timeout_s)
        # The real time: there needn't be a database to ask for another.
        return Subject(client, as_of=timezone.now(), has_token=bool(token), shows_people=show_people)
