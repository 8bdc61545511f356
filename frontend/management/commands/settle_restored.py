"""``manage.py settle_restored``: what was sent after the backup of a restored database, by the provider's own word."""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime

from audit import keys, lost
from audit.bucket import Bucket, BucketError
from audit.lost import LostEvent
from audit.models import Action
from audit.verify import Tampered
from delivery import continuity, restores
from delivery.events.base import ProviderEvent
from delivery.events.reading import Unreadable, read
from delivery.events.sqs import AWAY, Queue, record_of
from frontend import erasing
from schedules import clock

BY: Final = "system:shell"
# Events settled in one transaction.
_TOGETHER: Final = 500


class Command(BaseCommand):
    help = (
        "Settle in a restored database what happened after the backup: people to whom the provider sent then, runs that"
        " were opened then, people who were erased then. Sending stays stopped until manage.py go."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--events",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="records of Amazon SES, a JSON object each line, as Firehose writes them to S3; may be repeated",
        )
        parser.add_argument(
            "--complete",
            action="store_true",
            help="the events tell of every message that was taken, sends too: whoever is not among them gets it now",
        )
        parser.add_argument("--until", metavar="INSTANT", help="when the service that was lost had surely ended")
        parser.add_argument(
            "--restored-to",
            metavar="INSTANT",
            help="say that this database was restored to that instant, where the service could not know",
        )
        parser.add_argument("--look", action="store_true", help="say what is known, and change nothing")

    def handle(self, *, events: list[Path], complete: bool, look: bool, **options: Any) -> None:
        until, restored_to = (_instant(options[name], name) for name in ("until", "restored_to"))
        for path in events:  # all of them before anything is written
            for _ in _read(path):
                pass
        gone = self._gone(restored_to, until)
        if look:
            return
        if restored_to and continuity.restored() is None:
            continuity.declare(restored_to=restored_to, now=clock.now())
        try:
            done = restores.settle(
                events=chain((some for path in events for some in _some(_read(path))), _queued()),
                by=BY,
                now=clock.now(),
                until=until,
                is_complete=complete,
                gone=gone,
                erase=lambda person: erasing.erase(recipient_id=person, by=BY, now=clock.now()),
            )
        except restores.NotRestored:
            raise CommandError(
                "This database goes on from where the service left off: nothing to settle. Where it was restored all"
                " the same, say to when: --restored-to INSTANT."
            ) from None
        except restores.NotMaterialised as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{done.opened} runs opened again. {done.events} events; {done.unmatched} of messages that are not known"
            f" here. {done.told} people had got it, {done.unclear} may have (outcome_unknown). {done.erased} erased"
            f" again, {done.silenced} sent nothing more until they say otherwise. Everything is still stopped:"
            " manage.py go."
        )

    def _gone(self, restored_to: datetime | None, until: datetime | None) -> list[LostEvent]:
        """What the audit's bucket knows and the database does not; it is printed."""
        kept = continuity.restored()
        since = kept.restored_to if kept else restored_to
        if since is None:
            self.stdout.write("This database goes on from where the service left off, as far as it knows.")
            return []
        if until and until < since:
            raise CommandError(
                f"--until: give an instant after {since:%Y-%m-%d %H:%M:%S} UTC, to which it was restored."
            )
        self.stdout.write(f"This database knows nothing of what happened after {since:%Y-%m-%d %H:%M:%S} UTC.")
        if kept:
            self.stdout.write(f"Calls may have begun until {continuity.until(kept):%Y-%m-%d %H:%M:%S} UTC.")
        try:
            if (bucket := Bucket.from_settings()) is None:
                self.stdout.write("No AUDIT_EXPORT_BUCKET: what people changed and who was erased since is not known.")
                return []
            found = list(lost.events(bucket, keys.known_keys(settings.AUDIT_FORMER_KEYS), since=since))
        except (BucketError, Tampered, ImproperlyConfigured) as error:
            raise CommandError(f"The exported audit can't be read, so nothing was done: {error}.") from error
        for event in found:
            self.stdout.write(_in_words(event))
        return found


def _in_words(event: LostEvent) -> str:
    whose = f" of schedule {event.schedule_id}" if event.schedule_id else ""
    if isinstance(person := event.changes.get("recipient"), int):
        whose += f" of person {person}"
    note = " (is done again)" if event.action == Action.RECIPIENT_ERASE else ""
    if restores.is_said_by_person(event):
        note = " (taken for a no to everything)"
    return f"{event.at:%Y-%m-%d %H:%M:%S} {event.action}{whose} by {event.actor_label or event.actor_id}{note}"


def _instant(given: str | None, name: str) -> datetime | None:
    if given is None:
        return None
    try:
        at = parse_datetime(given)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise CommandError(f"--{name.replace('_', '-')} {given!r}: give an instant such as 2026-11-22T10:00:00Z.")
    return at.astimezone(UTC)


def _read(path: Path) -> Iterator[ProviderEvent]:
    """Raises ``CommandError``, which names the line."""
    number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                number += 1
                if line.strip() and (event := read(record_of(line))):
                    yield event
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} can't be read: {error}. Nothing was done.") from error
    except Unreadable as error:
        raise CommandError(f"{path}, line {number}: {error} Nothing was done.") from error


def _queued() -> Iterator[Sequence[ProviderEvent]]:
    """What lies in the queue is settled there, message by message; nothing is left to be settled here."""
    if not settings.SES_EVENTS_QUEUE_URL:
        return
    queue = Queue(settings.SES_EVENTS_QUEUE_URL, region=settings.AWS_REGION, wait_s=1)
    try:
        while queue.poll(now=clock.now).came:
            yield ()
    except AWAY as error:
        raise CommandError(f"The queue of events can't be read: {error}. Run this again once it can.") from error


def _some(events: Iterator[ProviderEvent]) -> Iterator[Sequence[ProviderEvent]]:
    some: list[ProviderEvent] = []
    for event in events:
        some.append(event)
        if len(some) == _TOGETHER:
            yield some
            some = []
    if some:
        yield some
