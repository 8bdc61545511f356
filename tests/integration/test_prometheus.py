"""A real Prometheus beside the running service during a send: every series of rules and boards is there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.utils import timezone

from delivery import heartbeats, tasks
from delivery.models import ProviderAccount
from delivery.providers.base import Answer, Verdict
from frontend.api.schedules import Schedules
from scheduler_project.local.ports import free_port
from scheduler_project.local.prometheus import Prometheus
from scheduler_project.local.supervisor import Supervisor
from tests.alarms import ITS_OWN, metrics, panels, program, rules
from tests.api import Api, token
from tests.factories import DeviceFactory, ScheduleFactory, people
from tests.recording import sent
from tests.service import Service
from tests.streams import streams

pytestmark = pytest.mark.django_db(transaction=True)

# For which is waited on the slowest machine.
PATIENCE_S = 150.0
# What Grafana puts in the place of its variables.
VARIABLES = {"$channel": ".*", "$__rate_interval": "10m"}
# Panels of what is off here, and why.
OFF = {("integrations", "Template service, latency"): "no service renders a message here"}


@contextmanager
def running_prometheus(root: Path, *, web: str, streams: str) -> Iterator[Prometheus]:
    """With the files of the deployment, but for the addresses and how often it asks."""
    program("prometheus")
    places = {"service": web, "web": web, "streams": streams}
    targets = {job: [urlsplit(url).netloc] for job, url in places.items()}
    prometheus = Prometheus(root, free_port(), targets, every="1s")
    with Supervisor([prometheus.process()], logs=root):
        yield prometheus


def moods(message: Any) -> Answer | None:
    """By turns: sent, refused, tried again, slowed down, never answered."""
    verdicts = {1: Verdict.PERMANENT, 2: Verdict.TRANSIENT, 3: Verdict.THROTTLED}
    mood = message.recipient_id % 5
    if mood in verdicts:
        return Answer(message.key, verdicts[mood], "some_reason")
    return None if mood == 4 else sent(message)


@pytest.fixture
def everything_on(settings: Any) -> None:
    """What an installation may do without, so that its gauges are there."""
    settings.TEMPLATE_SERVICE_URL = "http://127.0.0.1:1"
    settings.SES_EVENTS_QUEUE_URL = "http://127.0.0.1:1"
    settings.AUDIT_EXPORT_BUCKET = "bucket"
    account = {"per_s": 14, "per_day": 50_000, "left": 20_000, "read_at": timezone.now()}
    ProviderAccount.objects.create(scope="email", **account)
    for name in (heartbeats.TICK, heartbeats.SWEEP, heartbeats.TEMPLATES, heartbeats.SES_EVENTS):
        heartbeats.beat(name)
    heartbeats.ask(lambda queue: tasks.canary(queue=queue))


def a_send(service: Service) -> None:
    """Runs by every channel; some are sent to, some refused, some wait."""
    for person in people(20):
        DeviceFactory.create(recipient=person)
    for channel in ("email", "push", "in_app"):
        ScheduleFactory.create(channel=channel)
    service.after(timedelta(seconds=1)).open()
    service.send()
    service.sweep()


def requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some answers of the API, one of them an error of the service's own."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("on purpose")

    api = Api(token())
    assert [api.get("schedules").status_code, api.get("schedules/4711").status_code] == [200, 404]
    with monkeypatch.context() as patched:
        patched.setattr(Schedules, "get", fail)
        assert api.get("schedules").status_code == 500


def queries() -> dict[str, str]:
    """Of every panel, by words that say which."""
    found = {}
    for board, panel in panels():
        for target in panel["targets"] if (board, panel["title"]) not in OFF else ():
            expr = target["expr"]
            for name, value in VARIABLES.items():
                expr = expr.replace(name, value)
            found[f"{board}, {panel['title']}: {expr}"] = expr
    return found


def is_filled(series: list[dict[str, Any]]) -> bool:
    return any(each["value"][1] != "NaN" for each in series)


def test_every_panel_has_data_during_a_send_and_every_rule_its_series(
    service, provider, settings, live_server, everything_on, monkeypatch, tmp_path
):
    provider.answer = staticmethod(moods)
    with streams() as inboxes, running_prometheus(tmp_path, web=live_server.url, streams=inboxes.url) as prometheus:
        until = time.monotonic() + PATIENCE_S

        def wait_for(exprs: dict[str, str]) -> None:
            """Until each has found something."""
            left = dict(exprs)
            while left:
                with suppress(OSError):  # it is starting
                    left = {words: expr for words, expr in left.items() if not is_filled(prometheus.ask(expr))}
                if time.monotonic() > until:
                    scrapes = [(each["labels"]["job"], each["lastError"]) for each in prometheus.scrapes()]
                    pytest.fail(f"Nothing for {list(left)}. The last scrapes: {scrapes}")
                time.sleep(0.2)

        requests(monkeypatch)
        # Rates are of what rises between two looks.
        wait_for({job: f'scrape_samples_scraped{{job="{job}"}} > 0' for job in ("service", "web", "streams")})
        a_send(service)
        requests(monkeypatch)
        settings.PROVIDERS = {**settings.PROVIDERS, "push": "fcm,webhook"}
        wait_for(queries())

        there = prometheus.names() | ITS_OWN
    asked = {name for rule in (*rules("recording"), *rules("alerts")) for name in metrics(rule["expr"])}
    assert asked - there == set()
    assert len(asked) > 40
