"""The only writer of what becomes of a delivery, and of the counts that go with it.

A function here is called inside the caller's transaction and never leaves the two records apart: rows move from one
state to another in one statement, the same numbers move on their batch, and the database refuses a batch that does
not add up. Every statement names ``day``, so that the planner looks at one partition.

Locks are taken in one order: the occurrence (first claim only), delivery rows, batches by id.

Import from here; the rooms inside are: rows → tally → claims, outcomes, corrections. What it says of caps is ``usage``,
which writes nothing.
"""

from delivery.ledger.claims import claim, hold, let_go, profile_gone, take_back, take_up
from delivery.ledger.corrections import REFUSALS, TOLD, Released, correct, correct_batches, correct_restored
from delivery.ledger.outcomes import (
    WAITED,
    Settlement,
    expire_late,
    expire_waited,
    reopen_batch,
    settle,
    settle_batch,
    started_waves,
)
from delivery.ledger.rows import (
    GOES,
    HAS_MESSAGE,
    LEASE_S,
    RUNS,
    SOME_DEVICE,
    Claim,
    Outcome,
    Person,
    Work,
    refused,
    stopped,
    unrendered,
)
from delivery.ledger.tally import Tally

__all__ = [
    "GOES",
    "HAS_MESSAGE",
    "LEASE_S",
    "REFUSALS",
    "RUNS",
    "SOME_DEVICE",
    "TOLD",
    "WAITED",
    "Claim",
    "Outcome",
    "Person",
    "Released",
    "Settlement",
    "Tally",
    "Work",
    "claim",
    "correct",
    "correct_batches",
    "correct_restored",
    "expire_late",
    "expire_waited",
    "hold",
    "let_go",
    "profile_gone",
    "refused",
    "reopen_batch",
    "settle",
    "settle_batch",
    "started_waves",
    "stopped",
    "take_back",
    "take_up",
    "unrendered",
]
