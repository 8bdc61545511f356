"""The load of ``benchmarks.api``, for locust: schedules created, read, changed and deleted over real HTTP.

    locust -f benchmarks/load.py --headless --host URL -u USERS -t SECONDS (with API_TOKEN, TEMPLATE_ID, TIMES_TO)

Each user makes two requests a second, whatever the last one took, so that fifty users are a hundred requests a second.
Every answer's kind, status and time (ms) go to the file TIMES_TO, a JSON list a line.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, events, task

TIMES = Path(os.environ["TIMES_TO"]).open("w")  # noqa: SIM115 - as long as the process
REQUESTS_PER_S = 2  # of each user
SIGNED = {"Authorization": f"Bearer {os.environ['API_TOKEN']}"}


@events.request.add_listener
def _note(name: str, response_time: float, response: Any = None, exception: Any = None, **_: Any) -> None:
    status = getattr(response, "status_code", 0) or 0
    TIMES.write(json.dumps([name, status if exception is None or status else 0, response_time]) + "\n")


@events.quit.add_listener
def _close(**_: Any) -> None:
    TIMES.close()


class Service(FastHttpUser):  # type: ignore[misc]
    """Another service: it makes a schedule, looks at it, changes its name, and takes it back; one request at a time.

    Users begin at a moment of their own and keep to its beat, so that requests come evenly and not fifty at once.
    Locust's own ``constant_throughput`` counts from when a user was made, and it makes all of a second's at once.
    """

    def on_start(self) -> None:
        self._due = time.monotonic() + random.random() / REQUESTS_PER_S
        gevent.sleep(self._due - time.monotonic())
        self._steps = self._rounds()

    def wait_time(self) -> float:
        self._due += 1 / REQUESTS_PER_S
        return max(self._due - time.monotonic(), 0.0)

    @task
    def step(self) -> None:
        next(self._steps)

    def _rounds(self) -> Iterator[None]:
        while True:
            kept = self._create()
            yield
            if kept is None:
                continue
            path, version = f"/api/v1/schedules/{kept['id']}", kept["version"]
            self.client.get(path, headers=SIGNED, name="read")
            yield
            changed = {**SIGNED, "If-Match": f'"{version}"'}
            self.client.patch(path, json={"name": "Load, changed"}, headers=changed, name="update")
            yield
            self.client.delete(path, headers={**SIGNED, "If-Match": f'"{version + 1}"'}, name="delete")
            yield

    def _create(self) -> Any:
        definition = {
            "name": "Load",
            "channel": "email",
            "audienceQuery": {"field": "attributes.plan", "op": "eq", "value": "pro"},
            "templateId": int(os.environ["TEMPLATE_ID"]),
            "scheduleType": "once",
            "runAt": (datetime.now(UTC) + timedelta(days=30)).isoformat(),
        }
        answer = self.client.post("/api/v1/schedules", json=definition, headers=SIGNED, name="create")
        return answer.json() if answer.status_code == 201 else None
