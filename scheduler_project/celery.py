"""The Celery application. Workers and beat start with ``celery -A scheduler_project.celery``."""

import os
import signal
import threading
from functools import partial
from queue import Empty
from typing import Any

from celery import Celery
from celery.signals import beat_init, setup_logging, worker_ready, worker_shutting_down
from kombu.transport import redis, virtual

from scheduler_project import brokers, watch

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
# Celery would import every page for Django's checks, 0.6 s of each process, and not tell what they found.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")


class _Places(redis.QoS):
    """Counts the messages that a worker has taken and not yet done with: none more than it may prefetch.

    kombu frees a message's place only once the broker has heard of its end, and swallows that it could not be told. A
    worker that is busy when the broker goes away then waits for ever for a place, connected and deaf (celery #8091).
    Here the place is free in any case; the message comes again, if at all, after the visibility timeout.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise


redis.Channel.QoS = _Places


class _Heard(redis.Channel):
    """A worker that waits asks the broker again each second; that it was answered is its sign of life."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            found = super()._brpop_read(**options)  # type: ignore[misc]  # unknown to the stubs
        except Empty:  # it was answered: there is nothing
            watch.seen()
            raise
        watch.seen()
        return found


redis.Transport.Channel = _Heard

# Real seconds after SIGTERM for tasks to end. Those of sending do so within a call; one that is still at work then (a
# large audience, an import) is cut off, and its message goes back: its transaction was never there. Everywhere thirty
# seconds pass before SIGKILL.
DRAIN_S = 25.0

app = Celery("scheduler_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Celery configures logging unless somebody listens here; ours is set in the settings."""


@worker_shutting_down.connect
def _end_in_time(how: str, **_: Any) -> None:
    """Celery's own limit, worker_soft_shutdown_timeout, is slept through to its end even when every task has ended."""
    if how == "Warm":
        cut_off = threading.Timer(DRAIN_S, os.kill, (os.getpid(), signal.SIGQUIT))
        cut_off.daemon = True
        cut_off.start()


def _broker_answers() -> bool:
    return brokers.answers(app.conf.broker_url)


@worker_ready.connect
def _watch_worker(sender: Any, **_: Any) -> None:
    def excused_s() -> float:
        """One that is at work takes nothing more, for as long as a task may last."""
        return float(app.conf.task_time_limit) if sender.controller.state.reserved_requests else 0.0

    finish = partial(watch.end, within_s=DRAIN_S)
    watch.Watch(kind="worker", answers=_broker_answers, finish=finish, excused_s=excused_s).start()


@beat_init.connect
def _watch_beat(**_: Any) -> None:
    finish = partial(watch.end, within_s=0)
    watch.Watch(kind="beat", answers=_broker_answers, finish=finish, excused_s=lambda: 0.0).start()
