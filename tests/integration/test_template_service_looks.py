"""Looking at a message that the template service renders: previews, tests, why somebody waits, what an alarm sees."""

import pytest

from delivery import advance, circuits, explain, metrics, previews, test_sends
from delivery.models import Circuit, TestSend
from delivery.remote_rendering import asking
from schedules.models import MessageTemplate
from schedules.template_service import mirror
from schedules.templates import InvalidTemplate
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, people
from tests.service import only_occurrence
from tests.template_service import template

pytestmark = pytest.mark.django_db


@pytest.fixture
def remote(template_service):
    template_service.put(template("welcome"))
    mirror.mirror_all(now=NOW)
    return MessageTemplate.objects.get()


def looked_at(found, person, **fields):
    said = previews.kept(template_id=found.pk, version=None)
    asked = {"channel": "email", "locale": None, "address": "you@example.com", **fields}
    return previews.preview(said=said, person=person, now=NOW, **asked)


# Previews


def test_a_preview_is_what_the_service_makes_of_the_reader(remote):
    ada = RecipientFactory(external_id="ada", attributes={"first_name": "Ada"})
    found = looked_at(remote, ada)
    assert (found.rendered.subject, found.rendered.missing_tokens) == ("Hello Ada", frozenset())
    assert (found.recipient, found.locale) == ("ada", "en")


def test_it_tells_the_tokens_that_the_reader_lacks(remote):
    assert looked_at(remote, RecipientFactory()).rendered.missing_tokens == {"first_name"}


def test_an_older_version_can_be_looked_at(remote, template_service):
    said = {"channel": "email", "locale": "en", "subject": "Second", "text": "Second"}
    template_service.put(template("welcome", contents=[said]))
    mirror.mirror_all(now=NOW)
    ada = RecipientFactory(attributes={"first_name": "Ada"})
    subjects = [
        previews.preview(
            said=previews.kept(template_id=remote.pk, version=version),
            channel="email",
            person=ada,
            locale=None,
            address="",
            now=NOW,
        ).rendered.subject
        for version in (1, 2)
    ]
    assert subjects == ["Hello Ada", "Second"]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [(503, "template_service_away", "an error of its own"), (401, "template_service_refused", "the token")],
)
def test_where_the_service_does_not_render_it_is_said_in_words(remote, template_service, status, code, words):
    template_service.fault("status", status=status)
    with pytest.raises(InvalidTemplate) as raised:
        looked_at(remote, RecipientFactory())
    (problem,) = raised.value.problems
    assert (problem.field, problem.code) == ("templateId", code)
    assert words in problem.message
    assert not Circuit.objects.exists()  # whoever looks holds nobody up


def test_what_it_cannot_render_is_said_in_its_words(remote, template_service):
    template_service.fault("bulk_entry_status", code="template_error")
    with pytest.raises(InvalidTemplate) as raised:
        looked_at(remote, RecipientFactory())
    (problem,) = raised.value.problems
    assert (problem.code, problem.message) == ("template_error", "injected fault")


# Tests


def sent_to(person, schedule):
    wish = test_sends.ask(schedule_id=schedule.pk, external_id=person.external_id, by=BY, now=NOW)
    test_sends.send(test_send_id=wish.pk, now=NOW)
    return TestSend.objects.get()


def test_a_test_is_rendered_by_the_service(remote, provider):
    ada = RecipientFactory(attributes={"first_name": "Ada"})
    wish = sent_to(ada, ScheduleFactory(template_id=remote.pk))
    assert (wish.state, wish.subject) == ("sent", "Hello Ada")
    assert [message.text for message in provider.messages()] == ["Good to have you, Ada."]


def test_a_test_while_the_service_is_away_has_failed_and_says_why(remote, provider, template_service):
    template_service.fault("status", status=503)
    wish = sent_to(RecipientFactory(), ScheduleFactory(template_id=remote.pk))
    assert (wish.state, wish.reason, wish.detail) == ("failed", "template_service_away", "server_error")
    assert not provider.calls


# Who waits


@pytest.mark.parametrize(("status", "reason"), [(503, "template_service_away"), (403, "template_service_refused")])
def test_whoever_waits_for_the_service_is_told_so(service, provider, remote, template_service, status, reason):
    claimed, unclaimed = RecipientFactory(), None
    people(250)
    schedule = ScheduleFactory(template_id=remote.pk)
    template_service.fault("status", status=status)
    service.step()
    unclaimed = RecipientFactory._meta.model.objects.order_by("-pk").first()
    for person in (claimed, unclaimed):
        found = explain.explain(schedule_id=schedule.pk, external_id=person.external_id, now=service.now)
        assert found.code == reason
    assert explain.obstacle(only_occurrence(schedule), is_due=True) == reason
    assert explain.obstacle(only_occurrence(schedule), is_due=False) is None


def test_the_test_clock_does_not_wait_for_a_template_that_waits(service, provider, remote, template_service):
    people(3)
    ScheduleFactory(template_id=remote.pk)
    template_service.fault("status", status=503)
    service.open()
    assert advance._due(service.now) == (0, 0, 3)
    service.send()
    assert advance._due(service.now) == (0, 0, 0)


def test_templates_that_wait_are_a_metric(remote):
    def waiting():
        page = metrics.page(now=lambda: NOW).decode()
        return next(line for line in page.splitlines() if line.startswith("template_service_waiting_templates "))

    assert waiting().endswith(" 0.0")
    circuits.open_circuit(circuits.of_template(remote.pk), reason="template_service_away", detail="timeout", now=NOW)
    assert waiting().endswith(" 1.0")


# What is kept


def test_nothing_of_a_person_is_kept_in_memory(service, provider, remote, template_service):
    said = {"channel": "email", "locale": "en", "subject": "News", "text": "of {{ schedule.name }}"}
    template_service.put(template("news", contents=[said]))
    mirror.mirror_all(now=NOW)
    RecipientFactory(external_id="canary", attributes={"first_name": "Canary"})
    for found in MessageTemplate.objects.all():
        ScheduleFactory(template_id=found.pk)
    service.step()
    kept = [rendered for _, _, rendered in asking._kept._found.values()]
    assert [rendered.subject for rendered in kept] == ["News"]
    assert "anary" not in repr(kept)
