"""What the sender relies on, asked of every provider; see `docs/providers.md`."""

import inspect
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils.module_loading import import_string

from delivery import ledger, sending
from delivery.providers import fcm, registry, ses
from delivery.providers.base import Message, Permit, Provider, Verdict, by_status
from delivery.providers.pool import SLACK_S
from frontend.wording import REASONS
from scheduler_project import settings as project
from schedules.storable import text_fault
from tests import http_double
from tests.conformance.cases import CASES, POISON, Double, FailingDouble, people
from tests.http_double import PATIENCE_S, HttpDouble, Reply
from tests.service import in_threads

SHORT = {"connect_timeout": 1.0, "read_timeout": 1.0}


def _parameters(cases):
    with_database = pytest.mark.django_db(transaction=True)  # threads see what others have committed
    marked = [pytest.param(case, id=case.name, marks=[with_database] * case.provider.transactional) for case in cases]
    return pytest.mark.parametrize("case", marked, scope="module")


every_provider = _parameters(CASES)
network_provider = _parameters(case for case in CASES if case.is_network)
http_provider = _parameters(case for case in CASES if case.is_network and case.is_http)
email_provider = _parameters(case for case in CASES if case.is_email)
push_provider = _parameters(case for case in CASES if case.is_push)
network_push_provider = _parameters(case for case in CASES if case.is_push and case.is_network)


@pytest.fixture(scope="module")
def running(case, tmp_path_factory) -> Iterator[Double]:
    with pytest.MonkeyPatch.context() as patch, case.running(tmp_path_factory.mktemp(case.name)) as double:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield double


@pytest.fixture
def double(case, running) -> Double:
    if case.provider.transactional:
        people(case.provider.max_per_call)
    running.fresh()
    return running


@pytest.fixture
def provider(case, double) -> Provider:
    return case.make(double.url)


def send(provider: Provider, messages: list[Message], permit: Permit | None = None):
    permit = permit or Permit.lasting(60)
    if not provider.transactional:
        answers = provider.send(messages, permit=permit)
    else:
        with transaction.atomic():  # as the sender does
            answers = provider.send(messages, permit=permit)
    if provider.name in registry.BUILT_IN:
        kept = {answer.reason for answer in answers if answer.verdict is not Verdict.NOT_STARTED}
        assert kept <= {"", *REASONS}, "each reason has its sentence"
    return answers


def asked(double: Double) -> int:
    """Requests that came, where the double counts them."""
    return double.requests() if isinstance(double, FailingDouble) else 0


def short(answers):
    return [(answer.verdict, answer.reason) for answer in answers]


# Of all


def test_every_built_in_provider_has_a_case():
    assert {import_string(path) for path in registry.BUILT_IN.values()} <= {case.provider for case in CASES}


def test_what_the_registry_tells_of_a_provider_without_importing_it_is_true():
    built_in = {name: import_string(path) for name, path in registry.BUILT_IN.items()}
    assert {name: kind.name for name, kind in built_in.items()} == {name: name for name in built_in}
    assert {name for name, kind in built_in.items() if kind.repeats_unknown} == registry.REPEATING


def test_every_reason_of_the_built_in_providers_has_a_sentence():
    tables = (ses.STATUSES, ses.ERRORS, fcm.ERRORS, {status: by_status(status) for status in range(300, 600)})
    slugs = {slug for table in tables for _, slug in table.values()}
    assert {"daily_quota", "third_party_auth", "throttled"} <= slugs <= {"", *REASONS}


@every_provider
def test_it_is_made_from_the_settings_and_names_one_that_is_missing(case, settings):
    for name, value in case.settings.items():
        setattr(settings, name, value)
    assert isinstance(case.provider.from_settings(), case.provider)
    for name, value in case.settings.items():
        if value:
            setattr(settings, name, "")
            with pytest.raises(ImproperlyConfigured, match=name):
                case.provider.from_settings()
            setattr(settings, name, value)


@every_provider
def test_the_settings_of_a_built_in_provider_stand_among_the_settings(case):
    assert case.provider.name not in registry.BUILT_IN or set(case.settings) <= set(vars(project))


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


@email_provider
def test_an_e_mail_that_can_be_unsubscribed_from_says_so_in_both_headers_and_another_in_none(case, provider, double):
    url = "https://mail.example/u/AQEAAAAAAAAAK25ld3Oy38VET2eh-IVl-vIEZRxg"
    messages = [case.message(1)._replace(unsubscribe_url=url), case.message(2)]
    assert short(send(provider, messages)) == [(Verdict.SENT, "")] * 2
    assert double.headers(1) == {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
    assert double.headers(2) == {}


@push_provider
def test_each_device_that_has_the_message_is_named(case, provider):
    (answer,) = send(provider, [case.message(1)])
    assert answer.reached == (1,)
    assert answer.gone == ()


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
    assert asked(double) == 0


@every_provider
def test_after_the_permit_nothing_is_started(case, provider, double):
    assert {answer.verdict for answer in send(provider, [case.message(1), case.message(2)], Permit(0))} == {
        Verdict.NOT_STARTED
    }
    assert not double.reached()
    assert asked(double) == 0


@every_provider
def test_threads_share_it(case, provider, double):
    def run(first: int):
        return lambda: [send(provider, [case.message(first + n)]) for n in range(3)]

    results = in_threads(*(run(first) for first in (1, 11, 21, 31)))
    assert {answer.verdict for calls in results for (answer,) in calls} == {Verdict.SENT}
    assert double.reached() == Counter(first + n for first in (1, 11, 21, 31) for n in range(3))


# Of those that speak to a server


@network_provider
def test_its_double_can_fail_in_every_way(case):
    assert case.ways() <= set(case.rules)
    assert any(how.startswith("denied") for how in case.rules)


@network_provider
def test_a_call_with_the_times_it_has_by_itself_ends_well_within_its_claim(case):
    given = inspect.signature(case.provider).parameters
    connect, read = (given[name].default for name in ("connect_timeout", "read_timeout"))
    assert sending.PERMIT_S + connect + read + SLACK_S < ledger.LEASE_S


def has_connections(port: int) -> bool:
    """Whether a connection to it stands, as the kernel knows; the server notes it some moments later."""
    to = [line.split()[2:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [f"0100007F:{port:04X}", "01"] in to


class UntilConnected(Permit):
    """Runs out while a connection is being made."""

    def __init__(self, server: HttpDouble) -> None:
        super().__init__(0)
        self._server = server

    def is_valid(self) -> bool:
        return not has_connections(urlsplit(self._server.url).port)


@network_provider
def test_a_permit_that_runs_out_while_connecting_lets_no_byte_out(case, double):
    with HttpDouble() as server:
        (answer,) = send(case.make(server.url), [case.message(1)], UntilConnected(server))
        assert answer.verdict is Verdict.NOT_STARTED
        give_up = time.monotonic() + PATIENCE_S
        while not server.connections and time.monotonic() < give_up:  # it notices when it gets to it
            time.sleep(0.01)
        assert (server.connections, server.bytes_read) == (1, 0)


@network_provider
def test_a_server_that_falls_silent_sees_one_request_and_the_outcome_is_unknown(case, double):
    double.fail("silence")
    started = time.monotonic()
    answers = send(case.make(double.url, **SHORT), [case.message(1)])
    assert [answer.verdict for answer in answers] == [Verdict.UNKNOWN]
    assert time.monotonic() - started < PATIENCE_S
    assert double.requests() == 1


@http_provider
@pytest.mark.parametrize("said", [b"", http_double.HEAD], ids=["nothing yet", "the head"])
def test_a_server_that_answers_by_drops_is_given_up_as_one_that_is_silent(case, double, said):
    with HttpDouble() as server:
        server.failure = http_double.drip(said)
        made = case.make(server.url, **SHORT)
        started = time.monotonic()
        assert [answer.verdict for answer in send(made, [case.message(1)])] == [Verdict.UNKNOWN]
        assert time.monotonic() - started < PATIENCE_S
        assert len(server.requests) == 1


@network_provider
def test_an_address_that_is_none_is_found_before_anybody_is_unclear(case, double):
    with suppress(ImproperlyConfigured):
        (answer,) = send(case.make("nonsense"), [case.message(1)])
        assert answer.verdict in (Verdict.TRANSIENT, Verdict.MISCONFIGURED)


@network_provider
@pytest.mark.parametrize("how", ["half", "garbage", "reset"])
def test_an_answer_that_is_cut_or_unreadable_leaves_the_outcome_unknown_and_is_not_asked_for_again(
    case, provider, double, how
):
    double.fail(how)
    assert [answer.verdict for answer in send(provider, [case.message(1)])] == [Verdict.UNKNOWN]
    assert double.requests() == 1


@network_provider
def test_a_refused_connection_may_be_tried_again(case, double):
    answers = send(case.make("http://127.0.0.1:1", **SHORT), [case.message(1), case.message(2)])
    assert short(answers) == [(Verdict.TRANSIENT, "unreachable")] * 2


@network_provider
def test_a_servers_own_error_may_be_tried_again(case, provider, double):
    double.fail("error")
    (answer,) = send(provider, [case.message(1)])
    again = {Verdict.TRANSIENT, Verdict.UNKNOWN} if provider.repeats_unknown else {Verdict.TRANSIENT}
    assert answer.verdict in again
    assert double.requests() == 1


@network_provider
def test_being_asked_to_slow_down_names_the_time_to_wait(case, provider, double):
    double.fail("throttled")
    answers = send(provider, [case.message(1), case.message(2)])
    assert [(answer.verdict, answer.retry_after) for answer in answers] == [(Verdict.THROTTLED, case.retry_after)] * 2


@network_provider
def test_a_refused_account_is_no_fault_of_the_message(case, provider, double):
    for how in (how for how in case.rules if how.startswith("denied")):
        double.fail(how)
        assert [answer.verdict for answer in send(provider, [case.message(1)])] == [Verdict.MISCONFIGURED], how


@http_provider
@pytest.mark.parametrize("status", [401, 403])
def test_an_account_that_is_refused_without_a_word_is_no_fault_of_the_message_either(case, double, status):
    with HttpDouble(lambda request: Reply(status, b"<html>")) as server:
        (answer,) = send(case.make(server.url), [case.message(1)])
    assert (answer.verdict, answer.reason) == (Verdict.MISCONFIGURED, "access_denied")


@network_provider
def test_a_message_that_is_refused_alone_fails_alone(case, provider, double):
    double.fail("refused_alone")
    answers = send(provider, [case.message(recipient) for recipient in (1, POISON, 2)])
    assert [answer.verdict for answer in answers] == [Verdict.SENT, Verdict.PERMANENT, Verdict.SENT]
    assert answers[1].reason
    assert double.reached() == Counter([1, 2])


@network_provider
def test_a_message_for_which_the_whole_call_is_refused_fails_alone(case, provider, double):
    double.fail("refuses_the_call" if case.is_bulk else "refused_alone")
    answers = send(provider, [case.message(recipient) for recipient in (1, 2, POISON, 3)])
    assert [answer.verdict for answer in answers] == [Verdict.SENT, Verdict.SENT, Verdict.PERMANENT, Verdict.SENT]
    assert double.reached() == Counter([1, 2, 3])


@network_push_provider
def test_a_device_that_is_not_known_any_more_is_named(case, provider, double):
    double.fail("refused_alone")
    gone, kept = send(provider, [case.message(POISON), case.message(1)])
    assert (gone.gone, gone.reached) == ((POISON,), ())
    assert (kept.gone, kept.reached) == ((), (1,))


@http_provider
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 503])
def test_what_the_ledger_keeps_names_nobody_and_can_be_kept(case, double, status):
    def echo(request) -> Reply:
        words = request.body.decode(errors="replace")
        words = f"{case.address(1)} is unknown\x00 \ud83d; {words}"
        return Reply(status, json.dumps({"message": words, "error": {"message": words}}).encode())

    with HttpDouble(echo) as server:
        (answer,) = send(case.make(server.url), [case.message(1)])
    assert len(answer.detail) <= 200
    assert text_fault(answer.detail + answer.provider_id + answer.reason) == ""
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
