"""Old and new workers overlap during a deploy: what one puts into a queue, the other must understand, or not lose."""

import inspect

import pytest

import scheduler_project.tasks  # noqa: F401 - the roof's own
from delivery import tasks
from delivery.models import Batch
from scheduler_project.celery import app
from tests.factories import ScheduleFactory, people
from tests.service import states

OURS = sorted(name for name in app.tasks if not name.startswith("celery."))
# Arguments that a task of an earlier release was sent with: what stands here stays for as long as its messages may lie
# in a queue, hence for a release.
EARLIER = {
    "delivery.send": [{"batch_ids": []}, {"batch_ids": [], "queue": "email"}],
    "delivery.materialise": [{"occurrence_ids": []}],
    "delivery.send_test": [{"test_send_id": 0}],
    "delivery.import_people": [{"import_id": 0}],
    "delivery.canary": [{"queue": "email"}],
}


def test_there_are_tasks():
    assert {"delivery.tick", "delivery.send", "delivery.sweep", "delivery.materialise", "frontend.tidy"} <= set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_a_task_takes_names_alone_and_lets_pass_what_a_later_release_adds(name):
    task = app.tasks[name]
    kinds = [each.kind for each in inspect.signature(task.run).parameters.values()]
    assert kinds[-1] is inspect.Parameter.VAR_KEYWORD
    assert set(kinds[:-1]) <= {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", OURS)
def test_a_task_understands_what_an_earlier_release_sends(name):
    task = app.tasks[name]
    needed = {
        each.name
        for each in inspect.signature(task.run).parameters.values()
        if each.default is each.empty and each.kind is each.KEYWORD_ONLY
    }
    for sent in EARLIER.get(name, [{}]):
        assert needed <= set(sent), f"{name} asks for more than an earlier release sends"
        inspect.signature(task.run).bind(**sent, of_a_later_release=1)


@pytest.mark.django_db
def test_a_message_of_a_task_that_a_worker_does_not_know_loses_nobody(service, provider, monkeypatch):
    """Celery throws it away, with a line in the log. The batch is handed out again, as after any lost message."""
    people(3)
    schedule = ScheduleFactory()
    service.open()
    monkeypatch.setattr(tasks.send, "apply_async", lambda **_: None)  # a worker took it and knew nothing of it
    tasks.publish()
    assert Batch.objects.get().queued_at is not None
    assert states(schedule) == {"pending": 3}
    Batch.objects.update(queued_at="2000-01-01T00:00:00Z")  # a minute of real time passes
    assert service.sweep().requeued == 1
    service.send()
    assert states(schedule) == {"sent": 3}
