"""Whom the user service tells of, in benchmarks: people with an address, a device and six attributes each."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from benchmarks.environment import ROOT
from benchmarks.harness import execute
from stubs.testing import RunningUserService, running_user_service

# Seconds in which the service answers, whatever the page.
LATENCY_S = 0.2
AUDIENCE = {"field": "tags", "op": "contains", "value": "told"}
LONG_SINCE = "2026-01-01T00:00:00Z"
_CITIES = ("Lisbon", "Vienna", "Kyoto", "Montréal", "Porto")
_ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney")


def profile(number: int, *, city: str = "", updated: str = LONG_SINCE) -> dict[str, Any]:
    """As the contract has it."""
    noise = hashlib.sha256(str(number).encode()).hexdigest()
    return {
        "externalId": f"told-{number}",
        "email": f"told{number}@example.com",
        "locale": ("en", "de", "fr", "es")[number % 4],
        "timeZone": _ZONES[number % 4],
        "attributes": {
            "first_name": "Ada", "city": city or _CITIES[number % 5], "plan": ("free", "plus", "pro")[number % 3],
            "points": number % 1000, "coupon": noise[:10], "cell": number // 20,
        },
        "tags": ["member", "told"],
        "consent": {"email": True} if number % 4 else {},
        "devices": [{"platform": "android", "token": f"{noise[:22]}:APA91b{noise}{noise}"}],
        "updatedAt": updated,
    }  # fmt: skip


@contextmanager
def telling(count: int) -> Iterator[RunningUserService]:
    """The reference with so many people, and its settings for ``answered_by``."""
    path = ROOT / "people.ndjson"
    path.write_text("".join(f"{json.dumps(profile(number))}\n" for number in range(count)))
    with running_user_service(people=path, token="of-the-benchmark") as running:
        running.fault({"kind": "latency", "match": {"operation": "Page"}, "seconds": LATENCY_S})
        yield running


def answered_by(running: RunningUserService | None) -> None:
    """Audiences are answered by it; without it by the people kept here."""
    settings.USER_SERVICE_URL = running.url if running else ""
    settings.USER_SERVICE_TOKEN = running.token if running else ""


def forget() -> None:
    """Nobody whom the service tells of is known any more."""
    told = "(SELECT id FROM schedules_recipient WHERE external_id LIKE 'told-%%')"
    execute(f"DELETE FROM schedules_mirroredperson WHERE recipient_id IN {told}")
    execute(f"DELETE FROM schedules_device WHERE recipient_id IN {told}")
    execute("DELETE FROM schedules_recipient WHERE external_id LIKE 'told-%%'")
    execute("VACUUM schedules_recipient, schedules_device, schedules_mirroredperson")
