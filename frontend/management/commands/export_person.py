"""``manage.py export_person``: everything that is held of a person."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from delivery import holdings
from schedules import clock, recipients

BY = "system:shell"


class Command(BaseCommand):
    help = "Print everything that is held of a person, by the external id, as JSON: addresses and tokens in clear."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("external_id")

    def handle(self, *, external_id: str, **_: Any) -> None:
        try:
            person = recipients.find(external_id=external_id)
            held = holdings.export(recipient_id=person.pk, by=BY, now=clock.now())
        except recipients.NoSuchRecipient as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps(held, indent=2, ensure_ascii=False))
