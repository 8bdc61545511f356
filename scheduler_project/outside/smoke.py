"""The check after a deployment: one person, one schedule, one message, read back by every way in, and taken away.

Marks are always the same, so that whatever a killed run has left is taken away by the next one.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from scheduler_project.outside import runs, traces
from scheduler_project.outside.client import Client, OutsideError, segment
from scheduler_project.outside.traces import Marks
from scheduler_project.outside.waiting import until

PERSON: Final = "smoke-check"
MARKS: Final = Marks(name="Smoke check", tag="smoke-check", prefix=PERSON)
# From the instant that the service calls now: longer than a tick takes, and the request.
_AHEAD: Final = timedelta(seconds=5)
_SENT: Final = re.compile(r"^notifications_sent_total\{([^}]*)\} ([0-9.eE+]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """What was looked at, in words; ``seconds`` that it took; ``error`` is empty where it is as it should be."""

    name: str
    seconds: float
    error: str = ""


@dataclass
class Check:
    """``metrics`` is the whole address of a page of metrics, empty for none. ``patience_s``: for each thing waited for.

    ``address``: the person's e-mail address, where the channel is ``email``.
    """

    client: Client
    channel: str
    address: str
    metrics: str
    patience_s: float
    _schedule: int = 0
    _occurrence: int = 0
    _sent_before: float = 0.0

    def steps(self) -> Iterator[Step]:
        """Each step when it is done; up to the first that fails, and then the cleaning."""
        for name, step in self._plan():
            told = _timed(name, step)
            yield told
            if told.error:
                break
        if self.client.is_signed_in:  # else nothing was made
            yield _timed("what was made is taken away", self._clean)

    def _plan(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "the web server answers (/healthz)", lambda: self._page("/healthz")
        yield "it can work: database, tables, Redis (/readyz?all)", lambda: self._page("/readyz?all")
        if self.metrics:
            yield "metrics are read", self._count
        yield "the client gets a token", self.client.sign_in
        yield "nothing of an earlier check is left", self._clean
        yield "a person and a schedule are made", self._make
        yield "the message is sent at its instant", self._await_sent
        yield "the ledger has it", self._read_ledger
        yield "“why did they get it?” says so", self._explain
        yield "the books close", self._close
        if self.metrics:
            yield "metrics have risen", self._await_risen

    def _page(self, path: str) -> None:
        answer = self.client.page(self.client.url + path)
        if answer.status != 200:
            raise OutsideError(f"GET {path} answered {answer.status}")

    def _sent(self) -> float:
        """Messages of the channel that were ever sent, as the page of metrics counts them."""
        answer = self.client.page(self.metrics)
        if answer.status != 200:
            raise OutsideError(
                f"{self.metrics} answered {answer.status}: name a web server's own page by --metrics, since a proxy "
                "hides it, or leave it out by --no-metrics"
            )
        found = _SENT.findall(answer.body.decode(errors="replace"))
        return sum(float(value) for labels, value in found if f'channel="{self.channel}"' in labels)

    def _count(self) -> None:
        self._sent_before = self._sent()

    def _clean(self) -> None:
        traces.without_people(self.client, MARKS)
        traces.erase(self.client, traces.people(self.client, MARKS))
        if self.client.find(f"recipients/{PERSON}") is not None:
            raise OutsideError("The person of the check is still there after it was erased")

    def _make(self) -> None:
        person: dict[str, Any] = {"tags": [MARKS.tag], "timeZone": "UTC", "locale": "en"}
        if self.channel == "email":
            person["email"] = self.address
        self.client.put(f"recipients/{segment(PERSON)}", person, bringBack="true")
        self._schedule = runs.make(
            self.client,
            name=MARKS.name,
            channel=self.channel,
            subject="A check after a deployment",
            text="The service works.",
            audience={"field": "external_id", "op": "eq", "value": PERSON},
            ahead=_AHEAD,
        )

    def _await_sent(self) -> None:
        def outcome() -> str:
            run = runs.ended(self.client, self._schedule)
            if run is None:
                return ""
            self._occurrence = run["id"]
            counted = {state: number for state, number in run["counted"].items() if number}
            return "sent" if counted == {"sent": 1} else f"{run['state']}, {counted}"

        found = until(
            outcome,
            seconds=self.patience_s,
            otherwise="no outcome: does beat run, and a worker of clock, materialise and the channel?",
        )
        if found != "sent":
            raise OutsideError(f"The run ended otherwise: {found}")

    def _read_ledger(self) -> None:
        rows = self.client.get("deliveries", schedule=self._schedule)["items"]
        if [row["state"] for row in rows] != ["sent"]:
            raise OutsideError(f"The ledger has {[row['state'] for row in rows]} in the place of one that was sent")

    def _explain(self) -> None:
        said = self.client.get("explain", recipient=PERSON, schedule=self._schedule)
        if said["code"] != "sent":
            raise OutsideError(f"It says {said['code']}")

    def _close(self) -> None:
        books = self.client.get(f"occurrences/{self._occurrence}", rows="true")["books"]
        if not books["closes"]:
            raise OutsideError(f"They differ in {', '.join(books['differences'])}")

    def _await_risen(self) -> None:
        until(
            lambda: self._sent() > self._sent_before,
            seconds=self.patience_s,
            otherwise="notifications_sent_total has not risen",
        )


def _timed(name: str, step: Callable[[], None]) -> Step:
    began = time.monotonic()
    try:
        step()
    except OutsideError as error:
        return Step(name, time.monotonic() - began, str(error))
    except (KeyError, TypeError, ValueError) as error:  # an answer of another shape than the API's document says
        return Step(name, time.monotonic() - began, f"an answer can't be read ({type(error).__name__})")
    return Step(name, time.monotonic() - began)
