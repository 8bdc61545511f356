"""Twenty people are erased at random moments while a run sends: no call for them starts later than promised.

Afterwards they are nowhere, the audit can be verified and the books close.
"""

import os
import random
import threading
import time
from pathlib import Path

import pytest
from django.conf import settings as project
from django.db import connections

from audit import seals
from delivery import calls, dispatch, sending
from delivery.models import Delivery, State
from delivery.providers.base import Answer, Message, Verdict
from delivery.receipts import LAST_CALL
from frontend import erasing
from schedules.models import Recipient
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.audits import verified
from tests.books import assert_books_close
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.recording import sent
from tests.searching import found_in_files, found_in_redis, found_in_tables
from tests.service import MINUTE, PATIENCE_S, PERMIT_S, only_occurrence, states

pytestmark = pytest.mark.django_db(transaction=True)

MOMENTS = 20
OTHERS = 380
# Seconds of the run over which the moments lie; it lasts longer.
LASTS = 4.5
# In address, token and name of each of the twenty.
PLANTED = ("barnabas", "fizz-token", "run.example")


@pytest.fixture
def chance(request) -> random.Random:
    """Another each time, unless ``SEED`` is set; a failure tells which it was."""
    seed = int(os.environ.get("SEED") or random.randrange(10**9))
    request.node.add_report_section("call", "seed", f"SEED={seed}")
    return random.Random(seed)


def _plant(number: int) -> Recipient:
    person = RecipientFactory.create(
        external_id=f"p-{number}",
        email=f"barnabas.{number}@run.example",
        attributes={"first_name": f"Barnabas {number} the Great"},
    )
    DeviceFactory.create(recipient=person, token=f"fizz-token-{number}")
    return person


def _refuse_some(message: Message) -> Answer:
    """Every third for good, in words as the providers keep them."""
    if message.recipient_id % 3:
        return sent(message)
    return Answer(message.key, Verdict.PERMANENT, "refused", detail="mailbox of <address> is full")


def test_no_call_starts_later_than_promised_and_nobody_is_left(
    service, provider, settings, monkeypatch, chance, caplog, capfd
):
    """Some claims are held up longer than their permit lasts, others not at all; the provider takes its time."""
    settings.CALLS_IN_FLIGHT = 2
    monkeypatch.setattr(sending, "PERMIT_S", PERMIT_S)
    # The whole wait of a claim that is held up lies between its claim and its call.
    holds = iter([0.0, 0.3, PERMIT_S + 0.5, 0.0, 1.0])
    compose = calls.compose

    def compose_late(*args, **kwargs):
        time.sleep(next(holds, 0.0))
        return compose(*args, **kwargs)

    monkeypatch.setattr(calls, "compose", compose_late)
    monkeypatch.setattr(provider, "meanwhile", staticmethod(lambda: time.sleep(0.35)))
    monkeypatch.setattr(provider, "answer", staticmethod(_refuse_some))
    people(OTHERS)
    planted = [_plant(number) for number in range(MOMENTS)]
    template = TemplateFactory.create(subject="For {{ first_name }}")
    schedules = [ScheduleFactory.create(template_id=template.pk, channel=each) for each in ("email", "email", "in_app")]
    coming = ScheduleFactory.create(template_id=template.pk, run_at=NOW + MINUTE)
    service.open()
    ended = threading.Event()

    def send():
        try:
            while handouts := dispatch.take_due(now=NOW):
                for handout in handouts:
                    sending.send(batch_ids=handout.batch_ids)
        finally:
            ended.set()
            connections.close_all()

    sender = threading.Thread(target=send)
    moments = sorted(chance.uniform(0.0, LASTS) for _ in planted)
    start = time.monotonic()
    sender.start()
    erased, in_the_middle = {}, 0
    for moment, person in zip(moments, chance.sample(planted, MOMENTS), strict=True):
        ended.wait(max(0.0, start + moment - time.monotonic()))
        erasing.erase(recipient_id=person.pk, by=BY, now=NOW)
        erased[person.pk] = time.monotonic()
        in_the_middle += not ended.is_set()
    sender.join(PATIENCE_S)
    assert in_the_middle > MOMENTS / 4, "the run was over before most erasures: the test shows little"
    late = [
        call.started_at - erased[message.recipient_id]
        for call in provider.calls
        for message in call.messages
        if message.recipient_id in erased
    ]
    assert max(late, default=0.0) <= LAST_CALL.total_seconds()
    runs = [only_occurrence(schedule).pk for schedule in schedules]
    unsent = Delivery.objects.filter(recipient_id__in=erased, state=State.ERASED, occurrence_id__in=runs)
    assert unsent.exists(), "everybody had been sent to before: the test shows nothing"
    handed_over = {message.key for message in provider.messages()}
    assert handed_over.isdisjoint(map(str, unsent))

    service.at(NOW + MINUTE).send(rounds=5)
    assert_books_close()
    for schedule in schedules:
        assert states(schedule).keys() <= {"sent", "failed", "erased"}
        assert states(schedule).total() == only_occurrence(schedule).targeted == OTHERS + MOMENTS
    assert states(coming)["erased"] == MOMENTS
    assert found_in_tables(PLANTED) == []
    assert found_in_redis(PLANTED) == []
    assert found_in_files(PLANTED, signed_in(Role.ADMIN), people=erased) == []
    seals.seal(now=NOW)
    verified()
    out, err = capfd.readouterr()
    logs = [path.read_text(errors="replace") for path in Path(project.LOCAL_DIR).rglob("*.log")]
    said = "\n".join([out, err, caplog.text, *logs]).lower()
    assert [word for word in PLANTED if word in said] == []
