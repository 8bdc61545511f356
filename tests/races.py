"""What the tests of races do to the service, one step at a time: in a rival's thread, or in the test's own."""

from datetime import timedelta
from uuid import uuid4

from django.db import transaction

from delivery import dispatch, ledger, materialise, sending
from delivery import sweep as sweeping
from delivery.ledger import Outcome, Settlement, Tally
from delivery.models import Batch, Delivery
from schedules import operations
from tests.factories import BY, NOW
from tests.service import only_occurrence

LONG_AGO = NOW - timedelta(days=1_000)  # leases are real time
VIPS = {"field": "tags", "op": "contains", "value": "vip"}
# Where a claim has its snapshot: after that it no longer learns what others commit.
CLAIMING = "WHERE o.id = ANY(%(occurrences)s::bigint[]) AND o.state = 'running' AND o.held_reason"


def claim_some(batch_ids, *, limit=50, settle_as=None, now=NOW):
    (work,) = ledger.take_up(batch_ids, now=now)
    tally = Tally()
    with transaction.atomic():
        claim = ledger.claim([work], token=uuid4(), limit=limit, now=now, tally=tally)[0]
        tally.flush()
    if settle_as is not None:
        settle(claim, state=settle_as)
    return claim


def settle(*claims, state, **fields):
    tally, count = Tally(), 0
    with transaction.atomic():
        for claim in claims:
            outcomes = [Outcome(person.recipient_id, state, **fields) for person in claim.people]
            count += ledger.settle([Settlement(claim, outcomes, NOW)], now=NOW, tally=tally)
        tally.flush()
    return count


def leases_expire():
    Delivery.objects.exclude(leased_until=None).update(leased_until=LONG_AGO)
    Batch.objects.exclude(lease_until=None).update(lease_until=LONG_AGO)


def tick():
    return dispatch.open_due(now=NOW)


def materialising(schedule):
    return lambda: materialise.materialise(occurrence_id=only_occurrence(schedule).pk, now=NOW)


def sending_of(batch_ids):
    return lambda: sending.send(batch_ids=batch_ids)


def editing_of(schedule, *, now=NOW, expected_version=None, **changes):
    return lambda: operations.update(
        schedule_id=schedule.pk, changes=changes, by=BY, now=now, expected_version=expected_version
    )


def sweeping_now():
    return sweeping.sweep(now=NOW)


def cancel(schedule):
    operations.cancel(schedule_id=schedule.pk, by=BY, now=NOW)


def pause(schedule):
    operations.pause(schedule_id=schedule.pk, by=BY, now=NOW)


def delete(schedule):
    operations.delete(schedule_id=schedule.pk, by=BY, now=NOW)
