"""Counters that are rows, raised in the transaction of what they count: never one too few or too many, whoever dies.

Each process raises rows of its own (a *slot*), so that none waits for another; a counter is the sum of its rows.
docs/adr/0008-counters-in-the-ledgers-transaction.md says why.
"""

import os
import socket
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from zlib import crc32

from django.db import connection

from delivery.models import OUTCOME_UNKNOWN, WAITED_TOO_LONG, WINDOW_IS_QUIET, State
from schedules import consents
from schedules.models import Channel, Suppression
from schedules.outgoing.errors import CODES as OUTGOING_CODES
from schedules.template_service.errors import CODES as TEMPLATE_SERVICE_CODES
from schedules.user_service.errors import CODES

SLOTS = 32

RETRIES = "notifications_retries_total"
UNKNOWN = "notifications_unknown_total"
THROTTLED = "provider_throttled_total"
SWEPT = "swept_total"
MISSED = "occurrences_missed_total"
USER_SERVICE_PAGES = "user_service_pages_total"
USER_SERVICE_PEOPLE = "user_service_people_total"
USER_SERVICE_FAILURES = "user_service_failures_total"
TEMPLATE_SERVICE_CALLS = "template_service_calls_total"
TEMPLATE_SERVICE_MESSAGES = "template_service_messages_total"
TEMPLATE_SERVICE_LISTS = "template_service_lists_total"

PROVIDER_HOOKS = "provider_hooks_total"
# What a provider tells of its messages. The events stand by their result where others have the channel.
EVENTS = "provider_events_total"
DELIVERED = "notifications_delivered_total"
BOUNCED = "notifications_bounced_total"
COMPLAINED = "notifications_complained_total"
ENDPOINT_CALLS = "endpoint_calls_total"


class Key(NamedTuple):
    """A row's counter. ``label`` is the value of the counter's one label beside the channel, or a bucket's bound."""

    name: str
    channel: str = ""
    label: str = ""


class Histogram(NamedTuple):
    """``bounds`` in seconds, ascending; whatever is above the last falls into ``+Inf``."""

    name: str
    bounds: tuple[float, ...]

    @property
    def labels(self) -> list[str]:
        return [*(f"{bound:g}" for bound in self.bounds), "+Inf"]

    def observed(self, channel: str, seconds: float, times: int = 1) -> dict[Key, float]:
        """What ``times`` observations of ``seconds`` add to: one bucket (not cumulative) and the sum."""
        label = self.labels[bisect_left(self.bounds, seconds)]
        return {self.bucket(channel, label): times, Key(f"{self.name}_sum", channel): seconds * times}

    def bucket(self, channel: str, label: str) -> Key:
        return Key(f"{self.name}_bucket", channel, label)


LATENESS = Histogram(
    "notifications_send_lateness_seconds", (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400)
)
RUN_LAG = Histogram("occurrence_run_lag_seconds", (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400))
TEMPLATE_SERVICE_SECONDS = Histogram("template_service_seconds", (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2))

OUTCOMES: Mapping[State, str] = {state: f"notifications_{state.label}_total" for state in State if state.is_outcome}

_RENDERING = {
    *("template_error", "fuel_exhausted", "too_large", "header_injection", "no_content"),
    *("template_gone", "template_service_error"),
}
_OF_VERDICT = {"permanent": "refused", "transient": "retries_exhausted", "unknown": OUTCOME_UNKNOWN}
OTHER = "other"
STEPS = (
    "given_up", "lease_expired", "confirmed", "unknown_failed", "cancelled", "ended", "waited", "requeued", "held",
    "closed", "finished",
)  # fmt: skip
# What becomes of a profile on a page.
TOLD = ("named", "repeated", "flawed", "unreadable", "left_out")
# Beside those of a single answer: pages in a circle, and fewer people than were announced.
REPEATING, INCOMPLETE = "repeating", "incomplete"
USER_SERVICE_CODES = (*CODES, REPEATING, INCOMPLETE)
# How a question to the template service ended, and what became of the people whom it was for; of both ``reused`` are
# those whose message was the same as another's.
TEMPLATE_SERVICE_RESULTS = ("ok", *TEMPLATE_SERVICE_CODES)
OF_SERVICE = ("rendered", "failed", "reused")
KINDS_BACK = ("hard", "soft")
EVENT_KINDS = (
    "send", "delivery", "bounce_hard", "bounce_soft", "complaint", "delay", "reject", "rendering_failure",
)  # fmt: skip
RESULTS = ("new", "repeated", "unmatched", "test")
# What else comes to the address and the queue of providers' events than events.
HOOK_RESULTS = (
    "confirmed", "unsubscribed", "malformed", "topic", "stale", "forged", "away", "unreadable", "restored",
)  # fmt: skip
# How calls of subscribers' endpoints end: by their answer, or by what stood in its way.
ENDPOINT_RESULTS = ("delivered", "redirected", "refused", "failing", "gone", "busy", "odd", *OUTGOING_CODES)
# Every value that the label ``reason_class`` can have, beside OTHER: a reason itself may say anything.
REASON_CLASSES: Mapping[State, frozenset[str]] = {
    State.UNKNOWN: frozenset(["no_answer", "worker_lost"]),
    State.SENT: frozenset([""]),
    State.FAILED: frozenset(["rendering", "worker_lost", *_OF_VERDICT.values()]),
    State.RATE_LIMITED: frozenset(["daily_cap", "weekly_cap"]),
    State.SUPPRESSED: frozenset([*consents.REASONS, "left_audience", *Suppression.Reason.values]),
    State.UNADDRESSABLE: frozenset(["no_address"]),
    State.CANCELLED: frozenset(["cancelled", "deleted", "edited"]),
    State.ERASED: frozenset(["profile_gone"]),
    State.EXPIRED: frozenset(["down", "paused", "past_zone", "occurrence_ended", WAITED_TOO_LONG, WINDOW_IS_QUIET]),
}


def reason_class(state: State, reason: str, verdict: str = "") -> str:
    """The class of an outcome's reason; ``verdict`` is that of the provider's answer, where there was one."""
    if state is State.FAILED:
        found = "rendering" if reason in _RENDERING else _OF_VERDICT.get(verdict, reason)
    elif state is State.UNKNOWN:
        found = "no_answer" if verdict else reason
    else:
        found = "" if state is State.SENT else reason
    return found if found in REASON_CLASSES.get(state, ()) else OTHER


class Counter(NamedTuple):
    """How a counter is shown: ``label`` names its one label beside the channel, ``values`` what that can be.

    ``first`` names what stands in the place of the channel, ``firsts`` what that can be.
    """

    help: str
    label: str = ""
    values: Iterable[str] = ("",)
    has_channel: bool = True
    first: str = "channel"
    firsts: Iterable[str] = Channel.values


COUNTERS: Mapping[str, Counter] = {
    **{
        name: Counter(f"Deliveries that became {state.label}.", "reason_class", REASON_CLASSES[state])
        for state, name in OUTCOMES.items()
    },
    UNKNOWN: Counter("Deliveries whose call nobody answered for.", "reason_class", REASON_CLASSES[State.UNKNOWN]),
    RETRIES: Counter("Deliveries that were tried in vain and will be tried again."),
    THROTTLED: Counter("Deliveries put off because the provider asked to slow down."),
    SWEPT: Counter("Rows, batches, occurrences and schedules that the sweep settled.", "step", STEPS, False),
    MISSED: Counter("Occurrences that nobody got, by why.", "reason", ["down", "paused", "not_materialised"], False),
    USER_SERVICE_PAGES: Counter("Pages of people that the user service has told.", has_channel=False),
    USER_SERVICE_PEOPLE: Counter("People whom those pages named, by what came of it.", "result", TOLD, False),
    USER_SERVICE_FAILURES: Counter(
        "Questions that the user service did not answer, or not usably.", "code", USER_SERVICE_CODES, False
    ),
    TEMPLATE_SERVICE_CALLS: Counter(
        "Calls that had the template service render, by how they ended.", "result", TEMPLATE_SERVICE_RESULTS, False
    ),
    TEMPLATE_SERVICE_MESSAGES: Counter("Messages wanted of the template service.", "result", OF_SERVICE, False),
    TEMPLATE_SERVICE_LISTS: Counter(
        "Times the template service was asked for its list.", "result", TEMPLATE_SERVICE_RESULTS, False
    ),
    DELIVERED: Counter("Messages that the person's mail server took, by the provider's word."),
    BOUNCED: Counter("Messages that came back: never to be taken (hard), or not this one (soft).", "kind", KINDS_BACK),
    COMPLAINED: Counter("Messages that their people called spam."),
    EVENTS: Counter(
        "Events of providers, by what the ledger made of them.", "kind", EVENT_KINDS, first="result", firsts=RESULTS
    ),
    PROVIDER_HOOKS: Counter(
        "Calls and messages about providers' events that brought none, by why.", "result", HOOK_RESULTS, False
    ),
    ENDPOINT_CALLS: Counter("Calls of subscribers' endpoints, by how they ended.", "result", ENDPOINT_RESULTS, False),
}
HISTOGRAMS: Mapping[Histogram, str] = {
    LATENESS: "Start of a delivery's first provider call after the instant promised to the person.",
    TEMPLATE_SERVICE_SECONDS: "Calls that had the template service render, whatever came of them.",
    RUN_LAG: "First claim of an occurrence after the earliest instant promised to anyone in it.",
}


_ADD = """
INSERT INTO delivery_count (name, channel, label, slot, value) VALUES {rows}
ON CONFLICT (name, channel, label, slot) DO UPDATE SET value = delivery_count.value + EXCLUDED.value
"""


def add(amounts: Mapping[Key, float]) -> None:
    """Raise counters, as the last statement of the caller's transaction, and once in it.

    The rows are taken in one order, and nothing is locked after them: two processes that share a slot wait for each
    other only while one commits, and can't lock each other out.
    """
    raised = [(key, amount) for key, amount in sorted(amounts.items()) if amount]
    if not raised:
        return
    mine = slot()
    rows = ", ".join(["(%s, %s, %s, %s, %s)"] * len(raised))
    values = [value for key, amount in raised for value in (key.name, key.channel, key.label, mine, amount)]
    # Not unnest of arrays, as elsewhere: a few rows cost half as much so (measured: 160 us against 310).
    with connection.cursor() as cursor:
        cursor.execute(_ADD.format(rows=rows), values)


def read() -> dict[Key, float]:
    """Every counter that was ever raised: at most its slots' rows, a few thousand in all."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, channel, label, sum(value) FROM delivery_count GROUP BY 1, 2, 3")
        return {Key(name, channel, label): value for name, channel, label, value in cursor.fetchall()}


def slot() -> int:
    """This process's slot. Children of a worker have neighbouring process ids, and containers the same ones."""
    return (_HOST + os.getpid()) % SLOTS


_HOST = crc32(socket.gethostname().encode())
