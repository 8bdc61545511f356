"""What a deployment's Prometheus says of the cluster: whom it reaches, which rules fail, who would be called."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scheduler_project.local.prometheus import Prometheus

# It asks and reckons each 15 s, and must have done both once more.
_SEEN_S = 120.0
_POLL_S = 0.5


@dataclass(frozen=True)
class Watch:
    """How many it asks and reckons; ``down`` are the addresses that it does not reach, ``broken`` rules with an error,
    ``called`` the critical alerts that fired."""

    targets: int
    rules: int
    down: tuple[str, ...]
    broken: tuple[str, ...]
    called: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return bool(self.targets and self.rules) and not (self.down or self.broken or self.called)


def look(prometheus: Prometheus, *, since: float) -> Watch:
    """Once each target was asked and each rule reckoned anew. Alerts are those from ``since`` on, of ``time.time()``.

    What it has not come to within two minutes counts as down or broken. Raises OSError.
    """
    now, deadline = datetime.now(UTC), time.monotonic() + _SEEN_S
    asked = _renewed(prometheus.scrapes, "lastScrape", now, deadline)
    rules = _renewed(prometheus.rules, "lastEvaluation", now, deadline)
    fired = f'last_over_time(ALERTS{{alertstate="firing",severity="critical"}}[{max(int(time.time() - since), 1)}s])'
    return Watch(
        targets=len(asked),
        rules=len(rules),
        down=_named(asked, "up", lambda each: f"{each['labels']['job']} {each['scrapeUrl']}"),
        broken=_named(rules, "ok", lambda each: str(each["name"])),
        called=tuple(sorted({each["metric"]["alertname"] for each in prometheus.ask(fired)})),
    )


def _renewed(
    found: Callable[[], list[dict[str, Any]]], when: str, since: datetime, deadline: float
) -> list[dict[str, Any]]:
    """What is found once each bears a time after ``since``, each of the others being of no health."""
    while True:
        there = found()
        old = [each for each in there if datetime.fromisoformat(each[when]) < since]
        if not old or time.monotonic() > deadline:
            return [{**each, "health": "unknown"} if each in old else each for each in there]
        time.sleep(_POLL_S)


def _named(
    those: Iterable[Mapping[str, Any]], health: str, name: Callable[[Mapping[str, Any]], str]
) -> tuple[str, ...]:
    """With what it says of each that is not of this health."""
    return tuple(f"{name(each)}: {each['lastError'] or each['health']}" for each in those if each["health"] != health)
