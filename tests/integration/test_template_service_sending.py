"""Messages that the template service renders: who gets what, what it is asked for, and what becomes of its faults.

The service is the reference over HTTP; it renders as this service does.
"""

from datetime import timedelta

import pytest
from django.utils import timezone

from delivery import sending
from delivery.models import Batch, Circuit, Count, Delivery, FailedAttempt, InboxMessage, State
from schedules.models import MessageTemplate, TemplateVersion
from schedules.template_service import mirror
from tests.factories import NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.races import claim_some
from tests.service import HOUR, MINUTE, let_probe, only_occurrence, reasons, row_of, states
from tests.template_service import template

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


def mirrored(template_service, template_id="welcome", **members):
    """The template as it is known here, after the service has got this next version of it."""
    template_service.put(template(template_id, **members))
    mirror.mirror_all(now=NOW - 2 * MINUTE)
    return MessageTemplate.objects.get(service_id=template_id)


def content(channel="email", **parts):
    return {"channel": channel, "locale": "en", "subject": "", "text": "", "html": "", **parts}


def circuit_of(found):
    return Circuit.objects.get(scope=f"template:{found.pk}")


def probe(found):
    let_probe(f"template:{found.pk}")


# Who gets what


def test_everybody_reads_what_the_service_makes_of_his_tokens(service, provider, template_service):
    for name in ("Ada", "Bert"):
        RecipientFactory(external_id=name.lower(), attributes={"first_name": name})
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    service.step()
    assert states(schedule) == {"sent": 2}
    found = {message.to: message for message in provider.messages()}
    assert found["ada@example.com"].subject == "Hello Ada"
    assert found["bert@example.com"].text == "Good to have you, Bert."
    assert found["bert@example.com"].html == "<p>Good to have you, Bert.</p>"
    assert template_service.asked() == 1


def test_a_push_likewise(service, provider, template_service):
    DeviceFactory(recipient__attributes={"first_name": "Ada"})
    said = content("push", subject="Hello", text="Dear {{ first_name }}")
    schedule = ScheduleFactory(channel="push", template_id=mirrored(template_service, contents=[said]).pk)
    service.step()
    assert states(schedule) == {"sent": 1}
    assert [(message.subject, message.text) for message in provider.messages()] == [("Hello", "Dear Ada")]


def test_an_in_app_message_likewise(service, template_service):
    RecipientFactory(attributes={"first_name": "Ada"})
    said = content("in_app", subject="Hello", text="Dear {{ first_name }}")
    schedule = ScheduleFactory(channel="in_app", template_id=mirrored(template_service, contents=[said]).pk)
    service.step()
    assert states(schedule) == {"sent": 1}
    assert [(message.title, message.body) for message in InboxMessage.objects.all()] == [("Hello", "Dear Ada")]


def test_a_local_hour_is_each_persons_own(service, provider, template_service):
    RecipientFactory(external_id="tokyo", time_zone="Asia/Tokyo")
    RecipientFactory(external_id="lagos", time_zone="Africa/Lagos")
    said = content(subject="It is {{ occurrence.at|time('HH:mm') }}", text="{{ schedule.name }}")
    run_at = NOW.replace(hour=12) + timedelta(days=1)
    schedule = ScheduleFactory(
        name="Noon",
        time_zone_mode="user_local",
        run_at=run_at,
        template_id=mirrored(template_service, contents=[said]).pk,
    )
    service.run_to(run_at + 14 * HOUR)
    assert states(schedule) == {"sent": 2}
    assert {(message.subject, message.text) for message in provider.messages()} == {("It is 12:00", "Noon")}


def test_many_people_come_in_one_call_a_claim(service, provider, template_service):
    people(230)
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    service.step()
    assert states(schedule) == {"sent": 230}
    assert provider.reached().most_common(1)[0][1] == 1
    assert template_service.asked() == 3


def test_small_runs_that_are_claimed_together_are_one_call(service, provider, template_service):
    RecipientFactory()
    found = mirrored(template_service)
    schedules = [ScheduleFactory(template_id=found.pk) for _ in range(5)]
    service.step()
    assert [states(schedule) for schedule in schedules] == [{"sent": 1}] * 5
    assert template_service.asked() == 1


def test_templates_of_both_kinds_go_side_by_side(service, provider, template_service):
    RecipientFactory(attributes={"first_name": "Ada"})
    schedules = [ScheduleFactory(template_id=mirrored(template_service).pk), ScheduleFactory()]
    service.step()
    assert [states(schedule) for schedule in schedules] == [{"sent": 1}] * 2
    assert {message.text for message in provider.messages()} == {"Good to have you, Ada.", "Dear Ada, it is time."}


# What it is asked for


def test_the_service_gets_the_tokens_that_the_template_declares_and_no_others(
    service, provider, template_service, monkeypatch
):
    from schedules.template_service import client

    asked = []
    render = client.render
    monkeypatch.setattr(client, "render", lambda **said: asked.extend(said["items"]) or render(**said))
    RecipientFactory(
        locale="de", time_zone="Nowhere/Land", attributes={"first_name": "Ada", "secret": "s", "plan": None}
    )
    said = content(subject="{{ first_name }}", text="{{ recipient.attributes.plan }} {{ recipient.external_id }}")
    ScheduleFactory(template_id=mirrored(template_service, contents=[said]).pk)
    service.step()
    ((locale, zone, tokens),) = asked
    assert (locale, zone) == ("de", "UTC")
    assert tokens.keys() == {"first_name", "recipient.external_id"}


def test_who_gets_the_same_message_is_asked_for_once_and_it_is_kept_for_the_next_call(
    service, provider, template_service
):
    people(300)
    found = mirrored(template_service, contents=[content(subject="News", text="of {{ schedule.name }}")])
    schedule = ScheduleFactory(template_id=found.pk)
    service.step()
    assert states(schedule) == {"sent": 300}
    assert template_service.asked() == 1
    assert {message.text for message in provider.messages()} == {f"of {schedule.name}"}


def test_a_message_in_which_somebody_stands_is_never_kept(service, provider, template_service):
    RecipientFactory(attributes={"first_name": "Ada"})
    found = mirrored(template_service)
    for _ in range(2):
        ScheduleFactory(template_id=found.pk)
        service.step()
    assert template_service.asked() == 2


# What is pinned


def test_a_run_takes_the_version_of_when_its_people_are_found_and_keeps_it(service, provider, template_service):
    people(120)
    found = mirrored(template_service)
    schedule = ScheduleFactory(template_id=found.pk)
    service.tick()
    template_service.put(template("welcome", contents=[content(subject="Second", text="Second")]))
    service.materialise()
    occurrence = only_occurrence(schedule)
    assert occurrence.template_version == 2
    template_service.put(template("welcome", contents=[content(subject="Third", text="Third")]))
    service.send()
    assert {message.subject for message in provider.messages()} == {"Second"}
    assert len(provider.messages()) == 120


def test_what_was_pinned_stays_while_the_service_is_away(service, provider, template_service):
    RecipientFactory(attributes={"first_name": "Ada"})
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    service.tick()
    template_service.fault("status", operation="Template", status=503)
    service.materialise()
    template_service.clear_faults()
    assert only_occurrence(schedule).template_version == 1
    service.send()
    assert states(schedule) == {"sent": 1}


def test_what_has_begun_ends_with_its_version_though_its_people_are_found_anew(service, provider, template_service):
    people(120)
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    service.open()
    (message,) = service.publish()
    claim_some(message.batch_ids, settle_as=State.SENT)
    late = RecipientFactory()
    template_service.put(template("welcome", contents=[content(subject="Second", text="Second")]))
    mirror._asked.forget()
    service.update(
        schedule, audience_query={"not": {"field": "external_id", "op": "eq", "value": "x"}}, apply_to="unsent"
    )
    service.materialise()
    assert only_occurrence(schedule).template_version == 1
    service.send(rounds=3)
    assert row_of(schedule, late).state == State.SENT
    assert {message.subject for message in provider.messages()} == {"Hello "}


def test_a_version_that_the_service_has_no_longer_is_each_persons_failure(service, provider, template_service):
    people(3)
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    service.open()
    template_service.remove("welcome", version=TemplateVersion.objects.get().service_version)
    service.send()
    assert reasons(schedule) == {"failed: template_gone": 3}
    assert not Circuit.objects.exists()


# One person's fault


def test_what_the_service_cannot_render_is_that_persons_failure(service, provider, template_service):
    people(20)
    odd = RecipientFactory(attributes={"first_name": "Zoe"})
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    template_service.fault("bulk_entry_status", at="*Zoe*", code="template_error")
    service.step()
    assert reasons(schedule) == {"sent: ": 20, "failed: template_error": 1}
    assert row_of(schedule, odd).detail == "injected fault"


@pytest.mark.parametrize("channel", ["email", "in_app"])
def test_a_line_break_in_a_subject_and_a_part_too_large_are_found_here(service, provider, template_service, channel):
    RecipientFactory(attributes={"first_name": "A\nBcc: all@example.com"})
    RecipientFactory(attributes={"first_name": "x" * 10_000})
    fine = RecipientFactory(attributes={"first_name": "Ada"})
    said = content(channel, subject="{{ first_name }}"[:998], text="{{ first_name }}")
    schedule = ScheduleFactory(channel=channel, template_id=mirrored(template_service, contents=[said]).pk)
    service.step()
    assert reasons(schedule) == {"failed: header_injection": 1, "failed: too_large": 1, "sent: ": 1}
    assert row_of(schedule, fine).state == State.SENT


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "garbage"},
        {"kind": "half"},
        {"kind": "short"},
        {"kind": "reset"},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_person_on_whom_the_service_breaks_costs_nobody_else_the_message(service, provider, template_service, fault):
    people(120)
    poison = RecipientFactory(attributes={"first_name": "Poison"})
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    template_service.fault(at="*Poison*", **fault)
    service.step()
    assert reasons(schedule) == {"sent: ": 120, "pending: template_service_error": 1}
    assert row_of(schedule, poison).attempt == FailedAttempt.objects.count() == 1
    assert not Circuit.objects.exists()
    for _ in range(4):
        service.after(HOUR).step()
    assert reasons(schedule) == {"sent: ": 120, "failed: template_service_error": 1}
    assert row_of(schedule, poison).attempt == FailedAttempt.objects.count() == 4
    assert provider.reached()[poison.pk] == 0


def test_a_person_whose_tokens_the_service_refuses_fails_for_good(service, provider, template_service):
    people(10)
    RecipientFactory(attributes={"first_name": "Poison"})
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    template_service.fault("status", at="*Poison*", status=422)
    service.step()
    assert reasons(schedule) == {"sent: ": 10, "failed: template_service_error": 1}


def test_a_person_over_whom_the_service_takes_too_long_stands_alone_in_the_end(
    service, provider, template_service, settings
):
    settings.TEMPLATE_SERVICE_TIMEOUT_S = 0.8
    for number in range(30):
        RecipientFactory(attributes={"first_name": f"Quick {number}"})
    slow = RecipientFactory(attributes={"first_name": "Slow"})
    found = mirrored(template_service)
    schedule = ScheduleFactory(template_id=found.pk)
    template_service.fault("latency", at="*Slow*", seconds=2.0)
    for _ in range(7):
        service.step()
        probe(found)
        service.after(6 * SECOND)
    assert reasons(schedule) == {"sent: ": 30, "pending: template_service_error": 1}
    assert not Circuit.objects.exists()
    for _ in range(4):
        service.after(HOUR).step()
    assert reasons(schedule) == {"sent: ": 30, "failed: template_service_error": 1}
    assert row_of(schedule, slow).detail == "timeout"


# The service's fault


AWAY = [
    ("status", {"status": 503}),
    ("status", {"status": 429}),
    ("garbage", {}),
    ("half", {}),
    ("short", {}),
    ("reset", {}),
    ("silence", {}),
]


@pytest.mark.parametrize(("kind", "rule"), AWAY, ids=[f"{kind} {rule.get('status', '')}" for kind, rule in AWAY])
def test_while_the_service_is_away_nothing_is_burnt_and_afterwards_everybody_is_sent_to(
    service, provider, template_service, settings, kind, rule
):
    settings.TEMPLATE_SERVICE_TIMEOUT_S = 0.3
    people(250)
    found = mirrored(template_service)
    schedule = ScheduleFactory(template_id=found.pk)
    template_service.fault(kind, **rule)
    for _ in range(3):
        service.step()
        service.after(SECOND)
    assert states(schedule) == {"pending": 250}
    assert reasons(schedule).keys() <= {"pending: ", "pending: template_service_away"}
    assert set(Delivery.objects.values_list("attempt", "claim_token", "called_at")) == {(0, None, None)}
    assert not FailedAttempt.objects.exists()
    assert (circuit_of(found).reason, circuit_of(found).openings) == ("template_service_away", 1)
    template_service.clear_faults()
    settings.TEMPLATE_SERVICE_TIMEOUT_S = 20.0
    service.step()
    assert states(schedule) == {"pending": 250}  # nobody asks before the probe's time
    probe(found)
    service.step()
    service.after(SECOND).step()
    assert states(schedule) == {"sent": 250}
    assert provider.reached().most_common(1)[0][1] == 1
    assert not Circuit.objects.exists()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_service_that_refuses_holds_the_template_and_burns_nobody(service, provider, template_service, status):
    people(3)
    found = mirrored(template_service)
    schedule = ScheduleFactory(template_id=found.pk)
    template_service.fault("status", status=status)
    service.step()
    assert reasons(schedule) == {"pending: template_service_refused": 3}
    assert circuit_of(found).reason == "template_service_refused"
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {0}


def test_a_template_whose_service_is_not_configured_any_more_waits(service, provider, template_service, settings):
    person = RecipientFactory()
    schedule = ScheduleFactory(template_id=mirrored(template_service).pk)
    settings.TEMPLATE_SERVICE_URL = ""
    service.step()
    assert reasons(schedule) == {"pending: template_service_refused": 1}
    assert row_of(schedule, person).detail == "not_configured"


@pytest.mark.parametrize("count", [2, 40])
def test_a_template_that_the_service_renders_for_nobody_holds_no_other(service, provider, template_service, count):
    for number in range(count):
        RecipientFactory(attributes={"first_name": f"Person {number}"})
    broken = mirrored(template_service, "broken")
    fine = mirrored(template_service, "fine", contents=[content(subject="Fine", text="{{ schedule.name }}")])
    schedules = [ScheduleFactory(template_id=pk) for pk in (broken.pk, fine.pk, TemplateFactory().pk)]
    template_service.fault("status", at="*first_name*", status=500)
    service.step()
    assert [states(schedule) for schedule in schedules] == [{"pending": count}, {"sent": count}, {"sent": count}]
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {0, 1}
    assert circuit_of(broken).reason == "template_service_away"
    assert Circuit.objects.count() == 1


def test_the_service_says_how_long_it_wants_to_be_left_alone(service, provider, template_service):
    people(3)
    found = mirrored(template_service)
    ScheduleFactory(template_id=found.pk)
    template_service.fault("status", status=503, retry_after=120)
    service.step()
    assert 110 < (circuit_of(found).probe_at - timezone.now()).total_seconds() <= 120


def test_one_asks_whether_it_is_back_and_the_others_wait(service, provider, template_service):
    people(3)
    found = mirrored(template_service)
    schedules = [ScheduleFactory(template_id=found.pk) for _ in range(3)]
    template_service.fault("status", status=503)
    service.step()
    probe(found)
    before = template_service.asked()
    service.step()
    assert template_service.asked() - before == 2  # a call, and whether it has any message at all
    assert [states(schedule) for schedule in schedules] == [{"pending": 3}] * 3
    assert circuit_of(found).openings == 2


# Lateness


def test_a_wave_for_which_the_service_was_away_too_long_expires_as_in_any_outage(service, provider, template_service):
    people(120)
    found = mirrored(template_service)
    schedule = ScheduleFactory(template_id=found.pk, misfire_grace_minutes=60)
    template_service.fault("status", status=503)
    service.step()
    assert Batch.objects.filter(started_at=None).count() == Batch.objects.count()
    template_service.clear_faults()
    service.after(61 * MINUTE)
    probe(found)
    service.step()
    assert reasons(schedule) == {"expired: down": 120}
    assert not provider.calls


def test_a_wave_of_which_somebody_was_sent_to_goes_on_when_the_service_is_back(service, provider, template_service):
    people(120)
    found = mirrored(template_service)
    schedule = ScheduleFactory(template_id=found.pk, misfire_grace_minutes=60)
    service.open()
    (message,) = service.publish()
    claim_some(message.batch_ids, settle_as=State.SENT)
    template_service.fault("status", status=503)
    sending.send(batch_ids=message.batch_ids)
    assert states(schedule) == {"sent": 50, "pending": 70}
    template_service.clear_faults()
    service.after(61 * MINUTE)
    probe(found)
    service.step()
    assert states(schedule) == {"sent": 120}


# What is counted


def test_calls_people_and_seconds_are_counted(service, provider, template_service):
    people(10)
    ScheduleFactory(template_id=mirrored(template_service).pk)
    service.step()
    found = {(each.name, each.label): each.value for each in Count.objects.filter(name__startswith="template_service")}
    assert found["template_service_calls_total", "ok"] == 1
    assert found["template_service_messages_total", "rendered"] == 10
    assert found["template_service_messages_total", "reused"] == 9
    assert found["template_service_seconds_sum", ""] > 0
