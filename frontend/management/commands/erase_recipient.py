"""``manage.py erase_recipient``: forget a person, and print the receipt."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from frontend import erasing
from schedules import clock, recipients

BY = "system:shell"


class Command(BaseCommand):
    help = "Erase a person for good, by the external id. Prints a receipt as JSON, which names nobody."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("external_id")

    def handle(self, *, external_id: str, **_: Any) -> None:
        try:
            person = recipients.find(external_id=external_id)
            receipt = erasing.erase(recipient_id=person.pk, by=BY, now=clock.now())
        except recipients.NoSuchRecipient as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps(receipt.to_json(), indent=2))
