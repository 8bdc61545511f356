"""The FCM stub itself: as strict as Google's reference, understood by Google's own client, and honest in its log."""

import hashlib
import json
import time
import warnings
from base64 import urlsafe_b64encode
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import firebase_admin
import google.auth.transport.requests
import pytest
from firebase_admin import credentials, exceptions, messaging
from google.auth import crypt, jwt
from google.auth.exceptions import RefreshError
from google.oauth2 import service_account

from stubs.google_account import GRANT, write_account
from stubs.testing import running_fcm

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
NOTE = {"title": "Hi", "body": "Hello"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fcm")


@pytest.fixture(scope="module")
def running(folder):
    with running_fcm(credentials=folder / "account.json", log=folder / "sent.ndjson", project="shop") as stub:
        yield stub


@pytest.fixture
def stub(running):
    running.fault()
    return running


@pytest.fixture(scope="module")
def token(running):
    return access(running.credentials).token


@pytest.fixture
def sdk(stub, monkeypatch):
    """Google's own client, led to the stub."""
    monkeypatch.setattr(messaging._MessagingService, "FCM_URL", stub.url + "/v1/projects/{0}/messages:send")
    app = firebase_admin.initialize_app(credentials.Certificate(str(stub.credentials)), name="stub")
    yield app
    firebase_admin.delete_app(app)


def access(path, scope=SCOPE):
    found = service_account.Credentials.from_service_account_file(path, scopes=[scope])
    found.refresh(google.auth.transport.requests.Request())
    return found


def post(stub, path, data, headers):
    try:
        with urlopen(Request(stub.url + path, data, headers, method="POST"), timeout=10) as answer:
            return SimpleNamespace(status=answer.status, headers=answer.headers, said=json.loads(answer.read()))
    except HTTPError as error:
        return SimpleNamespace(status=error.code, headers=error.headers, said=json.loads(error.read()))


def send(stub, token, message, *, project="shop", **more):
    data = message if isinstance(message, bytes) else json.dumps({"message": message, **more}).encode()
    return post(stub, f"/v1/projects/{project}/messages:send", data, {"Authorization": f"Bearer {token}"})


def ask_token(stub, assertion, grant=GRANT):
    return post(stub, "/token", urlencode({"grant_type": grant, "assertion": assertion}).encode(), {})


def sdk_message(to="device-1", **fields):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return messaging.Message(token=to, **fields)


def codes(answer):
    return [detail["errorCode"] for detail in answer.said["error"]["details"] if detail["@type"] == FCM_ERROR]


def logged(folder):
    return [json.loads(line) for line in (folder / "sent.ndjson").read_text().splitlines()]


# --- Messages ---------------------------------------------------------------------------------------------------------


def test_what_googles_own_client_sends_is_taken_whole(stub, sdk, folder):
    every_block = sdk_message(
        "device-every",
        notification=messaging.Notification(title="Grüße 🎉", body="Text", image="https://shop.example/i.png"),
        data={"delivery": "20261121-17-4711", "collapse_key": "allowed"},
        android=messaging.AndroidConfig(
            collapse_key="a",
            priority="high",
            ttl=3600,
            restricted_package_name="shop.example",
            direct_boot_ok=True,
            fcm_options=messaging.AndroidFCMOptions(analytics_label="label"),
            notification=messaging.AndroidNotification(
                tag="20261121-17-4711",
                color="#112233",
                vibrate_timings_millis=[100, 2500],
                light_settings=messaging.LightSettings("#aabbcc", 100, 200),
                visibility="private",
                priority="max",
                proxy="deny",
                notification_count=3,
                sticky=True,
            ),
        ),
        apns=messaging.APNSConfig(
            headers={"apns-collapse-id": "20261121-17-4711"},
            payload=messaging.APNSPayload(messaging.Aps(alert="Hi", badge=1, sound="default"), own="member"),
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": "15"},
            notification=messaging.WebpushNotification(title="W", tag="t", silent=True),
            fcm_options=messaging.WebpushFCMOptions(link="https://shop.example"),
        ),
        fcm_options=messaging.FCMOptions(analytics_label="label"),
    )
    name = messaging.send(every_block, app=sdk)
    line = logged(folder)[-1]
    assert name.startswith("projects/shop/messages/")
    assert {key: line[key] for key in ("message_id", "to", "subject", "delivery", "collapse_id")} == {
        "message_id": name,
        "to": "device-every",
        "subject": "Grüße 🎉",
        "delivery": "20261121-17-4711",
        "collapse_id": "20261121-17-4711",
    }
    assert line["text_sha256"] == hashlib.sha256(b"Text").hexdigest()
    assert line["at"].endswith("+00:00")


@pytest.mark.parametrize("target", [{"fid": "c-1"}, {"topic": "news"}, {"condition": "'a' in topics"}])
def test_every_kind_of_target_is_taken(stub, token, target):
    assert send(stub, token, {**target, "notification": NOTE}).status == 200
    assert stub.messages(limit=1)[0]["to"] == next(iter(target.values()))


def test_both_spellings_of_a_member_and_null_are_taken(stub, token):
    for message in ({"fcmOptions": {"analyticsLabel": "x"}}, {"fcm_options": {"analytics_label": "x"}, "data": None}):
        assert send(stub, token, {"token": "d", "notification": NOTE, **message}).status == 200


def test_a_validation_is_answered_and_accepts_nothing(stub, token):
    before = stub.stats()["accepted"]
    answer = send(stub, token, {"token": "d", "notification": NOTE}, validate_only=True)
    assert (answer.status, answer.said) == (200, {"name": "projects/shop/messages/fake_message_id"})
    assert stub.stats()["accepted"] == before


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        ({"surprise": 1}, "message", "Unknown name \"surprise\" at 'message': Cannot find field."),
        ({"android": {"notification": {"tags": "x"}}}, "message.android.notification", 'Unknown name "tags"'),
        ({"data": {"a": "x", "b": 12}}, "message.data[1].value", "(TYPE_STRING), 12"),
        ({"data": []}, "message.data", "(TYPE_MESSAGE), []"),
        ({"token": 7}, "message.token", "(TYPE_STRING), 7"),
        ({"notification": "Hi"}, "message.notification", "(TYPE_MESSAGE)"),
        ({"android": {"ttl": "1h"}}, "message.android.ttl", "google.protobuf.Duration"),
        ({"android": {"priority": "URGENT"}}, "message.android.priority", "AndroidMessagePriority"),
        ({"android": {"direct_boot_ok": "yes"}}, "message.android.direct_boot_ok", "TYPE_BOOL"),
        ({"android": {"notification": {"body_loc_args": [1]}}}, "message.android.notification.body_loc_args[0]", ""),
        ({"apns": {"headers": {"apns-priority": 5}}}, "message.apns.headers[0].value", "(TYPE_STRING), 5"),
        ({"apns": {"payload": "x"}}, "message.apns.payload", "TYPE_MESSAGE"),
        ({"apns": {"headers": {"apns-collapse-id": "ü" * 33}}}, "message.apns.headers", "at most 64 bytes"),
        ({"topic": "news"}, "message", "oneof field 'target' is already set"),
        ({"data": {"from": "x"}}, "message.data", "Invalid data payload key: from"),
        ({"android": {"data": {"google.x": "x"}}}, "message.android.data", "Invalid data payload key: google.x"),
        ({"data": {"k": "x" * 4096}}, "message", "too big"),
        ({"notification": {"title": "x", "body": "ü" * 2048}}, "message", "too big"),
        ({"apns": {"payload": {"aps": {"alert": "x" * 4096}}}}, "message", "too big"),
        ({"webpush": {"data": {"k": "x" * 4096}}}, "message", "too big"),
    ],
)  # fmt: skip
def test_a_message_that_breaks_the_reference_is_refused_with_its_field(stub, token, message, field, words):
    before = stub.stats()["accepted"]
    answer = send(stub, token, {"token": "device-1", **message})
    error = answer.said["error"]
    violations = [each for detail in error["details"] for each in detail.get("fieldViolations", ())]
    assert (answer.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert [each["field"] for each in violations] == [field]
    assert words in violations[0]["description"]
    assert words in error["message"]
    assert stub.stats()["accepted"] == before


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'{"message": []}', b'{"messages": {}}', b"{}"])
def test_a_body_that_is_no_request_is_refused(stub, token, body):
    assert send(stub, token, body).said["error"]["status"] == "INVALID_ARGUMENT"


def test_a_payload_is_measured_in_bytes_not_in_the_length_of_its_json(stub, token):
    at_most = {"token": "d", "data": {"k": "ü" * 2047 + "x"}}
    assert len(json.dumps(at_most)) > 12_000
    assert send(stub, token, at_most).status == 200
    assert send(stub, token, {"token": "d", "data": {"k": "ü" * 2047 + "xx"}}).status == 400


def test_a_message_to_a_topic_may_be_half_as_long(stub, token):
    assert send(stub, token, {"topic": "news", "data": {"k": "x" * 2047}}).status == 200
    assert send(stub, token, {"topic": "news", "data": {"k": "x" * 2048}}).status == 400


def test_a_token_that_cannot_be_one_is_refused_as_fcm_does_it(stub, token):
    answer = send(stub, token, {"token": "not a token", "notification": NOTE})
    assert answer.said["error"]["message"] == "The registration token is not a valid FCM registration token"
    assert (answer.status, codes(answer)) == (400, ["INVALID_ARGUMENT"])


def test_a_message_without_a_recipient_is_refused(stub, token):
    answer = send(stub, token, {"notification": NOTE})
    assert (answer.said["error"]["message"], codes(answer)) == (
        "Recipient of the message is not set.",
        ["INVALID_ARGUMENT"],
    )


# --- What a device shows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [
        {"android": {"notification": {"tag": "k-1"}}},
        {"apns": {"headers": {"apns-collapse-id": "k-1"}}},
        {"webpush": {"notification": {"tag": "k-1"}}},
    ],
    ids=["android", "apns", "webpush"],
)
def test_a_repeat_replaces_the_first_on_the_same_device_only(stub, token, folder, block):
    device = f"device-{next(iter(block))}"
    first = send(stub, token, {"token": device, "notification": NOTE, **block}).said["name"]
    send(stub, token, {"token": f"{device}-other", "notification": NOTE, **block})
    second = send(stub, token, {"token": device, "notification": {**NOTE, "body": "Again"}, **block}).said["name"]
    assert [line.get("replaces") for line in logged(folder)[-3:]] == [None, None, first]
    assert [(m["message_id"], m["text"]) for m in stub.shown(device)] == [(second, "Again")]
    assert len(stub.shown(f"{device}-other")) == 1


def test_a_web_notification_may_hold_anything_and_is_shown_as_text(stub, token):
    block = {"webpush": {"notification": {"title": ["a"], "body": 5, "tag": 7}}}
    for _ in range(2):
        assert send(stub, token, {"token": "device-any", **block}).status == 200
    assert [(m["subject"], m["text"], m["collapse_id"]) for m in stub.shown("device-any")] == [("['a']", "5", "7")]


def test_messages_without_a_collapse_id_all_show(stub, token):
    for _ in range(2):
        send(stub, token, {"token": "device-plain", "notification": NOTE})
    assert len(stub.shown("device-plain")) == 2


# --- Access -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer made-up", "key=legacy"])
def test_what_has_no_token_of_ours_is_unauthenticated(stub, given):
    answer = post(stub, "/v1/projects/shop/messages:send", b"{}", {"Authorization": given} if given else {})
    assert (answer.status, answer.said["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert codes(answer) == []


def test_a_token_is_good_for_its_own_project_only(stub, token):
    answer = send(stub, token, {"token": "d", "notification": NOTE}, project="other")
    assert (answer.status, answer.said["error"]["status"]) == (403, "PERMISSION_DENIED")


def test_another_key_and_another_scope_get_no_token(stub, tmp_path):
    write_account(tmp_path / "other.json", url=stub.url, project="shop")
    with pytest.raises(RefreshError, match="Invalid JWT Signature"):
        access(tmp_path / "other.json")
    with pytest.raises(RefreshError, match="Invalid scope"):
        access(stub.credentials, scope="https://www.googleapis.com/auth/drive")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": -10}, "short-lived"),
        ({"iat": 4000, "exp": 5000}, "short-lived"),
        ({"iss": "someone@else.example"}, "account not found"),
        ({"aud": "https://elsewhere.example"}, "audience"),
    ],
)
def test_an_assertion_that_is_not_right_gets_no_token(stub, claims, words):
    account = json.loads(stub.credentials.read_text())
    now = int(time.time())
    good = {"iat": now, "exp": now + 600, "iss": account["client_email"], "aud": account["token_uri"], "scope": SCOPE}
    given = {name: now + each if name in ("iat", "exp") else each for name, each in claims.items()}
    signer = crypt.RSASigner.from_service_account_info(account)
    assert ask_token(stub, jwt.encode(signer, good).decode()).status == 200
    answer = ask_token(stub, jwt.encode(signer, {**good, **given}).decode())
    assert (answer.status, answer.said["error"]) == (400, "invalid_grant")
    assert words in answer.said["error_description"]


@pytest.mark.parametrize("assertion", ["", "a.b.c", "x", urlsafe_b64encode(b"{}").decode() + ".."])
def test_what_is_no_jwt_gets_no_token(stub, assertion):
    assert ask_token(stub, assertion).said["error"] == "invalid_grant"
    assert ask_token(stub, assertion, grant="password").said["error"] == "unsupported_grant_type"


def test_a_revoked_token_is_refused_and_the_account_keeps_its_key_over_a_new_start(tmp_path):
    path = tmp_path / "account.json"
    keys = []
    for _ in range(2):
        with running_fcm(credentials=path) as stub:
            account = json.loads(path.read_text())
            assert account["token_uri"] == f"{stub.url}/token"
            token = access(path).token
            assert send(stub, token, {"token": "d"}, project=stub.project).status == 200
            stub.revoke()
            assert send(stub, token, {"token": "d"}, project=stub.project).status == 401
            assert send(stub, access(path).token, {"token": "d"}, project=stub.project).status == 200
            keys.append(account["private_key"])
    assert keys[0] == keys[1]
    assert path.stat().st_mode & 0o077 == 0


# --- Faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "grpc", "raised"),
    [
        ("INVALID_ARGUMENT", 400, "INVALID_ARGUMENT", exceptions.InvalidArgumentError),
        ("THIRD_PARTY_AUTH_ERROR", 401, "UNAUTHENTICATED", messaging.ThirdPartyAuthError),
        ("SENDER_ID_MISMATCH", 403, "PERMISSION_DENIED", messaging.SenderIdMismatchError),
        ("UNREGISTERED", 404, "NOT_FOUND", messaging.UnregisteredError),
        ("QUOTA_EXCEEDED", 429, "RESOURCE_EXHAUSTED", messaging.QuotaExceededError),
        ("UNSPECIFIED_ERROR", 500, "UNKNOWN", exceptions.UnknownError),
    ],
)
def test_each_documented_error_is_what_googles_client_takes_it_for(stub, sdk, token, error, status, grpc, raised):
    stub.fault({"kind": "status", "error": error})
    answer = send(stub, token, {"token": "d"})
    assert (answer.status, answer.said["error"]["status"], codes(answer)) == (status, grpc, [error])
    if status != 500:  # that one Google's client repeats for seconds
        with pytest.raises(raised):
            messaging.send(sdk_message(), app=sdk)


@pytest.mark.parametrize(
    ("rule", "status", "grpc", "fcm"),
    [
        ({}, 503, "UNAVAILABLE", ["UNAVAILABLE"]),
        ({"status": 500}, 500, "INTERNAL", ["INTERNAL"]),
        ({"status": 404}, 404, "NOT_FOUND", ["UNREGISTERED"]),
        ({"status": 418}, 418, "UNKNOWN", ["UNSPECIFIED_ERROR"]),
        ({"error": "UNAUTHENTICATED"}, 401, "UNAUTHENTICATED", []),
        ({"error": "PERMISSION_DENIED"}, 403, "PERMISSION_DENIED", []),
        ({"error": "NOT_FOUND"}, 404, "NOT_FOUND", []),
        ({"error": "RESOURCE_EXHAUSTED"}, 429, "RESOURCE_EXHAUSTED", []),
    ],
)
def test_a_status_or_an_error_alone_says_the_rest(stub, token, rule, status, grpc, fcm):
    stub.fault({"kind": "status", "retry_after": 7, "message": "why", **rule})
    answer = send(stub, token, {"token": "d"})
    assert (answer.status, answer.said["error"]["status"], codes(answer) if fcm else []) == (status, grpc, fcm)
    assert (answer.headers["Retry-After"], answer.said["error"]["message"]) == ("7", "why")


def test_a_rule_finds_devices_by_their_token(stub, token):
    stub.fault({"kind": "status", "error": "UNREGISTERED", "match": {"to": "gone-*"}})
    assert [send(stub, token, {"token": to}).status for to in ("gone-1", "here-1")] == [404, 200]


def test_an_unavailable_service_may_have_taken_the_message_all_the_same(stub, token, folder):
    stub.fault({"kind": "status", "status": 503, "accept": True, "count": 1})
    message = {"token": "device-503", "notification": NOTE, "android": {"notification": {"tag": "k-503"}}}
    assert send(stub, token, message).status == 503
    assert send(stub, token, message).status == 200
    first, second = (line for line in logged(folder) if line["to"] == "device-503")
    assert second["replaces"] == first["message_id"]
    assert len(stub.shown("device-503")) == 1


def test_rules_leave_the_token_endpoint_alone_unless_they_name_it(stub):
    stub.fault({"kind": "status", "status": 503})
    assert access(stub.credentials).token
    stub.fault({"kind": "status", "status": 401, "error": "unauthorized_client", "match": {"operation": "Token"}})
    with pytest.raises(RefreshError, match="unauthorized_client"):
        access(stub.credentials)
    assert stub.stats()["calls"]["Token"] >= 2


def test_requests_are_counted_apart_from_tokens(stub, token):
    before = stub.stats()["requests"]
    access(stub.credentials)
    send(stub, token, {"token": "d"})
    assert stub.stats()["requests"] == before + 1


def test_the_page_names_what_a_push_has(stub, token):
    block = {"android": {"notification": {"tag": "k-page"}}}
    message = {"token": "device-page", "notification": {**NOTE, "title": "<b>Sale"}, **block}
    first, second = (send(stub, token, message).said["name"] for _ in range(2))
    index = page(stub, "/?to=device-page")
    assert "Part of a token" in index
    assert "&lt;b&gt;Sale" in index
    shown = page(stub, f"/mail/{second.replace('/', '%2F')}")
    assert "k-page" in shown
    assert first in shown


def page(stub, path):
    with urlopen(stub.url + path, timeout=10) as answer:
        return answer.read().decode()
