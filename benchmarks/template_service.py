"""How many e-mails a second go out where a template service renders them, beside the same ones rendered here.

    python -m benchmarks.template_service [--recipients 20000] [--runs 3]

The service is the reference with the engine that is built in here, in one process on this machine: what it takes to
render is taken from the processors that send. Everybody's message is another one, so nothing is kept or sent once.
"""

import argparse
import os
import statistics

from django.conf import settings

from benchmarks import people
from benchmarks.environment import ROOT
from benchmarks.harness import emit, note, prepare
from benchmarks.runs import Service, ending, running_service
from benchmarks.stubs import running_stubs
from schedules import clock
from schedules.models import MessageTemplate
from schedules.template_service import mirror
from stubs.testing import RunningTemplateService, running_template_service

NAME = "template_service"
PEER = "the same messages rendered by this service"
ENGINE = "scheduler_project.demo.template_service"


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Rendered by a service.")
    parser.add_argument("--recipients", type=int, default=20_000, help="people of a schedule (at least 10,000)")
    parser.add_argument("--runs", type=int, default=3, help="schedules of which the median is told")
    parser.add_argument("--senders", type=int, default=3, help="worker processes")
    options = parser.parse_args()
    note(f"{options.recipients} recipients; servers and logs below {ROOT}")
    prepare()
    people.insert(options.recipients)
    ours = people.save_template(now=clock.now())
    with running_template_service(token="of-the-benchmark", module=ENGINE) as running, running_stubs() as stubs:
        os.environ.update(running.variables())  # for the processes that send
        theirs = _handed_over(running, ours)
        with running_service(stubs, template=ours, channels=["email"], senders=options.senders) as service:
            here = _median(service, ours, options)
            there = _median(service, theirs, options)
    emit(NAME, "email", there, "per_s", peer=PEER, ratio=there / here)
    emit(NAME, "email_rendered_here", here, "per_s")


def _handed_over(running: RunningTemplateService, ours: MessageTemplate) -> MessageTemplate:
    """A template of the service that says the same."""
    names = ("channel", "locale", "subject", "text", "html")
    contents = list(ours.contents.filter(channel="email").values(*names))
    running.put({"id": "benchmark", "name": "Benchmark of the service", "defaultLocale": "en", "contents": contents})
    settings.TEMPLATE_SERVICE_URL, settings.TEMPLATE_SERVICE_TOKEN = running.url, running.token
    mirror.mirror_all(now=clock.now())
    return MessageTemplate.objects.get(service_id="benchmark")


def _median(service: Service, template: MessageTemplate, options: argparse.Namespace) -> float:
    service.template = template
    service.run("email", audience="warm", count=people.GROUPS["warm"])
    found = []
    for number in range(options.runs):
        run = service.run("email", audience="", count=options.recipients)
        note(f"{template.name} {number + 1}: {run.per_s:.0f}/s; workers {run.cpu_us['workers']:.0f} us each")
        found.append(run.per_s)
    return statistics.median(found)


if __name__ == "__main__":
    ending(main)
