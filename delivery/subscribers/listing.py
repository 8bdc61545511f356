"""What there is to see of endpoints: how they are, what was sent to them, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min, Prefetch, Q, QuerySet

from delivery.endpoint_models import Attempt, Endpoint, Posting


@dataclass(frozen=True)
class Health:
    """Of an endpoint: events that wait, that failed, and since when the oldest waits, in business time."""

    waiting: int = 0
    failed: int = 0
    oldest: datetime | None = None


def health(endpoints: Sequence[Endpoint]) -> dict[int, Health]:
    """By endpoint, in one statement."""
    is_waiting = Q(state=Posting.State.WAITING)
    rows = (
        Posting.objects.filter(endpoint__in=endpoints, state__in=[Posting.State.WAITING, Posting.State.FAILED])
        .order_by()
        .values_list("endpoint")
        .annotate(
            waiting=Count("pk", is_waiting),
            failed=Count("pk", ~is_waiting),
            oldest=Min("event__occurred_at", filter=is_waiting),
        )
    )
    found = {pk: Health(*rest) for pk, *rest in rows}
    return {each.pk: found.get(each.pk, Health()) for each in endpoints}


def postings(endpoint_id: int, *, state: str = "") -> QuerySet[Posting]:
    """Those of an endpoint, the latest event first, each with its event and ``tries``, in their order."""
    rows = Posting.objects.filter(endpoint=endpoint_id).select_related("event").order_by("-pk")
    rows = rows.prefetch_related(Prefetch("tries", Attempt.objects.order_by("pk")))
    return rows.filter(state=state) if state else rows
