"""A schedule's message sent to one person to be looked at: outside the ledger, the caps and the metrics.

The wish is a row, which the tick hands to a worker of the channel. It is called once: a worker that dies in between
leaves it unanswered, and whoever wants another one asks again.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.utils import timezone

from audit import trail
from audit.models import Action
from delivery import renderers, routes
from delivery.messages import catalogues
from delivery.models import FIRST_TEST_ID, TestSend
from delivery.providers.base import Answer, Message, Permit, Target, Verdict
from delivery.remote_rendering import Result
from delivery.rendering import Rendered, Shared
from schedules import links, stops
from schedules.consents import asked_by
from schedules.encryption import Undecryptable
from schedules.fields import UnreadableText
from schedules.imports import values
from schedules.links import Urls
from schedules.models import Channel, Recipient, Schedule
from schedules.operations import NotAllowed
from schedules.problems import Problem, say

log = structlog.get_logger(__name__)

# Real time after which a wish that nobody answered has failed: a lost message, a killed worker, no worker at all.
PATIENCE = timedelta(minutes=2)
_PERMIT_S = 3.0
_STATES = {
    Verdict.SENT: TestSend.State.SENT,
    Verdict.UNKNOWN: TestSend.State.UNANSWERED,
}


class InvalidTestSend(ValueError):
    """It can't be sent to that person. ``problems`` name the field and the remedy."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


@transaction.atomic
def ask(*, schedule_id: int, external_id: str, to: str = "", locale: str = "", by: str, now: datetime) -> TestSend:
    """Wish that the schedule's message be sent to a recipient, with his tokens.

    ``to`` is an e-mail address that gets it in his place, ``locale`` the language in place of his. Raises
    ``InvalidTestSend``, and ``NotAllowed`` where sending is stopped or the schedule has no template yet.
    """
    to = to.strip()
    schedule = Schedule.objects.live().select_related("template").get(pk=schedule_id)
    person = Recipient.objects.filter(external_id=external_id).first()
    if schedule.template is None or not schedule.template.version:
        raise NotAllowed(say("The schedule has no template yet: choose one first."))
    if stops.over(schedule):
        raise NotAllowed(say("Sending is stopped, tests included: let it go on first."))
    if problems := _problems(schedule.channel, person, external_id, to):
        raise InvalidTestSend(problems)
    assert person is not None
    wish = TestSend.objects.create(
        schedule_id=schedule.pk,
        recipient_id=person.pk,
        channel=schedule.channel,
        to=to,
        locale=locale,
        created_by=by,
        created_at=now,
    )
    changes = {"test_send": [None, wish.pk], "recipient": [None, person.pk], "to_other_address": [None, bool(to)]}
    trail.record(action=Action.SCHEDULE_TEST_SEND, by=by, now=now, schedule_id=schedule.pk, changes=changes)
    return wish


def _problems(channel: str, person: Recipient | None, external_id: str, to: str) -> list[Problem]:
    if person is None:
        return [
            Problem(
                "recipient",
                "not_found",
                say("There is no recipient %(id)s: save one first.", id=f"{external_id[:80]!r}"),
            )
        ]
    if to and channel != Channel.EMAIL:
        return [Problem("to", "not_applicable", say("Only e-mail goes to another address: leave it out."))]
    if to:
        try:
            values.read_email(to)
        except values.Refused as refused:
            return [Problem("to", "invalid", say("It %(reason)s.", reason=refused.reason))]
    if channel == Channel.EMAIL and not (to or person.email):
        return [Problem("recipient", "no_address", say("This recipient has no e-mail address: give one as “to”."))]
    if channel == Channel.PUSH and not person.devices.filter(active=True).exists():
        return [Problem("recipient", "no_address", say("This recipient has no device: register one first."))]
    return []


def take_waiting(*, limit: int = 100) -> list[tuple[int, str]]:
    """(id, channel) of wishes that nobody has been told of; they are handed out once."""
    with transaction.atomic():
        waiting = TestSend.objects.filter(state=TestSend.State.WAITING, handed_out_at=None)
        # Nothing that is encrypted: what can't be read must not stop the clock.
        found = list(waiting.select_for_update(skip_locked=True).order_by("id").values_list("pk", "channel")[:limit])
        TestSend.objects.filter(pk__in=[pk for pk, _ in found]).update(handed_out_at=timezone.now())
    return found


def give_up(*, now: datetime) -> int:
    """Fail the wishes that nobody answered in time; how many."""
    old = TestSend.objects.filter(created_real_at__lt=timezone.now() - PATIENCE)
    waiting, sending = old.filter(state=TestSend.State.WAITING), old.filter(state=TestSend.State.SENDING)
    lost = waiting.update(state=TestSend.State.FAILED, reason="no_worker", settled_at=now)
    return lost + sending.update(state=TestSend.State.UNANSWERED, reason="worker_lost", settled_at=now)


def purge(*, before: datetime) -> int:
    """Throw away the tests that were wished for earlier, as the ledger's days are; how many."""
    return TestSend.objects.filter(created_at__lt=before).delete()[0]


def send(*, test_send_id: int, now: datetime) -> None:
    """Render, call, and keep the answer; of two workers with the same wish one does it."""
    mine = TestSend.objects.filter(pk=test_send_id, state=TestSend.State.WAITING)
    if not mine.update(state=TestSend.State.SENDING):
        return
    # Before the person is read: whoever is erased meanwhile gets no call that starts later than promised.
    permit = Permit.lasting(_PERMIT_S)
    try:
        wish = TestSend.objects.filter(pk=test_send_id).first()
        if wish is None:  # erased
            return
        answer, subject = _sent(wish, permit, now=now)
    except Undecryptable as error:
        log.error("undecryptable", reason=error.reason, key_id=error.key_id, test_send_id=test_send_id)
        answer, subject = Answer("", Verdict.PERMANENT, error.reason), ""
    TestSend.objects.filter(pk=test_send_id, state=TestSend.State.SENDING).update(
        state=_STATES.get(answer.verdict, TestSend.State.FAILED),
        reason=answer.reason,
        detail=answer.detail,
        provider_id=answer.provider_id,
        subject=subject,
        settled_at=now,
    )
    log.info("test_sent", test_send_id=test_send_id, verdict=answer.verdict.value, reason=answer.reason)


def _sent(wish: TestSend, permit: Permit, *, now: datetime) -> tuple[Answer, str]:
    person = Recipient.objects.filter(pk=wish.recipient_id).first()
    schedule = Schedule.objects.live().select_related("template").filter(pk=wish.schedule_id).first()
    key = f"{now:%Y%m%d}-{FIRST_TEST_ID + wish.pk}-{wish.recipient_id}"
    if person is None or schedule is None or schedule.template is None:
        return Answer(key, Verdict.PERMANENT, "gone"), ""
    if stops.over(schedule):  # since it was wished for
        return Answer(key, Verdict.PERMANENT, "stopped"), ""
    urls = _sample_urls(wish.channel, schedule)
    rendered = _rendered(wish, person, schedule, urls, now=now)
    if not isinstance(rendered, Rendered):
        return Answer(key, Verdict.PERMANENT, rendered.reason, "", rendered.detail), ""
    to = (wish.to or person.email) if wish.channel == Channel.EMAIL else ""
    targets = _targets(person) if wish.channel == Channel.PUSH else ()
    for each in (to, *(target.token for target in targets)):
        if isinstance(each, UnreadableText):
            raise each.error
    message = Message(
        key,
        person.pk,
        to,
        rendered.subject,
        rendered.text,
        rendered.html,
        targets=targets,
        unsubscribe_url=urls.unsubscribe,
    )
    return _called(wish.channel, [message], permit), rendered.subject


def _sample_urls(channel: str, schedule: Schedule) -> Urls:
    """Whoever looks at a test must not unsubscribe the person whom it shows."""
    if channel != Channel.EMAIL:
        return links.NONE
    return links.sample_urls(asked_by(channel=channel, topic=schedule.topic, purpose=schedule.purpose))


def _rendered(wish: TestSend, person: Recipient, schedule: Schedule, urls: Urls, *, now: datetime) -> Result:
    assert schedule.template is not None
    renderer = renderers.of_version(schedule.template.pk, schedule.template.version)
    shared = Shared(
        schedule_name=schedule.name,
        schedule_zone=schedule.time_zone,
        occurrence_at=schedule.next_occurrence_at or now,
        default_locale=renderer.default_locale,
        catalogues=catalogues(),
    )
    tokens = {
        "external_id": person.external_id,
        "email": person.email,
        "locale": wish.locale or person.locale,
        "time_zone": person.time_zone,
        "attributes": person.attributes,
        **urls.tokens(),
    }
    (rendered,) = renderer.render_many(channel=wish.channel, recipients=[tokens], shared=shared)
    return rendered


def _targets(person: Recipient) -> tuple[Target, ...]:
    active = person.devices.filter(active=True).order_by("id")
    return tuple(Target(*row) for row in active.values_list("id", "platform", "token"))


def _called(channel: str, messages: Sequence[Message], permit: Permit) -> Answer:
    provider = routes.of(channel).route.provider
    try:
        if provider.transactional:
            with transaction.atomic():
                (answer,) = provider.send(messages, permit=permit)
        else:
            (answer,) = provider.send(messages, permit=permit)
    except Exception as error:  # whatever it is, the wish gets its answer
        log.exception("provider_raised", provider=provider.name)
        return Answer(messages[0].key, Verdict.UNKNOWN, "provider_raised", "", type(error).__name__)
    return answer
