"""``manage.py smoke``: does a service that was just deployed send?"""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from scheduler_project.management.outside import OutsideCommand
from scheduler_project.outside.smoke import Check


class Command(OutsideCommand):
    help = (
        "Check a service from outside, as a program: make a person and a schedule, wait for the message, read it back "
        "from ledger, explanation, books and metrics, and take all of it away. Exits 1 where something is not as it "
        "should be. One at a time; what a killed one left is taken away by the next."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--address", default="", help="of the person, where the channel is email")
        parser.add_argument("--patience", type=float, default=60.0, help="seconds for the message (%(default)s)")
        parser.add_argument("--metrics", default="", help="where they are; default: URL/metrics")
        parser.add_argument("--no-metrics", action="store_true", help="leave them out")

    def handle(self, *, url: str, channel: str, address: str, patience: float, **options: Any) -> None:
        if (channel == "email") != bool(address):
            raise CommandError("--channel email and --address ADDRESS belong together.")
        if patience <= 0:
            raise CommandError("--patience must be more than 0 seconds.")
        client = self.client({"url": url, **options})
        metrics = "" if options["no_metrics"] else options["metrics"] or f"{client.url}/metrics"
        check = Check(client, channel=channel, address=address, metrics=metrics, patience_s=patience)
        done = []
        for step in check.steps():
            done.append(step)
            if not options["json"]:
                word = self.style.ERROR("FAILED") if step.error else "ok    "
                self.stdout.write(f"{word} {step.seconds:6.2f} s  {step.name}{f': {step.error}' if step.error else ''}")
        failed = [step for step in done if step.error]
        if options["json"]:
            said = {"url": client.url, "ok": not failed, "steps": [asdict(step) for step in done]}
            self.stdout.write(json.dumps(said, ensure_ascii=False))
        if failed:
            raise CommandError(f"{client.url} is not as it should be: {failed[0].name}.")
