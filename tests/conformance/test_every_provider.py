"""What the sender relies on, asked of every provider; see `docs/providers.md`."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from django.db import transaction
from django.utils.module_loading import import_string

from delivery.providers import registry
from delivery.providers.base import Message, Permit, Provider, Verdict
from tests.conformance.cases import CASES, POISON, Case, Double, people
from tests.http_double import HttpDouble, Reply
from tests.service import in_threads

SHORT = {"connect_timeout": 1.0, "read_timeout": 1.0}


def _parameters(cases):
    with_database = pytest.mark.django_db(transaction=True)  # threads see what others have committed
    marked = [pytest.param(case, id=case.name, marks=[with_database] * case.has_database) for case in cases]
    return pytest.mark.parametrize("case", marked, scope="module")


every_provider = _parameters(CASES)
network_provider = _parameters(case for case in CASES if case.rules)


@pytest.fixture(scope="module")
def running(case, tmp_path_factory) -> Iterator[Double]:
    with pytest.MonkeyPatch.context() as patch, case.running(tmp_path_factory.mktemp(case.name)) as double:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield double


@pytest.fixture
def double(case, running) -> Double:
    if case.has_database:
        people(case.provider.max_per_call)
    running.fresh()
    return running


@pytest.fixture
def provider(case, double) -> Provider:
    return case.make(double.url)


def send(provider: Provider, messages: list[Message], permit: Permit | None = None):
    permit = permit or Permit.lasting(60)
    if not provider.transactional:
        return provider.send(messages, permit=permit)
    with transaction.atomic():  # as the sender does
        return provider.send(messages, permit=permit)


def failing(double: Double, case: Case, how: str) -> None:
    if how not in case.rules:
        pytest.skip(f"the double has no way to {how}")
    double.fail(how)


def short(answers):
    return [(answer.verdict, answer.reason) for answer in answers]


# Of all


def test_every_built_in_provider_has_a_case():
    assert {import_string(path) for path in registry.BUILT_IN.values()} <= {case.provider for case in CASES}


@every_provider
def test_what_it_is_is_declared(case):
    kind = case.provider
    assert kind.name
    assert kind.channels
    assert kind.channels <= {"email", "push", "in_app"}
    assert kind.max_per_call >= 1


@every_provider
def test_each_message_gets_its_answer_in_the_order_of_the_messages(case, provider, double):
    messages = [case.message(recipient) for recipient in (3, 1, 2)]
    answers = send(provider, messages)
    assert [answer.key for answer in answers] == [message.key for message in messages]
    assert short(answers) == [(Verdict.SENT, "")] * 3
    assert double.reached() == Counter([1, 2, 3])


@every_provider
def test_each_device_that_has_the_message_is_named(case, provider):
    (answer,) = send(provider, [case.message(1)])
    assert answer.reached == tuple(target.device_id for target in case.message(1).targets)


@every_provider
def test_a_full_call_is_sent_and_one_message_more_is_the_callers_mistake(case, provider, double):
    messages = [case.message(recipient) for recipient in range(1, provider.max_per_call + 2)]
    with pytest.raises(ValueError, match="at most"):
        send(provider, messages)
    assert not double.reached()
    assert {answer.verdict for answer in send(provider, messages[:-1])} == {Verdict.SENT}
    assert double.reached() == Counter(range(1, provider.max_per_call + 1))


@every_provider
def test_no_messages_are_no_call(provider, double):
    assert send(provider, []) == []
    assert not double.reached()


@every_provider
def test_after_the_permit_nothing_is_started(case, provider, double):
    assert {answer.verdict for answer in send(provider, [case.message(1), case.message(2)], Permit(0))} == {
        Verdict.NOT_STARTED
    }
    assert not double.reached()


@every_provider
def test_threads_share_it(case, provider, double):
    def run(first: int):
        return lambda: [send(provider, [case.message(first + n)]) for n in range(3)]

    results = in_threads(*(run(first) for first in (1, 11, 21, 31)))
    assert {answer.verdict for calls in results for (answer,) in calls} == {Verdict.SENT}
    assert double.reached() == Counter(first + n for first in (1, 11, 21, 31) for n in range(3))


# Of those that speak to a server


class UntilConnected(Permit):
    """Runs out while a connection is being made."""

    def __init__(self, server: HttpDouble) -> None:
        super().__init__(0)
        self._server = server

    def is_valid(self) -> bool:
        for _ in range(30):  # the server notes a connection a moment after the client has it
            if self._server.connections:
                return False
            time.sleep(0.01)
        return True


@network_provider
def test_a_permit_that_runs_out_while_connecting_lets_no_byte_out(case, double):
    with HttpDouble() as server:
        (answer,) = send(case.make(server.url), [case.message(1)], UntilConnected(server))
        assert answer.verdict is Verdict.NOT_STARTED
        assert (server.connections, server.bytes_read) == (1, 0)


@network_provider
def test_a_server_that_falls_silent_sees_one_request_and_the_outcome_is_unknown(case, double):
    failing(double, case, "silence")
    started = time.monotonic()
    answers = send(case.make(double.url, **SHORT), [case.message(1)])
    assert [answer.verdict for answer in answers] == [Verdict.UNKNOWN]
    assert time.monotonic() - started < 8
    assert double.requests() == 1


@network_provider
@pytest.mark.parametrize("how", ["half", "garbage", "reset"])
def test_an_answer_that_is_cut_or_unreadable_leaves_the_outcome_unknown_and_is_not_asked_for_again(
    case, provider, double, how
):
    failing(double, case, how)
    assert [answer.verdict for answer in send(provider, [case.message(1)])] == [Verdict.UNKNOWN]
    assert double.requests() == 1


@network_provider
def test_a_refused_connection_may_be_tried_again(case, double):
    answers = send(case.make("http://127.0.0.1:1", **SHORT), [case.message(1), case.message(2)])
    assert short(answers) == [(Verdict.TRANSIENT, "unreachable")] * 2


@network_provider
def test_a_servers_own_error_may_be_tried_again(case, provider, double):
    failing(double, case, "error")
    assert [answer.verdict for answer in send(provider, [case.message(1)])] == [Verdict.TRANSIENT]
    assert double.requests() == 1


@network_provider
def test_being_asked_to_slow_down_names_the_time_to_wait(case, provider, double):
    failing(double, case, "throttled")
    answers = send(provider, [case.message(1), case.message(2)])
    assert [(answer.verdict, answer.retry_after) for answer in answers] == [(Verdict.THROTTLED, 7)] * 2


@network_provider
def test_a_refused_account_is_no_fault_of_the_message(case, provider, double):
    ways = [how for how in case.rules if how.startswith("denied")]
    assert ways, "a double has to refuse the account in some way"
    for how in ways:
        double.fail(how)
        assert [answer.verdict for answer in send(provider, [case.message(1)])] == [Verdict.MISCONFIGURED], how


@network_provider
def test_a_message_that_is_refused_alone_fails_alone(case, provider, double):
    failing(double, case, "refused_alone")
    answers = send(provider, [case.message(recipient) for recipient in (1, POISON, 2)])
    assert [answer.verdict for answer in answers] == [Verdict.SENT, Verdict.PERMANENT, Verdict.SENT]
    assert answers[1].reason
    assert double.reached() == Counter([1, 2])


@network_provider
def test_a_message_for_which_the_whole_call_is_refused_fails_alone(case, provider, double):
    failing(double, case, "refuses_the_call" if case.is_bulk else "refused_alone")
    answers = send(provider, [case.message(recipient) for recipient in (1, 2, POISON, 3)])
    assert [answer.verdict for answer in answers] == [Verdict.SENT, Verdict.SENT, Verdict.PERMANENT, Verdict.SENT]
    assert double.reached() == Counter([1, 2, 3])


@network_provider
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 503])
def test_what_the_ledger_keeps_names_nobody(case, double, status):
    def echo(request) -> Reply:
        words = request.body.decode(errors="replace")
        words = f"{case.address(1)} is unknown; {words}"
        return Reply(status, json.dumps({"message": words, "error": {"message": words}}).encode())

    with HttpDouble(echo) as server:
        (answer,) = send(case.make(server.url), [case.message(1)])
    assert len(answer.detail) <= 200
    for word in (case.address(1), case.address(1)[:20], "person-0001@"):
        assert word not in answer.detail
        assert word not in answer.reason


@network_provider
def test_a_fork_after_it_was_made_and_before_it_was_used_is_safe(case, provider, double):
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            (answer,) = send(provider, [case.message(1)])
            os._exit(0 if answer.verdict is Verdict.SENT else 3)
        except BaseException:
            os._exit(4)
    (answer,) = send(provider, [case.message(2)])
    assert answer.verdict is Verdict.SENT
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
