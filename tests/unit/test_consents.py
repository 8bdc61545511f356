"""What consent means for a message: channel, topic, silence, and none of it where it is transactional."""

import pytest

from schedules import consents
from schedules.consents import Asked, objection

WHOLE = Asked("email")
OPEN = Asked("email", "news")
CLOSED = Asked("email", "offers", needs_agreement=True)
RECEIPT = Asked("email", is_transactional=True)


@pytest.mark.parametrize(
    ("consent", "asked", "expected"),
    [
        ({}, WHOLE, ""),
        ({"email": True}, WHOLE, ""),
        ({"email": False}, WHOLE, "opted_out"),
        ({"push": False}, WHOLE, ""),
        ({"news:email": False}, WHOLE, ""),
        ({}, OPEN, ""),
        ({"news:email": True}, OPEN, ""),
        ({"news:email": False}, OPEN, "opted_out_of_topic"),
        ({"news:push": False}, OPEN, ""),
        ({"email": False, "news:email": True}, OPEN, "opted_out"),
        ({"email": True}, CLOSED, "not_opted_in"),
        ({}, CLOSED, "not_opted_in"),
        ({"offers:push": True}, CLOSED, "not_opted_in"),
        ({"offers:email": True}, CLOSED, ""),
        ({"offers:email": False}, CLOSED, "opted_out_of_topic"),
        ({"email": False, "offers:email": True}, CLOSED, "opted_out"),
        ({"email": False, "news:email": False}, RECEIPT, ""),
    ],
)
def test_an_objection_is_found_where_there_is_one(consent, asked, expected):
    assert objection(consent, asked) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("email", (None, "email")),
        ("news:email", ("news", "email")),
        ("a-b_c9:in_app", ("a-b_c9", "in_app")),
        ("sms", (None, "")),
        ("news:sms", (None, "")),
        (":email", (None, "")),
        ("News:email", (None, "")),
        ("a:b:email", (None, "")),
        ("push:email", (None, "")),
        (f"{'a' * 41}:email", (None, "")),
        ("é:email", (None, "")),
        ("", (None, "")),
    ],
)
def test_a_key_is_a_channel_or_a_topic_in_one(key, expected):
    assert consents.parted(key) == expected


def test_the_keys_of_a_profile_are_bounded():
    assert consents.fault({f"t{number}:email": True for number in range(consents.MOST_KEYS + 1)})
    assert not consents.fault({"email": False, "news:email": True})
    assert "news:email" in consents.fault({"fax": True})
