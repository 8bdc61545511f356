"""Links by which people unsubscribe: who can make one, and how long it is good."""

import base64
import random

import pytest

from schedules import links
from schedules.consents import Asked
from schedules.links import Link

NEWS = Asked("email", "news")


@pytest.fixture(autouse=True)
def public(settings):
    settings.PUBLIC_URL = "https://mail.example"
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the present one", []


@pytest.mark.parametrize(
    "link",
    [
        Link(1, "email", None),
        Link(2**63 - 1, "push", "a" * 40),
        Link(4711, "in_app", "0-news_2"),
        Link(7, "email", "n"),
    ],
)
def test_a_token_says_what_was_signed_in_characters_of_an_address(link):
    token = links.sign(link)
    assert links.read(token) == link
    assert token.isascii()
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert len(token) <= 100


def test_a_message_has_both_links_and_a_transactional_one_only_that_to_the_preferences():
    urls = links.urls_of(4711, NEWS)
    token = links.sign(Link(4711, "email", "news"))
    assert urls == (f"https://mail.example/u/{token}", f"https://mail.example/p/{token}")
    assert links.urls_of(4711, Asked("email", is_transactional=True)).unsubscribe == ""
    assert links.urls_of(4711, Asked("email", is_transactional=True)).preferences.startswith("https://mail.example/p/")


def test_without_a_public_address_there_are_no_links(settings):
    settings.PUBLIC_URL = ""
    assert links.urls_of(4711, NEWS) == links.sample_urls(NEWS) == links.NONE


def test_a_sample_belongs_to_nobody():
    assert links.sample_urls(NEWS).unsubscribe == "https://mail.example/u/sample"
    assert links.read("sample") is None


def test_a_link_outlives_the_secret_that_signed_it_as_long_as_that_is_named(settings):
    token = links.sign(Link(4711, "email", "news"))
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "a newer one", ["another", "the present one"]
    assert links.read(token) == Link(4711, "email", "news")
    settings.SECRET_KEY_FALLBACKS = ["another"]
    assert links.read(token) is None


def _forged(token: str) -> list[str]:
    """A corpus: every character changed, every length, other people's parts, foreign alphabets."""
    chance = random.Random(20261123)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    changed = [
        token[:place] + chance.choice([each for each in alphabet if each != token[place]]) + token[place + 1 :]
        for place in range(len(token))
    ]
    cut = [token[:length] for length in range(len(token))] + [token[start:] for start in range(1, len(token))]
    longer = [token + each for each in ("A", "=", "==", "\n", "%00", token)]
    other = links.sign(Link(4712, "email", "news"))
    halves = [token[:place] + other[place:] for place in range(1, len(token))]
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    unsigned = base64.urlsafe_b64encode(raw[:-16] + bytes(16)).decode().rstrip("=")
    foreign = ["", "sample", "../admin", "é" * 40, token.replace(token[3], "+"), f"{token[:20]} {token[20:]}", "A" * 40]
    found = [*changed, *cut, *longer, *halves, unsigned, *foreign]
    return [each for each in dict.fromkeys(found) if each not in (token, other)]


def test_no_forged_or_cut_token_is_read():
    token = links.sign(Link(4711, "email", "news"))
    forged = _forged(token)
    assert len(forged) >= 150
    assert [each for each in forged if links.read(each) is not None] == []


def test_a_token_that_ends_in_bits_that_mean_nothing_is_another_token():
    """Base64 would read several texts as the same bytes; a link has one form, by which its requests are counted."""
    token = links.sign(Link(4711, "email", "ne"))  # 28 bytes: the last character has 4 spare bits
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same = [
        f"{token[:-1]}{each}"
        for each in alphabet
        if base64.urlsafe_b64decode(f"{token[:-1]}{each}" + "=" * (-len(token) % 4))
        == base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    ]
    assert len(same) > 1
    assert [each for each in same if links.read(each)] == [token]


def test_another_persons_link_can_not_be_made_without_the_secret(settings):
    settings.SECRET_KEY = "somebody else's"
    forged = links.sign(Link(4712, "email", None))
    settings.SECRET_KEY = "the present one"
    assert links.read(forged) is None
