"""The tasks: the only file of this app that knows Celery. Each parses, makes one call, and enqueues what follows.

Arguments are keyword-only ids, and unknown ones are ignored, so that old and new workers overlap during a deploy.
"""

import sys
import time
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from celery import shared_task
from celery.signals import beat_init, celeryd_after_setup, worker_shutting_down
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from audit import roles, seals
from delivery import (
    accounts,
    advance,
    continuity,
    dispatch,
    figures,
    heartbeats,
    leaving,
    materialise,
    partitions,
    sending,
    template_lists,
    test_sends,
)
from delivery import sweep as sweeping
from delivery.providers import registry
from delivery.subscribers import calling, telling
from delivery.subscribers import operations as subscribers
from schedules import clock, encryption, rotation, suppressions
from schedules.imports import uploads
from schedules.models import Channel

log = structlog.get_logger(__name__)

# Occurrences that one message hands to a worker where hundreds wait: each message costs a connection to the database.
MATERIALISE_TOGETHER = 20
# Seconds after which the rest of them is left to others: with a user service that is silent each takes half a minute,
# and no task may go on for ever.
MATERIALISE_TURN_S = 60
# Real seconds within which a process that works looks again whether its database was restored; the tick does each time.
LOOK_S = 5.0


@celeryd_after_setup.connect
def _make_providers(instance: Any, **_: Any) -> None:
    """A worker without keys, rights or its provider ends at its start, with words, rather than at its first message."""
    try:
        encryption.keyset()
        roles.require_granted()
        for channel in set(Channel.values) & set(instance.app.amqp.queues.consume_from):
            registry.for_channel(channel)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    rotation.tell_stale()


@beat_init.connect
def _look_at_rights(**_: Any) -> None:
    """As of a worker."""
    try:
        roles.require_granted()
    except ImproperlyConfigured as error:
        sys.exit(str(error))


@worker_shutting_down.connect
def _leave(**_: Any) -> None:
    leaving.leave()


@shared_task(name="delivery.tick")
def tick(**_: Any) -> None:
    """Open what is due, hand out what waits. Once a second. Nothing of it in a database that was set back."""
    if continuity.look(now=clock.now()):
        _tick()
    heartbeats.beat(heartbeats.TICK)
    heartbeats.ask(_send_canary)


def _tick() -> None:
    publish()  # first: opening thousands of occurrences takes seconds
    now = clock.now()
    opened = dispatch.open_due(now=now)
    if opened.occurrence_ids or opened.missed or opened.broken:
        log.info("opened", occurrences=len(opened.occurrence_ids), missed=opened.missed, broken=opened.broken)
    waiting = dispatch.to_materialise()
    some = min(max(len(waiting) // 20, 1), MATERIALISE_TOGETHER)
    for start in range(0, len(waiting), some):
        materialise_occurrences.apply_async(
            kwargs={"occurrence_ids": waiting[start : start + some]},
            queue="materialise",
            expires=settings.MATERIALISE_AHEAD_S,
        )
    publish()
    for test_send_id, channel in test_sends.take_waiting():
        send_test.apply_async(kwargs={"test_send_id": test_send_id}, queue=channel)
    if (import_id := uploads.take_waiting()) is not None:
        import_people.apply_async(kwargs={"import_id": import_id}, queue="materialise")


def _send_canary(queue: str) -> None:
    canary.apply_async(kwargs={"queue": queue}, queue=queue, expires=heartbeats.ANSWER_S)


@shared_task(name="delivery.canary")
def canary(*, queue: str, **_: Any) -> None:
    """Show that somebody consumes ``queue``."""
    heartbeats.beat(f"queue:{queue}")


def catch_up() -> None:
    """A tick that materialises by itself: for the test clock's advance, which waits for each step."""
    advance.catch_up(hand_out=_queue)


def publish() -> None:
    """Queue the batches that are due within the next moments."""
    for handout in dispatch.take_due(now=clock.now()):
        _queue(handout)


def _queue(handout: dispatch.Handout) -> None:
    send.apply_async(kwargs={"batch_ids": handout.batch_ids, "queue": handout.channel}, queue=handout.channel)


@shared_task(name="delivery.materialise")
def materialise_occurrences(*, occurrence_ids: list[int], **_: Any) -> None:
    """Find the recipients of some occurrences. A second copy of the message finds the leases taken; those that are left
    are handed out again."""
    begun = time.monotonic()
    for occurrence_id in occurrence_ids:
        heartbeats.consumed("materialise")
        if not continuity.look(now=clock.now(), every_s=LOOK_S):
            return
        if materialise.attempt(occurrence_id=occurrence_id, now=clock.now()):
            publish()
        if leaving.is_leaving() or time.monotonic() - begun > MATERIALISE_TURN_S:
            break


@shared_task(name="delivery.send")
def send(*, batch_ids: list[int], queue: str = "", **_: Any) -> None:
    """Send what is due of some batches."""
    if continuity.look(now=clock.now(), every_s=LOOK_S):
        sending.send(batch_ids=batch_ids)
    heartbeats.consumed(queue)


@shared_task(name="delivery.send_test")
def send_test(*, test_send_id: int, **_: Any) -> None:
    """Send a message to be looked at. A second copy of the message finds it taken."""
    if continuity.look(now=clock.now(), every_s=LOOK_S):
        test_sends.send(test_send_id=test_send_id, now=clock.now())


@shared_task(name="delivery.import_people")
def import_people(*, import_id: int, **_: Any) -> None:
    """Look through an uploaded file of people, or import it. A second copy of the message finds the lease taken."""
    heartbeats.consumed("materialise")
    uploads.run(import_id=import_id, now=clock.now())


@shared_task(name="delivery.sweep")
def sweep(**_: Any) -> None:
    """Settle what nobody holds any more. Every few seconds."""
    if continuity.look(now=clock.now(), every_s=LOOK_S):
        sweeping.sweep(now=clock.now())
        test_sends.give_up(now=clock.now())
    heartbeats.beat(heartbeats.SWEEP)


@shared_task(name="delivery.seal_audit")
def seal_audit(**_: Any) -> None:
    """Seal what the audit has got. Once a minute."""
    if made := seals.seal(now=timezone.now()):
        log.info("audit_sealed", seals=len(made), rows=sum(each.rows for each in made), last=made[-1].number)


@shared_task(name="delivery.figures")
def count_figures(**_: Any) -> None:
    """Bring the figures up to the ledger. Every few seconds."""
    figures.count()


@shared_task(name="delivery.mirror_templates")
def mirror_templates(**_: Any) -> None:
    """Bring the templates known here up to the template service's list. Once a minute, where there is one."""
    heartbeats.consumed("materialise")
    if template_lists.mirror(now=clock.now()):
        heartbeats.beat(heartbeats.TEMPLATES)


@shared_task(name="delivery.accounts")
def read_accounts(**_: Any) -> None:
    """Ask providers what their accounts allow. Once a minute."""
    heartbeats.consumed("materialise")
    accounts.refresh(now=clock.now())


@shared_task(name="delivery.tell")
def tell_subscribers(**_: Any) -> None:
    """Make events of what has happened. Every few seconds."""
    if told := telling.tell():
        log.info("events_told", events=told)


@shared_task(name="delivery.call_endpoints")
def call_endpoints(**_: Any) -> None:
    """Bring subscribers the events that are due. Every few seconds; goes on while there are any, for minutes."""
    alive = partial(heartbeats.consumed, heartbeats.EVENTS)
    alive()
    calling.turn(alive=alive)


@shared_task(name="delivery.daily")  # the name in beat's entry and in messages of a running service
def housekeeping(**_: Any) -> None:
    """Make the ledger's coming days, drop those past their retention, tests too, follow new zone data. Once an hour."""
    now = clock.now()
    partitions.ensure_around(today=now.date())
    past = now - timedelta(days=settings.LEDGER_RETENTION_DAYS)
    test_sends.purge(before=past)
    materialise.purge(before=past)
    suppressions.purge(now=now)
    subscribers.purge(before=timezone.now() - timedelta(days=settings.EVENT_RETENTION_DAYS))
    try:
        partitions.drop(before=past.date())
    except partitions.PartitionInUse as error:
        log.warning("partition_in_use", error=error)
    if strays := partitions.rows_in_default():
        log.warning("rows_in_default_partition", rows=strays)
    while dispatch.refresh_zone_data(now=now):
        pass
