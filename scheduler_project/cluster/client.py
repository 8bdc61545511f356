"""A program that uses the API through the proxy, as others do: OAuth by client credentials, keys, one try."""

import base64
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import urllib3
from urllib3.exceptions import HTTPError

_JSON, _NDJSON = "application/json", "application/x-ndjson"
_TIMEOUT = urllib3.Timeout(connect=5, read=60)
# Before its end a token is fetched anew.
_SPARE_S = 60
_WAITED_S = 0.5


class Refused(Exception):
    """The service did not do what it was asked for, or nobody answered; the text says what came."""


@dataclass
class Client:
    """``address`` is the proxy's. Safe for one thread."""

    address: str
    client_id: str
    secret: str
    _pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(timeout=_TIMEOUT, retries=False))
    _token: str = ""
    _until: float = 0.0

    def get(self, path: str) -> Any:
        """Raises ``Refused``."""
        return self.ask("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """With a key of its own, so that a proxy may ask twice. Raises ``Refused``."""
        return self.ask("POST", path, json.dumps(body).encode(), key=str(uuid4()))

    def ask(self, method: str, path: str, body: bytes | None = None, *, media_type: str = _JSON, key: str = "") -> Any:
        """What is answered, JSON or lines of it; ``path`` below /api/v1/. Raises ``Refused``."""
        headers = {"Authorization": f"Bearer {self._bearer()}", "Content-Type": media_type}
        headers |= {"Idempotency-Key": key} if key else {}
        status, content = self._request(method, f"/api/v1/{path}", body, headers)
        if status >= 300:
            raise Refused(f"{method} {path}: {status} {content[:500].decode(errors='replace')}")
        lines = [json.loads(line) for line in content.splitlines()] if media_type == _NDJSON else None
        return lines if lines is not None else json.loads(content) if content else None

    def put_people(self, people: Iterable[Mapping[str, Any]]) -> None:
        """Create or change up to 10,000 people. Raises ``Refused``, naming the first who was."""
        lines = [json.dumps(person).encode() for person in people]
        for told in self.ask("POST", "recipients:bulk", b"\n".join(lines), media_type=_NDJSON):
            if told["errors"]:
                raise Refused(f"recipients:bulk: {told}")

    def send(self, *, tag: str, seconds: float, channel: str = "email") -> int:
        """A one-off to all who bear ``tag``, due in ``seconds``; its id. Raises ``Refused``."""
        template = self.post(
            "templates",
            {
                "name": f"{tag} {uuid4().hex[:8]}",
                "defaultLocale": "en",
                "contents": [
                    {"channel": channel, "locale": "en", "subject": f"{tag}: {{{{ first_name }}}}", "text": "Hello."}
                ],
            },
        )
        due = datetime.now(UTC) + timedelta(seconds=seconds)
        made = self.post(
            "schedules",
            {
                "name": tag,
                "channel": channel,
                "templateId": template["id"],
                "scheduleType": "once",
                "runAt": due.isoformat().replace("+00:00", "Z"),
                "audienceQuery": {"field": "tags", "op": "contains", "value": tag},
            },
        )
        return int(made["id"])

    def occurrence(self, schedule_id: int) -> Mapping[str, Any] | None:
        """Of a one-off, with its books; none before it was opened. Raises ``Refused``."""
        items = self.get(f"schedules/{schedule_id}/occurrences")["items"]
        return self.get(f"occurrences/{items[0]['id']}") if items else None

    def await_end(self, schedule_id: int, *, seconds: float) -> Mapping[str, Any]:
        """The occurrence of a one-off once nobody is open any more. Raises ``Refused``, also when it takes longer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self.get(f"schedules/{schedule_id}")["status"] == "finished" and (
                    found := self.occurrence(schedule_id)
                ):
                    return found
            except Refused:
                if time.monotonic() + _WAITED_S > deadline:
                    raise
            time.sleep(_WAITED_S)
        raise Refused(f"Schedule {schedule_id} is not finished within {seconds:.0f} s")

    def _bearer(self) -> str:
        if time.monotonic() > self._until:
            basic = base64.b64encode(f"{self.client_id}:{self.secret}".encode()).decode()
            headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
            status, content = self._request("POST", "/oauth/token", b"grant_type=client_credentials", headers)
            if status != 200:
                raise Refused(f"POST /oauth/token: {status} {content[:500].decode(errors='replace')}")
            answer = json.loads(content)
            self._token = answer["access_token"]
            self._until = time.monotonic() + answer["expires_in"] - _SPARE_S
        return self._token

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        try:
            answer = self._pool.request(method, self.address + path, body=body, headers=dict(headers))
        except HTTPError as error:
            raise Refused(f"{method} {path}: {type(error).__name__}") from error
        return answer.status, answer.data
