"""People in bulk, by the API."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from scheduler_project.outside.client import Client, OutsideError


def put(client: Client, people: Iterable[Mapping[str, Any]], *, query: str = "", key: str = "") -> None:
    """Create or change up to 10,000; with a ``key`` a proxy may ask twice. ``query``: of the address.

    Raises ``OutsideError``, also where somebody was refused.
    """
    lines = b"\n".join(json.dumps(person).encode() for person in people)
    path = f"recipients:bulk?{query}" if query else "recipients:bulk"
    answer = client.call("POST", path, lines, headers={"Idempotency-Key": key} if key else None)
    told = [json.loads(line) for line in answer.body.splitlines()]
    if bad := [each for each in told if each["errors"]]:
        raise OutsideError(f"{len(bad)} of {len(told)} people were refused: {bad[0]['errors'][0].get('code')}")
