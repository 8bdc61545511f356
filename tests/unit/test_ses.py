"""The SES provider with botocore as it is, but without a network: requests are caught before they leave."""

import io
import json
import time
from functools import cache

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from delivery.providers import wire
from delivery.providers.base import Message, Permit, Verdict
from delivery.providers.ses import ERRORS, STATUSES, SesProvider
from tests import http_double
from tests.http_double import PATIENCE_S, HttpDouble, Reply

MODEL = ServiceModel(Loader().load_service_model("sesv2", "service-2"))
BULK = MODEL.operation_model("SendBulkEmail")


class Raw(io.BytesIO):
    """A body as AWSResponse reads it."""

    def stream(self):
        yield self.read()


class Ses:
    """A provider whose requests end here: `answer` is a function of the request's JSON."""

    present = None

    def __init__(self, answer=None, status=200, headers=None, **options):
        self.bodies = []
        self.answer = answer or accept_all
        self.status = status
        self.headers = headers or {}
        self.provider = provider(**options)
        Ses.present = self

    def catch(self, request):
        wire.current().begin()
        self.bodies.append(request.body)
        content = self.answer(json.loads(request.body))
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        return AWSResponse(request.url, self.status, self.headers, Raw(raw))

    def send(self, *messages):
        return self.provider.send(messages, permit=Permit.lasting(60))

    @property
    def request(self):
        (body,) = self.bodies
        return json.loads(body)


@cache
def provider(**options):
    """Made once per set of options, since making a client takes a fifth of a second."""
    made = SesProvider(sender="Shop <shop@example.com>", region="eu-central-1", **options)
    hooks = made.client().meta.events
    hooks.register("before-send.sesv2.SendBulkEmail", lambda request, **_: Ses.present.catch(request))
    return made


@pytest.fixture(autouse=True)
def _credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def accept_all(request):
    entries = enumerate(request["BulkEmailEntries"])
    return {"BulkEmailEntryResults": [{"Status": "SUCCESS", "MessageId": f"id-{n}"} for n, _ in entries]}


def statuses(*given):
    return lambda _: {"BulkEmailEntryResults": [{"Status": s, "Error": "as asked"} for s in given]}


def message(key="20261121-17-1", to="ann@example.com", subject="Hi", text="Hello", html="<p>Hello</p>"):
    return Message(key, 1, to, subject, text, html)


def messages(number, **fields):
    return [message(key=f"20261121-17-{n}", **fields) for n in range(number)]


def short(answers):
    return [(a.verdict, a.reason) for a in answers]


def test_a_call_carries_each_message_with_its_address_its_key_and_its_own_content():
    ses = Ses(configuration_set="events")
    ses.send(message(subject="Grüße {{x}}", text="a & b", html='<a href="/">&amp;</a>'), message(key="k2"))
    request = ses.request
    assert request["FromEmailAddress"] == "Shop <shop@example.com>"
    assert request["ConfigurationSetName"] == "events"
    template = request["DefaultContent"]["Template"]["TemplateContent"]
    assert template == {"Subject": "{{subject}}", "Text": "{{text}}", "Html": "{{html}}"}
    first, second = request["BulkEmailEntries"]
    assert first["Destination"] == {"ToAddresses": ["ann@example.com"]}
    assert first["ReplacementTags"] == [{"Name": "delivery", "Value": "20261121-17-1"}]
    data = first["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"]
    assert json.loads(data) == {
        "subject": "Grüße {{x}}",
        "text": "a & b",
        "html": '<a href="/">&amp;</a>',
    }
    assert second["ReplacementTags"] == [{"Name": "delivery", "Value": "k2"}]


def test_an_accepted_message_is_sent_with_the_providers_id():
    (first, second) = Ses().send(*messages(2))
    assert (first.verdict, first.provider_id) == (Verdict.SENT, "id-0")
    assert (second.verdict, second.provider_id) == (Verdict.SENT, "id-1")


def test_every_status_and_every_error_of_the_service_model_is_classified():
    results = BULK.output_shape.members["BulkEmailEntryResults"]
    assert set(results.member.members["Status"].enum) == set(STATUSES)
    assert {shape.name for shape in BULK.error_shapes} <= set(ERRORS)


@pytest.mark.parametrize("status", sorted(set(STATUSES) - {"SUCCESS"}))
def test_each_status_of_a_message_becomes_its_verdict_and_leaves_the_others_alone(status):
    answers = Ses(answer=statuses("SUCCESS", status)).send(*messages(2))
    assert short(answers) == [(Verdict.SENT, ""), STATUSES[status]]
    assert answers[1].detail == "as asked"


@pytest.mark.parametrize(
    ("status", "code", "words", "expected"),
    [
        (429, "TooManyRequestsException", "Rate", (Verdict.THROTTLED, "throttled")),
        (400, "ThrottlingException", "Maximum sending rate exceeded.", (Verdict.THROTTLED, "throttled")),
        (429, "", "", (Verdict.THROTTLED, "throttled")),
        (400, "LimitExceededException", "too many", (Verdict.MISCONFIGURED, "limit_exceeded")),
        (400, "MessageRejected", "virus", (Verdict.PERMANENT, "message_rejected")),
        (400, "BadRequestException", "bad", (Verdict.PERMANENT, "bad_request")),
        (400, "SomethingNew", "bad", (Verdict.PERMANENT, "bad_request")),
        (413, "", "", (Verdict.PERMANENT, "too_large")),
        (404, "NotFoundException", "set", (Verdict.MISCONFIGURED, "configuration_set_not_found")),
        (400, "AccountSuspendedException", "", (Verdict.MISCONFIGURED, "account_suspended")),
        (400, "SendingPausedException", "", (Verdict.MISCONFIGURED, "sending_paused")),
        (
            400,
            "MailFromDomainNotVerifiedException",
            "",
            (Verdict.MISCONFIGURED, "identity_not_verified"),
        ),
        (
            400,
            "MessageRejected",
            "Email address is not verified.",
            (Verdict.MISCONFIGURED, "identity_not_verified"),
        ),
        (400, "ThrottlingException", "Daily message quota exceeded", (Verdict.MISCONFIGURED, "daily_quota")),
        (403, "SignatureDoesNotMatch", "", (Verdict.MISCONFIGURED, "access_denied")),
        (400, "ExpiredTokenException", "", (Verdict.MISCONFIGURED, "access_denied")),
        *[
            (400, code, "", (Verdict.MISCONFIGURED, "access_denied"))
            for code in (
                "AccessDeniedException",
                "IncompleteSignature",
                "InvalidClientTokenId",
                "InvalidSignatureException",
                "MissingAuthenticationToken",
                "NotAuthorized",
                "OptInRequired",
            )
        ],
        (400, "RequestExpired", "", (Verdict.MISCONFIGURED, "clock_skew")),
        (403, "SignatureDoesNotMatch", "Signature expired: 20261121T1", (Verdict.MISCONFIGURED, "clock_skew")),
        (403, "InvalidSignatureException", "Signature not yet current: 2", (Verdict.MISCONFIGURED, "clock_skew")),
        (400, "InvalidAction", "", (Verdict.MISCONFIGURED, "unexpected_status")),
        (400, "RequestAbortedException", "", (Verdict.TRANSIENT, "provider_error")),
        (408, "RequestTimeoutException", "", (Verdict.TRANSIENT, "provider_error")),
        (400, "ValidationError", "", (Verdict.PERMANENT, "bad_request")),
        (404, "", "nginx", (Verdict.MISCONFIGURED, "unexpected_status")),
        (302, "", "", (Verdict.MISCONFIGURED, "unexpected_status")),
        (500, "InternalServiceError", "", (Verdict.TRANSIENT, "provider_error")),
        (503, "", "busy", (Verdict.TRANSIENT, "provider_error")),
    ],
)
def test_an_error_of_the_whole_call_is_every_messages_answer(status, code, words, expected):
    headers = {"x-amzn-errortype": code} if code else {}
    ses = Ses(answer=lambda _: {"message": words}, status=status, headers=headers)
    assert short(ses.send(*messages(2))) == [expected] * 2
    # One of the two might have spoilt a call that is refused for good: each is tried alone.
    assert len(ses.bodies) == (3 if expected[0] is Verdict.PERMANENT else 1)


def test_the_time_to_wait_and_the_providers_words_are_passed_on_without_addresses():
    headers = {"x-amzn-errortype": "TooManyRequestsException", "Retry-After": "7"}
    ses = Ses(answer=lambda _: {"message": "slow down, ann@example.com"}, status=429, headers=headers)
    (answer,) = ses.send(message())
    assert answer.retry_after == 7
    assert answer.detail == "429 TooManyRequestsException: slow down, <address>"


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>it works",
        b"",
        b'{"BulkEmailEntryResults": [{"Sta',
        b"[]",
        b'{"BulkEmailEntryResults": 5}',
        b"{}",
    ],
)
def test_an_answer_that_cannot_be_read_leaves_the_outcome_unknown(answer):
    ses = Ses(answer=lambda _: answer)
    assert [a.verdict for a in ses.send(*messages(2))] == [Verdict.UNKNOWN] * 2


def test_messages_beyond_a_short_answer_are_unknown():
    answers = Ses(answer=statuses("SUCCESS", "FAILED")).send(*messages(4))
    assert [a.verdict for a in answers] == [
        Verdict.SENT,
        Verdict.PERMANENT,
        Verdict.UNKNOWN,
        Verdict.UNKNOWN,
    ]


@pytest.mark.parametrize("result", [{"Status": "BRAND_NEW"}, {"MessageId": "x"}, {}])
def test_a_status_that_is_new_or_absent_leaves_the_outcome_unknown(result):
    ses = Ses(answer=lambda _: {"BulkEmailEntryResults": [result]})
    assert short(ses.send(message())) == [(Verdict.UNKNOWN, "unreadable_answer")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"to": ""}, "no_address"),
        ({"to": "ann"}, "no_address"),
        ({"to": "@example.com"}, "no_address"),
        ({"to": "änn@example.com"}, "address_not_ascii"),
        ({"to": f"ann@{'ä' * 80}.example"}, "address_not_ascii"),
        ({"to": "ann@example.com\r\nBcc: eve@example.com"}, "line_break_in_header"),
        ({"subject": "Hi\nBcc: eve@example.com"}, "line_break_in_header"),
    ],
)
def test_a_hopeless_message_is_refused_alone(fields, reason):
    ses = Ses()
    answers = ses.send(message(key="good"), message(**fields))
    assert short(answers) == [(Verdict.SENT, ""), (Verdict.PERMANENT, reason)]
    assert [a.asked for a in answers] == [True, False]
    assert len(ses.request["BulkEmailEntries"]) == 1


def test_a_domain_with_umlauts_travels_in_punycode():
    ses = Ses()
    ses.send(message(to="ann@bücher.example"))
    assert ses.request["BulkEmailEntries"][0]["Destination"]["ToAddresses"] == ["ann@xn--bcher-kva.example"]


def test_one_call_has_one_set_of_parts_and_the_others_are_handed_back():
    ses = Ses()
    answers = ses.send(message(html=""), message(key="both"), message(key="text", html=""))
    assert short(answers) == [
        (Verdict.SENT, ""),
        (Verdict.NOT_STARTED, "next_call"),
        (Verdict.SENT, ""),
    ]
    content = ses.request["DefaultContent"]["Template"]["TemplateContent"]
    assert content == {"Subject": "{{subject}}", "Text": "{{text}}"}


def test_a_message_of_html_alone_gets_no_empty_text_part():
    ses = Ses()
    ses.send(message(text=""))
    content = ses.request["DefaultContent"]["Template"]["TemplateContent"]
    assert content == {"Subject": "{{subject}}", "Html": "{{html}}"}


def test_half_a_surrogate_pair_fails_alone():
    answers = Ses().send(message(), message(key="half", text="\ud800"))
    assert short(answers) == [(Verdict.SENT, ""), (Verdict.PERMANENT, "invalid_parameter")]


def test_a_message_larger_than_ses_takes_is_refused_and_the_others_go():
    answers = Ses().send(message(), message(key="fat", text="x" * 262_200))
    assert short(answers) == [(Verdict.SENT, ""), (Verdict.PERMANENT, "too_large")]
    assert [a.asked for a in answers] == [True, False]
    assert answers[1].detail == "262248 characters"


def test_what_does_not_fit_in_one_request_is_handed_back_for_the_next():
    ses = Ses()
    answers = ses.send(*messages(50, html="<p>" + "ä" * 10_000))
    sent = [a for a in answers if a.verdict is Verdict.SENT]
    assert short(answers) == [(Verdict.SENT, "")] * len(sent) + [(Verdict.NOT_STARTED, "next_call")] * (50 - len(sent))
    assert 40 <= len(sent) < 50  # an ä is two bytes
    assert len(ses.bodies[0]) <= 1_000_000


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200), max_size=12))
def test_a_request_is_never_larger_than_its_limit(texts):
    ses = Ses(max_request=4_000)
    answers = ses.send(*(message(key=f"k{n}", text=f"{n}{text}") for n, text in enumerate(texts)))
    assert all(len(body) <= 4_000 for body in ses.bodies)
    if texts:
        assert answers[0].verdict is Verdict.SENT


def test_without_credentials_the_rows_are_kept_and_nothing_is_sent(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    provider.cache_clear()
    ses = Ses()
    provider.cache_clear()
    (answer,) = ses.send(message())
    assert (answer.verdict, answer.reason) == (Verdict.MISCONFIGURED, "aws_settings")
    assert "credentials" in answer.detail
    assert ses.bodies == []


def test_an_address_of_ses_that_is_none_costs_nobody_an_attempt():
    made = SesProvider(sender="shop@example.com", region="eu-central-1", endpoint_url="nonsense")
    answers = made.send(messages(2), permit=Permit.lasting(60))
    assert short(answers) == [(Verdict.MISCONFIGURED, "aws_settings")] * 2
    assert "nonsense" in answers[0].detail
    assert not any(answer.asked for answer in answers)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AttributeError("_pool_classes_by_scheme"), "provider_raised"),
        (ClientError({"Error": {"Code": "ValidationError"}}, "AssumeRole"), "aws_settings"),
    ],
)
def test_what_goes_wrong_before_the_first_byte_is_no_messages_fault(monkeypatch, error, reason):
    ses = Ses()

    def client():
        raise error

    monkeypatch.setattr(ses.provider, "client", client)
    assert short(ses.send(*messages(2))) == [(Verdict.MISCONFIGURED, reason)] * 2
    assert ses.bodies == []


@pytest.mark.parametrize("said", [b"", http_double.HEAD])
def test_an_answer_that_comes_by_drops_is_given_up_after_the_timeout(said):
    with HttpDouble() as server:
        server.failure = http_double.drip(said)
        made = SesProvider(sender="shop@example.com", region="eu-central-1", endpoint_url=server.url, read_timeout=0.6)
        made.client()
        started = time.monotonic()
        assert short(made.send([message()], permit=Permit.lasting(60))) == [(Verdict.UNKNOWN, "no_answer")]
        assert time.monotonic() - started < PATIENCE_S
        assert len(server.requests) == 1


def test_a_kept_connection_has_the_whole_time_again_for_its_next_answer():
    with HttpDouble(lambda request: Reply(body=json.dumps(accept_all(request.json)).encode())) as server:
        made = SesProvider(sender="shop@example.com", region="eu-central-1", endpoint_url=server.url, read_timeout=3)
        server.delay = 1.6
        for _ in range(2):
            assert short(made.send([message()], permit=Permit.lasting(60))) == [(Verdict.SENT, "")]
        assert server.connections == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"region": "eu central 1"}, "AWS_REGION is 'eu central 1'"),
        ({"sender": "Shop"}, "EMAIL_FROM is 'Shop'"),
        ({"sender": "Shop, Inc <shop@example.com>"}, "EMAIL_FROM is 'Shop, Inc"),
    ],
)
def test_a_setting_that_can_be_none_is_named_at_the_start(given, words):
    with pytest.raises(ImproperlyConfigured, match=words):
        SesProvider(**{"sender": "shop@example.com", "region": "eu-central-1", **given})


@pytest.mark.parametrize("sender", ["shop@example.com", "Grüße <shop@example.com>", '"Shop, Inc" <shop@example.com>'])
def test_a_sender_has_a_name_or_none(sender):
    SesProvider(sender=sender, region="eu-central-1")


@pytest.mark.parametrize(("missing", "setting"), [("sender", "EMAIL_FROM"), ("region", "AWS_REGION")])
def test_an_empty_setting_is_named_at_the_start(missing, setting):
    given = {"sender": "shop@example.com", "region": "eu-central-1", missing: ""}
    with pytest.raises(ImproperlyConfigured, match=f"{setting} is empty"):
        SesProvider(**given)
