"""``manage.py poll_ses_events``: takes what Amazon SES tells of its messages from a queue of SQS, until it is ended."""

import signal
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from delivery.events import sqs
from schedules import clock


class Command(BaseCommand):
    help = "Take the events of Amazon SES from the queue SES_EVENTS_QUEUE_URL. Several of these may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="take what lies there now, and end")

    def handle(self, *, once: bool, **options: Any) -> None:
        if not settings.SES_EVENTS_QUEUE_URL:
            raise CommandError("There is no queue: set SES_EVENTS_QUEUE_URL (docs/provider-events.md).")
        queue = sqs.Queue.from_settings()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends at any point, as KeyboardInterrupt does
        try:
            if once:
                self._once(queue)
            else:
                sqs.run(queue, now=clock.now)
        except KeyboardInterrupt:
            return

    def _once(self, queue: sqs.Queue) -> None:
        came = done = 0
        try:
            while (polled := queue.poll(now=clock.now)).came:
                came, done = came + polled.came, done + polled.done
        except sqs.AWAY as error:
            raise CommandError(f"The queue can't be read: {error}") from error
        self.stdout.write(f"{came} messages came, {done} are done with.")
