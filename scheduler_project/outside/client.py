"""A program's way into a service: OAuth by client credentials, one attempt a request, answers read for a bounded time.

What it raises names status and address, and quotes no more of an answer than a problem's title and its pointers.
"""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from schedules.bounded import EncryptedPool, PlainPool

CONNECT_S: Final = 5.0
_SPARE_S: Final = 60.0  # before its end a token is asked for anew
_PAUSE_S: Final = 1.0  # after a 429: rates are counted by the second
_MOST_PAUSES: Final = 30
_PAGE: Final = 200


class OutsideError(Exception):
    """The service did not do what it was asked for; the words say what came, and name no person."""

    names_nobody = True  # as logs ask


class Answer(NamedTuple):
    status: int
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Raises ``OutsideError``."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise OutsideError(f"answered {self.status} with something that is no JSON") from error


class Client:
    """``url`` is where the service is reached, https://host. Threads share it. ``timeout_s`` is for each answer.

    ``as_proxy``: what is asked is said to have come by https, as a proxy says it that stands before web servers.
    """

    def __init__(self, url: str, *, client_id: str, secret: str, timeout_s: float, as_proxy: bool = False) -> None:
        read = urlsplit(url)
        if read.scheme not in ("http", "https") or not read.hostname or read.query or read.fragment:
            raise OutsideError(f"{url} is no address of a service: let it look like https://notifications.example.com")
        self.url = url.rstrip("/")
        self._basic = (client_id, secret)
        self._always = {"User-Agent": "notification-scheduler-outside"}
        self._always |= {"X-Forwarded-Proto": "https"} if as_proxy else {}
        self._timeout = urllib3.Timeout(connect=min(CONNECT_S, timeout_s), total=timeout_s)
        self._pools = urllib3.PoolManager(maxsize=8)
        self._pools.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}
        self._lock = threading.Lock()
        self._token, self._good_until = "", 0.0

    @property
    def is_signed_in(self) -> bool:
        """Whether there was ever a token."""
        return bool(self._token)

    def page(self, address: str) -> Answer:
        """What stands at a whole address, whatever its status, without a token. Raises ``OutsideError``."""
        return self._request("GET", address, None, {})

    def sign_in(self) -> None:
        """Ask for a token now. Raises ``OutsideError``."""
        with self._lock:
            self._good_until = 0.0
        self._bearer()

    def get(self, path: str, **query: Any) -> Any:
        """JSON of a 200; ``path`` below /api/v1/. Raises ``OutsideError``."""
        return self.call("GET", _with(path, query)).json()

    def find(self, path: str) -> Any | None:
        """As ``get``; None for a 404."""
        answer = self.call("GET", path, allow=(404,))
        return None if answer.status == 404 else answer.json()

    def every(self, path: str, **query: Any) -> Iterator[Any]:
        """The items of all pages of a list. Raises ``OutsideError``."""
        cursor: dict[str, str] = {}
        while True:
            found = self.get(path, **query, limit=_PAGE, **cursor)
            yield from found["items"]
            if not found["nextCursor"]:
                return
            cursor = {"cursor": found["nextCursor"]}

    def post(self, path: str, body: Any, *, key: str) -> Any:
        """JSON of a 2xx; ``key`` is the request's Idempotency-Key. Raises ``OutsideError``."""
        return self.call("POST", path, body, headers={"Idempotency-Key": key}).json()

    def put(self, path: str, body: Any, **query: Any) -> Any:
        """Of something that may not be there yet. Raises ``OutsideError``."""
        return self.call("PUT", _with(path, query), body, headers={"If-None-Match": "*"}).json()

    def delete(self, path: str) -> None:
        """Whatever its version, and also where there is nothing any more. Raises ``OutsideError``."""
        self.call("DELETE", path, headers={"If-Match": "*"}, allow=(404,))

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        allow: tuple[int, ...] = (),
    ) -> Answer:
        """``body``: what JSON can say, or bytes, which are lines of it. Waits where it is asked to (429).

        Raises ``OutsideError`` for every status but 2xx and those that are allowed.
        """
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
        for _ in range(_MOST_PAUSES):
            sent = {"Authorization": f"Bearer {self._bearer()}", "Accept": "*/*", **(headers or {})}
            sent |= {"Content-Type": kind} if data is not None else {}
            answer = self._request(method, f"{self.url}/api/v1/{path}", data, sent)
            if answer.status != 429:
                break
            time.sleep(_PAUSE_S)
        if not (200 <= answer.status < 300 or answer.status in allow):
            raise OutsideError(f"{method} /api/v1/{_named(path)} answered {answer.status}{_problem(answer.body)}")
        return answer

    def _bearer(self) -> str:
        with self._lock:
            if time.monotonic() > self._good_until:
                basic = urllib3.make_headers(basic_auth=":".join(self._basic))["authorization"]
                headers = {"Authorization": basic, "Content-Type": "application/x-www-form-urlencoded"}
                answer = self._request("POST", f"{self.url}/oauth/token", b"grant_type=client_credentials", headers)
                if answer.status != 200:
                    hint = ": see to CLIENT_ID and CLIENT_SECRET" if answer.status in (400, 401) else ""
                    raise OutsideError(f"POST /oauth/token answered {answer.status}{hint}")
                given = answer.json()
                self._token = given["access_token"]
                self._good_until = time.monotonic() + given["expires_in"] - _SPARE_S
            return self._token

    def _request(self, method: str, address: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        began = time.monotonic()
        try:
            answer = self._pools.request(
                method,
                address,
                body=body,
                headers={**self._always, **headers},
                timeout=self._timeout,
                retries=False,
                redirect=False,
            )
        except (HTTPError, OSError, ValueError) as error:  # its words may quote what was sent
            where = urlsplit(address)
            raise OutsideError(
                f"{method} {where.scheme}://{where.netloc} can't be asked: {type(error).__name__}"
            ) from None
        return Answer(answer.status, answer.data, time.monotonic() - began)


def segment(text: str) -> str:
    """As a part of a path."""
    return quote(text, safe="")


def _with(path: str, query: Mapping[str, Any]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _named(path: str) -> str:
    """Without what may tell of a person."""
    return re.sub(r"\?.*|(?<=recipients/).*", "…", path)


def _problem(body: bytes) -> str:
    """Title and pointers of a problem (RFC 9457), as far as it is one."""
    try:
        said = json.loads(body)
        pointers = ", ".join(str(each["pointer"]) for each in said.get("errors", [])[:5] if each.get("pointer"))
        return f": {said['title']}" + (f" ({pointers})" if pointers else "")
    except (ValueError, KeyError, AttributeError, TypeError):
        return ""
