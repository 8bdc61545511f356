"""A person at the service's door: carries out what is asked on standard input, line by line, as a process of its own.

A line is ``{"do": NAME, ...}``; the answer is ``{"begun": s, "done": s, "result": ...}``, seconds since 1970 around the
committed operation, or ``{"error": "..."}``. While the database is away it tries again.
"""

import json
import os
import signal
import sys
import time
from datetime import datetime
from typing import Any

import django

django.setup()

from django.db import InterfaceError, OperationalError, connection, transaction  # noqa: E402

from delivery import dispatch, erasure  # noqa: E402
from schedules import clock, operations, stops, templates  # noqa: E402
from schedules.definition import Definition  # noqa: E402

BY = "system:chaos"
_AWAY_S = 60.0


def create(schedules: list[dict[str, Any]]) -> list[int]:
    """Ids of new schedules: name, words, channel, group, at or start_at and end_at (ISO 8601), and more fields of
    ``Definition``. Those whose words are the same share a template. None is made where one is refused.
    """
    made: dict[str, int] = {}
    with transaction.atomic():
        return [_create(made, **schedule) for schedule in schedules]


def _create(made: dict[str, int], *, name: str, words: str, channel: str, group: str, **more: Any) -> int:
    if words not in made:
        made[words] = _template(words, channel)
    instants = {"at": "run_at", "start_at": "start_at", "end_at": "end_at"}
    given = {instants[field]: datetime.fromisoformat(more.pop(field)) for field in instants.keys() & more.keys()}
    definition = Definition(
        name=name,
        channel=channel,
        template_id=made[words],
        schedule_type="cron" if "cron" in more else "once",
        audience_query=_audience(group),
        **given,
        **more,
    )
    return int(operations.create(definition=definition, by=BY, now=clock.now()).pk)


def edit(schedule: int, apply_to: str, channel: str, words: str, group: str, at: str) -> None:
    changes: dict[str, Any] = {"template_id": _template(words, channel), "audience_query": _audience(group)}
    if at:
        changes["run_at"] = datetime.fromisoformat(at)
    operations.update(
        schedule_id=schedule, changes=changes, by=BY, now=clock.now(), apply_to=operations.ApplyTo(apply_to)
    )


def pause(schedule: int) -> None:
    operations.pause(schedule_id=schedule, by=BY, now=clock.now())


def resume(schedule: int) -> None:
    operations.resume(schedule_id=schedule, by=BY, now=clock.now())


def cancel(schedule: int) -> None:
    operations.cancel(schedule_id=schedule, by=BY, now=clock.now())


def delete(schedule: int) -> None:
    operations.delete(schedule_id=schedule, by=BY, now=clock.now())


def stop(scope: str) -> None:
    stops.stop_sending(scope=scope, by=BY, now=clock.now())


def go(scope: str) -> None:
    stops.go_sending(scope=scope, by=BY, now=clock.now())


def erase(recipient: int) -> None:
    erasure.forget(recipient_id=recipient, by=BY, now=clock.now())


def take_due_and_die() -> None:
    """What a tick does, up to where it would hand the batches to the broker. It looks for some for two seconds."""
    give_up = time.monotonic() + 2
    while not dispatch.take_due(now=clock.now()) and time.monotonic() < give_up:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


OPERATIONS = {
    each.__name__: each for each in (create, edit, pause, resume, cancel, delete, stop, go, erase, take_due_and_die)
}


def _template(words: str, channel: str) -> int:
    content = {"channel": channel, "locale": "en", "subject": words, "text": words + " for {{ recipient.external_id }}"}
    return int(templates.save(name=words, contents=[content], by=BY, now=clock.now()).pk)


def _audience(group: str) -> dict[str, Any]:
    return {"field": "tags", "op": "contains", "value": group}


def _carry_out(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    give_up = time.monotonic() + _AWAY_S
    begun = time.time()
    while True:
        try:
            result = OPERATIONS[name](**arguments)
            return {"begun": begun, "done": time.time(), "result": result}
        except (OperationalError, InterfaceError):
            connection.close()
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        clock.forget()
        try:
            answer = _carry_out(asked.pop("do"), asked)
        except Exception as error:  # the scenario decides what it means
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
