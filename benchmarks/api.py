"""How quickly the REST API answers, over real HTTP, beside a send of a hundred thousand people.

    python -m benchmarks.api [--people 1000000] [--schedules 500000] [--rows 10000000] [--rate 100] [--seconds 20]

Gunicorn as in the demo, every other process of the service, and locust as the load share the machine. ``crud_p50_ms``
and ``crud_p99_ms`` are of schedules created, read, changed and deleted while the send runs; ``idle_*`` the same without
it. ``list_page_ms`` is the slowest of several orders, filters and depths, each the median of some requests;
``explain_ms``, ``forecast_1m_ms`` and ``deliveries_page_ms`` are medians, without the send.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from benchmarks import past, people, plans, processes
from benchmarks.environment import PROJECT, ROOT
from benchmarks.harness import emit, note, prepare, query
from benchmarks.processes import LOGS
from benchmarks.runs import Wrong, awaited, ending
from benchmarks.stubs import Stubs, running_stubs
from frontend.api.schedules import ORDERS
from frontend.keysets import cursor_at
from frontend.models import Client
from scheduler_project.local import ports
from scheduler_project.local.fleet import web
from scheduler_project.local.supervisor import Supervisor
from schedules import clock
from schedules.models import Occurrence, Recipient, Schedule

NAME = "api"
SECRET = "benchmarks-only"
SENT = 100_000
PEER = "an idle machine"
# So many requests of a kind, of which the median is told.
ASKED = 15


@dataclass
class Api:
    """The API at ``url``, asked with ``token``."""

    url: str
    token: str = ""

    def sign_in(self, client: Client) -> None:
        form = {"grant_type": "client_credentials", "client_id": client.client_id, "client_secret": SECRET}
        with urlopen(f"{self.url}/oauth/token", data=urlencode(form).encode()) as answer:
            self.token = json.load(answer)["access_token"]

    def ask(self, path: str, body: Any = None) -> tuple[Any, float]:
        """The answer and the milliseconds it took. Raises ``Wrong``."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = Request(f"{self.url}/api/v1/{path}", data=data, headers=headers)
        started = time.perf_counter()
        try:
            with urlopen(request, timeout=60) as answer:
                found = json.load(answer)
        except HTTPError as error:
            raise Wrong(f"{path}: {error.code} {error.read().decode()[:500]}") from error
        return found, (time.perf_counter() - started) * 1000

    def median(self, path: str, body: Any = None, *, times: int = ASKED) -> float:
        return statistics.median(self.ask(path, body)[1] for _ in range(times))


def _client() -> Client:
    return Client.objects.create(
        name="benchmark",
        client_type=Client.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Client.GRANT_CLIENT_CREDENTIALS,
        client_secret=SECRET,
        scopes="notification:read notification:write",
    )


@contextmanager
def _running(stubs: Stubs, *, senders: int) -> Iterator[Api]:
    port = ports.free_port()
    variables = {**processes.provider_env(stubs), "API_RATE": "100000", "API_BURST": "100000", "ACCESS_TOKEN_S": "7200"}
    with Supervisor([web(port, env=variables), *processes.service(stubs, senders=senders, beside_web=True)], logs=LOGS):
        api = Api(f"http://{ports.LOOPBACK}:{port}")
        awaited(lambda: ports.answers(port), "the web server answers")
        yield api


def _send(api: Api, template_id: int, *, share: int) -> Occurrence:
    """Start a send to ``SENT`` people and wait until it runs."""
    at = (clock.now() + timedelta(seconds=20)).replace(microsecond=0)
    definition = {
        **_definition(template_id),
        "audienceQuery": {"field": "attributes.points", "op": "lt", "value": share},
        "runAt": at.isoformat(),
        "maxPerUserPerDay": people.MAX_PER_DAY,
    }
    schedule, _ = api.ask("schedules", definition)
    find = Occurrence.objects.filter(schedule=schedule["id"], begun_at__isnull=False).first
    return awaited(find, "the send begins")


def _load(api: Api, template_id: int, *, rate: int, seconds: int) -> list[tuple[str, int, float]]:
    """(kind, status, ms) of every request."""
    times = ROOT / "times.ndjson"
    command = (
        *(sys.executable, "-m", "locust", "-f", str(PROJECT / "benchmarks" / "load.py"), "--headless"),
        *("--host", api.url, "-u", str(rate // 2), "-r", str(rate // 2), "-t", f"{seconds}s"),
        *("--only-summary", "--loglevel", "ERROR", "--stop-timeout", "5"),
    )
    env = {**os.environ, "API_TOKEN": api.token, "TEMPLATE_ID": str(template_id), "TIMES_TO": str(times)}
    subprocess.run(command, env=env, check=False, capture_output=True, cwd=PROJECT)
    return [tuple(json.loads(line)) for line in times.read_text().splitlines()]


def _tell_load(prefix: str, found: Sequence[tuple[str, int, float]], *, seconds: int) -> Mapping[str, float]:
    taken = sorted(ms for _, _, ms in found)
    figures = {"p50": taken[len(taken) // 2], "p99": taken[int(len(taken) * 0.99)]}
    statuses = {status: sum(each == status for _, each, _ in found) for status in sorted({s for _, s, _ in found})}
    kinds = {
        kind: statistics.median(ms for name, _, ms in found if name == kind) for kind in sorted({f[0] for f in found})
    }
    note(f"{prefix}: {len(found) / seconds:.0f} requests/s, {figures}, statuses {statuses}, medians {kinds}")
    if not found or statuses.keys() - {200, 201, 0, 500, 502, 503}:
        raise Wrong(f"the load was not what it should be: {statuses}")
    figures["errors"] = sum(status >= 500 or status == 0 for _, status, _ in found)
    return figures


def _pages(api: Api) -> float:
    """The slowest page of the list, whatever the order, filter and depth, by the median of its requests."""
    middle = Schedule.objects.filter(pk__gte=_middle_id()).earliest("pk")
    filters = ({}, {"status": "paused"}, {"createdBy": "client:7"}, {"text": "a1b"}, {"channel": "push"})
    found = {}
    for name, order in ORDERS.items():
        for depth in ({}, {"cursor": cursor_at(order, middle)}):
            for each in filters:
                path = "schedules?" + urlencode({"order": name, **each, **depth})
                found[path] = api.median(path, times=5)
    for path in sorted(found, key=found.__getitem__)[-3:]:
        note(f"{path}: {found[path]:.1f} ms")
    return max(found.values())


def _middle_id() -> int:
    ((middle,),) = query("SELECT (min(id) + max(id)) / 2 FROM schedules_schedule")
    return int(middle)


def _questions(api: Api, occurrence: Occurrence, path: str, name: str) -> float:
    """Milliseconds of a question about somebody of the last send, and of the past before it; the median."""
    people_asked = Recipient.objects.filter(attributes__points__lt=100).order_by("?")[:ASKED]
    taken = []
    for person in people_asked:
        for schedule_id in {occurrence.schedule_id, Occurrence.objects.earliest("occurrence_at").schedule_id}:
            query = urlencode({"recipient": person.external_id, name: schedule_id})
            taken.append(api.ask(f"{path}?{query}")[1])
    return statistics.median(taken)


def _definition(template_id: int) -> dict[str, Any]:
    return {
        "name": "Benchmark",
        "channel": "email",
        "templateId": template_id,
        "scheduleType": "once",
        "runAt": (clock.now() + timedelta(days=3)).isoformat().replace("+00:00", "Z"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="The API beside a send.")
    parser.add_argument("--people", type=int, default=1_000_000, help=f"recipients, at least {SENT}")
    parser.add_argument("--schedules", type=int, default=500_000, help="schedules in the list")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the ledger that is asked")
    parser.add_argument("--rate", type=int, default=100, help="requests a second")
    parser.add_argument("--seconds", type=int, default=20, help="seconds of load, each time")
    parser.add_argument("--senders", type=int, default=3, help="worker processes of the channel")
    options = parser.parse_args()
    if options.people < SENT:
        parser.error(f"--people: at least {SENT}")
    note(f"{options.people} people, {options.schedules} schedules, {options.rows} rows; logs below {ROOT}")
    prepare()
    people.insert(options.people)
    template = people.save_template(now=clock.now())
    plans.insert(options.schedules, template_id=template.pk)
    if options.rows:
        past.fill(occurrences=max(options.rows // options.people, 1), template=template, now=clock.now())
    load = {"rate": options.rate, "seconds": options.seconds}
    with running_stubs() as stubs, _running(stubs, senders=options.senders) as api:
        api.sign_in(_client())
        _load(api, template.pk, rate=options.rate, seconds=3)  # warm
        idle = _tell_load("idle_", _load(api, template.pk, **load), seconds=options.seconds)
        for name in ("p50", "p99"):
            emit(NAME, f"idle_{name}_ms", idle[name], "ms")
        occurrence = _send(api, template.pk, share=round(1000 * SENT / options.people))
        busy = _tell_load("crud_", _load(api, template.pk, **load), seconds=options.seconds)
        occurrence.refresh_from_db()
        note("the send was still running at the end of the load: " + str(occurrence.closed_at is None))
        emit(NAME, "errors_5xx", idle["errors"] + busy["errors"], "requests")
        for name in ("p50", "p99"):
            emit(NAME, f"crud_{name}_ms", busy[name], "ms", peer=PEER, ratio=idle[name] / busy[name])
        awaited(Occurrence.objects.filter(pk=occurrence.pk, closed_at__isnull=False).exists, "the send ends", every_s=1)
        emit(NAME, "list_page_ms", _pages(api), "ms")
        everyone = {**_definition(template.pk), "audienceQuery": {"all": []}, "timeZoneMode": "user_local"}
        emit(NAME, "forecast_1m_ms", api.median("schedules:forecast", everyone, times=5), "ms")
        emit(NAME, "explain_ms", _questions(api, occurrence, "explain", "schedule"), "ms")
        emit(NAME, "deliveries_page_ms", _questions(api, occurrence, "deliveries", "schedule"), "ms")


if __name__ == "__main__":
    ending(main)
