"""What the ledger's rows are to those who claim and settle them."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from delivery.models import State
from delivery.providers.base import Target
from schedules.encryption import Undecryptable
from schedules.models import GOES_ON

# Real time. Longer than permit (3 s), connecting (3 s) and reading (10 s) together.
LEASE_S = 30
# Stands among the devices that a message has reached where nobody knows: it counts toward caps, and is tried again.
SOME_DEVICE = 0
# SQL over a delivery ``d``: one device has the message, so the person has been sent it, whatever becomes of the others.
HAS_MESSAGE = "d.reached ~ '[1-9]'"
# SQL for the statuses of ``GOES_ON``.
RUNS = f"({', '.join(repr(status.value) for status in GOES_ON)})"
# SQL over an occurrence ``o`` of a schedule ``s``: whether it goes on, but for what holds its channel.
GOES = f"o.state = 'running' AND o.held_reason = '' AND s.status IN {RUNS}"


def stopped(channel: str) -> str:
    """SQL: whether a person has stopped all, the ``channel`` (SQL as well) or the schedule ``s``.

    So it is while nobody has shown that this is no database of earlier (``delivery.continuity``).
    """
    scopes = f"'all', 'channel:' || {channel}, 'schedule:' || s.id"
    return f"(EXISTS (SELECT FROM schedules_stopswitch x WHERE x.scope IN ({scopes})) OR {_UNPROVEN})"


_UNPROVEN = "EXISTS (SELECT FROM delivery_continuity x WHERE x.proven_until < clock_timestamp())"


def refused(channel: str) -> str:
    """SQL: whether the provider of the ``channel`` refuses the account, and the time for a probe has not come."""
    return f"EXISTS (SELECT FROM delivery_circuit x WHERE x.scope = {channel} AND x.probe_at > clock_timestamp())"


def unrendered(schedule: str) -> str:
    """SQL: whether the template service renders the template of the ``schedule`` for nobody, and no probe is due."""
    return (
        f"EXISTS (SELECT FROM delivery_circuit x WHERE x.scope = 'template:' || {schedule}.template_id"
        " AND x.probe_at > clock_timestamp())"
    )


class Work(NamedTuple):
    """A batch as a worker takes it up, ``pending`` rows in all. ``is_late``: the oldest is past the misfire grace.

    ``is_begun``: of its occurrence somebody has been claimed. ``is_waiting_long``: somebody may wait no longer.
    ``max_per_minute``: how many people its schedule, as it stands now, may send to.
    """

    batch_id: int
    day: date
    occurrence_id: int
    channel: str
    next_due_at: datetime | None
    is_late: bool
    pending: int
    is_begun: bool
    is_waiting_long: bool = False
    schedule_id: int = 0
    max_per_minute: int | None = None


class Person(NamedTuple):
    """A claimed row with what its message needs of the profile, read in the statement that claimed it.

    ``attempt`` counts from 1; ``reached`` are the devices that have the message since an earlier one, with
    ``SOME_DEVICE`` among them where an earlier call was never answered. ``is_first_call``: the provider has not been
    asked for this delivery before. ``version``: of the schedule, when the row was written or last sent. What could not
    be decrypted is left out, and the faults say why: ``email`` is empty, ``targets`` are those that can be read.
    """

    recipient_id: int
    wave_at: datetime
    attempt: int
    external_id: str
    email: str
    locale: str
    time_zone: str
    attributes: dict[str, Any]
    tags: list[str]
    consent: dict[str, bool]
    created_at: datetime
    has_device: bool
    targets: list[Target]
    reached: tuple[int, ...]
    is_first_call: bool
    version: int
    address_fault: Undecryptable | None = None
    device_fault: Undecryptable | None = None
    quiet_hours: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The rows of a batch claimed at once, for one provider call or two, and what they run with.

    ``found`` counts the rows picked, those included that turned out not to be sendable; fewer than the limit means
    that the batch has nothing more that is due. ``claimed_at`` is the instant by which they count toward caps.
    ``is_probe``: their call tells whether an open circuit may close.
    """

    work: Work
    token: UUID
    schedule_id: int
    occurrence_at: datetime
    version: int
    template_version: int
    people: list[Person]
    found: int
    claimed_at: datetime
    is_probe: bool = False


class Outcome(NamedTuple):
    """What became of one claimed row.

    ``due_at`` is set when it goes back to pending; without it the row is due when it was, as if nobody had claimed it.
    ``was_asked`` is set when the provider was asked for it. ``reached`` and ``gone`` are ids of devices: those that
    have the message (``None``: the same as before), and those that the provider does not know any more.
    """

    recipient_id: int
    state: State
    reason: str = ""
    provider_id: str = ""
    due_at: datetime | None = None
    is_attempt: bool = True
    verdict: str = ""
    detail: str = ""
    was_asked: bool = False
    reached: tuple[int, ...] | None = None
    gone: tuple[int, ...] = ()
