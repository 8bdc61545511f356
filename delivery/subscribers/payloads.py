"""An event as it is sent: JSON as Standard Webhooks has it, with the people's names as they are at this moment."""

from typing import Any

import orjson
from django.db import connection

from delivery.endpoint_models import Event


def body(event: Event) -> bytes:
    """``{"id", "type", "timestamp", "sequence", "data"}``, at most 256 kB.

    The externalId of people is read now: nothing that names a person lies about, and it is null once he is erased.
    """
    data: dict[str, Any] = dict(event.data)
    if items := data.get("deliveries"):
        names = _names([item["recipientId"] for item in items])
        data["deliveries"] = [{**item, "recipient": names.get(item["recipientId"])} for item in items]
    return orjson.dumps(
        {
            "id": event.event_id,
            "type": event.type,
            "timestamp": event.occurred_at.isoformat().replace("+00:00", "Z"),
            "sequence": event.pk,
            "data": data,
        }
    )


def _names(recipient_ids: list[int]) -> dict[int, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, external_id FROM schedules_recipient WHERE id = ANY(%s)", [recipient_ids])
        return dict(cursor.fetchall())
