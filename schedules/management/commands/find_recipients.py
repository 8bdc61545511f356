"""``manage.py find_recipients``: whose an e-mail address is."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from schedules import recipients


class Command(BaseCommand):
    help = "Print the external ids of those who have an e-mail address, in small letters or large, one to a line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address")

    def handle(self, *, address: str, **_: Any) -> None:
        found = recipients.matching(address=address).order_by("id").values_list("external_id", flat=True)
        if not found:
            raise CommandError("Nobody has that address.")
        for external_id in found:
            self.stdout.write(external_id)
