import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.providers.base import (
    Answer,
    Message,
    NotStarted,
    Permit,
    Provider,
    ProviderError,
    Verdict,
    retry_after_seconds,
    scrub,
)
from schedules.storable import text_fault


class Recorder(Provider):
    """Answers as it is told, and remembers what it was called with."""

    name = "recorder"
    channels = frozenset({"email"})
    max_per_call = 3

    def __init__(self, answers=None, error=None):
        self.answers = answers
        self.error = error
        self.calls = []

    def _refuse(self, message):
        return Answer(message.key, Verdict.PERMANENT, "no_address") if not message.to else None

    def _call(self, messages, *, permit):
        self.calls.append([m.key for m in messages])
        if self.error is not None:
            raise self.error
        if self.answers is not None:
            return self.answers
        return [Answer(m.key, Verdict.SENT, "", f"id-{m.key}") for m in messages]


class Fussy(Provider):
    """Refuses a call whole for the messages of ``poison`` in it, and remembers its calls."""

    name = "fussy"
    channels = frozenset({"email"})
    max_per_call = 50

    def __init__(self, poison, verdict=Verdict.PERMANENT, permit_calls=1_000):
        self.poison = poison
        self.verdict = verdict
        self.permit_calls = permit_calls
        self.calls = []

    def _call(self, messages, *, permit):
        keys = [m.key for m in messages]
        self.calls.append(keys)
        if len(self.calls) == self.permit_calls:
            permit.deadline = 0.0
        if found := self.poison.intersection(keys):
            raise ProviderError(self.verdict, "bad_request", detail=f"{len(found)} bad")
        return [Answer(key, Verdict.SENT) for key in keys]


def message(key, to="ann@example.com"):
    return Message(key, 1, to, "Subject", "Text")


def permit():
    return Permit.lasting(60)


def verdicts(answers):
    return [(a.key, a.verdict, a.reason) for a in answers]


def test_every_message_gets_its_answer_in_the_order_of_the_messages():
    shuffled = [Answer("b", Verdict.SENT), Answer("a", Verdict.TRANSIENT, "busy")]
    answers = Recorder(answers=shuffled).send([message("a"), message("b")], permit=permit())
    assert verdicts(answers) == [("a", Verdict.TRANSIENT, "busy"), ("b", Verdict.SENT, "")]


def test_a_message_that_the_call_says_nothing_about_is_unknown():
    provider = Recorder(answers=[Answer("a", Verdict.SENT)])
    answers = provider.send([message("a"), message("b")], permit=permit())
    assert verdicts(answers) == [("a", Verdict.SENT, ""), ("b", Verdict.UNKNOWN, "no_answer")]


def test_answers_about_strangers_are_dropped():
    provider = Recorder(answers=[Answer("x", Verdict.SENT), Answer("a", Verdict.SENT)])
    assert verdicts(provider.send([message("a")], permit=permit())) == [("a", Verdict.SENT, "")]


def test_a_refused_message_takes_no_part_in_the_call():
    provider = Recorder()
    answers = provider.send([message("a"), message("b", to=""), message("c")], permit=permit())
    assert provider.calls == [["a", "c"]]
    assert [a.verdict for a in answers] == [Verdict.SENT, Verdict.PERMANENT, Verdict.SENT]


def test_what_is_refused_beforehand_is_no_word_of_the_provider():
    answers = Recorder().send([message("a"), message("b", to="")], permit=permit())
    assert [a.asked for a in answers] == [True, False]


def test_an_error_says_whether_anything_left_the_house():
    errors = [ProviderError(Verdict.MISCONFIGURED, "x", asked=asked) for asked in (True, False)]
    answers = [Recorder(error=error).send([message("a")], permit=permit())[0] for error in (*errors, NotStarted())]
    assert [a.asked for a in answers] == [True, False, False]


def test_when_all_messages_are_refused_nothing_is_called():
    provider = Recorder()
    answers = provider.send([message("a", to="")], permit=permit())
    assert provider.calls == []
    assert verdicts(answers) == [("a", Verdict.PERMANENT, "no_address")]


def test_no_messages_need_no_call():
    provider = Recorder()
    assert provider.send([], permit=permit()) == []
    assert provider.calls == []


def test_with_an_expired_permit_nothing_is_called_and_the_rows_can_be_handed_back():
    provider = Recorder()
    answers = provider.send([message("a"), message("b")], permit=Permit.lasting(-1))
    assert provider.calls == []
    assert [a.verdict for a in answers] == [Verdict.NOT_STARTED] * 2


def test_an_error_of_the_call_is_the_answer_for_all_its_messages():
    error = ProviderError(Verdict.THROTTLED, "throttled", detail="slow down", retry_after=2.5)
    answers = Recorder(error=error).send([message("a"), message("b")], permit=permit())
    assert answers == [Answer(k, Verdict.THROTTLED, "throttled", "", "slow down", 2.5) for k in "ab"]


@given(count=st.integers(1, 50), poison=st.sets(st.integers(0, 49), max_size=3))
def test_only_those_that_spoil_a_call_are_refused_and_the_halvings_are_few(count, poison):
    bad = {str(n) for n in poison if n < count}
    provider = Fussy(bad)
    answers = provider.send([message(str(n)) for n in range(count)], permit=permit())
    assert [a.key for a in answers] == [str(n) for n in range(count)]
    assert {a.key for a in answers if a.verdict is Verdict.PERMANENT} == bad
    assert {a.key for a in answers if a.verdict is Verdict.SENT} == {str(n) for n in range(count)} - bad
    assert {a.detail for a in answers if a.verdict is Verdict.PERMANENT} <= {"1 bad"}
    accepted = [key for call in provider.calls if not bad.intersection(call) for key in call]
    assert len(accepted) == len(set(accepted)) == count - len(bad)
    assert len(provider.calls) <= 1 + 2 * len(bad) * math.ceil(math.log2(count or 1))


@pytest.mark.parametrize("verdict", [each for each in Verdict if each not in (Verdict.PERMANENT, Verdict.SENT)])
def test_a_call_that_fails_for_a_reason_that_is_no_messages_is_not_halved(verdict):
    provider = Fussy({"a"}, verdict)
    answers = provider.send([message("a"), message("b")], permit=permit())
    assert [a.verdict for a in answers] == [verdict] * 2
    assert provider.calls == [["a", "b"]]


def test_the_parts_of_a_halved_call_start_within_the_permit_or_not_at_all():
    provider = Fussy({"a"}, permit_calls=2)
    answers = provider.send([message(key) for key in "abcd"], permit=permit())
    assert provider.calls == [["a", "b", "c", "d"], ["a", "b"]]
    assert [a.verdict for a in answers] == [Verdict.NOT_STARTED] * 4


def test_what_is_no_answer_of_the_provider_is_let_through():
    with pytest.raises(ZeroDivisionError):
        Recorder(error=ZeroDivisionError()).send([message("a")], permit=permit())


def test_more_messages_than_a_call_takes_are_refused_with_both_numbers():
    provider = Recorder()
    with pytest.raises(ValueError, match="4 messages in one call of recorder: at most 3"):
        provider.send([message(str(n)) for n in range(4)], permit=permit())
    assert provider.calls == []


def test_a_permit_is_valid_until_its_instant():
    Permit.lasting(60).check()
    assert not Permit.lasting(0).is_valid()
    with pytest.raises(NotStarted):
        Permit.lasting(0).check()


def test_addresses_and_line_breaks_do_not_reach_the_ledger():
    words = "Email address is not verified: Ann <ann.b+c@example.com>,\r\n bob@example.org"
    assert scrub(words) == "Email address is not verified: Ann <<address>>, <address>"
    assert len(scrub("x" * 1000)) == 200


texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=30) | st.none() | st.integers()


@given(reason=texts, provider_id=texts, detail=texts, wait=st.none() | st.floats() | st.integers())
def test_whatever_a_provider_says_is_fit_for_the_ledger(reason, provider_id, detail, wait):
    said = Answer("a", Verdict.TRANSIENT, reason, provider_id, detail, wait)
    (answer,) = Recorder(answers=[said]).send([message("a")], permit=permit())
    assert text_fault(answer.reason + answer.provider_id + answer.detail) == ""
    assert answer.retry_after is None or 0 <= answer.retry_after <= 86_400


@pytest.mark.parametrize("provider_id", ["a\x00b", "half a \ud83d", "x" * 1_000, 17, None])
def test_the_id_of_a_message_that_was_sent_is_fit_for_the_ledger(provider_id):
    (answer,) = Recorder(answers=[Answer("a", Verdict.SENT, "", provider_id)]).send([message("a")], permit=permit())
    assert text_fault(answer.provider_id) == ""
    assert len(answer.provider_id) <= 200


def test_an_answer_that_fits_stays_as_it_is():
    said = Answer("a", Verdict.TRANSIENT, "busy", "ïd-1", "später", 7, (1,), (2,))
    assert Recorder(answers=[said]).send([message("a")], permit=permit()) == [said]


def test_no_provider_can_forget_to_mask_addresses():
    error = ProviderError(Verdict.TRANSIENT, "busy", detail="ann@example.com\r\nis unknown")
    (answer,) = Recorder(error=error).send([message("a")], permit=permit())
    assert answer.detail == "<address> is unknown"


def test_words_without_end_are_cut_and_no_half_address_is_left_of_them():
    assert scrub(" " * 5_000) == ""
    assert len(scrub("x" * 100_000)) == 200
    assert scrub("a" * 1_980 + " ann-of-the-hills@example.com") == "a" * 200
    assert scrub(" " * 1_990 + "ann-of-the-hills@example.com") in ("", "<address>")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "9" * 30}, 86_400.0),
        (
            {"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"},
            30.0,
        ),
        (
            {"retry-after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"},
            0.0,
        ),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "soon", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, None),
        ({"retry-after": "-5"}, None),
        (
            {
                "retry-after": "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
                "date": "Sat, 21 Nov 2026 10:00:00 GMT",
            },
            None,
        ),
        (
            {
                "retry-after": "Sat, 21 Nov 2026 10:00:30 +99999999999999999999",
                "date": "Sat, 21 Nov 2026 10:00:00 GMT",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_against_the_answers_own(headers, seconds):
    assert retry_after_seconds(headers) == seconds
