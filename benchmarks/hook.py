"""What a message of the user service costs that tells of one person, and whether fifty a second can be lived with.

    python -m benchmarks.hook [--people 20000] [--messages 300] [--rate 50] [--seconds 20]

A message is a signed request through the whole of the web server's side, in this process: ``known_ms`` of somebody in
whom nothing is new, ``changed_ms`` of somebody with another language, ``new_ms`` of somebody who was not known; each in
processor time, Python's and PostgreSQL's together. ``rate_p95_ms``: from the instant at which a message was due until
its answer, ``rate`` messages a second by four threads; ``rate_cores``: what that takes of the processors.
"""

import argparse
import base64
import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import connection
from django.test import Client

from benchmarks import costs, told
from benchmarks.harness import emit, execute, note, prepare
from schedules import standard_webhooks
from schedules.user_service.mirror import mirror
from schedules.user_service.reading import read_profiles

NAME = "hook"
THREADS = 4
SECRET = b"a secret of the benchmark's own!"
_numbers = itertools.count()
_of_thread = threading.local()


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Messages of a user service.")
    parser.add_argument("--people", type=int, default=20_000, help="who are known beforehand")
    parser.add_argument("--messages", type=int, default=300, help="of each kind, of which the mean is told")
    parser.add_argument("--rate", type=int, default=50, help="messages a second")
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    prepare()
    settings.USER_SERVICE_HOOK_SECRET = standard_webhooks.PREFIX + base64.b64encode(SECRET).decode()
    _know(options.people)
    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "known": told.profile,
        "changed": lambda number: told.profile(number, updated=_now()) | {"locale": "it"},
        "new": lambda number: told.profile(options.people + number),
    }
    for name, made in kinds.items():
        _cost(name, [made(number) for number in range(options.messages)])
    _paced(options)


def _know(count: int) -> None:
    for start in range(0, count, 10_000):
        told_of = [told.profile(number) for number in range(start, min(start + 10_000, count))]
        mirror(*read_profiles(told_of), by="benchmark", now=datetime.now(UTC))
    execute("VACUUM ANALYZE schedules_recipient, schedules_device, schedules_mirroredperson")


def _cost(name: str, profiles: Sequence[dict[str, Any]]) -> None:
    postgres = costs.server_pids()["postgres"]
    _send(told.profile(0))
    python_s, postgres_s = time.process_time(), costs.cpu_seconds(postgres)
    for profile in profiles:
        _send(profile)
    python_ms = (time.process_time() - python_s) / len(profiles) * 1000
    postgres_ms = (costs.cpu_seconds(postgres) - postgres_s) / len(profiles) * 1000
    note(f"  {name}: {python_ms:.1f} ms of Python, {postgres_ms:.1f} ms of PostgreSQL")
    emit(NAME, f"{name}_ms", python_ms + postgres_ms, "ms")


def _paced(options: argparse.Namespace) -> None:
    """Half of the messages tell of another language."""
    count = options.rate * options.seconds
    now = _now()
    profiles = [told.profile(n % options.people, updated=now) | {"locale": ("it", "en")[n % 2]} for n in range(count)]
    postgres = costs.server_pids()["postgres"]
    used = time.process_time() + costs.cpu_seconds(postgres)
    begun = time.perf_counter() + 0.2

    def send(number: int) -> float:
        due: float = begun + number / options.rate
        time.sleep(max(0.0, due - time.perf_counter()))
        _send(profiles[number])
        return time.perf_counter() - due

    with ThreadPoolExecutor(THREADS) as pool:
        late = sorted(pool.map(send, range(count)))
        list(pool.map(lambda _: connection.close(), range(THREADS)))
    cores = (time.process_time() + costs.cpu_seconds(postgres) - used) / options.seconds
    note(f"  {options.rate} a second: {late[len(late) // 2] * 1000:.0f} ms at the median, {cores:.2f} cores")
    emit(NAME, "rate_p95_ms", late[math.ceil(0.95 * len(late)) - 1] * 1000, "ms")
    emit(NAME, "rate_cores", cores, "cores")


def _send(profile: dict[str, Any]) -> None:
    event_id = f"msg-{next(_numbers)}"
    body = json.dumps({"type": "recipient.updated", "timestamp": _now(), "data": {"recipients": [profile]}}).encode()
    headers = standard_webhooks.signed([SECRET], event_id=event_id, body=body)
    answer = _client().post(
        "/hooks/user-service", body, content_type="application/json", headers=headers, HTTP_HOST="localhost"
    )
    if answer.status_code != 204:
        raise SystemExit(f"A message was answered with {answer.status_code}: nothing was measured.")


def _client() -> Client:
    """One for each thread: to make one is as dear as a message."""
    if not hasattr(_of_thread, "client"):
        _of_thread.client = Client()
    found: Client = _of_thread.client
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat()


if __name__ == "__main__":
    main()
