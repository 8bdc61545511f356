"""The FCM provider without a network: requests end before they reach the pool, token fetches before they leave."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from django.core.exceptions import ImproperlyConfigured
from firebase_admin import messaging
from google.auth import exceptions as google
from google.auth.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from delivery.providers import fcm, google_token
from delivery.providers.base import Message, Permit, ProviderError, Target, Verdict
from delivery.providers.fcm import ERRORS, FcmProvider
from delivery.providers.google_token import AccessToken
from delivery.providers.pool import Reply
from stubs.google_account import write_account

INSTALLATION = "cRsHqfD2Q0eW7_x-1bT9aA"  # 22 characters, as Firebase makes them
TOKEN = "dXk3:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx"
KEY = "20261121-17-4711"


@pytest.fixture(scope="module")
def account(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fcm") / "account.json"
    write_account(path, url="http://127.0.0.1:1", project="shop")
    return path


class Fcm:
    """A provider whose requests end here; `answers` are replies by token, `reply` serves the others."""

    def __init__(self, account, reply=None, answers=None):
        self.provider = FcmProvider(service_account=str(account))
        self.provider._pool = self
        self.provider._access = mock.Mock(spec=AccessToken)
        self.provider._access.headers.return_value = ("t", {"authorization": "Bearer t"})
        self.reply = reply
        self.answers = answers or {}
        self.bodies = []
        self.url = None

    def post_all(self, url, *, headers, bodies, permit):
        self.url, self.headers = url, headers
        self.bodies += [json.loads(body) for body in bodies]
        return [self.answers.get(_token(json.loads(body)), self.reply or ok()) for body in bodies]

    def send(self, *messages):
        return self.provider.send(messages, permit=Permit.lasting(60))

    @property
    def message(self):
        (body,) = self.bodies
        return body["message"]


def _token(body):
    return body["message"].get("token") or body["message"]["fid"]


def ok(name="projects/shop/messages/0:1"):
    return Reply(200, {}, json.dumps({"name": name}).encode())


def error(status, code="", *, grpc="", words="as asked", details=(), headers=None):
    fcm_error = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}
    said = {"code": status, "message": words, "status": grpc, "details": [*details, *([fcm_error] if code else [])]}
    return Reply(status, headers or {}, json.dumps({"error": said}).encode())


def message(*targets, key=KEY, subject="Hi", text="Hello", **fields):
    targets = targets or (Target(1, "android", TOKEN),)
    return Message(key, 4711, "", subject, text, targets=targets, **fields)


def device(number, token=""):
    return Target(number, "android", token or f"t{number}")


def short(answer):
    return (answer.verdict, answer.reason)


# What is sent


def test_a_message_carries_its_texts_its_key_and_its_collapse_ids_to_the_projects_address(account):
    sent = Fcm(account)
    sent.send(message(subject='Grüße "you" {{x}}', text="a & b\n<<key>>"))
    assert sent.url == "https://fcm.googleapis.com/v1/projects/shop/messages:send"
    assert sent.headers == {"authorization": "Bearer t"}
    assert sent.message == {
        "token": TOKEN,
        "notification": {"title": 'Grüße "you" {{x}}', "body": "a & b\n<<key>>"},
        "data": {"delivery": KEY},
        "android": {"notification": {"tag": KEY}},
        "apns": {"headers": {"apns-collapse-id": KEY}},
        "webpush": {"headers": {"Topic": KEY}, "notification": {"tag": KEY}},
    }


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)


@given(subject=texts, text=texts, data=st.dictionaries(texts, texts, max_size=3))
def test_a_message_is_encoded_as_firebase_admin_encodes_it(subject, text, data):
    (body,) = fcm.encode(message(Target(1, "android", INSTALLATION), subject=subject, text=text, data=data))
    expected = messaging.Message(
        notification=messaging.Notification(title=subject or None, body=text or None),
        data={**data, "delivery": KEY},
        fid=INSTALLATION,
        android=messaging.AndroidConfig(notification=messaging.AndroidNotification(tag=KEY)),
        apns=messaging.APNSConfig(headers={"apns-collapse-id": KEY}),
        webpush=messaging.WebpushConfig(headers={"Topic": KEY}, notification=messaging.WebpushNotification(tag=KEY)),
    )
    assert json.loads(body) == {"message": json.loads(str(expected))}


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (INSTALLATION, "fid"),
        (f"{INSTALLATION}:APA91bHun4MxP5", "token"),
        ("a" + INSTALLATION[1:], "token"),
        (INSTALLATION[:-1] + "ä", "token"),
        (f"{INSTALLATION}\n", "token"),
        ("x", "token"),
    ],
)
def test_an_installation_id_is_told_from_a_registration_token_by_its_shape(account, token, kind):
    sent = Fcm(account)
    sent.send(message(Target(1, "web", token)))
    assert sent.message[kind] == token
    assert len(sent.message.keys() & {"fid", "token"}) == 1


def test_data_of_other_types_travels_as_json_and_cannot_hide_the_key(account):
    sent = Fcm(account)
    sent.send(message(data={"points": 3, "tags": ["a"], "link": "app://x", "delivery": "mine"}))
    assert sent.message["data"] == {"points": "3", "tags": '["a"]', "link": "app://x", "delivery": KEY}


def test_collapse_ids_keep_within_the_limits_of_apple_and_of_web_push(account):
    longest = f"20261121-{2**63 - 1}-{2**63 - 1}"
    sent = Fcm(account)
    sent.send(message(key=longest), message(key=longest[:-1]))
    first, second = (body["message"] for body in sent.bodies)
    assert len(first["apns"]["headers"]["apns-collapse-id"]) <= 64
    topics = {each["webpush"]["headers"]["Topic"] for each in (first, second)}
    assert len(topics) == 2
    assert all(len(topic) == 32 and topic.replace("-", "").replace("_", "").isalnum() for topic in topics)


def test_half_a_character_is_replaced_and_fails_nobody(account):
    sent = Fcm(account)
    sent.send(message(text="a\ud800b"))
    assert sent.message["notification"]["body"] == "a?b"


# What is refused beforehand


def test_a_person_without_devices_and_a_payload_that_is_too_large_are_refused_alone(account):
    sent = Fcm(account)
    answers = sent.send(
        message(key="k1")._replace(targets=()),
        message(key="k2", text="ä" * 2040),
        message(key="k3", text="ä" * 2000, data={"x": "y" * 200}),
        message(key="k4", text="ä" * 2030),
    )
    assert [short(answer) for answer in answers] == [
        (Verdict.PERMANENT, "no_address"),
        (Verdict.PERMANENT, "too_large"),
        (Verdict.PERMANENT, "too_large"),
        (Verdict.SENT, ""),
    ]
    assert answers[1].detail == "4101 bytes"
    assert len(sent.bodies) == 1


# What FCM answers


def test_every_error_that_firebase_admin_knows_is_classified():
    assert set(messaging._MessagingService.FCM_ERROR_TYPES) <= set(ERRORS)


@pytest.mark.parametrize(
    ("reply", "verdict", "reason"),
    [
        (error(404, "UNREGISTERED"), Verdict.PERMANENT, "unregistered"),
        (error(400, "INVALID_ARGUMENT"), Verdict.PERMANENT, "invalid_parameter"),
        (error(400, grpc="INVALID_ARGUMENT"), Verdict.PERMANENT, "invalid_parameter"),
        (error(400, "INVALID_ARGUMENT", words="Android message is too big"), Verdict.PERMANENT, "too_large"),
        (error(403, "SENDER_ID_MISMATCH"), Verdict.PERMANENT, "sender_mismatch"),
        (error(429, "QUOTA_EXCEEDED"), Verdict.THROTTLED, "throttled"),
        (error(429, grpc="RESOURCE_EXHAUSTED"), Verdict.THROTTLED, "throttled"),
        (error(503, "UNAVAILABLE"), Verdict.TRANSIENT, "provider_error"),
        (error(500, "INTERNAL"), Verdict.TRANSIENT, "provider_error"),
        (error(500, "UNSPECIFIED_ERROR"), Verdict.TRANSIENT, "provider_error"),
        (error(400, "UNSPECIFIED_ERROR"), Verdict.PERMANENT, "bad_request"),
        (error(401, "THIRD_PARTY_AUTH_ERROR"), Verdict.TRANSIENT, "third_party_auth"),
        (error(401, "APNS_AUTH_ERROR"), Verdict.TRANSIENT, "third_party_auth"),
        (error(401, grpc="UNAUTHENTICATED"), Verdict.MISCONFIGURED, "access_denied"),
        (error(403, grpc="PERMISSION_DENIED"), Verdict.MISCONFIGURED, "access_denied"),
        (error(404, grpc="NOT_FOUND"), Verdict.MISCONFIGURED, "project_not_found"),
        (Reply(404, {}, b"<html>nginx"), Verdict.MISCONFIGURED, "unexpected_status"),
        (Reply(302, {}, b""), Verdict.MISCONFIGURED, "unexpected_status"),
        (Reply(413, {}, b""), Verdict.PERMANENT, "too_large"),
        (Reply(408, {}, b""), Verdict.TRANSIENT, "provider_error"),
        (Reply(502, {}, b"<html>Error 502 (Server Error)!!1"), Verdict.TRANSIENT, "provider_error"),
        (Reply(500, {}, b'{"error": "text"}'), Verdict.TRANSIENT, "provider_error"),
        (Reply(500, {}, b'{"error": {"details": [3], "message": 5}}'), Verdict.TRANSIENT, "provider_error"),
        (Reply(400, {}, b'{"error": {"details": 3}}'), Verdict.PERMANENT, "bad_request"),
        (Reply(200, {}, b"<html>it works"), Verdict.UNKNOWN, "unreadable_answer"),
        (Reply(200, {}, b""), Verdict.UNKNOWN, "unreadable_answer"),
        (Reply(200, {}, b"\xff"), Verdict.UNKNOWN, "unreadable_answer"),
        (Reply(200, {}, b"{}"), Verdict.UNKNOWN, "unreadable_answer"),
        (Reply(200, {}, b"[]"), Verdict.UNKNOWN, "unreadable_answer"),
        (ProviderError(Verdict.UNKNOWN, "no_answer"), Verdict.UNKNOWN, "no_answer"),
        (ProviderError(Verdict.TRANSIENT, "unreachable"), Verdict.TRANSIENT, "unreachable"),
    ],
)
def test_each_answer_becomes_its_verdict(account, reply, verdict, reason):
    (answer,) = Fcm(account, reply).send(message())
    assert short(answer) == (verdict, reason)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "details", "errorCode", "@type", "fieldViolations", "field", "message", "status"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(status=st.integers(200, 599), said=anything)
def test_no_answer_whatever_its_shape_raises(status, said):
    found = fcm.fate(Reply(status, {}, json.dumps(said).encode()), Target(1, "web", TOKEN))
    assert found.verdict is not Verdict.SENT


def test_an_answer_nested_without_end_is_unreadable():
    found = fcm.fate(Reply(200, {}, b"[" * 100_000), Target(1, "web", TOKEN))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, "unreadable_answer")


@pytest.mark.parametrize(
    "reply",
    [
        error(400, "INVALID_ARGUMENT", words="The registration token is not a valid FCM registration token"),
        error(
            400,
            "INVALID_ARGUMENT",
            details=[{"fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}]}],
        ),
        error(404, "UNREGISTERED"),
    ],
)
def test_a_device_whose_token_will_never_work_again_is_gone(account, reply):
    (answer,) = Fcm(account, reply).send(message(device(7)))
    assert (short(answer), answer.gone) == ((Verdict.PERMANENT, "unregistered"), (7,))


def test_a_token_of_another_sender_is_not_retired_lest_a_wrong_project_retire_them_all(account):
    (answer,) = Fcm(account, error(403, "SENDER_ID_MISMATCH")).send(message(device(7)))
    assert answer.gone == ()


def test_a_quota_that_names_no_time_waits_a_minute_and_one_that_does_as_long_as_it_says(account):
    waits = [{}, {"retry-after": "7"}]
    found = [Fcm(account, error(429, "QUOTA_EXCEEDED", headers=each)).send(message())[0] for each in waits]
    assert [answer.retry_after for answer in found] == [60, 7]
    (unavailable,) = Fcm(account, error(503, "UNAVAILABLE", headers={"retry-after": "3"})).send(message())
    assert unavailable.retry_after == 3


def test_the_providers_words_are_kept_without_tokens_and_addresses(account):
    words = f"no such device {TOKEN} of ann@example.com (t-1) {TOKEN[:30]}"
    reply = error(400, "INVALID_ARGUMENT", words=words)
    (answer,) = Fcm(account, reply).send(message(Target(1, "ios", "t-1")))
    assert answer.detail == "400 INVALID_ARGUMENT: no such device <token> of <address> (<token>) <token>"


def test_a_refused_access_token_is_forgotten_so_that_the_next_call_fetches_another(account):
    sent = Fcm(account, error(401, grpc="UNAUTHENTICATED"))
    sent.send(message())
    sent.provider._access.forget.assert_called_once_with("t")
    sent = Fcm(account, error(500, "INTERNAL"))
    sent.send(message())
    sent.provider._access.forget.assert_not_called()


# People with several devices

GONE, BUSY, LATER = error(404, "UNREGISTERED"), error(503, "UNAVAILABLE"), error(429, "QUOTA_EXCEEDED")
CUT, LEFT = ProviderError(Verdict.UNKNOWN, "no_answer"), ProviderError(Verdict.NOT_STARTED, "permit_expired")
BAD, OTHER = error(400, "INVALID_ARGUMENT"), error(403, "SENDER_ID_MISMATCH")
APNS, DENIED = error(401, "THIRD_PARTY_AUTH_ERROR"), error(401, grpc="UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("replies", "verdict", "reason", "reached", "gone"),
    [
        ([ok("first"), ok("second")], Verdict.SENT, "", (1, 2), ()),
        ([GONE, ok("first")], Verdict.SENT, "", (2,), (1,)),
        ([BAD, ok("first"), OTHER], Verdict.SENT, "", (2,), ()),
        ([ok("first"), APNS], Verdict.TRANSIENT, "third_party_auth", (1,), ()),
        ([ok("first"), DENIED], Verdict.MISCONFIGURED, "access_denied", (1,), ()),
        ([ok("first"), BUSY, GONE], Verdict.TRANSIENT, "provider_error", (1,), (3,)),
        ([ok("first"), CUT], Verdict.UNKNOWN, "no_answer", (1,), ()),
        ([ok("first"), LEFT], Verdict.NOT_STARTED, "permit_expired", (1,), ()),
        ([ok("first"), LATER], Verdict.THROTTLED, "throttled", (1,), ()),
        ([LEFT, LATER, CUT, BUSY], Verdict.UNKNOWN, "no_answer", (), ()),
        ([LEFT, LATER, APNS, BUSY], Verdict.TRANSIENT, "third_party_auth", (), ()),
        ([LEFT, LATER, BAD], Verdict.THROTTLED, "throttled", (), ()),
        ([LEFT, APNS], Verdict.TRANSIENT, "third_party_auth", (), ()),
        ([LEFT, DENIED], Verdict.MISCONFIGURED, "access_denied", (), ()),
        ([BAD, LEFT, GONE], Verdict.NOT_STARTED, "permit_expired", (), (3,)),
        ([GONE, GONE], Verdict.PERMANENT, "unregistered", (), (1, 2)),
        ([GONE, BAD], Verdict.PERMANENT, "invalid_parameter", (), (1,)),
    ],
)
def test_a_person_is_sent_to_when_no_device_is_left_that_could_still_be_reached(
    account, replies, verdict, reason, reached, gone
):
    targets = [device(number) for number, _ in enumerate(replies, 1)]
    sent = Fcm(account, answers={target.token: reply for target, reply in zip(targets, replies, strict=True)})
    (answer,) = sent.send(message(*targets))
    assert (*short(answer), answer.reached, answer.gone) == (verdict, reason, reached, gone)
    assert answer.may_have_arrived is (BUSY in replies)
    assert answer.provider_id == ("first" if verdict is Verdict.SENT else "")


def test_the_wait_of_the_device_that_names_one_is_the_persons(account):
    answers = {"t1": BUSY, "t2": error(429, "QUOTA_EXCEEDED", headers={"retry-after": "90"})}
    (answer,) = Fcm(account, answers=answers).send(message(device(1), device(2)))
    assert (answer.verdict, answer.retry_after) == (Verdict.TRANSIENT, 90)


def test_devices_of_different_people_are_not_confused(account):
    sent = Fcm(account, answers={"t2": GONE, "t4": BUSY})
    answers = sent.send(
        message(device(1), device(2), key="a"), message(device(3), key="b"), message(device(4), key="c")
    )
    assert [(a.key, a.verdict, a.reached, a.gone) for a in answers] == [
        ("a", Verdict.SENT, (1,), (2,)),
        ("b", Verdict.SENT, (3,), ()),
        ("c", Verdict.TRANSIENT, (), ()),
    ]


# Access tokens


class Account(Credentials):
    """Credentials that count their fetches; `fail` is raised instead of fetching."""

    def __init__(self, fail=None, delay=0.0):
        super().__init__()
        self.fetched = 0
        self.fail = fail
        self.delay = delay

    def get_credential(self):
        return self

    def refresh(self, request):
        self.fetched += 1
        time.sleep(self.delay)
        if self.fail is not None:
            raise self.fail
        self.token = f"token-{self.fetched}"
        self.ends_in(3600)

    def ends_in(self, seconds):
        self.expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=seconds)


def access(account, permit=None):
    return AccessToken(account, timeout=1).headers(permit or Permit.lasting(60))


def test_a_token_is_fetched_once_and_used_until_shortly_before_it_expires():
    account = Account()
    tokens = AccessToken(account, timeout=1)
    assert [tokens.headers(Permit.lasting(60))[0] for _ in range(3)] == ["token-1"] * 3
    account.ends_in(60)
    token, headers = tokens.headers(Permit.lasting(60))
    assert (token, headers["authorization"]) == ("token-2", "Bearer token-2")


def test_threads_that_need_a_token_together_fetch_it_once():
    account = Account(delay=0.1)
    tokens = AccessToken(account, timeout=1)
    found = []
    threads = [threading.Thread(target=lambda: found.append(tokens.headers(Permit.lasting(60))[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (found, account.fetched) == (["token-1"] * 8, 1)


def test_while_one_thread_fetches_anew_the_others_go_on_with_the_old_token():
    account = Account()
    tokens = AccessToken(account, timeout=1)
    tokens.headers(Permit.lasting(60))
    account.ends_in(60)
    with tokens._lock:
        assert tokens.headers(Permit.lasting(60))[0] == "token-1"


def test_waiting_for_a_token_ends_with_the_permit():
    tokens = AccessToken(Account(), timeout=1)
    with tokens._lock, pytest.raises(ProviderError) as caught:
        tokens.headers(Permit.lasting(0.05))
    assert caught.value.verdict is Verdict.NOT_STARTED


def test_a_fetch_that_outlasts_the_permit_starts_nothing():
    with pytest.raises(ProviderError) as caught:
        access(Account(delay=0.1), Permit.lasting(0.05))
    assert caught.value.verdict is Verdict.NOT_STARTED


@pytest.mark.parametrize(
    ("fail", "verdict", "reason"),
    [
        (google.RefreshError("invalid_grant: ann@example.com"), Verdict.MISCONFIGURED, "access_denied"),
        (google.RefreshError("server_error", retryable=True), Verdict.TRANSIENT, "provider_error"),
        (google.TransportError("no route"), Verdict.TRANSIENT, "unreachable"),
        (TypeError("string indices must be integers"), Verdict.TRANSIENT, "provider_error"),
    ],
)
def test_a_token_that_cannot_be_fetched_stops_the_call_before_it_starts(fail, verdict, reason):
    with pytest.raises(ProviderError) as caught:
        access(Account(fail))
    assert (caught.value.verdict, caught.value.reason) == (verdict, reason)


def test_a_token_that_still_serves_is_used_when_the_next_cannot_be_fetched():
    account = Account()
    tokens = AccessToken(account, timeout=1)
    tokens.headers(Permit.lasting(60))
    account.ends_in(60)
    account.fail = google.TransportError("no route")
    assert [tokens.headers(Permit.lasting(60))[0] for _ in range(3)] == ["token-1"] * 3
    assert account.fetched == 2  # not at every call


@pytest.mark.parametrize("fault", [google.DefaultCredentialsError("none found"), PermissionError("/etc/key.json")])
def test_default_credentials_that_cannot_be_read_are_a_misconfiguration(fault):
    credential = mock.Mock()
    credential.get_credential.side_effect = fault
    with pytest.raises(ProviderError) as caught:
        access(credential)
    assert (caught.value.verdict, caught.value.reason) == (Verdict.MISCONFIGURED, "fcm_credentials")


def test_only_the_token_that_was_refused_is_forgotten():
    account = Account()
    tokens = AccessToken(account, timeout=1)
    tokens.headers(Permit.lasting(60))
    tokens.forget("another")
    assert tokens.headers(Permit.lasting(60))[0] == "token-1"
    tokens.forget("token-1")
    assert tokens.headers(Permit.lasting(60))[0] == "token-2"


def test_a_fetch_is_bounded_in_time_and_repeats_only_while_the_permit_lasts(monkeypatch):
    asked = []
    monkeypatch.setattr(google_token, "Request", lambda: lambda *given, **options: asked.append(options["timeout"]))

    class Repeating(Account):
        def refresh(self, request):
            for _ in range(3):
                request(url="https://token.example", timeout=120)
                time.sleep(0.1)

    with pytest.raises(ProviderError) as caught:
        access(Repeating(), Permit.lasting(0.05))
    assert (caught.value.verdict, asked) == (Verdict.NOT_STARTED, [1])


# Settings


def test_the_project_is_the_accounts_unless_the_setting_names_another(account, settings):
    settings.FCM_CREDENTIALS, settings.FCM_PROJECT = account.read_text(), ""
    settings.FCM_ENDPOINT = "http://stub/"
    assert FcmProvider.from_settings()._url == "http://stub/v1/projects/shop/messages:send"
    settings.FCM_PROJECT = "other"
    assert FcmProvider.from_settings()._url == "http://stub/v1/projects/other/messages:send"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"service_account": ""}, "FCM_PROJECT is empty"),
        ({"service_account": "/nowhere/account.json"}, "FCM_CREDENTIALS can't be read"),
        ({"service_account": "{secret"}, "FCM_CREDENTIALS can't be read"),
        ({"service_account": '{"type": "authorized_user"}'}, "FCM_CREDENTIALS can't be read"),
        (
            {"service_account": '{"type": "service_account", "client_email": 1, "token_uri": 2, "private_key": 3}'},
            "FCM_CREDENTIALS can't be read",
        ),
        ({"endpoint": "fcm.googleapis.com"}, "FCM_ENDPOINT is 'fcm.googleapis.com'"),
        ({"connections": 0}, "FCM_CONNECTIONS is 0"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named_at_the_start(account, options, words):
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        FcmProvider(**{"service_account": str(account), **options})
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_account_is_named_at_the_start(tmp_path):
    path = tmp_path / "account.json"
    path.write_text("[]")
    with pytest.raises(ImproperlyConfigured, match="FCM_CREDENTIALS can't be read"):
        FcmProvider(service_account=str(path))


def test_default_credentials_are_looked_for_at_the_first_call_only():
    with mock.patch("google.auth.default") as default:
        FcmProvider(project="shop")
    default.assert_not_called()
