"""What the stub of SES tells of messages: by rules, the same at every start, each when it is due."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from delivery.events.reading import read
from stubs.event_feed import Feed, document
from stubs.ses_events import BadEvent, Fates
from tests.told_by_ses import accepted


def kinds(fates, **changes):
    return [each.kind for each in fates.of(accepted(**changes))]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("delivery", ["Send", "Delivery"]),
        ("bounce", ["Send", "Bounce"]),
        ("soft_bounce", ["Send", "SoftBounce"]),
        ("complaint", ["Send", "Delivery", "Complaint"]),
        ("delay", ["Send", "DeliveryDelay", "Delivery"]),
        ("reject", ["Send", "Reject"]),
        ("none", []),
    ],
)
def test_each_fate_is_told_in_its_order(event, expected):
    fates = Fates([{"event": event}])
    happenings = fates.of(accepted())
    assert [each.kind for each in happenings] == expected
    assert [each.after_s for each in happenings] == sorted(each.after_s for each in happenings)


def test_the_first_rule_that_concerns_a_message_decides_and_without_one_it_is_delivered():
    fates = Fates(
        [{"event": "bounce", "match": {"to": "*@gone.example"}}, {"event": "reject", "match": {"to": "max@*"}}]
    )
    assert kinds(fates, to="max@gone.example")[-1] == "Bounce"
    assert kinds(fates, to="max@example.com")[-1] == "Reject"
    assert kinds(fates, to="eva@example.com")[-1] == "Delivery"


def test_a_message_that_could_not_be_filled_in_is_told_of_as_such():
    assert kinds(Fates(), failure="Attribute 'a' is not present.") == ["Rendering Failure"]


def test_a_share_of_addresses_is_hit_and_always_the_same_ones():
    fates = Fates([{"event": "bounce", "rate": 0.25}], with_send=False)
    hit = [number for number in range(2_000) if kinds(fates, to=f"p{number}@example.com") == ["Bounce"]]
    assert 420 < len(hit) < 580
    assert hit == [number for number in range(2_000) if kinds(fates, to=f"p{number}@example.com") == ["Bounce"]]


@pytest.mark.parametrize(
    "rule",
    [None, [], {}, {"event": "lost"}, {"event": "bounce", "rate": 2}, {"event": "bounce", "rate": "1"},
     {"event": "bounce", "match": "x"}, {"event": "bounce", "match": {"from": "x"}}, {"event": "bounce", "more": 1}],
)  # fmt: skip
def test_a_rule_that_can_not_be_meant_is_refused(rule):
    with pytest.raises(BadEvent):
        Fates([rule])


def test_what_is_told_bears_the_real_time_whatever_the_message_says():
    ahead = accepted(at="2030-01-01T00:00:00+00:00")
    told = [read(document(each)) for each in Fates([{"event": "bounce"}]).of(ahead)]
    now = datetime.now(UTC)
    assert [event.kind for event in told] == ["send", "bounce_hard"]
    assert all(abs(event.at - now) < timedelta(minutes=1) for event in told)
    assert all(abs(event.sent_at - now) < timedelta(minutes=1) for event in told)


def test_a_feed_hands_out_what_is_due_and_each_once():
    feed = Feed()
    feed.put(Fates([{"event": "delay"}], pace=0.02).of(accepted()))
    assert [each.kind for each in feed.take(10)] == ["Send"]
    time.sleep(0.5)
    assert [each.kind for each in feed.take(1)] == ["DeliveryDelay"]
    assert [each.kind for each in feed.take(10)] == ["Delivery"]
    assert (feed.take(10), len(feed)) == ([], 0)
