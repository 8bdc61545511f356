"""Records of Amazon SES are read as its guide writes them; what is none is refused, saying what was expected."""

import json
from copy import deepcopy
from datetime import UTC, datetime

import pytest

from delivery.events import reading
from delivery.events.base import Kind
from delivery.providers import ses
from stubs.ses_events import record
from tests.told_by_ses import SENT_AT, accepted

AT = datetime(2026, 11, 21, 10, 5, 7, 250_000, tzinfo=UTC)


def read(kind, *, message=None, mail=None, **changes):
    made = record(kind, message or accepted(), at=AT, **changes)
    made["mail"] |= mail or {}
    return reading.read(json.dumps(made))


def test_the_tag_is_the_one_that_messages_carry():
    assert reading.TAG == ses.TAG


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        ("Send", Kind.SEND, ""),
        ("Delivery", Kind.DELIVERY, ""),
        ("Bounce", Kind.BOUNCE_HARD, "Permanent/General 5.1.1"),
        ("SoftBounce", Kind.BOUNCE_SOFT, "Transient/MailboxFull 4.2.2"),
        ("Complaint", Kind.COMPLAINT, "abuse"),
        ("DeliveryDelay", Kind.DELAY, "TransientCommunicationFailure 4.4.1"),
        ("Reject", Kind.REJECT, "Bad content"),
    ],
)
def test_each_kind_is_told_apart(name, kind, detail):
    event = read(name)
    assert (event.kind, event.detail, event.key) == (kind, detail, "20261121-17-4711")
    assert (event.provider_id, event.sent_at) == (accepted().message_id, SENT_AT)
    assert event.addresses == ("eva@example.com",)
    # A record of sending or refusing has no time of its own.
    assert event.at == (SENT_AT if kind in (Kind.SEND, Kind.REJECT) else AT)


def test_a_failure_in_filling_in_says_why_and_names_nobody():
    event = read("Rendering Failure", message=accepted(failure="Attribute 'a' of eva@example.com is not present."))
    assert (event.kind, event.detail) == (Kind.RENDERING_FAILURE, "Attribute 'a' of <address> is not present.")


@pytest.mark.parametrize(
    ("kind", "subtype", "expected"),
    [
        ("Permanent", "Suppressed", Kind.BOUNCE_HARD),
        ("Permanent", "OnAccountSuppressionList", Kind.BOUNCE_HARD),
        ("Transient", "ContentRejected", Kind.BOUNCE_SOFT),
        ("Undetermined", "Undetermined", Kind.BOUNCE_SOFT),
    ],
)
def test_only_a_permanent_bounce_is_hard(kind, subtype, expected):
    event = read("Bounce", bounceType=kind, bounceSubType=subtype)
    assert (event.kind, event.detail) == (expected, f"{kind}/{subtype} 5.1.1")


@pytest.mark.parametrize("kind", ["not-spam", "auth-failure"])
def test_a_report_that_is_no_complaint_of_the_person_is_none(kind):
    assert read("Complaint", complaintFeedbackType=kind) is None


@pytest.mark.parametrize("kind", [None, "abuse", "fraud", "virus", "other", "something new"])
def test_every_other_report_is_a_complaint(kind):
    assert read("Complaint", complaintFeedbackType=kind).kind is Kind.COMPLAINT


@pytest.mark.parametrize("name", ["Open", "Click", "Subscription"])
def test_what_the_ledger_does_not_tell_is_passed_over(name):
    made = record("Send", accepted())
    assert reading.read(json.dumps({**made, "eventType": name})) is None


def test_the_greeting_of_a_new_topic_is_passed_over():
    assert reading.read("Successfully validated SNS topic for Amazon SES event publishing.") is None


def test_an_event_has_the_same_id_whenever_it_is_told_and_no_other_has_it():
    assert read("Bounce").event_id == read("Bounce").event_id
    ids = [read(kind).event_id for kind in ("Send", "Delivery", "Bounce", "Complaint", "DeliveryDelay", "Reject")]
    ids.append(read("Bounce", feedbackId="another").event_id)
    ids.append(read("DeliveryDelay", timestamp="2026-11-21T10:06:00.000Z").event_id)
    assert len(set(ids)) == len(ids)


def test_a_notification_about_an_identitys_feedback_is_read_too_and_has_no_key():
    made = record("Bounce", accepted(), at=AT)
    made["notificationType"] = made.pop("eventType")
    del made["mail"]["tags"]
    event = reading.read(json.dumps(made))
    assert (event.kind, event.key, event.provider_id) == (Kind.BOUNCE_HARD, "", accepted().message_id)


@pytest.mark.parametrize(
    "tags",
    [
        {}, [], None, "20261121-17-4711", {"delivery": "20261121-17-4711"}, {"delivery": []}, {"delivery": [7]},
        {"delivery": ["20261121-17"]}, {"delivery": ["20261321-17-4711"]}, {"delivery": ["２0261121-17-4711"]},
        {"delivery": ["20261121-17-99999999999999999999"]}, {"other": ["20261121-17-4711"]},
    ],
)  # fmt: skip
def test_a_message_without_a_key_of_ours_has_none(tags):
    assert read("Delivery", mail={"tags": tags}).key == ""


def test_a_forwarded_message_concerns_whom_it_was_sent_to():
    elsewhere = [{"emailAddress": "eva@elsewhere.example", "status": "5.1.1"}]
    assert read("Bounce", bouncedRecipients=elsewhere).addresses == ("eva@example.com",)


def test_of_a_message_to_several_those_are_meant_that_the_event_names():
    to = ["eva@example.com", "max@example.com"]
    bounced = [{"emailAddress": "max@example.com"}]
    assert read("Bounce", mail={"destination": to}, bouncedRecipients=bounced).addresses == ("max@example.com",)
    assert read("Send", mail={"destination": to}).addresses == tuple(to)


@pytest.mark.parametrize("address", ["", "x" * 321, "a\x00@example.com", "\ud800@example.com", 7, None, ["x"]])
def test_an_address_that_can_be_none_is_left_out(address):
    assert read("Delivery", mail={"destination": [address]}, recipients=[]).addresses == ()


@pytest.mark.parametrize("status", [None, 511, "5.1.1 <eva@example.com>", "x" * 61, ["5.1.1"]])
def test_only_codes_are_kept_of_what_the_answering_server_said(status):
    event = read("Bounce", bouncedRecipients=[{"emailAddress": "eva@example.com", "status": status}])
    assert event.detail == "Permanent/General"


def test_instants_are_told_in_utc():
    event = read("Delivery", timestamp="2026-11-21T11:05:07.250+01:00")
    assert (event.at, event.at.tzinfo) == (AT, UTC)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "document",
    [
        "", "{", "null", "7", '"Bounce"', "[]", "[{}]", "{}", DEEP, '{"eventType": ' + DEEP + "}",
        '{"eventType": 7}', '{"eventType": ["Bounce"]}', '{"eventType": {"Bounce": 1}}', '{"eventType": "Bounced"}',
        '{"eventType": "Bounce"}', '{"eventType": "Send", "mail": []}', '{"eventType": "Send", "mail": {}}',
    ],
    ids=range(17),
)  # fmt: skip
def test_what_is_no_record_is_refused(document):
    with pytest.raises(reading.Unreadable):
        reading.read(document)


def _places(value, path=()):
    """Where something could be missing or of a wrong type."""
    if path:
        yield path
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from _places(inner, (*path, name))


@pytest.mark.parametrize("name", ["Bounce", "Complaint", "Delivery", "DeliveryDelay", "Send", "Reject"])
@pytest.mark.parametrize("wrong", [None, 7, "x\x00", [], {}, [[]], True, 1e400], ids=repr)
def test_a_member_of_a_wrong_type_is_refused_or_does_without_and_never_an_accident(name, wrong):
    for path in _places(record(name, accepted(), at=AT)):
        made = deepcopy(record(name, accepted(), at=AT))
        inner = made
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = wrong
        try:
            event = reading.read(json.dumps(made))
        except reading.Unreadable:
            continue
        if event is not None:
            assert event.at.tzinfo is UTC
            assert event.sent_at.tzinfo is UTC
            texts = (event.key, event.provider_id, event.event_id, event.detail, *event.addresses)
            assert not any("\x00" in each for each in texts)


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        ("2026-11-21T10:05:07Z", True),
        ("2026-11-21 10:05:07+00:00", True),
        ("2026-11-21T10:05:07", False),
        ("2026-02-30T10:05:07Z", False),
        ("0001-01-01T00:00:00+14:00", False),
        ("9999-12-31T23:59:59-12:00", False),
        ("yesterday", False),
        (1_763_719_507, False),
    ],
)
def test_an_instant_is_one_with_its_offset(given, is_one):
    if is_one:
        assert read("Delivery", timestamp=given).at == AT.replace(microsecond=0)
    else:
        with pytest.raises(reading.Unreadable, match=r"delivery\.timestamp"):
            read("Delivery", timestamp=given)
