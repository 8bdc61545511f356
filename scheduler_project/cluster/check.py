"""One send through all of the cluster, beside programs that ask the API, and a rolling restart if wanted."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from scheduler_project.cluster.client import Client
from scheduler_project.cluster.cluster import Cluster
from scheduler_project.cluster.rolling import restart_all
from scheduler_project.cluster.traffic import traffic

_AT_ONCE = 10_000
# Seconds until the send begins: for its rows to be made.
_LEAD_S = 5.0
_SENT_S = 600.0
_LEAST_SUCCESS = 0.999
# For which SES thinks over each call of a rolling restart: calls are in flight whenever a worker is told to end.
_THINKS_S = 2.0
# People whom a send keeps busy for as long as a rolling restart takes.
_ROLLING_PEOPLE, _PEOPLE = 40_000, 10_000


@dataclass(frozen=True)
class Figures:
    """Seconds, people, requests. ``send_s`` is counted from the instant that was promised. ``twice`` and ``missing``
    are told by the log of the stub of SES, ``sent``, ``unknown`` and ``books_close`` by the service. ``drained_s`` is
    how long the slowest process took to end; empty without a rolling restart."""

    start_s: float
    people: int
    sent: int
    unknown: int
    twice: int
    missing: int
    books_close: bool
    send_s: float
    api_requests: int
    api_success: float
    rolling_s: float | None = None
    drained_s: float | None = None
    slowest: str = ""

    @property
    def is_good(self) -> bool:
        everybody = self.sent == self.people and not (self.unknown or self.twice or self.missing)
        return everybody and self.books_close and self.api_success >= _LEAST_SUCCESS

    def as_json(self) -> str:
        return json.dumps({"name": "cluster", "good": self.is_good, **asdict(self)})


def check(
    cluster: Cluster, *, rolling: bool, start_s: float, people: int = 0, said: Callable[[str], None] = lambda _: None
) -> Figures:
    """Send an e-mail to ``people`` new people (0: as many as it takes). Raises ``Refused``, LocalServicesError."""
    people = people or (_ROLLING_PEOPLE if rolling else _PEOPLE)
    credentials = cluster.ground.client()

    def program() -> Client:
        return Client(cluster.address, *credentials)

    client, tag = program(), f"check-{uuid4().hex[:8]}"
    invented: Iterator[Mapping[str, Any]] = (_person(tag, number) for number in range(people))
    while some := list(islice(invented, _AT_ONCE)):
        client.put_people(some)
    said(f"{people:,} people are there")
    took: Mapping[str, float] = {}
    with traffic(program) as counted:
        begun = time.monotonic() + _LEAD_S
        schedule_id = client.send(tag=tag, seconds=_LEAD_S)
        rolled = 0.0
        if rolling:
            cluster.ses.fault({"kind": "latency", "seconds": _THINKS_S})
            time.sleep(_LEAD_S)
            took = restart_all(cluster, said=said)
            rolled = time.monotonic() - begun
            left = client.occurrence(schedule_id)
            said(f"{left['books']['counted']['sent'] if left else 0:,} people were sent to by then")
            cluster.ses.clear_faults()
        occurrence = client.await_end(schedule_id, seconds=_SENT_S)
        sent_s = time.monotonic() - begun
    for failure in counted.failures:
        said(f"not answered: {failure}")
    told = Counter(_accepted(cluster.ground.ses_log, tag))
    slowest = max(took, key=lambda name: took[name], default="")
    books = occurrence["books"]
    return Figures(
        start_s=round(start_s, 1),
        people=people,
        sent=books["counted"]["sent"],
        unknown=books["counted"]["unknown"],
        twice=sum(times > 1 for times in told.values()),
        missing=people - len(told),
        books_close=books["closes"],
        send_s=round(sent_s, 1),
        api_requests=counted.asked,
        api_success=round(counted.success, 5),
        rolling_s=round(rolled, 1) if rolling else None,
        drained_s=round(took[slowest], 1) if slowest else None,
        slowest=slowest,
    )


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
