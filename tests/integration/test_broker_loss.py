"""A worker that is busy when the broker goes away must not stay deaf."""

import logging
from pathlib import Path

import pytest
from kombu import Connection, Queue

import scheduler_project.celery  # noqa: F401 - what workers import
from scheduler_project.local.redis import running_server


@pytest.mark.parametrize("how", ["ack_log_error", "reject_log_error"])
def test_a_message_whose_end_the_broker_cannot_be_told_of_holds_no_place(tmp_path: Path, how: str) -> None:
    taken = []
    options = {"socket_connect_timeout": 1, "max_retries": 0}
    with running_server(root=tmp_path) as broker, Connection(broker.url, transport_options=options) as connection:
        channel = connection.channel()
        with connection.Consumer(
            [Queue("jobs")], channel=channel, on_message=taken.append, prefetch_count=1, accept=["json"]
        ):
            connection.Producer().publish({}, routing_key="jobs", declare=[Queue("jobs")])
            connection.drain_events(timeout=60)
            assert not channel.qos.can_consume()
            broker.kill()
            getattr(taken[0], how)(logging.getLogger("test"), connection.connection_errors)
            assert channel.qos.can_consume()
            broker.start()
