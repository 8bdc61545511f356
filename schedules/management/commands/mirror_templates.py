"""``manage.py mirror_templates``: what the template service keeps, known here at once."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from schedules import clock
from schedules.template_service import client, mirror


class Command(BaseCommand):
    help = "Bring the templates known here up to what the template service lists, as the clock does each minute."

    def handle(self, **options: Any) -> None:
        try:
            done = mirror.mirror_all(now=clock.now())
        except client.TemplateServiceError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"The template service lists {done.known:,} templates.")
        for number, words in (
            (done.new, "are new here"),
            (done.changed, "have changed"),
            (done.gone, "are there no longer, and deleted here"),
            (done.unreadable, "can't be read, and stay as they were: the log says why"),
        ):
            if number:
                self.stdout.write(f"  {number:,} {words}")
