"""What claims need of the template service, asked for at once: within their permit, and not while it is taken for away.

A template that the service renders for nobody has a circuit: its people wait, no claim of theirs comes through, and now
and then one asks how it is (``delivery.circuits``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from delivery import circuits, counts
from delivery.counts import Key
from delivery.ledger import Claim
from delivery.messages import Meant, meant, renderer_of
from delivery.providers.base import Permit
from delivery.remote_rendering import Blame, Done, Result, Unrendered, Wanted, reason_of, render_together
from delivery.renderers import OfService
from delivery.rendering import Rendered
from schedules.template_service.client import TemplateServiceError, Unavailable

log = structlog.get_logger(__name__)

# Of a permit, real seconds that are left to reserve places and to begin the call.
_FOR_THE_CALL_S: Final = 0.5
# The longest time for which the service may ask to be left alone.
_LONGEST_WAIT_S: Final = 600.0

# By the claim's place among those that are prepared together.
Ahead = dict[int, tuple[Meant, Sequence[Result]]]


def render_ahead(claims: Sequence[Claim], *, permit: Permit, now: datetime) -> Ahead:
    """The messages of those claims whose template the service keeps.

    Left out are the others, and those with which something is wrong: whoever composes them finds out what. Raises what
    the database does where it is away.
    """
    found = {place: remote for place, claim in enumerate(claims) if (remote := _remote(claim, now=now))}
    if not found:
        return {}
    leave = circuits.ask({circuits.of_template(wanted.remote.template_id) for _, wanted in found.values()})
    ahead: Ahead = {}
    asked: dict[int, Wanted] = {}
    for place, (each, wanted) in found.items():
        if reason := leave.held.get(circuits.of_template(wanted.remote.template_id)):
            ahead[place] = each, [Unrendered(Blame.SERVICE, reason)] * len(each.people)
        else:
            asked[place] = wanted
    if asked:
        seconds = min(settings.TEMPLATE_SERVICE_TIMEOUT_S, permit.left() - _FOR_THE_CALL_S)
        done = render_together(list(asked.values()), timeout_s=seconds)
        ahead |= {place: (found[place][0], results) for place, results in zip(asked, done.results, strict=True)}
        try:
            _conclude(done, leave.probes, now=now)
            _count(done)
        except (OperationalError, InterfaceError) as error:  # the next call says the same
            log.warning("database_away", error=error)
    return ahead


def _remote(claim: Claim, *, now: datetime) -> tuple[Meant, Wanted] | None:
    try:
        renderer = renderer_of(claim)
        if not isinstance(renderer, OfService):
            return None
        found = meant(claim, now=now)
    except Exception:  # then composing finds out for itself, and whose fault it is
        log.warning("not_rendered_ahead", occurrence_id=claim.work.occurrence_id, exc_info=True)
        return None
    return found, Wanted(renderer.remote, claim.work.channel, found.recipients, found.shared)


def _conclude(done: Done, probes: set[str], *, now: datetime) -> None:
    """Hold the templates that the service answers nothing for, and let those go on that it answers again."""
    for template_id, error in done.failures.items():
        circuits.open_circuit(
            circuits.of_template(template_id),
            reason=reason_of(error),
            detail=error.code,
            now=now,
            least_s=_asked_to_wait(error),
        )
    for template_id in done.answered - done.failures.keys():
        if (circuit := circuits.of_template(template_id)) in probes:
            circuits.close_circuit(circuit, now=now)


def _asked_to_wait(error: TemplateServiceError) -> float:
    asked_s = error.retry_after_s if isinstance(error, Unavailable) else None
    return min(asked_s or 0.0, _LONGEST_WAIT_S)


def _count(done: Done) -> None:
    amounts: dict[Key, float] = defaultdict(float)
    for call in done.calls:
        amounts[Key(counts.TEMPLATE_SERVICE_CALLS, label=call.code)] += 1
        for key, amount in counts.TEMPLATE_SERVICE_SECONDS.observed(call.channel, call.seconds).items():
            amounts[key] += amount
    rendered = sum(isinstance(each, Rendered) for results in done.results for each in results)
    everybody = sum(map(len, done.results))
    for result, people in zip(counts.OF_SERVICE, (rendered, everybody - rendered, done.reused), strict=True):
        amounts[Key(counts.TEMPLATE_SERVICE_MESSAGES, label=result)] += people
    counts.add(amounts)
