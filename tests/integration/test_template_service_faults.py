"""Several workers, and a template service that fails in every way at once: nobody is lost, nobody is doubled."""

from datetime import timedelta

import pytest

from delivery import dispatch, sending
from delivery.models import Circuit, Delivery, FailedAttempt, State
from schedules.models import MessageTemplate
from schedules.template_service import mirror
from tests.books import assert_books_close
from tests.factories import NOW, RecipientFactory, ScheduleFactory
from tests.service import in_threads, let_probe, states
from tests.template_service import template

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = 240
ROUNDS = 40
KINDS = (
    *({"kind": kind} for kind in ("garbage", "half", "short", "reset")),
    *({"kind": "status", "status": status} for status in (429, 500, 503)),
    {"kind": "latency", "seconds": 0.5},
    {"kind": "bulk_entry_status", "code": "template_error", "at": "*Odd*", "rate": 1.0},
)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_workers_and_a_service_that_fails_in_every_way(service, provider, template_service, settings, seed):
    settings.TEMPLATE_SERVICE_TIMEOUT_S, settings.BATCH_SIZE = 0.4, 40
    for number in range(PEOPLE):
        RecipientFactory(attributes={"first_name": f"Person {number}"})
    odd = RecipientFactory(attributes={"first_name": "Odd"})
    template_service.put(template("welcome"))
    mirror.mirror_all(now=NOW)
    found = MessageTemplate.objects.get()
    schedule = ScheduleFactory(template_id=found.pk)
    service.open()
    rules = [{"match": {"operation": "Render", "to": rule.get("at", "*")}, "rate": 0.06, **rule} for rule in KINDS]
    template_service.running.fault(*({name: each[name] for name in each if name != "at"} for each in rules), seed=seed)

    def work():
        for handout in dispatch.take_due(now=service.now):
            sending.send(batch_ids=handout.batch_ids)

    for _ in range(ROUNDS):
        in_threads(work, work, work)
        assert_books_close()
        if not Delivery.objects.filter(state__lt=State.SENT).exists():
            break
        let_probe(f"template:{found.pk}")
        service.sweep()
        service.after(timedelta(minutes=1))
    assert states(schedule) == {"sent": PEOPLE, "failed": 1}
    assert Delivery.objects.get(state=State.FAILED).recipient_id == odd.pk
    assert set(provider.reached().values()) == {1}
    subjects = {message.to: message.subject for message in provider.messages()}
    assert len(set(subjects.values())) == PEOPLE
    assert not Circuit.objects.exists()
    assert set(FailedAttempt.objects.values_list("reason", flat=True)) <= {"template_error", "template_service_error"}
