"""Which people share a provider call."""

from collections import Counter
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from delivery.calls import Call, ask, share_out, together
from delivery.caps import UNCOUNTED
from delivery.providers.base import Answer, Message, Permit, Provider, Verdict
from delivery.routes import Route
from tests.recording import RecordingProvider, sent

PERMIT = Permit.lasting(3600)


class Picky(RecordingProvider):
    """What has HTML can't go with what has none."""

    max_per_call = 10

    def kind(self, message):
        return "html" if message.html else "text"


def call(claim: str, count: int, *, html: str = "", settled: tuple[str, ...] = (), by: Provider | None = None) -> Call:
    messages = [Message(f"{claim}-{n}", n, f"{n}@example.com", "s", "t", html) for n in range(count)]
    route = Route("email", by or RecordingProvider(), "email")
    claimed = SimpleNamespace(name=claim, work=SimpleNamespace(occurrence_id=1))
    return Call(claimed, messages, list(settled), UNCOUNTED, PERMIT, route)


@given(st.lists(st.tuples(st.integers(1, 37), st.booleans()), max_size=12))
def test_everybody_goes_once_in_as_few_calls_as_there_can_be(sizes):
    made = [call(str(number), size, html="<p>" * html) for number, (size, html) in enumerate(sizes)]
    bundles = list(together(Picky(), made))
    keys = [message.key for bundle in bundles for part in bundle for message in part.messages]
    assert Counter(keys) == Counter(message.key for each in made for message in each.messages)
    for bundle in bundles:
        assert 1 <= sum(len(part.messages) for part in bundle) <= Picky.max_per_call
        assert len({bool(message.html) for part in bundle for message in part.messages}) == 1
        assert all(part.messages for part in bundle)
    least = sum(-(-sum(size for size, html in sizes if html is kind) // Picky.max_per_call) for kind in (False, True))
    assert len(bundles) == least


def test_who_needs_no_call_is_recorded_once_with_the_first_part():
    parts = [part for bundle in together(Picky(), [call("a", 25, settled=("bert",))]) for part in bundle]
    assert [len(part.messages) for part in parts] == [10, 10, 5]
    assert [part.settled for part in parts] == [["bert"], [], []]


def test_each_claim_gets_its_own_answers():
    bundle = [call("a", 3), call("b", 2)]
    RecordingProvider.reset()
    answered = ask(bundle)
    assert [[answer.key for answer in each.answers] for each in answered] == [["a-0", "a-1", "a-2"], ["b-0", "b-1"]]
    assert len(RecordingProvider.calls) == 1


def test_an_answer_that_is_missing_shifts_no_other():
    RecordingProvider.reset()
    RecordingProvider.answer = staticmethod(lambda message: None if message.key == "a-1" else sent(message))
    first, second = ask([call("a", 3), call("b", 2)])
    RecordingProvider.reset()
    assert [answer.verdict for answer in first.answers] == [Verdict.SENT, Verdict.UNKNOWN, Verdict.SENT]
    assert [answer.key for answer in second.answers] == ["b-0", "b-1"]


def test_a_provider_that_raises_leaves_all_of_the_call_unknown():
    class Broken(RecordingProvider):
        def _call(self, messages, *, permit):
            raise KeyError("a bug")

    first, second = ask([call("a", 1, by=Broken()), call("b", 1, by=Broken())])
    unknown = Answer("", Verdict.UNKNOWN, "provider_raised", detail="KeyError")
    assert first.answers == [unknown._replace(key="a-0")]
    assert second.answers == [unknown._replace(key="b-0")]


def test_of_a_probe_the_first_message_alone_is_and_nobody_is_left_out():
    probe = Route("email", Picky(), "email:picky", is_probe=True)
    for sizes in ([1], [3], [1, 2], [25, 1]):
        made = [call(str(number), size, settled=("bert",)) for number, size in enumerate(sizes)]
        first, *others = share_out(made, probe)
        assert [(part.route, len(part.messages)) for part in first] == [(probe, 1)]
        assert all(not part.route.is_probe for bundle in others for part in bundle)
        everybody = [part for bundle in (first, *others) for part in bundle]
        assert sum(len(part.messages) for part in everybody) == sum(sizes)
        assert sum(len(part.settled) for part in everybody) == len(sizes)
    assert list(share_out([], probe)) == []
