"""A one-off send by the API: made, and seen to its end."""

import time
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from scheduler_project.outside.client import Client

_OVER: Final = ("finished", "cancelled", "missed")


def make(client: Client, *, name: str, channel: str, subject: str, text: str, audience: Any, ahead: timedelta) -> int:
    """Id of a schedule to ``audience``, a query, due ``ahead`` of the service's clock; its template bears its name.

    ``subject`` is left out where the channel has none. Raises ``OutsideError``.
    """
    begun = time.monotonic()
    content = {"channel": channel, "locale": "en", "text": text, **({} if channel == "push" else {"subject": subject})}
    template = client.post(
        "templates", {"name": name, "defaultLocale": "en", "contents": [content]}, key=f"template-{uuid4()}"
    )
    answered = timedelta(seconds=time.monotonic() - begun)  # however slowly: what is past is refused
    due = datetime.fromisoformat(template["createdAt"]) + answered + ahead
    said = {
        "name": name,
        "channel": channel,
        "templateId": template["id"],
        "scheduleType": "once",
        "runAt": due.isoformat().replace("+00:00", "Z"),
        "audienceQuery": audience,
    }
    return int(client.post("schedules", said, key=f"schedule-{uuid4()}")["id"])


def ended(client: Client, schedule: int) -> dict[str, Any] | None:
    """The run of a one-off, as its list has it, once it is over. Raises ``OutsideError``."""
    found = client.get(f"schedules/{schedule}/occurrences")["items"]
    return found[0] if found and found[0]["state"] in _OVER else None
