"""How attributes are told: names as labels, values without JSON."""

from datetime import UTC, datetime

import pytest
from django.utils import translation

from frontend.wording.attributes import in_words, instant_of, label, spoken, value_in_words


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("last_order_at", "Last order at"),
        ("lastOrderAt", "Last order at"),
        ("favourite-shop", "Favourite shop"),
        ("VIP", "VIP"),
        ("customerID", "Customer ID"),
        ("größe", "Größe"),
        ("plan", "Plan"),
        ("_", "_"),
    ],
)
def test_a_name_is_told_as_a_label(name, told):
    assert label(name) == told


def test_inside_a_sentence_a_name_begins_small():
    assert spoken("Last_Order_At") == "last order at"


@pytest.mark.parametrize(
    ("value", "in_english", "in_german"),
    [
        (True, "yes", "ja"),
        (False, "no", "nein"),
        (0, "0", "0"),
        (2026, "2026", "2026"),
        (1234567, "1,234,567", "1.234.567"),
        (2.5, "2.5", "2,5"),
        (3.0, "3", "3"),
        (-12345.25, "-12,345.25", "-12.345,25"),
        ("2026-11-21", "November 21, 2026", "21. November 2026"),
        ("2026-11-21T10:00:00Z", "2026-11-21 10:00:00 UTC", "2026-11-21 10:00:00 UTC"),
        ("2026-02-30", "2026-02-30", "2026-02-30"),
        ("pro", "pro", "pro"),
        (None, "—", "—"),
        ("", "—", "—"),
        ([], "—", "—"),
        ({}, "—", "—"),
        (["tea", 12, True], "tea, 12, yes", "tea, 12, ja"),
        ({"home_town": "Graz", "zip": 8010}, "home town: Graz, zip: 8010", "home town: Graz, zip: 8010"),
        ([{"sku": "A1"}, {"sku": "B2"}], "sku: A1; sku: B2", "sku: A1; sku: B2"),
    ],
)
def test_a_value_is_told_in_the_readers_language(value, in_english, in_german):
    told = []
    for language in ("en", "de"):
        with translation.override(language):
            told.append(value_in_words(value))
    assert told == [in_english, in_german]


def test_an_instant_is_one_only_with_its_offset():
    assert instant_of("2026-11-21T11:00:00+01:00") == datetime(2026, 11, 21, 10, tzinfo=UTC)
    for text in ("2026-11-21T11:00:00", "2026-11-21", "2026-99-21T11:00:00Z", 5, None):
        assert instant_of(text) is None


def test_the_own_name_stands_beside_a_label_that_hides_it():
    told = in_words({"plan": "pro", "last_order_at": "2026-11-21T10:00:00Z"})
    assert [(each.label, each.is_renamed) for each in told] == [("Last order at", True), ("Plan", False)]
    assert told[0].at == datetime(2026, 11, 21, 10, tzinfo=UTC)
