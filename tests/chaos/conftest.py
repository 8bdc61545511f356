"""The service under attack: two beats, and an e-mail worker of two processes."""

from collections.abc import Callable, Iterator

import pytest

from scheduler_project.local.fleet import beat, worker
from scheduler_project.local.supervisor import Process
from tests.running import Running, running_service


def _processes(env: dict[str, str]) -> list[Process]:
    return [
        beat(name="beat-1", env=env),
        beat(name="beat-2", env=env),
        worker("clock", env=env),
        worker("materialise", env=env),
        worker("email", concurrency=2, env=env),
    ]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_service(tmp_path_factory.mktemp("chaos"), _processes) as service:
        yield service


@pytest.fixture
def mailing(running: Running) -> Callable[..., int]:
    """Make a schedule to ``people`` new recipients, due in ``seconds``; returns its id."""

    def make(*, people: int, seconds: float, tag: str) -> int:
        running.sql(
            "INSERT INTO schedules_recipient (external_id, email, locale, time_zone, attributes, tags, consent)"
            " SELECT %s || i, %s || i || '@example.com', 'en', '', '{}', jsonb_build_array(%s::text), '{}'"
            " FROM generate_series(1, %s) i",
            f"{tag}-", f"{tag}-", tag, people,
        )  # fmt: skip
        return int(running.python(_SCHEDULE.format(tag=tag, seconds=seconds)))

    return make


_SCHEDULE = """
from datetime import timedelta
from schedules import clock, operations, templates
from schedules.definition import Definition
now = clock.now()
contents = [{{"channel": "email", "locale": "en", "subject": "{tag}", "text": "Hello {{{{ recipient.external_id }}}}"}}]
template = templates.save(name="{tag}", contents=contents, by="system:test", now=now)
definition = Definition(
    name="{tag}", channel="email", template_id=template.pk, schedule_type="once",
    audience_query={{"field": "tags", "op": "contains", "value": "{tag}"}}, run_at=now + timedelta(seconds={seconds}),
)
print(operations.create(definition=definition, by="system:test", now=now).pk)
"""
