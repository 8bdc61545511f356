"""What a provider would tell of the ledger's deliveries, without its doors."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from delivery import feedback
from delivery.events import settling
from delivery.events.base import Kind, ProviderEvent
from delivery.events.settling import Settled
from delivery.models import Delivery, Feedback, FeedbackCount, News
from schedules.models import Recipient
from tests.books import assert_books_close
from tests.factories import NOW


def event(
    kind: Kind, of: Delivery | str, *, at: datetime | None = None, address: str | None = None, **fields: Any
) -> ProviderEvent:
    """``of``: a delivery or a key. ``address``: as the provider writes it; None: the person's own, "" none."""
    key = of if isinstance(of, str) else f"{of.day:%Y%m%d}-{of.occurrence_id}-{of.recipient_id}"
    at = at or datetime.now(UTC)
    if address is None and isinstance(of, Delivery):
        address = Recipient.objects.get(pk=of.recipient_id).email
    values: dict[str, Any] = {
        "provider_id": f"ses-{key}",
        "at": at,
        "sent_at": at - timedelta(seconds=1),
        "event_id": f"{kind}-{key}-{at.isoformat()}",
        "detail": "Permanent/General 5.1.1" if kind is Kind.BOUNCE_HARD else "",
        "addresses": (address,) if address else (),
        **fields,
    }
    return ProviderEvent(kind, key, **values)


def settle(*events: ProviderEvent, now: datetime = NOW) -> Settled:
    """Settle them at once; the books and the counts of occurrences are looked at."""
    settled = settling.settle(events, now=now)
    assert_books_close()
    assert_counted()
    return settled


def assert_counted() -> None:
    """The counts of every occurrence that has rows are what the rows say, counted apart."""
    rows: dict[tuple[int, int], int] = {}
    for row in Feedback.objects.all():
        assert row.kinds >> (row.news - 1) == 1, "the gravest is the highest bit"
        assert [bool(getattr(row, f"{news.label}_at")) for news in News] == [
            bool(row.kinds & news.bit) for news in News
        ]
        rows[row.occurrence_id, row.news] = rows.get((row.occurrence_id, row.news), 0) + 1
    with_rows = {occurrence_id for occurrence_id, _ in rows}
    counted: dict[tuple[int, int], int] = {}
    for each in FeedbackCount.objects.filter(occurrence_id__in=with_rows):
        key = each.occurrence_id, each.news
        counted[key] = counted.get(key, 0) + each.people
    assert {key: people for key, people in counted.items() if people} == rows


def news_of(deliveries: Iterable[Delivery]) -> list[str]:
    """The gravest that was told of each; empty where nothing was."""
    rows = list(deliveries)
    found = feedback.of_deliveries((row.day, row.occurrence_id, row.recipient_id) for row in rows)
    return [
        News(kept.news).label if (kept := found.get((row.day, row.occurrence_id, row.recipient_id))) else ""
        for row in rows
    ]
