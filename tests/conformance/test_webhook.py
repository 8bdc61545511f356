"""What a program of the organisation's own is sent, and what it may answer."""

import base64
import json

import pytest
from django.core.exceptions import ImproperlyConfigured

from delivery.providers.base import Message, Permit, Target, Verdict
from delivery.providers.webhook import WebhookProvider
from schedules import standard_webhooks
from tests.http_double import HttpDouble, Reply

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a good secret").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret of good length....").decode()
MAIL = Message("20261121-17-1", 1, "anna@example.com", "Grüße", "Hello", "<p>Hello</p>")
PUSH = Message(
    "20261121-17-1",
    1,
    "",
    "Hi",
    "Hello",
    data={"offer": 3},
    targets=(Target(7, "ios", "token-7"), Target(8, "web", "token-8")),
)


@pytest.fixture
def server():
    with HttpDouble() as double:
        yield double


def send(server, message, secret=SECRET):
    (answer,) = WebhookProvider(url=server.url, secret=secret).send([message], permit=Permit.lasting(60))
    return answer


def test_a_mail_is_told_in_full_and_signed_under_the_deliverys_key(server):
    assert send(server, MAIL).verdict is Verdict.SENT
    (request,) = server.requests
    said = request.json
    assert said.pop("timestamp")
    assert said == {
        "type": "message.send",
        "data": {
            "delivery": "20261121-17-1",
            "channel": "email",
            "to": "anna@example.com",
            "subject": "Grüße",
            "text": "Hello",
            "html": "<p>Hello</p>",
        },
    }
    assert request.headers["webhook-id"] == "20261121-17-1"
    assert standard_webhooks.is_signed(standard_webhooks.secrets(SECRET), request.headers, request.body)
    assert not standard_webhooks.is_signed(standard_webhooks.secrets(OTHER), request.headers, request.body)
    assert not standard_webhooks.is_signed(standard_webhooks.secrets(SECRET), request.headers, request.body + b" ")


def test_while_a_secret_takes_the_place_of_another_both_have_signed(server):
    send(server, MAIL, f"{OTHER} {SECRET}")
    (request,) = server.requests
    for secret in (SECRET, OTHER):
        assert standard_webhooks.is_signed(standard_webhooks.secrets(secret), request.headers, request.body)


def test_a_push_names_its_devices_and_what_the_app_reads(server):
    assert send(server, PUSH).reached == (7, 8)
    data = server.requests[0].json["data"]
    assert data["devices"] == [
        {"device_id": 7, "platform": "ios", "token": "token-7"},
        {"device_id": 8, "platform": "web", "token": "token-8"},
    ]
    assert data["data"] == {"offer": 3}
    assert "to" not in data


def test_devices_that_are_gone_are_told_apart(server):
    server.answer = lambda request: Reply(body=json.dumps({"id": "m1", "gone": [8, 9, "x"]}).encode())
    answer = send(server, PUSH)
    assert (answer.verdict, answer.provider_id, answer.reached, answer.gone) == (Verdict.SENT, "m1", (7,), (8,))


@pytest.mark.parametrize("body", [b"", b"ok", b"[]", b'{"id": 3, "gone": 8}', b"[" * 100_000])
def test_any_2xx_is_an_acceptance_whatever_its_body(server, body):
    server.answer = lambda request: Reply(202, body)
    answer = send(server, MAIL)
    assert (answer.verdict, answer.provider_id) == (Verdict.SENT, "")


@pytest.mark.parametrize(
    ("url", "secret", "named"),
    [
        ("mail.example", SECRET, "WEBHOOK_URL"),
        ("https://", SECRET, "WEBHOOK_URL"),
        ("https://mail.example", "whsec_%", "WEBHOOK_SECRET"),
        ("https://mail.example", "whsec_c2hvcnQ=", "WEBHOOK_SECRET can be guessed"),
    ],
)
def test_settings_that_cant_work_are_named_without_the_secret(url, secret, named):
    with pytest.raises(ImproperlyConfigured, match=named) as caught:
        WebhookProvider(url=url, secret=secret)
    assert secret not in str(caught.value)
