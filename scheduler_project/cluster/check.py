"""One send through all of the cluster, beside programs that ask the API, and a rolling restart if wanted."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from scheduler_project.cluster.cluster import Cluster
from scheduler_project.cluster.rolling import restart_all
from scheduler_project.cluster.traffic import traffic
from scheduler_project.cluster.watch import Watch, look
from scheduler_project.outside import bulk, runs
from scheduler_project.outside.client import Client, OutsideError
from scheduler_project.outside.waiting import until

_AT_ONCE = 10_000
# Until the send begins: for its rows to be made.
_LEAD = timedelta(seconds=5)
_SENT_S = 600.0
# A complaint is told up to 20 s later, and all stand in one queue.
_TOLD_S = 300.0
_LEAST_SUCCESS = 0.999
# For which SES thinks over each call of a rolling restart: calls are in flight whenever a worker is told to end.
_THINKS_S = 2.0
# People whom a send keeps busy for as long as a rolling restart takes.
_ROLLING_PEOPLE, _PEOPLE = 40_000, 10_000


@dataclass(frozen=True)
class Figures:
    """Seconds, people, requests. ``send_s`` is counted from the instant that was promised.

    ``twice`` and ``missing`` are told by the log of the stub of SES, ``sent``, ``unknown`` and ``books_close`` by the
    service, as is what SES told it since. ``drained_s`` is how long the slowest process took to end; empty without a
    rolling restart. ``watch`` is what Prometheus says; none where there is no such program.
    """

    start_s: float
    people: int
    sent: int
    unknown: int
    twice: int
    missing: int
    books_close: bool
    delivered: int
    bounced: int
    complained: int
    send_s: float
    api_requests: int
    api_success: float
    rolling_s: float | None = None
    drained_s: float | None = None
    slowest: str = ""
    watch: Watch | None = None

    @property
    def is_good(self) -> bool:
        everybody = self.sent == self.people and not (self.unknown or self.twice or self.missing)
        heard = self.delivered + self.bounced + self.complained == self.people
        is_watched_well = self.watch is None or self.watch.is_good
        return everybody and heard and self.books_close and self.api_success >= _LEAST_SUCCESS and is_watched_well

    def as_json(self) -> str:
        return json.dumps({"name": "cluster", "good": self.is_good, **asdict(self)})


def check(
    cluster: Cluster, *, rolling: bool, start_s: float, people: int = 0, said: Callable[[str], None] = lambda _: None
) -> Figures:
    """Send an e-mail to ``people`` new people (0: as many as it takes).

    Raises OutsideError, LocalServicesError, and OSError where Prometheus does not answer.
    """
    people = people or (_ROLLING_PEOPLE if rolling else _PEOPLE)
    client, tag, since = cluster.program(), f"check-{uuid4().hex[:8]}", time.time()
    invented: Iterator[Mapping[str, Any]] = (_person(tag, number) for number in range(people))
    while some := list(islice(invented, _AT_ONCE)):
        bulk.put(client, some)
    said(f"{people:,} people are there")
    took: Mapping[str, float] = {}
    with traffic(cluster.program) as counted:
        begun = time.monotonic() + _LEAD.total_seconds()
        schedule = _make(client, tag)
        rolled = 0.0
        if rolling:
            cluster.ses.fault({"kind": "latency", "seconds": _THINKS_S})
            time.sleep(_LEAD.total_seconds())
            took = restart_all(cluster, said=said)
            rolled = time.monotonic() - begun
            cluster.ses.clear_faults()
        run = _await(lambda: runs.ended(client, schedule), "not everybody had an outcome", seconds=_SENT_S)
        sent_s = time.monotonic() - begun
    for failure in counted.failures:
        said(f"not answered: {failure}")
    said("everybody had an outcome; now what SES tells of the messages")
    found = _await(lambda: _told(client, run["id"]), "SES did not tell of everybody", seconds=_TOLD_S)
    watch = look(cluster.prometheus, since=since) if cluster.prometheus else None
    told = Counter(_accepted(cluster.ground.ses_log, tag))
    slowest = max(took, key=lambda name: took[name], default="")
    books, feedback = found["books"], found["feedback"]
    return Figures(
        start_s=round(start_s, 1),
        people=people,
        sent=books["counted"]["sent"],
        unknown=books["counted"]["unknown"],
        twice=sum(times > 1 for times in told.values()),
        missing=people - len(told),
        books_close=books["closes"],
        delivered=feedback["delivered"],
        bounced=feedback["bounced_hard"] + feedback["bounced_soft"],
        complained=feedback["complained"],
        send_s=round(sent_s, 1),
        api_requests=counted.asked,
        api_success=round(counted.success, 5),
        rolling_s=round(rolled, 1) if rolling else None,
        drained_s=round(took[slowest], 1) if slowest else None,
        slowest=slowest,
        watch=watch,
    )


def _make(client: Client, tag: str) -> int:
    audience = {"field": "tags", "op": "contains", "value": tag}
    subject = f"{tag}: {{{{ first_name }}}}"
    return runs.make(client, name=tag, channel="email", subject=subject, text="Hello.", audience=audience, ahead=_LEAD)


def _told(client: Client, occurrence: int) -> dict[str, Any] | None:
    """The run, once SES has told of everybody whether the message arrived."""
    found: dict[str, Any] = client.get(f"occurrences/{occurrence}")
    feedback = found["feedback"]
    is_heard = feedback["delivered"] and not (feedback["awaited"] or feedback["accepted"] or feedback["delayed"])
    return found if is_heard else None


def _await(found: Callable[[], dict[str, Any] | None], otherwise: str, *, seconds: float) -> dict[str, Any]:
    """What is found at last; a request that is not answered meanwhile is asked again. Raises ``OutsideError``."""

    def looked() -> dict[str, Any] | None:
        with suppress(OutsideError):
            return found()
        return None

    return until(looked, seconds=seconds, otherwise=otherwise) or {}


def _person(tag: str, number: int) -> Mapping[str, Any]:
    name = f"{tag}-{number}"
    return {
        "externalId": name,
        "email": f"{name}@example.com",
        "tags": [tag],
        "attributes": {"first_name": f"Number {number}"},
    }


def _accepted(log: Path, tag: str) -> Iterator[str]:
    """Whom the stub took a message of this check for."""
    with log.open() as lines:
        for line in lines:
            to = str(json.loads(line)["to"])
            if to.startswith(tag):
                yield to
