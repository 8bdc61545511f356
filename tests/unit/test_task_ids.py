"""The ids of a request reach the lines of the task that it led to, and no line of the next."""

import pytest
from celery import Celery
from structlog.contextvars import bound_contextvars, clear_contextvars, get_contextvars

from scheduler_project import task_ids


class Task:
    """As much of a running task as the ids see."""

    name = "delivery.send"

    def __init__(self, *, given=None, is_eager=False):
        self.request = Request(is_eager)
        if given is not None:
            setattr(self.request, task_ids.HEADER, given)


class Request:
    def __init__(self, is_eager):
        self.is_eager = is_eager

    def get(self, name):
        return getattr(self, name, None)


@pytest.fixture(autouse=True)
def nothing_bound():
    clear_contextvars()
    yield
    clear_contextvars()


def sent(headers=None):
    """What a message takes along."""
    headers = {} if headers is None else headers
    task_ids._send_along(headers=headers)
    return headers[task_ids.HEADER]


def test_a_message_of_a_request_takes_its_ids_and_nothing_else():
    with bound_contextvars(request_id="r1", correlation_id="c1", address="anna@example.com"):
        assert sent() == {"request_id": "r1", "correlation_id": "c1"}


def test_a_message_of_beat_begins_a_correlation_of_its_own():
    first, second = sent(), sent()
    assert set(first) == {"correlation_id"}
    assert first != second


def test_what_is_sent_again_keeps_the_ids_of_the_first():
    with bound_contextvars(correlation_id="c2"):
        assert sent({task_ids.HEADER: {"correlation_id": "c1"}}) == {"correlation_id": "c1"}


def test_a_task_has_the_ids_while_it_runs_and_not_afterwards():
    task = Task(given={"request_id": "r1", "correlation_id": "c1", "address": "anna@example.com"})
    task_ids._bind(task, "t1")
    expected = {"request_id": "r1", "correlation_id": "c1", "task": "delivery.send", "task_id": "t1"}
    assert get_contextvars() == expected
    assert sent() == {"request_id": "r1", "correlation_id": "c1"}
    task_ids._unbind(task)
    assert get_contextvars() == {}


@pytest.mark.parametrize("given", [None, "c1", {"correlation_id": ""}])
def test_a_message_without_usable_ids_begins_its_own(given):
    task = Task(given=given)
    task_ids._bind(task, "t1")
    assert get_contextvars()["correlation_id"]
    assert "request_id" not in get_contextvars()
    task_ids._unbind(task)


def test_a_task_within_a_request_leaves_the_request_its_ids():
    with bound_contextvars(request_id="r1"):
        task = Task(is_eager=True)
        task_ids._bind(task, "t1")
        task_ids._unbind(task)
        assert get_contextvars() == {"request_id": "r1"}


def test_celery_hands_the_ids_over_as_a_header():
    """By the project's real signals, over a broker in memory."""
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.task_serializer = "json"
    with bound_contextvars(request_id="r1", correlation_id="c1"):
        app.send_task("x", queue="ids")
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("ids").get(block=False)
        message.ack()
    assert message.headers[task_ids.HEADER] == {"request_id": "r1", "correlation_id": "c1"}
