"""The client of the user service, and everything that can come instead of a page."""

import contextlib
import gzip
import json
import os
import socket
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from schedules.imports.rows import BadLine, Row
from schedules.user_service import client as module
from schedules.user_service.client import (
    CODES,
    MAX_CURSOR,
    Client,
    CursorGone,
    Refused,
    Unavailable,
    UserServiceError,
    read_profiles,
)
from tests import http_double, tls
from tests.conformance.user_services import PEOPLE, TOKEN, Service, serving
from tests.http_double import PATIENCE_S, HttpDouble, Reply

AS_OF = datetime(2026, 11, 22, 10, tzinfo=UTC)
EVERYBODY = {"all": []}
EVA = {"externalId": "42", "email": "eva.secret@example.com", "attributes": {"note": "a secret of Eva's"}}
SECRETS = ("eva.secret", "secret of Eva", TOKEN)


@pytest.fixture
def double():
    with HttpDouble() as running:
        yield running


def page(**changes) -> bytes:
    return json.dumps({"profiles": [EVA], "count": 1, "nextCursor": None, **changes}).encode()


def ask(url: str, *, cursor: str | None = None, limit: int = 10, timeout_s: float = 5.0, **options):
    client = Client(url, token=TOKEN, timeout_s=timeout_s, **options)
    return client.read_page(EVERYBODY, as_of=AS_OF, cursor=cursor, limit=limit)


def failure(url: str, kind: type[UserServiceError] = Unavailable, **options) -> UserServiceError:
    """What asking for a page then raises; nobody's data is in it, nor in anything it comes from."""
    with pytest.raises(UserServiceError) as raised:
        ask(url, **options)
    error = raised.value
    assert type(error) is kind, error
    assert error.code in CODES
    assert str(error) == f"The user service {error.reason}."
    told = [*traceback.format_exception(error), repr(error)]
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            told.append(f"{each!r} {each} {vars(each)}")
            pending += [each.__cause__, each.__context__]
    assert not [secret for secret in SECRETS if secret in "".join(told)]
    return error


def answering(double: HttpDouble, body: bytes, *, status: int = 200, **headers: str) -> str:
    double.answer = lambda request: Reply(status, body, headers)
    return double.url


# What is asked, and what is read


def test_a_page_is_asked_for_as_the_contract_says(double):
    url = answering(double, page(nextCursor="next", total=7))
    found = ask(f"{url}/below/", cursor="this", limit=3)
    (request,) = double.requests
    assert request.line == "POST /below/audience/page HTTP/1.1"
    assert request.json == {"audience": EVERYBODY, "asOf": "2026-11-22T10:00:00Z", "limit": 3, "cursor": "this"}
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    assert (found.next_cursor, found.total, found.updated) == ("next", 7, {})
    assert [row.external_id for row in found.rows] == ["42"]


def test_a_count_is_asked_for_as_the_contract_says(double):
    url = answering(double, b'{"count": 12, "more": "that nobody knows"}')
    in_vienna = AS_OF.astimezone(tz=None)
    assert Client(url).count(EVERYBODY, as_of=in_vienna) == 12
    (request,) = double.requests
    assert request.line == "POST /audience/count HTTP/1.1"
    assert request.json == {"audience": EVERYBODY, "asOf": "2026-11-22T10:00:00Z"}
    assert "authorization" not in request.headers


def test_a_profile_means_what_it_means_in_a_file():
    (row,), updated, *_ = read_profiles(
        [
            {
                "externalId": "42",
                "email": " eva@example.com ",
                "timeZone": "Europe/Vienna",
                "locale": None,
                "attributes": {"age": 31, "gone": None},
                "tags": ["beta", " beta "],
                "consent": {"email": True, "push": None},
                "devices": [{"platform": "ios", "token": "abc"}],
                "updatedAt": "2026-11-22T11:00:00+01:00",
            }
        ]
    )
    assert row == Row(
        line=1,
        external_id="42",
        email="eva@example.com",
        locale="",
        time_zone="Europe/Vienna",
        tags='["beta"]',
        consent='{"email":true}',
        attributes='{"age": 31}',
        dropped='{"gone"}',
        devices='[{"platform":"ios","token":"abc"}]',
    )
    assert updated == {1: AS_OF}


@pytest.mark.parametrize(
    ("member", "field"),
    [
        ({"email": "no address"}, "email"),
        ({"locale": 7}, "locale"),
        ({"timezone": "Europe/Vienna"}, "timezone"),
        ({"attributes": {"a": "\0"}}, "attributes"),
        ({"locale": "\ud800"}, "locale"),
        ({"attributes": {"a b": 1}}, "attributes"),
        ({"consent": {"fax": True}}, "consent"),
        ({"devices": [{"platform": "nokia", "token": "x"}]}, "devices"),
        ({"updatedAt": "yesterday"}, "updatedAt"),
        ({"updatedAt": "2026-11-22T10:00:00"}, "updatedAt"),
        ({"updatedAt": 1795341600}, "updatedAt"),
        ({"consentUpdatedAt": "2026-11-22T10:00:00"}, "consentUpdatedAt"),
        ({"version": 3}, "version"),
    ],
)
def test_a_member_that_is_wrong_is_left_out_and_told_and_the_person_stays(member, field):
    rows, updated, *_ = read_profiles([{"externalId": "1"}, {"externalId": "2", "tags": ["news"], **member}])
    assert [type(row) for row in rows] == [Row, Row, BadLine]
    assert rows[1]._replace(tags=None) == Row(2, "2")
    assert rows[1].tags == '["news"]'
    assert (rows[2].line, rows[2].field) == (2, field)
    assert updated == {}


def test_an_objection_to_a_topic_is_kept_whatever_stands_beside_it():
    said = {"news:email": False, "Not a topic:email": False, "news:fax": False, "email": True, "push": False}
    rows, *_ = read_profiles([{"externalId": "1", "consent": said}])
    assert isinstance(rows[0], Row)
    assert json.loads(rows[0].consent or "") == {"news:email": False, "push": False}
    (whole,), *_ = read_profiles([{"externalId": "1", "consent": {"news:email": True, "email": True}}])
    assert isinstance(whole, Row)
    assert json.loads(whole.consent or "") == {"news:email": True, "email": True}


def test_when_a_consent_was_changed_is_told_apart_from_not_saying_so():
    said = {"1": {}, "2": {"consentUpdatedAt": "2026-11-22T11:00:00+01:00"}, "3": {"consentUpdatedAt": None}}
    unreadable = {"4": {"consentUpdatedAt": "soon"}, "5": {"consentUpdatedAt": "\0"}}
    found = read_profiles([{"externalId": name, **members} for name, members in {**said, **unreadable}.items()])
    assert found.consented == {2: AS_OF, 3: None, 4: None, 5: None}


@pytest.mark.parametrize("profile", [{}, {"externalId": ""}, {"externalId": "a\nb"}, {"externalId": "\0"}, 7, None, []])
def test_somebody_without_an_id_is_a_bad_line_alone(profile):
    rows, *_ = read_profiles([profile, {"externalId": "2"}])
    assert [(type(row), row.line) for row in rows] == [(BadLine, 1), (Row, 2)]


def test_somebody_whose_texts_postgresql_cannot_keep_is_found_in_a_page_too(double):
    bad = {"externalId": "1", "locale": "\0"}
    body = page(profiles=[bad, {"externalId": "2", "locale": "😀\\u0000"}], count=2)
    assert [type(row) for row in ask(answering(double, body)).rows] == [Row, BadLine, Row]


def test_a_cursor_that_comes_again_is_for_the_caller_to_notice(double):
    url = answering(double, page(nextCursor="this"))
    assert ask(url, cursor="this").next_cursor == "this"


def test_numbers_may_be_written_as_any_number_of_json(double):
    assert ask(answering(double, page(count=1.0, total=3.0))).total == 3


# Bodies that can't be used


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "no_json"),
        (b"<html>it works", "no_json"),
        (page()[:-20], "no_json"),
        (page() + b"{", "no_json"),
        (page().replace(b"eva", b"\xff\xfe"), "no_json"),
        (b"\xef\xbb\xbf" + page(), "no_json"),
        (b"[" * 100_000, "no_json"),
        (page().replace(b'"count": 1', b'"count": ' + b"1" * 5_000), "no_json"),
        (b"[]", "wrong_shape"),
        (b'"eva.secret"', "wrong_shape"),
        (b"null", "wrong_shape"),
        (page(profiles=None), "wrong_shape"),
        (page(profiles={"0": EVA}), "wrong_shape"),
        (page(count=None), "wrong_shape"),
        (page(count=True), "wrong_shape"),
        (page(count="1"), "wrong_shape"),
        (page(count=-1), "wrong_shape"),
        (page(count=1.5), "wrong_shape"),
        (page(total="many"), "wrong_shape"),
        (page(total=2**60), "wrong_shape"),
        (page(nextCursor=7), "wrong_shape"),
        (page(nextCursor=""), "wrong_shape"),
        (page(nextCursor="a\nb"), "wrong_shape"),
        (page(nextCursor="c" * (MAX_CURSOR + 1)), "wrong_shape"),
        (json.dumps({"profiles": [EVA], "count": 1}).encode(), "wrong_shape"),
        (page(count=2), "wrong_count"),
        (page(count=0), "wrong_count"),
        (page(profiles=[EVA] * 11, count=11), "too_many"),
        (page(profiles=[], count=0, nextCursor="more"), "empty_page"),
    ],
)
def test_a_body_that_is_no_page_can_be_asked_for_again(double, body, code):
    assert failure(answering(double, body)).code == code


def test_an_empty_last_page_is_a_page(double):
    assert ask(answering(double, page(profiles=[], count=0))).rows == ()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"count": "7"}', b'{"count": -1}', b"7", b'{"count": 1'])
def test_a_count_that_is_none_can_be_asked_for_again(double, body):
    url = answering(double, body)
    with pytest.raises(Unavailable) as raised:
        Client(url).count(EVERYBODY, as_of=AS_OF)
    assert raised.value.code in ("no_json", "wrong_shape")


def test_a_body_may_be_packed(double):
    url = answering(double, gzip.compress(page()), **{"Content-Encoding": "gzip"})
    assert len(ask(url).rows) == 1
    assert double.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("body", [page(), gzip.compress(page())[:-12], b"\x1f\x8b"])
def test_what_cannot_be_unpacked_can_be_asked_for_again(double, body):
    error = failure(answering(double, body, **{"Content-Encoding": "gzip"}))
    assert error.code in ("no_json", "cut_off")


# Sizes and times


@pytest.mark.parametrize("packed", [False, True])
def test_no_more_is_read_than_a_page_may_have(double, packed):
    body = page(more="x" * 3_000_000)
    url = answering(double, gzip.compress(body) if packed else body, **({"Content-Encoding": "gzip"} if packed else {}))
    assert failure(url, max_bytes=1_000_000).code == "too_large"
    assert len(ask(url, max_bytes=4_000_000).rows) == 1


def test_an_answer_without_end_is_left(double):
    def flood(door) -> None:
        door.request.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            door.request.sendall(b" " * 65_536)

    double.failure = flood
    assert failure(double.url, max_bytes=1_000_000).code == "too_large"


@pytest.mark.parametrize(
    "how",
    [
        http_double.silence,
        http_double.drip(b""),
        http_double.drip(b"HTTP/1.1 200 OK\r\nX-Slow:"),
        http_double.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"),
        http_double.drip(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
    ],
    ids=["silence", "no status line", "endless headers", "slow body", "slow body without a length"],
)
def test_an_answer_is_waited_for_as_long_as_it_may_take_in_all(double, how):
    double.failure = how
    began = time.monotonic()
    assert failure(double.url, timeout_s=0.6).code == "timeout"
    assert time.monotonic() - began < PATIENCE_S


def test_a_slow_answer_is_an_answer(double):
    double.delay = 0.5
    assert len(ask(answering(double, page())).rows) == 1


def test_a_caller_may_be_less_patient(double):
    double.failure = http_double.silence
    with pytest.raises(Unavailable) as raised:
        Client(double.url, timeout_s=60).count(EVERYBODY, as_of=AS_OF, timeout_s=0.3)
    assert raised.value.code == "timeout"


# Connections


@pytest.mark.parametrize("how", [http_double.half, http_double.reset, http_double.garbage, lambda door: None])
def test_a_connection_that_ends_or_speaks_something_else_can_be_tried_again(double, how):
    double.failure = how
    assert failure(double.url).code == "cut_off"


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_answer_in_chunks_is_a_page_when_it_is_whole(double, is_whole):
    def chunks(door) -> None:
        door.request.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (page()[:30], page()[30:]):
            door.request.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        door.request.sendall(b"0\r\n\r\n" if is_whole else b"")

    double.failure = chunks
    if is_whole:
        assert len(ask(double.url).rows) == 1
    else:
        assert failure(double.url).code == "cut_off"


def test_nobody_at_the_address_can_be_tried_again():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert failure(f"http://127.0.0.1:{taken.getsockname()[1]}").code == "unreachable"


def test_a_name_that_nobody_knows_can_be_tried_again(monkeypatch):
    def unknown(*_: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert failure("http://users.invalid").code == "unreachable"


@pytest.mark.parametrize("url", ["http://", "http://[::1", "nothing at all", "ftp://users.example.com"])
def test_an_address_that_is_none_is_for_an_operator(url):
    assert failure(url, Refused).code == "not_found"


def test_pages_come_over_one_connection(double):
    client = Client(answering(double, page()))
    for _ in range(3):
        client.read_page(EVERYBODY, as_of=AS_OF, cursor=None, limit=10)
    assert double.connections == 1


def test_a_connection_that_the_service_has_closed_meanwhile_is_made_anew(double):
    client = Client(answering(double, page()))
    client.read_page(EVERYBODY, as_of=AS_OF, cursor=None, limit=10)
    double.failure = http_double.reset
    with pytest.raises(Unavailable):
        client.read_page(EVERYBODY, as_of=AS_OF, cursor=None, limit=10)
    double.failure = None
    assert client.read_page(EVERYBODY, as_of=AS_OF, cursor=None, limit=10).rows


def test_one_attempt_is_made(double):
    answering(double, b"", status=503)
    failure(double.url)
    assert len(double.requests) == 1


# Statuses


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (201, Unavailable, "wrong_status"),
        (204, Unavailable, "wrong_status"),
        (206, Unavailable, "wrong_status"),
        (400, Refused, "refused"),
        (401, Refused, "denied"),
        (403, Refused, "denied"),
        (404, Refused, "not_found"),
        (405, Refused, "not_found"),
        (408, Unavailable, "throttled"),
        (413, Refused, "refused"),
        (415, Refused, "refused"),
        (422, Refused, "refused"),
        (425, Unavailable, "throttled"),
        (429, Unavailable, "throttled"),
        (500, Unavailable, "server_error"),
        (502, Unavailable, "server_error"),
        (503, Unavailable, "server_error"),
        (504, Unavailable, "server_error"),
        (599, Unavailable, "server_error"),
    ],
)
def test_a_status_tells_whether_the_same_may_be_asked_again(double, status, kind, code):
    assert failure(answering(double, b"" if status == 204 else page(), status=status), kind).code == code


def test_a_cursor_may_be_gone_and_so_may_the_address(double):
    answering(double, page(), status=410)
    assert failure(double.url, CursorGone, cursor="this").code == "cursor_gone"
    assert failure(double.url, Refused).code == "not_found"


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_may_say_when_to_come_again(double, status):
    answering(double, b"", status=status, **{"Retry-After": "7"})
    assert failure(double.url).retry_after_s == 7
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    answering(double, b"", status=status, **{"Retry-After": at})
    assert 60 < failure(double.url).retry_after_s <= 90
    answering(double, b"", status=status, **{"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"})
    assert failure(double.url).retry_after_s == 0
    answering(double, b"", status=status, **{"Retry-After": "9" * 12})
    assert failure(double.url).retry_after_s == 6 * 3600
    for unreadable in ("soon", "9" * 5_000, "Sun, 99 Nov 999999 08:49:37 GMT", "-7"):
        answering(double, b"", status=status, **{"Retry-After": unreadable})
        assert failure(double.url).retry_after_s is None
    answering(double, b"", status=status)
    assert failure(double.url).retry_after_s is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(double, status):
    with HttpDouble() as elsewhere:
        answering(double, b"", status=status, Location=f"{elsewhere.url}/audience/page?{EVA['email']}")
        assert failure(double.url, Refused).code == "redirect"
        assert elsewhere.requests == []


def test_a_refusal_tells_where_and_not_what(double):
    problem = {"detail": "eva.secret", "errors": [{"pointer": "/audience/all/0/field", "detail": "secret of Eva"}]}
    error = failure(answering(double, json.dumps(problem).encode(), status=422), Refused)
    assert error.reason == "refuses the request (422) for /audience/all/0/field"


@pytest.mark.parametrize(
    "errors",
    [
        [{"pointer": "/audience/eva.secret"}],
        [{"pointer": "/audience/all/0/value/eva.secret@example.com"}],
        [{"pointer": ["/audience"]}],
        [{"pointer": "/audience" + "/all" * 30}],
        ["eva.secret"],
        "eva.secret",
        None,
        [{}],
    ],
)
def test_a_pointer_that_could_be_somebodys_data_is_not_told(double, errors):
    body = json.dumps({"errors": errors}).encode()
    assert failure(answering(double, body, status=400), Refused).reason == "refuses the request (400)"


# TLS, tokens, proxies, logs


@pytest.fixture
def paper(tmp_path):
    return tls.drawn(tmp_path)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_certificate_of_an_authority_that_is_trusted_is_taken(double, paper, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(paper.authority))
    answering(double, page())
    with tls.front(paper, to=port_of(double.url)) as port:
        assert len(ask(f"https://localhost:{port}").rows) == 1


def test_a_certificate_of_anybody_else_is_not(double, paper, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(paper.stranger))
    with tls.front(paper, to=port_of(double.url)) as port:
        assert failure(f"https://localhost:{port}", Refused).code == "certificate"
    assert double.requests == []


def test_a_certificate_of_another_host_is_not(double, paper, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(paper.authority))
    with tls.front(paper, to=port_of(double.url)) as port:
        assert failure(f"https://127.0.0.1:{port}", Refused).code == "certificate"
    assert double.requests == []


def test_who_speaks_no_tls_can_be_tried_again(double):
    answering(double, page())
    assert failure(double.url.replace("http:", "https:"), timeout_s=1).code in ("unreachable", "cut_off", "timeout")


@pytest.mark.parametrize("token", [f"{TOKEN}\r\nX-More: 1", f"{TOKEN} two", f"{TOKEN}é"])
def test_a_token_that_no_header_holds_is_refused_unquoted(token):
    with pytest.raises(Refused) as raised:
        Client("http://127.0.0.1:1", token=token)
    assert raised.value.code == "denied"
    assert TOKEN not in str(raised.value)


def test_no_proxy_of_the_environment_is_used(double, monkeypatch):
    with HttpDouble() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert len(ask(answering(double, page())).rows) == 1
        assert proxy.requests == []


def test_no_log_names_anybody(double, caplog):
    caplog.set_level("DEBUG")
    ask(answering(double, page()))
    for body in (page()[:-5], page(count=2), b"\x00eva.secret"):
        failure(answering(double, body))
    answering(double, page(), status=422)
    failure(double.url, Refused)
    double.failure = lambda door: door.request.sendall(
        b"HTTP/1.1 200 OK\r\neva.secret\r\n : secret of Eva\r\n\r\n" + page()
    )
    with contextlib.suppress(UserServiceError):
        ask(double.url)
    assert not [secret for secret in SECRETS if secret in caplog.text]


# By the settings


def test_the_address_of_the_settings_is_asked(settings):
    assert not module.is_configured()
    with pytest.raises(Refused) as raised:
        module.read_page(EVERYBODY, as_of=AS_OF, cursor=None, limit=10)
    assert raised.value.code == "not_configured"
    with serving(Service()) as url:
        settings.USER_SERVICE_URL, settings.USER_SERVICE_TOKEN = url, TOKEN
        assert module.is_configured()
        assert module.count(EVERYBODY, as_of=AS_OF) == len(PEOPLE)
        assert len(module.read_page(EVERYBODY, as_of=AS_OF, cursor=None, limit=10).rows) == 10


def test_a_fork_opens_connections_of_its_own(double, settings, monkeypatch):
    settings.USER_SERVICE_URL = answering(double, b'{"count": 1}')
    module.count(EVERYBODY, as_of=AS_OF)
    module.count(EVERYBODY, as_of=AS_OF)
    assert double.connections == 1
    monkeypatch.setattr(os, "getpid", lambda: -1)
    module.count(EVERYBODY, as_of=AS_OF)
    assert double.connections == 2


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"kind": "status", "status": 429, "retry_after": 3}, "throttled"),
        ({"kind": "status", "status": 500}, "server_error"),
        ({"kind": "status", "status": 302}, "redirect"),
        ({"kind": "status", "status": 410, "match": {"to": "?*"}}, "cursor_gone"),
        ({"kind": "half"}, "cut_off"),
        ({"kind": "reset"}, "cut_off"),
        ({"kind": "garbage"}, "no_json"),
        ({"kind": "silence"}, "timeout"),
        ({"kind": "latency", "seconds": 3}, "timeout"),
        ({"kind": "short"}, "wrong_count"),
        ({"kind": "refuse", "seconds": 60}, "unreachable"),
    ],
)
def test_the_reference_fails_as_it_is_told_to(rule, code):
    service = Service()
    with serving(service) as url:
        client = Client(url, token=TOKEN, timeout_s=1)
        cursor = client.read_page(EVERYBODY, as_of=AS_OF, cursor=None, limit=10).next_cursor
        module.Client(url).send("/faults", json.dumps({"rules": [rule]}).encode())
        with pytest.raises(UserServiceError) as raised:
            ask(url, cursor=cursor, timeout_s=1)
        assert raised.value.code == code
        if rule["kind"] != "refuse":
            service.faults.replace([])
            assert len(client.read_page(EVERYBODY, as_of=AS_OF, cursor=cursor, limit=10).rows) == 10
