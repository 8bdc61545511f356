"""One message that spoils everything it touches is one person's failure: the others get theirs."""

from datetime import timedelta

import pytest
from django.db import DataError, OperationalError, connection

from delivery import calls
from delivery.models import FailedAttempt, InboxMessage, OutboxMessage, State
from delivery.providers.base import Answer, ProviderError, Verdict
from delivery.providers.in_app import InAppProvider
from delivery.renderers import BuiltIn
from tests.factories import RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.service import HOUR, expire_leases, reasons, row_of, states

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


@pytest.fixture(params=["network", "transaction"])
def channel(request):
    """A channel whose provider is on the network, and one that writes in the outcomes' transaction."""
    if request.param == "network":
        request.getfixturevalue("provider")
        return "email"
    return "in_app"


# --- Composing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def odd(monkeypatch):
    """A person at whom our own code stumbles."""
    person = RecipientFactory()

    def stumble(renderer, *, recipients, **more):
        if any(each["external_id"] == person.external_id for each in recipients):
            raise KeyError("a bug of ours")
        return render_many(renderer, recipients=recipients, **more)

    render_many = BuiltIn.render_many
    monkeypatch.setattr(BuiltIn, "render_many", stumble)
    return person


def test_a_bug_of_ours_that_one_person_brings_out_costs_nobody_else_the_message(service, channel, odd):
    people(120)
    schedule = ScheduleFactory(channel=channel)
    service.step()
    assert reasons(schedule) == {"sent: ": 120, "pending: internal_error": 1}
    assert row_of(schedule, odd).called_at is None
    assert FailedAttempt.objects.get().detail == "KeyError"
    for _ in range(5):
        service.after(HOUR).step()
    assert reasons(schedule) == {"sent: ": 120, "failed: internal_error": 1}
    assert row_of(schedule, odd).attempt == FailedAttempt.objects.count() == 4


def test_caps_hold_for_the_others_of_a_call_in_which_we_stumble(service, channel, odd):
    people(20)
    schedules = []
    for _ in range(2):
        schedules.append(ScheduleFactory(channel=channel, max_per_user_per_day=1))
        service.step()
    assert reasons(schedules[0]) == {"sent: ": 20, "pending: internal_error": 1}
    assert reasons(schedules[1]) == {"rate_limited: daily_cap": 20, "pending: internal_error": 1}


def test_a_database_that_is_away_while_messages_are_composed_costs_nobody_an_attempt(service, channel, monkeypatch):
    people(3)
    schedule = ScheduleFactory(channel=channel)

    def away(*_, **__):
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr(calls, "compose", away)
        service.step()
    assert reasons(schedule) == {"pending: database_away": 3}
    assert not FailedAttempt.objects.exists()
    service.after(calls.AWAY_S * 2 * SECOND).step()
    assert states(schedule) == {"sent": 3}


# --- The provider's side ---------------------------------------------------------------------------------------------


def test_a_call_that_the_provider_refuses_because_of_one_message_reaches_the_others_once(
    service, provider, monkeypatch
):
    persons = people(150)
    poison = {persons[0].pk, persons[77].pk}
    accepted = []

    def refuse_or_take(self, given, *, permit):
        answers = take(self, given, permit=permit)
        if poison.intersection(message.recipient_id for message in given):
            raise ProviderError(Verdict.PERMANENT, "bad_request", detail="400 malformed")
        accepted.extend(message.recipient_id for message in given)
        return answers

    take = provider._call
    monkeypatch.setattr(provider, "_call", refuse_or_take)
    schedule = ScheduleFactory()
    service.step()
    assert reasons(schedule) == {"sent: ": 148, "failed: bad_request": 2}
    assert sorted(accepted) == sorted({person.pk for person in persons} - poison)
    assert {row_of(schedule, person).state for person in persons if person.pk in poison} == {State.FAILED}
    assert set(FailedAttempt.objects.values_list("verdict", "detail")) == {("permanent", "400 malformed")}


# --- What is written here --------------------------------------------------------------------------------------------

UNWRITABLE = '{% if first_name == "Odd" %}{{ "\\u0000" }}{% endif %}Hello'


@pytest.mark.parametrize(
    ("channel", "inbox"), [("in_app", InboxMessage), ("email", OutboxMessage)], ids=["in_app", "outbox"]
)
def test_a_message_that_no_row_can_hold_fails_alone(service, channel, inbox):
    people(60)
    odd = RecipientFactory(attributes={"first_name": "Odd"})
    people(60)
    schedule = ScheduleFactory(channel=channel, template_id=TemplateFactory(text=UNWRITABLE).pk)
    service.step()
    assert reasons(schedule) == {"sent: ": 120, "failed: provider_raised": 1}
    assert row_of(schedule, odd).detail in ("DataError", "ValueError")
    assert FailedAttempt.objects.get().recipient_id == odd.pk
    assert set(inbox.objects.values_list("occurrence_id", flat=True)) == set(
        schedule.occurrences.values_list("pk", flat=True)
    )
    assert inbox.objects.count() == 120
    assert not inbox.objects.filter(recipient=odd).exists()


def test_the_server_itself_refuses_such_a_row():
    with pytest.raises((DataError, ValueError)), connection.cursor() as cursor:
        cursor.execute("SELECT %s::text", ["\x00"])


@pytest.mark.django_db(transaction=True)
def test_who_kills_every_worker_fails_in_the_end_and_everyone_else_gets_the_message(service, monkeypatch):
    with connection.cursor() as cursor:  # lost people come back at random
        cursor.execute("SELECT setseed(0.25)")
    persons = people(30)
    killer = persons[17]
    schedule = ScheduleFactory(channel="in_app")
    service.open()

    class Killed(BaseException):
        """The process is no more."""

    def die_or_write(self, given, *, permit):
        if killer.pk in {message.recipient_id for message in given}:
            raise Killed
        return write(self, given, permit=permit)

    write = InAppProvider._call
    monkeypatch.setattr(InAppProvider, "_call", die_or_write)
    deaths = 0
    for _ in range(120):
        try:
            service.send()
        except Killed:
            deaths += 1
            expire_leases()
        service.after(SECOND).sweep()
        if not schedule.occurrences.filter(closed_at=None).exists():
            break
    assert reasons(schedule) == {"sent: ": 29, "failed: worker_lost": 1}
    assert row_of(schedule, killer).state == State.FAILED
    assert deaths == 4
    assert InboxMessage.objects.count() == 29


@pytest.mark.parametrize("odd", ["a\x00b", "cut within \ud83d"])
def test_an_odd_character_of_the_providers_costs_nobody_their_outcome(service, provider, odd):
    first, *_ = people(5)
    provider.answer = staticmethod(
        lambda message: (
            Answer(message.key, Verdict.PERMANENT, "refused", detail=odd)
            if message.recipient_id == first.pk
            else Answer(message.key, Verdict.SENT, provider_id=odd)
        )
    )
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 4, "failed": 1}
