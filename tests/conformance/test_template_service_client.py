"""The client of the template service, and what can come instead of templates and messages.

What can happen to a request on its way is asked of the client of the user service: both send by the same hand.
"""

import json

import pytest

from schedules.template_service import client as module
from schedules.template_service.client import (
    CODES,
    BadTemplate,
    Client,
    Gone,
    Item,
    ItemError,
    Message,
    Refused,
    Template,
    TemplateServiceError,
    Unavailable,
)
from tests.http_double import HttpDouble, Reply, silence

TOKEN = "a-token-of-the-tests"
EVA = Item("de-AT", "Europe/Vienna", {"first_name": "a secret of Eva's"})
WELCOME = {
    "id": "welcome",
    "version": "17",
    "name": "Welcome",
    "defaultLocale": "en",
    "contents": [{"channel": "email", "locale": "en"}],
    "tokens": ["first_name"],
}
HELLO = {"subject": "Hello", "text": "Good to have you", "html": None, "locale": "en"}


@pytest.fixture
def double():
    with HttpDouble() as running:
        yield running


def answering(double: HttpDouble, content: object, *, status: int = 200, **headers: str) -> Client:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    double.answer = lambda request: Reply(status, body, headers)
    return Client(double.url, token=TOKEN, timeout_s=5)


def rendered(client: Client, *items: Item):
    return client.render(template_id="welcome", version="17", channel="email", items=items or [EVA])


def templates(*found: object, **members: object) -> dict[str, object]:
    return {"templates": list(found), "nextCursor": None, **members}


# What is asked


def test_a_page_of_the_list_is_asked_for_as_the_contract_says(double):
    client = answering(double, templates(WELCOME, nextCursor="next & more"))
    found = client.read_templates(cursor=None, limit=3)
    assert found.templates == (Template("welcome", "17", "Welcome", "en", (("email", "en"),), ("first_name",)),)
    client.read_templates(cursor=found.next_cursor, limit=3)
    first, second = double.requests
    assert first.line == "GET /templates?limit=3 HTTP/1.1"
    assert second.line == "GET /templates?limit=3&cursor=next+%26+more HTTP/1.1"
    assert first.headers["authorization"] == f"Bearer {TOKEN}"
    assert "content-type" not in first.headers


def test_one_template_is_asked_for_as_the_contract_says(double):
    client = answering(double, WELCOME)
    assert client.read_template("welcome").version == "17"
    assert double.requests[0].line == "GET /templates/welcome HTTP/1.1"


def test_messages_are_asked_for_as_the_contract_says(double):
    client = answering(double, {"results": [HELLO]})
    assert rendered(client) == [Message("Hello", "Good to have you", "", "en")]
    (request,) = double.requests
    assert request.line == "POST /render HTTP/1.1"
    said = {"locale": "de-AT", "timeZone": "Europe/Vienna", "tokens": {"first_name": "a secret of Eva's"}}
    assert request.json == {"template": "welcome", "version": "17", "channel": "email", "items": [said]}


def test_nobody_is_asked_for_no_messages(double):
    assert answering(double, {}).render(template_id="welcome", version="17", channel="email", items=[]) == []
    assert double.requests == []


# What is read


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": None}, "has no id"),
        ({"id": "a/b"}, "has no id"),
        ({"id": ".."}, "has no id"),
        ({"version": 17}, "has no version"),
        ({"version": ""}, "has no version"),
        ({"version": "v" * 201}, "has no version"),
        ({"name": "two\nlines"}, "has no name"),
        ({"name": " Welcome"}, "has no name"),
        ({"defaultLocale": ""}, "has no defaultLocale"),
        ({"defaultLocale": None}, "has no defaultLocale"),
        ({"contents": None}, "has no contents"),
        ({"contents": [{"channel": "email"}]}, "has no contents"),
        ({"contents": [{"channel": "email", "locale": "x" * 36}]}, "has no contents"),
        ({"contents": ["email"]}, "has no contents"),
        ({"tokens": None}, "has no tokens"),
        ({"tokens": ["first name"]}, "has no tokens"),
        ({"tokens": ["first_name."]}, "has no tokens"),
        ({"tokens": [7]}, "has no tokens"),
        ({"tokens": [f"t{number}" for number in range(201)]}, "has no tokens"),
    ],
)
def test_a_template_that_cannot_be_read_is_told_and_the_others_are_read(double, change, words):
    found = answering(double, templates({**WELCOME, **change}, WELCOME)).read_templates(cursor=None).templates
    bad, good = found
    assert isinstance(bad, BadTemplate)
    assert (bad.place, bad.id) == (1, "" if "id" in change else "welcome")
    assert bad.reason.startswith(words)
    assert isinstance(good, Template)
    with pytest.raises(Unavailable, match="sent a template that has no") as raised:
        answering(double, {**WELCOME, **change}).read_template("welcome")
    assert raised.value.code == "wrong_shape"


def test_channels_of_others_and_repetitions_are_left_out(double):
    contents = [{"channel": name, "locale": ""} for name in ("email", "fax", "email", "in_app")]
    said = {**WELCOME, "contents": contents, "tokens": ["b", "a", "b"], "more": 1}
    found = answering(double, said).read_template("welcome")
    assert (found.contents, found.tokens) == ((("email", ""), ("in_app", "")), ("b", "a"))


def test_another_template_than_was_asked_for_is_none(double):
    with pytest.raises(Unavailable, match="another template"):
        answering(double, WELCOME).read_template("goodbye")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"<html>", "no_json"),
        (b"\xff", "no_json"),
        ([], "wrong_shape"),
        ({"templates": [WELCOME]}, "wrong_shape"),
        ({"templates": {}, "nextCursor": None}, "wrong_shape"),
        (templates(nextCursor=7), "wrong_shape"),
        (templates(nextCursor=""), "wrong_shape"),
        (templates(*[WELCOME] * 3), "too_many"),
    ],
)
def test_a_body_that_is_no_page_can_be_asked_for_again(double, content, code):
    with pytest.raises(Unavailable) as raised:
        answering(double, content).read_templates(cursor=None, limit=2)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "no_json"),
        ({"messages": []}, "wrong_shape"),
        ({"results": []}, "wrong_count"),
        ({"results": [HELLO, HELLO]}, "wrong_count"),
        ({"results": ["Hello"]}, "wrong_shape"),
        ({"results": [{**HELLO, "subject": 7}]}, "wrong_shape"),
        ({"results": [{**HELLO, "locale": None}]}, "wrong_shape"),
        ({"results": [{"error": "missing"}]}, "wrong_shape"),
        ({"results": [{"error": {"detail": "missing"}}]}, "wrong_shape"),
        ({"results": [{"error": {"code": "a", "detail": 7}}]}, "wrong_shape"),
    ],
)
def test_a_body_that_holds_no_messages_can_be_asked_for_again(double, content, code):
    with pytest.raises(Unavailable) as raised:
        rendered(answering(double, content))
    assert raised.value.code == code
    assert "secret" not in repr(raised.value)


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (
            {"error": {"code": "missing_token", "detail": "first_name is needed"}},
            ("missing_token", "first_name is needed"),
        ),
        ({"error": {"code": "Odd Code", "detail": None}}, ("error", "")),
        ({"error": {"code": "a", "detail": "two\nlines" + "x" * 300}}, ("a", ("two lines" + "x" * 300)[:200])),
        ({"error": {"code": "a", "detail": "half \ud800"}}, ("a", "")),
        ({"subject": "", "text": None, "locale": "en"}, ("empty", "no subject, text or html was sent")),
        ({**HELLO, "text": "\0"}, ("unkeepable", "a text holds a NUL or half a surrogate pair")),
    ],
)
def test_what_concerns_one_item_is_an_error_for_itself(double, result, error):
    client = answering(double, {"results": [result, HELLO]})
    found = rendered(client, EVA, EVA)
    assert found == [ItemError(*error), Message("Hello", "Good to have you", "", "en")]


# Statuses


def test_410_alone_says_that_something_is_gone(double):
    client = answering(double, {}, status=410)
    for ask in (lambda: rendered(client), lambda: client.read_template("welcome")):
        with pytest.raises(Gone) as raised:
            ask()
        assert raised.value.code == "gone"
    with pytest.raises(Unavailable) as forgotten:
        client.read_templates(cursor="this")
    assert forgotten.value.code == "cursor_gone"
    with pytest.raises(Refused) as nowhere:
        client.read_templates(cursor=None)
    assert nowhere.value.code == "not_found"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (204, Unavailable, "wrong_status"),
        (307, Refused, "redirect"),
        (400, Refused, "refused"),
        (401, Refused, "denied"),
        (404, Refused, "not_found"),
        (429, Unavailable, "throttled"),
        (503, Unavailable, "server_error"),
    ],
)
def test_a_status_tells_whether_the_same_may_be_asked_again(double, status, kind, code):
    client = answering(double, b"" if status == 204 else {"results": [HELLO]}, status=status)
    for ask in (lambda: rendered(client), lambda: client.read_template("welcome")):
        with pytest.raises(TemplateServiceError) as raised:
            ask()
        assert (type(raised.value), raised.value.code) == (kind, code)
        assert code in CODES
        assert str(raised.value).startswith("The template service ")


def test_a_refusal_is_quoted_by_its_pointers_alone(double):
    errors = [{"pointer": "/items/3/tokens", "detail": "a secret of Eva's"}, {"pointer": "/items/a secret"}]
    with pytest.raises(Refused) as raised:
        rendered(answering(double, {"errors": errors}, status=422))
    assert raised.value.reason == "refuses the request (422) for /items/3/tokens"


def test_a_service_may_say_when_to_come_again(double):
    with pytest.raises(Unavailable) as raised:
        rendered(answering(double, {}, status=503, **{"Retry-After": "7"}))
    assert raised.value.retry_after_s == 7


def test_a_caller_may_be_less_patient(double):
    double.failure = silence
    with pytest.raises(Unavailable, match="did not answer within"):
        Client(double.url, timeout_s=60).read_template("welcome", timeout_s=0.3)


# Of the settings


def test_without_an_address_nobody_is_asked(settings):
    settings.TEMPLATE_SERVICE_URL = ""
    assert not module.is_configured()
    with pytest.raises(Refused) as raised:
        module.read_template("welcome")
    assert raised.value.code == "not_configured"


def test_the_settings_say_whom_to_ask(double, settings):
    answering(double, {"results": [HELLO]})
    settings.TEMPLATE_SERVICE_URL, settings.TEMPLATE_SERVICE_TOKEN = double.url, "of the settings".replace(" ", "-")
    module.render(template_id="welcome", version="17", channel="push", items=[EVA])
    answering(double, templates(WELCOME))
    assert module.read_templates(cursor=None).next_cursor is None
    assert {request.headers["authorization"] for request in double.requests} == {"Bearer of-the-settings"}
    assert double.connections == 1
