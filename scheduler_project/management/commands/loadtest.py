"""``manage.py loadtest``: ten thousand deliveries through a service for rehearsals, and what they took."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from scheduler_project.management.outside import OutsideCommand
from scheduler_project.outside.client import OutsideError
from scheduler_project.outside.rehearsal import Rehearsal, Report, looks_like_production

_MOST = 1_000_000


class Command(OutsideCommand):
    help = (
        "Send to marked people of a service for rehearsals, as a program, and report how late and how quick it was, "
        "how the API answered meanwhile and whether the books close. The people are made and erased again; e-mail goes "
        "to Amazon's simulator alone. Exits 1 where somebody got nothing, the books don't close or the API failed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--people", type=int, default=10_000, help="%(default)s")
        parser.add_argument("--patience", type=float, default=600.0, help="seconds for all outcomes (%(default)s)")
        parser.add_argument("--keep-people", action="store_true", help="leave them for the next time")
        parser.add_argument("--yes-this-is", default="", metavar="URL", help="for a host whose name does not say test")

    def handle(self, *, url: str, channel: str, people: int, patience: float, **options: Any) -> None:
        if not 1 <= people <= _MOST:
            raise CommandError(f"--people must be from 1 to {_MOST:,}.")
        if patience <= 0:
            raise CommandError("--patience must be more than 0 seconds.")
        if looks_like_production(url) and options["yes_this_is"] != url:
            raise CommandError(
                f"{url} may be where customers are: nothing in its name says staging, test, dev, demo or canary. If it "
                f"is not, say so: --yes-this-is {url}"
            )
        rehearsal = Rehearsal(self.client({"url": url, **options}), channel=channel, people=people, patience_s=patience)
        try:
            report = self._rehearsed(rehearsal, **options)
        except OutsideError as error:
            raise CommandError(str(error)) from error
        if not report.is_good:
            raise CommandError("Not everything was as it should be.")

    def _rehearsed(self, rehearsal: Rehearsal, *, keep_people: bool, **options: Any) -> Report:
        """Tells what it saw before it takes anything away, which lasts longer and may fail."""
        self.stderr.write("Taking away what an earlier one left, and making people …")
        rehearsal.clean(with_people=False)
        try:
            rehearsal.make_people()
            self.stderr.write("Sending …")
            report = rehearsal.run()
            said = {"url": rehearsal.client.url, "channel": rehearsal.channel}
            self.stdout.write(json.dumps(said | asdict(report)) if options["json"] else _markdown(report, **said))
            return report
        finally:
            self.stderr.write("Taking away what was made …")
            rehearsal.clean(with_people=not keep_people)


def _markdown(report: Report, *, url: str, channel: str) -> str:
    rows = [
        ("people", f"{report.people:,}"),
        ("outcomes", ", ".join(f"{number:,} {state}" for state, number in report.outcomes.items())),
        ("first call after the instant", f"{report.first_call_late:.2f} s"),
        ("first calls, p50 and p99", f"{report.late_p50:.2f} s, {report.late_p99:.2f} s"),
        ("last outcome after the instant", f"{report.until_last:.2f} s"),
        ("people a second", f"{report.per_second:,.0f}"),
        ("API beside it, p50 and p99", f"{1000 * report.api_p50:.0f} ms, {1000 * report.api_p99:.0f} ms"),
        ("its failures", f"{report.api_failures} of {report.api_requests}"),
        ("books", "close" if report.books_close else f"do NOT close: {', '.join(report.differences) or 'rows lack'}"),
    ]
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"# Load test of {url}, {channel}\n\n| figure | seen |\n|---|---|\n{lines}"
