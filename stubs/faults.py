"""Faults that a stub commits on request, drawn in the order of the calls, so that a seed repeats them.

A rule is a JSON object:

    {"kind": "status", "match": {"operation": "SendBulkEmail", "to": "*@slow.example"},
     "rate": 0.1, "count": 5, "status": 429, "error": "TooManyRequestsException", "retry_after": 2}

`match`   which calls it concerns; `to` is a glob for any of the call's addresses or tokens. Default: every call that
          sends; others, such as FCM's Token, must be named by `operation`
`rate`    the share of those calls (of their entries, for bulk_entry_status) that it hits, 0 to 1 (default 1)
`count`   it ends after so many hits (default: never)
`kind`    latency             waits `seconds`, then goes on to the next rules
          status              answers `status` with `error`, `message` and `retry_after`; of `status` and `error` one is
                              enough (default: the service's 503)
          bulk_entry_status   answers single entries with `code`; accepts the others
          short               accepts all, reports half of the entries
          half                accepts all, sends half of the answer and closes
          garbage             accepts all, answers 200 with something that isn't JSON
          silence             accepts all, answers nothing for `seconds` (default 3600), then closes
          reset               accepts all, resets the connection
          refuse              as soon as the rule is put in force, not by call: connections are refused for `seconds`,
                              open ones are closed; then it listens again on the same port. Takes nothing but `seconds`
          and those that a stub has of its own
`accept`  whether half, garbage, silence and reset (default true) and status (default false) accept the call
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

KINDS = ("latency", "status", "bulk_entry_status", "short", "half", "garbage", "silence", "reset", "refuse")


class BadRule(ValueError):
    """A rule that can't be meant; the text names the member and the remedy."""


@dataclass(kw_only=True, slots=True)
class Rule:
    kind: str
    operation: str = ""
    to: str = "*"
    rate: float = 1.0
    count: int | None = None
    seconds: float = 3600.0
    status: int | None = None
    error: str = ""
    message: str = ""
    retry_after: float | None = None
    code: str = "TRANSIENT_FAILURE"
    accept: bool | None = None
    hits: int = 0

    def __post_init__(self) -> None:
        if self.accept is None:
            self.accept = self.kind != "status"

    def concerns(self, operation: str, addresses: Sequence[str], sends: bool) -> bool:
        if self.operation != operation and (self.operation or not sends):
            return False
        if self.count is not None and self.hits >= self.count:
            return False
        return self.to == "*" or any(fnmatchcase(address, self.to) for address in addresses)


@dataclass(slots=True)
class Plan:
    """What is to go wrong with one call; `entries` maps the position of an entry to its status."""

    seconds: float = 0.0
    rule: Rule | None = None
    entries: dict[int, str] = field(default_factory=dict)


class Faults:
    """The rules in force; `refuse_for`: seconds for which those that came last want connections refused."""

    def __init__(self, seed: int = 0, *, kinds: Sequence[str] = KINDS) -> None:
        self._kinds = kinds
        self.replace([], seed=seed)

    def replace(self, rules: Sequence[Any], *, seed: int = 0) -> None:
        """Put these rules in force instead of the present ones, chance starting anew; raises BadRule."""
        made = [_rule(given, self._kinds) for given in rules]
        self.rules = [rule for rule in made if rule.kind != "refuse"]
        self.refuse_for = max((rule.seconds for rule in made if rule.kind == "refuse"), default=0.0)
        self._random = random.Random(seed)  # noqa: S311 - chance that repeats is wanted

    def draw(self, operation: str, addresses: Sequence[str], *, sends: bool = True) -> Plan:
        """What goes wrong with this call: latency, statuses of entries, and at most one of the others."""
        plan = Plan()
        for rule in self.rules:
            if not rule.concerns(operation, addresses, sends):
                continue
            if rule.kind == "bulk_entry_status":
                self._draw_entries(rule, operation, addresses, plan)
            elif plan.rule is None and self._hits(rule):
                if rule.kind == "latency":
                    plan.seconds += rule.seconds
                else:
                    plan.rule = rule
        return plan

    def _draw_entries(self, rule: Rule, operation: str, addresses: Sequence[str], plan: Plan) -> None:
        for position, address in enumerate(addresses):
            if position not in plan.entries and rule.concerns(operation, [address], True) and self._hits(rule):
                plan.entries[position] = rule.code

    def _hits(self, rule: Rule) -> bool:
        if rule.rate < 1 and self._random.random() >= rule.rate:
            return False
        rule.hits += 1
        return True


def _rule(given: Any, kinds: Sequence[str]) -> Rule:
    if not isinstance(given, dict):
        raise BadRule("rules: each rule is an object")
    members = dict(given)
    match = members.pop("match", {})
    if not isinstance(match, dict) or match.keys() - {"operation", "to"}:
        raise BadRule("match: an object with the members operation and to")
    if members.get("kind") not in kinds:
        raise BadRule(f"kind: {members.get('kind')!r} is none of {', '.join(kinds)}")
    for name in ("rate", "seconds", "status", "count", "retry_after"):
        if not isinstance(members.get(name), int | float | None) or (members.get(name) or 0) < 0:
            raise BadRule(f"{name}: a number from 0 upwards")
    if members["kind"] == "refuse" and (match or members.keys() != {"kind", "seconds"}):
        raise BadRule("refuse: needs seconds, and takes nothing else")
    try:
        return Rule(**members, **match)
    except TypeError as error:
        raise BadRule(f"rule of kind {members['kind']}: {error}") from error
