"""Bodies as other programs send them: in chunks, cut off, with a byte order mark, or as something that is no object."""

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.http.request import UnreadablePostError
from django.test.client import ClientHandler

from frontend.api.bodies import Chunked
from schedules.models import Recipient
from tests.api import Api, token
from tests.factories import RecipientFactory, ScheduleFactory

pytestmark = pytest.mark.django_db

JSON, NDJSON = "application/json", "application/x-ndjson"


@pytest.fixture
def api(service) -> Api:
    return Api(token())


class Chunks:
    """What a server hands on of a body in chunks, which ends by itself; with ``breaks`` its sender goes away first."""

    def __init__(self, body: bytes, *, breaks: bool = False) -> None:
        self._body, self._breaks = BytesIO(body), breaks

    def read(self, size: int) -> bytes:
        piece = self._body.read(min(size, 7))
        if not piece and self._breaks:
            raise OSError("it went away")
        return piece


def ask(method: str, path: str, body: Any, *, media_type: str, **environ: Any) -> tuple[int, bytes]:
    """Through the web application as gunicorn calls it; status and body."""
    answers: list[Any] = []

    def django(known: dict[str, Any], start_response: Any) -> list[bytes]:
        handler = ClientHandler()  # leaves the test's connection alone
        handler.load_middleware()
        answers.append(handler.get_response(WSGIRequest(known)))
        return []

    Chunked(django)(
        {
            "REQUEST_METHOD": method, "PATH_INFO": f"/api/v1/{path}", "SERVER_NAME": "localhost", "SERVER_PORT": "80",
            "wsgi.url_scheme": "http", "wsgi.input": body, "CONTENT_TYPE": media_type, "HTTP_IF_MATCH": "*",
            "HTTP_AUTHORIZATION": f"Bearer {token()}", **environ,
        },
        None,
    )  # fmt: skip
    return answers[0].status_code, answers[0].content


CHUNKED: Mapping[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}


def test_a_body_in_chunks_says_what_it_says(service):
    person = RecipientFactory.create(attributes={"plan": "free"})
    profile = json.dumps({"email": "new@example.com", "attributes": {"plan": "pro"}}).encode()
    status, body = ask("PUT", f"recipients/{person.external_id}", Chunks(profile), media_type=JSON, **CHUNKED)
    assert status == 200, body
    person.refresh_from_db()
    assert (person.email, person.attributes) == ("new@example.com", {"plan": "pro"})

    lines = b"".join(json.dumps({"externalId": f"c{n}"}).encode() + b"\n" for n in range(20))
    status, body = ask("POST", "recipients:bulk", Chunks(lines), media_type=NDJSON, **CHUNKED)
    assert status == 200
    assert len(body.splitlines()) == 20
    assert Recipient.objects.filter(external_id="c19").exists()


@pytest.mark.parametrize(
    ("body", "environ"),
    [
        (Chunks(b'{"email": ""}', breaks=True), CHUNKED),
        (BytesIO(b'{"email": ""}'), {"HTTP_TRANSFER_ENCODING": "chunked"}),  # who knows where it ends
        (BytesIO(b'{"email": ""}'), {"CONTENT_LENGTH": "1000"}),
    ],
)
def test_a_body_that_was_cut_off_changes_nothing(service, body, environ):
    person = RecipientFactory.create(email="old@example.com")
    status, answer = ask("PUT", f"recipients/{person.external_id}", body, media_type=JSON, **environ)
    assert status == 400
    assert json.loads(answer)["type"].endswith("#unreadable")
    person.refresh_from_db()
    assert person.email == "old@example.com"


def test_of_lines_that_were_cut_off_none_is_written_and_the_key_is_free_for_them_all(service):
    lines = b'{"externalId": "a"}\n{"externalId": "b"}\n'
    sent = {"HTTP_IDEMPOTENCY_KEY": "k", "CONTENT_LENGTH": str(len(lines)), "HTTP_AUTHORIZATION": f"Bearer {token()}"}
    assert ask("POST", "recipients:bulk", BytesIO(lines[:20]), media_type=NDJSON, **sent)[0] == 400
    assert not Recipient.objects.filter(external_id="a").exists()
    assert ask("POST", "recipients:bulk", BytesIO(lines), media_type=NDJSON, **sent)[0] == 200
    assert Recipient.objects.filter(external_id__in="ab").count() == 2


@pytest.mark.parametrize(("path", "media_type"), [("schedules", JSON), ("recipients:bulk", NDJSON)])
def test_a_body_in_chunks_that_is_too_large_is_told_so(service, path, media_type):
    class Long:
        def read(self, count: int) -> bytes:
            return b" " * count

    status, answer = ask("POST", path, Long(), media_type=media_type, **CHUNKED)
    assert status == 413, answer


def test_a_sender_who_goes_away_is_no_failure_of_the_service(api, monkeypatch):
    def gone(*_: object) -> bytes:
        raise UnreadablePostError("reset by peer")

    monkeypatch.setattr("django.core.handlers.wsgi.WSGIRequest.read", gone)
    assert api.post("schedules", {}).status_code == 400


def test_a_byte_order_mark_is_no_part_of_what_is_said(api):
    assert api.post("schedules:validate", b"\xef\xbb\xbf{}").status_code == 200


@pytest.mark.parametrize("body", [b"[]", b"0", b"false", b'""', b"null"])
def test_what_is_no_object_is_not_taken_for_nothing(api, body):
    schedule = ScheduleFactory.create()
    for action in ("pause", "resume", "cancel", "duplicate", "run-now"):
        answer = api.post(f"schedules/{schedule.pk}/{action}", body)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "wrong_type"), action
    assert api.get(f"schedules/{schedule.pk}").json()["status"] == "active"


@pytest.mark.parametrize("body", [b'{"a": ' + b"9" * 5_000 + b"}", b'\xef\xbb\xbf{"a" 1}', b"{", b'{"a": NaN}'])
def test_what_is_no_json_is_said_without_words_of_the_parser(api, body):
    detail = api.post("schedules:validate", body).json()["detail"]
    assert "set_int_max_str_digits" not in detail
    assert "utf-8-sig" not in detail
