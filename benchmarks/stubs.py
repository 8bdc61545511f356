"""The doubles of the providers, and what arrived at them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import ROOT
from schedules.models import Occurrence
from stubs.testing import RunningFcm, RunningStub, running_fcm, running_ses


@dataclass(frozen=True)
class Stubs:
    """``logs``: by channel, what the provider has accepted."""

    ses: RunningStub
    fcm: RunningFcm
    logs: dict[str, Path]

    @property
    def pids(self) -> list[int]:
        return [self.ses.process.pid, self.fcm.process.pid]

    def arrived(self, channel: str, occurrence: Occurrence) -> list[bytes]:
        """The recipients in the log whose delivery belongs to ``occurrence``, as often as they stand there."""
        mark = f'"delivery": "{occurrence.day:%Y%m%d}-{occurrence.pk}-'.encode()
        with suppress(FileNotFoundError), self.logs[channel].open("rb") as lines:
            return [line.partition(mark)[2].partition(b'"')[0] for line in lines if mark in line]
        return []


@contextmanager
def running_stubs() -> Iterator[Stubs]:
    """SES and FCM, up to the end of the block."""
    logs = {"email": ROOT / "accepted.ndjson", "push": ROOT / "pushed.ndjson"}
    account = ROOT / "service-account.json"
    with running_ses(log=logs["email"]) as ses, running_fcm(credentials=account, log=logs["push"]) as fcm:
        yield Stubs(ses, fcm, logs)
