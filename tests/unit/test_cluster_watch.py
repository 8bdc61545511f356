"""What is made of a Prometheus's answers about the cluster."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scheduler_project.cluster import watch
from scheduler_project.cluster.watch import look

LATER = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
NEVER = "0001-01-01T00:00:00Z"


@dataclass
class Prometheus:
    """One that answers as it is told; where there are several answers, each but the last is given once."""

    targets: list[list[dict[str, Any]]]
    reckoned: list[dict[str, Any]]
    firing: list[str] = field(default_factory=list)

    def scrapes(self) -> list[dict[str, Any]]:
        return self.targets.pop(0) if len(self.targets) > 1 else self.targets[0]

    def rules(self) -> list[dict[str, Any]]:
        return self.reckoned

    def ask(self, _: str) -> list[dict[str, Any]]:
        return [{"metric": {"alertname": name}} for name in self.firing]


def target(health: str = "up", *, error: str = "", at: str = LATER) -> dict[str, Any]:
    url = "http://127.0.0.1:1/metrics"
    return {"labels": {"job": "web"}, "scrapeUrl": url, "health": health, "lastError": error, "lastScrape": at}


def rule(health: str = "ok", *, error: str = "") -> dict[str, Any]:
    return {"name": "SendBacklog", "health": health, "lastError": error, "lastEvaluation": LATER}


def seen(*targets: list[dict[str, Any]], reckoned: dict[str, Any] | None = None, firing: tuple[str, ...] = ()):
    return look(Prometheus([*targets], [reckoned or rule()], [*firing]), since=time.time())  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(watch, "_POLL_S", 0.0)


def test_all_up_and_nobody_called_is_good():
    assert seen([target()]).is_good


def test_what_was_not_asked_since_is_waited_for():
    assert seen([target("unknown", at=NEVER)], [target()]).is_good


def test_what_it_never_comes_to_is_down(monkeypatch):
    monkeypatch.setattr(watch, "_SEEN_S", 0.0)
    assert seen([target(at=NEVER)]).down == ("web http://127.0.0.1:1/metrics: unknown",)


def test_a_target_that_is_down_a_rule_with_an_error_and_a_critical_alert_are_named():
    assert seen([target("down", error="refused")]).down == ("web http://127.0.0.1:1/metrics: refused",)
    assert seen([target()], reckoned=rule("err", error="many-to-many")).broken == ("SendBacklog: many-to-many",)
    assert seen([target()], firing=("QueueSilent", "QueueSilent")).called == ("QueueSilent",)
    assert not any(
        each.is_good
        for each in (seen([target("down")]), seen([target()], reckoned=rule("err")), seen([target()], firing=("A",)))
    )


def test_one_that_asks_nobody_is_not_good():
    assert not seen([]).is_good
