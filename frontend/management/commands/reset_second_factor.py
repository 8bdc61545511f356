"""``manage.py reset_second_factor``: for an admin who has lost app and codes, when no other is there to help."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from frontend import second_factor
from schedules import clock

BY = "system:shell"


class Command(BaseCommand):
    help = "Take the second factor from an account, whose password alone lets in from then on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")

    def handle(self, *, username: str, **_: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no account {username!r}.")
        if not second_factor.reset(user_id=user.pk, by=BY, now=clock.now()):
            raise CommandError(f"{username} has no second factor.")
        self.stdout.write(f"{username} signs in with the password alone.")
