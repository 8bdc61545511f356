"""What the ledger's rows say of caps, where the counters know nothing any more."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection, transaction
from redis import Redis

from delivery import erasure, ledger, usage
from delivery.ledger import Settlement, Tally
from delivery.models import Delivery, State
from delivery.usage import Standing
from schedules.models import Recipient
from tests.counting import flush
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db
WEEK = 7 * DAY
SECOND = timedelta(seconds=1)

# (state, reason, reached, whether it counts, whether it may still turn out not to)
ROWS = [
    (State.PENDING, "", "", False, False),
    (State.PENDING, "busy", "", False, False),
    (State.PENDING, "daily_cap", "", False, False),
    (State.PENDING, "busy", "17", True, False),  # on one device already
    (State.SENDING, "", "", True, True),
    (State.UNKNOWN, "timeout", "", True, False),
    (State.SENT, "", "", True, False),
    (State.FAILED, "outcome_unknown", "", True, False),
    (State.FAILED, "refused", "", False, False),
    (State.FAILED, "busy", "0", True, False),  # an earlier attempt was not answered
    (State.CANCELLED, "cancelled", "17", True, False),
    (State.RATE_LIMITED, "daily_cap", "", False, False),
    (State.SUPPRESSED, "opted_out", "", False, False),
    (State.UNADDRESSABLE, "no_address", "", False, False),
    (State.CANCELLED, "cancelled", "", False, False),
    (State.ERASED, "profile_gone", "", False, False),
    (State.EXPIRED, "down", "", False, False),
]


@pytest.fixture
def row_each(service, provider, own_counters):
    """A person for each of ``ROWS``, who got a message at ``NOW`` of which that became: (occurrence, people)."""
    everyone = people(len(ROWS))
    schedule = ScheduleFactory()
    service.step()
    rewrite(everyone)
    yield only_occurrence(schedule), everyone
    rewrite(everyone, back=True)


def rewrite(everyone, *, back=False):
    """Say of each row what became of it; the books close only with what the sender itself has written."""
    for person, (state, reason, reached, _, _) in zip(everyone, ROWS, strict=True):
        new = state, reason, reached = (State.SENT, "", "") if back else (state, reason, reached)
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE delivery_delivery SET state = %s, reason = %s, reached = %s,"
                " settled_at = CASE WHEN %s THEN claimed_at END, claim_token = CASE WHEN %s THEN gen_random_uuid() END,"
                " leased_until = CASE WHEN %s THEN now() END WHERE recipient_id = %s",
                [*new, state.is_outcome, *[state in (State.SENDING, State.UNKNOWN)] * 2, person.pk],
            )


def counted(everyone, *, now) -> set[int]:
    return {use.recipient_id for use in usage.uses([person.pk for person in everyone], now=now)}


def expected(everyone) -> set[int]:
    return {person.pk for person, row in zip(everyone, ROWS, strict=True) if row[3]}


def test_rows_count_unless_it_is_known_that_nothing_was_sent(row_each):
    occurrence, everyone = row_each
    assert counted(everyone, now=NOW) == expected(everyone)
    keys = [(person.pk, NOW.date(), occurrence.pk) for person in everyone]
    names = {(True, True): Standing.IN_FLIGHT, (True, False): Standing.USED, (False, False): Standing.FREE}
    assert usage.standings(keys) == {key: names[row[3:]] for key, row in zip(keys, ROWS, strict=True)}


def test_rows_count_for_a_week_from_their_claim(row_each):
    _, everyone = row_each
    assert counted(everyone, now=NOW + WEEK - SECOND) == expected(everyone)
    assert counted(everyone, now=NOW + WEEK + 2 * HOUR) == set()
    Delivery.objects.update(claimed_at=NOW + 3 * DAY)
    assert counted(everyone, now=NOW + 3 * DAY + WEEK - SECOND) == expected(everyone)


def test_a_row_that_is_gone_with_its_day_counts_as_used(ledger_days):
    assert usage.standings([(1, NOW.date(), 1)]) == {(1, NOW.date(), 1): Standing.USED}


def test_rows_of_schedules_that_do_not_count_are_left_out(service, provider, own_counters):
    everyone = people(3)
    ScheduleFactory(counts_toward_caps=False)
    service.step()
    assert counted(everyone, now=NOW) == set()


@pytest.mark.parametrize("harm", ["flush", "restart"])
def test_counters_that_lost_everything_are_built_from_the_ledger(service, provider, own_counters, harm):
    """Under a cap of two a day, with one counted message sent, one in flight, and one that was refused."""
    person = RecipientFactory()
    ScheduleFactory(max_per_user_per_day=1)
    service.step()
    in_flight = ScheduleFactory(run_at=NOW + MINUTE)
    service.after(MINUTE).open()
    claim = claim_of(service)
    if harm == "flush":
        flush([own_counters])
    else:
        own_counters.kill()
        own_counters.start()
    capped = ScheduleFactory(run_at=NOW + 2 * MINUTE, max_per_user_per_day=2)
    service.after(MINUTE).open()
    service.send()
    row = row_of(capped, person)
    assert (row.state, row.reason, row.attempt) == (State.PENDING, "daily_cap", 0)
    assert service.now < row.due_at <= service.now + 3 * SECOND  # the one in flight may still fail
    settle(claim, State.FAILED, "refused")
    service.at(row.due_at).step()
    assert states(capped) == {"sent": 1}
    assert reasons(in_flight) == {"failed: refused": 1}


def claim_of(service):
    (message,) = service.publish()
    (work,) = ledger.take_up(message.batch_ids, now=service.now)
    tally = Tally()
    with transaction.atomic():
        claim = ledger.claim([work], token=uuid4(), limit=50, now=service.now, tally=tally)[0]
        tally.flush()
    return claim


def settle(claim, state, reason):
    tally = Tally()
    with transaction.atomic():
        outcomes = [ledger.Outcome(person.recipient_id, state, reason) for person in claim.people]
        ledger.settle([Settlement(claim, outcomes, NOW)], now=NOW, tally=tally)
        tally.flush()


def test_every_persons_sets_are_built_at_their_first_capped_message_only(service, provider, servers):
    everyone = people(70)  # more than there are buckets
    ScheduleFactory()
    service.step()
    assert keys(servers) == set()
    capped = ScheduleFactory(run_at=NOW + MINUTE, max_per_user_per_day=1, max_per_user_per_week=3)
    service.after(MINUTE).step()
    assert reasons(capped) == {"rate_limited: daily_cap": 70}
    assert keys(servers) == {f"{{c{person.pk % 64}}}:u{person.pk}" for person in everyone}


def keys(servers) -> set[str]:
    found: set[str] = set()
    for server in servers:
        with Redis.from_url(server.url, decode_responses=True) as client:
            found.update(client.scan_iter("{c*"))
    return found


def test_an_erased_person_leaves_no_counters_behind(
    service, provider, own_counters, django_capture_on_commit_callbacks
):
    person = RecipientFactory()
    ScheduleFactory(max_per_user_per_day=1)
    service.step()
    assert keys([own_counters])
    with django_capture_on_commit_callbacks(execute=True):
        erasure.forget(recipient_id=person.pk, by=BY, now=NOW)
    assert keys([own_counters]) == set()


def test_a_person_can_be_erased_while_the_counters_are_away(service, own_counters, django_capture_on_commit_callbacks):
    person = RecipientFactory()
    own_counters.kill()
    with django_capture_on_commit_callbacks(execute=True) as after:
        erasure.forget(recipient_id=person.pk, by=BY, now=NOW)
    assert after
    assert not Recipient.objects.exists()
