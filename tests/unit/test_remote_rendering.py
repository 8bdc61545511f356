"""How the template service is asked for many people's messages: together, in pieces, and whose fault a failure is."""

import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from delivery import remote_rendering
from delivery.remote_rendering import Blame, Remote, Unrendered, Wanted, asking, render_together
from delivery.remote_rendering.kept import Kept
from delivery.rendering import Rendered, Shared
from delivery.rendering_limits import RenderError
from schedules.template_service import client
from schedules.template_service.client import Gone, ItemError, Message, Refused, Unavailable

AT = datetime(2026, 12, 24, 17, 0, tzinfo=UTC)
SHARED = Shared("Spring", "Europe/Vienna", AT)
EVERY_CHANNEL = frozenset({"email", "push", "in_app"})


def remote(*tokens: str, pk: int = 1) -> Remote:
    return Remote(pk, f"t{pk}", "v1", EVERY_CHANNEL, tokens)


NAMED = remote("name")


class Service:
    """Answers with each item's name, but for what ``fault`` raises or says of items; counts its calls' sizes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.together = 0
        self.most_together = 0
        self.fault = lambda items: None
        self._lock = threading.Lock()

    def render(self, *, template_id, version, channel, items, timeout_s):
        with self._lock:
            self.sizes.append(len(items))
            self.together += 1
            self.most_together = max(self.most_together, self.together)
        try:
            if error := self.fault(items):
                raise error
            return [Message("s", str(item.tokens.get("name", "nobody")), "", "en") for item in items]
        finally:
            with self._lock:
                self.together -= 1


@pytest.fixture
def service(monkeypatch):
    remote_rendering.forget()
    found = Service()
    monkeypatch.setattr(client, "render", found.render)
    yield found
    remote_rendering.forget()


def named(names):
    return [{"attributes": {"name": name}} for name in names]


def ask(names, of=NAMED, *, channel="email", timeout_s=5.0):
    return render_together([Wanted(of, channel, named(names), SHARED)], timeout_s=timeout_s)


def found(done):
    """Texts, reasons and blames of everybody."""
    (results,) = done.results
    return [
        each.text if isinstance(each, Rendered) else each.reason if isinstance(each, RenderError) else each.blame
        for each in results
    ]


def names_of(items):
    return {item.tokens.get("name") for item in items}


# Together


def test_more_than_a_call_may_hold_goes_in_several_side_by_side(service):
    service.fault = lambda items: time.sleep(0.05)
    names = [str(number) for number in range(1_203)]
    assert found(ask(names)) == names
    assert sorted(service.sizes) == [203, 500, 500]
    assert service.most_together == 3


def test_several_claims_of_a_template_share_a_call_and_get_their_own(service):
    done = render_together([Wanted(NAMED, "email", named(part), SHARED) for part in ("ab", "cd")], timeout_s=5)
    assert [[each.text for each in results] for results in done.results] == [["a", "b"], ["c", "d"]]
    assert service.sizes == [4]


def test_channels_and_templates_do_not(service):
    other = remote("name", pk=2)
    wanted = [Wanted(NAMED, "email", named("a"), SHARED), Wanted(NAMED, "push", named("a"), SHARED)]
    done = render_together([*wanted, Wanted(other, "email", named("a"), SHARED)], timeout_s=5)
    assert service.sizes == [1, 1, 1]
    assert (done.asked, done.reused) == (3, 0)


def test_the_same_item_is_sent_once(service):
    done = ask("abacab")
    assert found(done) == list("abacab")
    assert service.sizes == [3]
    assert (done.asked, done.reused) == (3, 3)


def test_an_attribute_that_is_too_long_is_not_even_sent(service):
    assert found(ask(["a", "x" * 20_000])) == ["a", "too_large"]
    assert service.sizes == [1]


def test_nobody_is_asked_for_a_channel_in_which_nothing_is_said(service):
    silent = Remote(1, "t1", "v1", frozenset({"push"}), ())
    assert found(ask("ab", silent)) == ["no_content"] * 2
    assert service.sizes == []


# What is sent


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("name", "Ada"),
        ("recipient.attributes.name", "Ada"),
        ("recipient.attributes", {"name": "Ada", "address": {"city": "Wien"}, "plan": None}),
        ("address.city", "Wien"),
        ("recipient.email", "ada@example.org"),
        ("recipient.external_id", "u-1"),
        ("schedule.name", "Spring"),
        ("occurrence.at", "2026-12-24T17:00:00Z"),
    ],
)
def test_a_token_is_sent_under_the_name_that_the_template_declares(token, value):
    recipient = {
        "external_id": "u-1",
        "email": "ada@example.org",
        "attributes": {"name": "Ada", "address": {"city": "Wien"}, "plan": None},
    }
    item = remote(token).item(recipient, SHARED)
    assert item.tokens == {token: value}
    assert json.dumps(item)


@pytest.mark.parametrize("token", ["plan", "missing", "name.deeper", "recipient.phone", "occurrence.at.hour", "t"])
def test_what_is_not_there_is_left_out(token):
    assert remote(token).item({"attributes": {"name": "Ada", "plan": None}}, SHARED).tokens == {}


@pytest.mark.parametrize(
    ("zone", "sent"), [("Asia/Tokyo", "Asia/Tokyo"), ("", "Europe/Vienna"), ("X/Y", "Europe/Vienna")]
)
def test_the_zone_is_the_readers_or_the_schedules(zone, sent):
    assert remote().item({"time_zone": zone}, SHARED).time_zone == sent
    assert remote().item({}, Shared("s", "nowhere", AT)).time_zone == "UTC"


# What is kept


def test_a_message_in_which_nobody_stands_is_kept_for_the_next_call(service):
    of_nobody = remote("schedule.name", "occurrence.at")
    assert ask("ab", of_nobody).asked == 1
    assert ask("cd", of_nobody).asked == 0
    assert ask("ab").asked == ask("ab").asked == 2


def test_an_error_is_not_kept(service, monkeypatch):
    monkeypatch.setattr(client, "render", lambda **said: [ItemError("template_error", "x") for _ in said["items"]])
    assert found(ask("a", remote())) == ["template_error"]
    monkeypatch.setattr(client, "render", service.render)
    assert found(ask("a", remote())) == ["nobody"]


def test_what_is_kept_has_its_bounds():
    kept = Kept(most=8_000, seconds=60)
    message = Rendered("", "x" * 200, "", "en")
    for number in range(20):
        kept.put(bytes([number]), message)
    there = [number for number in range(20) if kept.get(bytes([number]))]
    assert there == list(range(11, 20))
    kept.put(b"huge", Rendered("", "x" * 2_000, "", "en"))
    assert kept.get(b"huge") is None
    assert kept.get(bytes([19]))
    brief = Kept(most=8_000, seconds=-1)
    brief.put(b"a", message)
    assert brief.get(b"a") is None


# Whose fault


def failing_on(*poison, error=None):
    def fault(items):
        return (error or Unavailable("server_error", "has an error")) if names_of(items) & set(poison) else None

    return fault


@pytest.mark.parametrize("count", [1, 2, 7, 100, 500])
def test_whoever_spoils_a_call_stands_alone_in_the_end(service, count):
    names = [str(number) for number in range(count)]
    service.fault = failing_on("0")
    assert found(ask(names)) == [Blame.PERSON, *names[1:]]
    assert len(service.sizes) <= 25


def test_a_service_that_fails_now_and_then_blames_nobody(service):
    failures = iter([Unavailable("server_error", "has an error")] * 3)
    service.fault = lambda items: next(failures, None) if "2" in names_of(items) else None
    assert found(ask([str(number) for number in range(4)])) == ["0", "1", "2", "3"]
    assert service.sizes[0] == 4


def test_and_so_do_several(service):
    names = [str(number) for number in range(100)]
    service.fault = failing_on("3", "50", "99")
    told = Counter(map(str, found(ask(names))))
    assert told.pop(str(Blame.PERSON)) == 3
    assert sum(told.values()) == 97


def test_a_single_one_is_to_blame_if_there_is_any_message(service):
    service.fault = failing_on("a", error=Refused("refused", "refuses the request (422)"))
    done = ask("a")
    ((result,),) = done.results
    assert (result.blame, result.reason, result.is_refused) == (Blame.PERSON, "template_service_error", True)
    assert not done.failures


def test_nobody_is_blamed_where_the_service_answers_for_nobody(service):
    service.fault = lambda items: Unavailable("server_error", "has an error")
    done = ask("abc")
    assert found(done) == [Blame.SERVICE] * 3
    assert done.failures.keys() == {1}
    assert service.sizes == [3, 1]


def test_nor_where_it_has_a_message_without_tokens_alone(service):
    service.fault = lambda items: Unavailable("server_error", "x") if names_of(items) != {None} else None
    done = ask([str(number) for number in range(200)])
    assert set(found(done)) == {Blame.SERVICE}
    assert len(service.sizes) <= 40


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("unreachable", "can't be reached"),
        Unavailable("throttled", "asks to come later (429)", 7),
        Refused("denied", "does not take the token (401)"),
        Refused("not_found", "has no such address (404)"),
        Refused("certificate", "shows a certificate that can't be trusted"),
    ],
    ids=lambda error: error.code,
)
def test_what_concerns_everybody_is_asked_once(service, error):
    service.fault = lambda items: error
    done = ask("abc")
    assert found(done) == [Blame.SERVICE] * 3
    assert (service.sizes, done.failures) == ([3], {1: error})


def test_a_version_that_is_gone_is_each_ones_own(service):
    service.fault = lambda items: Gone("gone", "has this version no longer (410)")
    done = ask("ab")
    assert found(done) == ["template_gone"] * 2
    assert (done.failures, done.answered) == ({}, {1})


# Time


def slow_on(slow):
    def fault(items):
        if slow not in names_of(items):
            return None
        time.sleep(0.15)
        return Unavailable("timeout", "did not answer")

    return fault


def test_a_slow_one_is_found_over_several_calls_and_the_others_come_through(service):
    names = [str(number) for number in range(40)]
    service.fault = slow_on("5")
    got: set[str] = set()
    for _ in range(8):
        told = found(ask(names, timeout_s=0.16))
        got |= {each for each in told if isinstance(each, str)}
        if Blame.PERSON in told:
            break
    assert told[5] is Blame.PERSON
    assert got == set(names) - {"5"}


def test_pieces_grow_again_once_all_are_answered(service):
    asking._sizes[asking._Spec(NAMED, "email")] = 10
    for _ in range(4):
        ask([str(number) for number in range(100)])
    assert service.sizes[:10] == [10] * 10
    assert len(service.sizes) == 10 + 5 + 3 + 2
    for _ in range(3):
        ask("a")
    assert not asking._sizes


def test_without_time_nobody_is_asked_and_nobody_is_blamed(service):
    done = ask("ab", timeout_s=0.01)
    assert found(done) == [Blame.TIME] * 2
    assert (service.sizes, done.failures) == ([], {})


def test_an_unrendered_message_says_why_in_words():
    silent = Unrendered(Blame.TIME, "template_service_away")
    assert "did not answer in time" in silent.words
