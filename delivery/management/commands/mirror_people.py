"""``manage.py mirror_people``: everybody whom the user service knows, into the profiles kept here."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Exists, OuterRef

from delivery import materialise
from schedules import clock
from schedules.models import MirroredPerson, Recipient, Resolution
from schedules.user_service import client

_INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended


class Command(BaseCommand):
    help = (
        "Bring the profiles kept here up to what the user service says of everybody, so that previews and forecasts"
        " are right. Stopped in the middle, it goes on from there within the hour."
    )

    def handle(self, **options: Any) -> None:
        self._is_watched = options["verbosity"] > 1 or self.stdout.isatty()
        try:
            done = materialise.mirror_everybody(now=clock.now(), on_page=self._show)
        except client.UserServiceError as error:
            raise CommandError(str(error)) from None
        except (materialise.UnderWay, materialise.AskedByAnother):
            raise CommandError("Somebody else mirrors people at this moment: wait for them to finish.") from None
        except KeyboardInterrupt:
            raise CommandError(
                "Stopped. Repeat it within the hour, and it goes on from here.", returncode=_INTERRUPTED
            ) from None
        self.stdout.write(f"The user service has told of {done.people:,} people on {done.pages:,} pages.")
        for number, words in (
            (done.flawed, "profiles have something that can't be kept: that is left as it was"),
            (done.unreadable, "profiles name nobody who can be made out"),
            (done.repeated, "times somebody came again"),
            (done.left_out, "people were erased here and stay away"),
            (_unnamed(done), "people are kept here whom the user service doesn't name"),
        ):
            if number:
                self.stdout.write(f"  {number:,} {words}")

    def _show(self, resolution: Resolution) -> None:
        if self._is_watched:
            of = f" of {resolution.total:,}" if resolution.total is not None else ""
            self.stdout.write(f"  {resolution.people:,}{of} people")


def _unnamed(done: Resolution) -> int:
    named = MirroredPerson.objects.filter(pk=OuterRef("pk"), mirrored_at__gte=done.as_of)
    return Recipient.objects.filter(~Exists(named)).count()
