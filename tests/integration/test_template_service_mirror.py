"""What the template service keeps, known here: each template, each version that it has published, and what is gone."""

import io

import pytest
from django.core.management import CommandError, call_command

from audit.models import AuditEvent
from delivery import heartbeats, metrics, template_lists
from delivery.models import Count
from schedules import clock, templates
from schedules.models import MessageTemplate, TemplateContent, TemplateVersion
from schedules.template_service import client, mirror
from schedules.template_service.mirror import Mirrored, mirror_all
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory
from tests.service import MINUTE, in_threads
from tests.template_service import template

pytestmark = pytest.mark.django_db
GREETING = template("welcome")["contents"]


def of(service_id="welcome"):
    return MessageTemplate.objects.get(service_id=service_id)


def again(later=1):
    return mirror_all(now=NOW + later * MINUTE)


# What is told


def test_a_template_is_known_by_name_channels_languages_and_tokens_and_without_its_words(template_service):
    german = {"channel": "push", "locale": "de", "subject": "Hallo", "text": "{{ recipient.attributes.plan }}"}
    template_service.put(template("welcome", defaultLocale="en", contents=[*GREETING, german]))
    assert mirror_all(now=NOW) == Mirrored(known=1, new=1, changed=0, gone=0, unreadable=0)
    found, said = of(), TemplateVersion.objects.get()
    assert (found.name, found.default_locale, found.version, found.is_remote) == ("Template welcome", "en", 1, True)
    assert said.contents == [{"channel": "email", "locale": "en"}, {"channel": "push", "locale": "de"}]
    assert said.tokens == ["first_name", "recipient.attributes.plan"]
    assert said.service_version
    assert (said.created_by, said.created_at) == (mirror.BY, NOW)
    assert not TemplateContent.objects.exists()


def test_what_the_service_publishes_is_the_next_version_and_what_it_repeats_is_none(template_service):
    template_service.put(template("welcome"))
    mirror_all(now=NOW)
    assert again() == Mirrored(known=1, new=0, changed=0, gone=0, unreadable=0)
    template_service.put(template("welcome", name="Hello there"))
    assert again(2).changed == 1
    assert (of().name, of().version) == ("Hello there", 2)
    assert TemplateVersion.objects.values("service_version").distinct().count() == 2


def test_a_new_name_alone_is_no_version(template_service, monkeypatch):
    template_service.put(template("welcome"))
    mirror_all(now=NOW)
    found = client.read_template("welcome")
    monkeypatch.setattr(
        client, "read_templates", lambda cursor: client.Templates((found._replace(name="Other"),), None)
    )
    assert again().changed == 1
    assert (of().name, of().version) == ("Other", 1)


def test_each_change_is_in_the_audit(template_service):
    template_service.put(template("welcome"))
    mirror_all(now=NOW)
    template_service.remove("welcome")
    again()
    published, deleted = AuditEvent.objects.order_by("id").values_list("action", "actor_id", "payload_diff")
    assert published[:2] == ("template.publish", mirror.BY)
    assert published[2]["version"] == [0, 1]
    assert published[2]["tokens"] == [None, ["first_name"]]
    assert deleted[:2] == ("template.delete", mirror.BY)
    assert deleted[2]["name"] == ["Template welcome", None]


def test_many_templates_come_in_pages(template_service):
    template_service.put(*(template(f"t{number:03}") for number in range(450)))
    assert mirror_all(now=NOW).new == 450
    assert template_service.asked("List") == 3


# Names


def test_a_name_that_is_taken_here_gets_its_id_beside_it_and_is_as_it_was_once_it_is_free(template_service):
    ours = TemplateFactory(name="News")
    template_service.put(template("n1", name="News"), template("n2", name="News"))
    mirror_all(now=NOW)
    assert {of("n1").name, of("n2").name, ours.name} == {"News (n1)", "News (n2)", "News"}
    templates.delete(template_id=ours.pk, by=BY, now=NOW)
    again()
    assert {of("n1").name, of("n2").name} == {"News", "News (n2)"}


def test_a_long_name_that_is_taken_still_fits(template_service):
    name = "x" * 200
    TemplateFactory(name=name)
    template_service.put(template("welcome", name=name))
    mirror_all(now=NOW)
    assert of().name == "x" * 190 + " (welcome)"


# What is gone


def test_what_the_service_has_no_longer_is_deleted_here_and_comes_back_with_its_versions(template_service):
    template_service.put(template("welcome"), template("other"))
    mirror_all(now=NOW)
    schedule = ScheduleFactory(template_id=of().pk)
    template_service.remove("welcome")
    assert again().gone == 1
    assert of().deleted_at == NOW + MINUTE
    assert TemplateVersion.objects.filter(template=of()).count() == 1
    assert again(2).gone == 0
    template_service.put(template("welcome"))
    assert again(3) == Mirrored(known=2, new=0, changed=1, gone=0, unreadable=0)
    assert (of().pk, of().deleted_at, of().version) == (schedule.template_id, None, 2)


@pytest.mark.parametrize("kind", ["status", "garbage", "half", "reset", "repeat"])
def test_a_list_that_does_not_come_whole_changes_nothing(template_service, kind):
    template_service.put(*(template(f"t{number:03}") for number in range(202)))
    mirror_all(now=NOW)
    template_service.fault(kind, operation="List", at="?*")  # the second page
    template_service.remove("t000")
    with pytest.raises(client.TemplateServiceError):
        again()
    assert MessageTemplate.objects.live().count() == 202


def test_a_template_that_cannot_be_read_stays_as_it_was_and_the_others_are_told(template_service, monkeypatch):
    template_service.put(template("welcome"), template("other"))
    mirror_all(now=NOW)
    bad, fine = client.BadTemplate(1, "welcome", "has no name"), client.read_template("other")
    page = client.Templates((bad, fine._replace(version="next")), None)
    monkeypatch.setattr(client, "read_templates", lambda cursor: page)
    assert again() == Mirrored(known=1, new=0, changed=1, gone=0, unreadable=1)
    assert (of().deleted_at, of().version, of("other").version) == (None, 1, 2)


# Together with others


def test_an_answer_that_is_older_than_what_is_known_changes_nothing(template_service):
    template_service.put(template("welcome"))
    mirror_all(now=NOW)
    old = client.read_templates(cursor=None)
    template_service.put(template("welcome"))
    again()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(client, "read_templates", lambda cursor: old)
        assert mirror_all(now=NOW).changed == 0
    assert of().version == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_one_writes(template_service):
    template_service.put(*(template(f"t{number}") for number in range(20)))
    done = in_threads(*[lambda: mirror_all(now=NOW)] * 3)
    assert sorted(each.new for each in done) == [0, 0, 20]
    assert TemplateVersion.objects.count() == 20


# One template


def test_what_a_template_is_now_is_asked_for_once_in_some_seconds(template_service):
    template_service.put(template("welcome"))
    mirror_all(now=NOW)
    template_service.put(template("welcome"))
    assert [mirror.current(of().pk, now=NOW) for _ in range(3)] == [2, 2, 2]
    assert template_service.asked("Template") == 1


def test_a_service_that_does_not_answer_is_left_alone_for_a_while(template_service):
    template_service.put(template("welcome"))
    mirror_all(now=NOW)
    template_service.fault("status", operation="Template", status=503)
    assert [mirror.current(of().pk, now=NOW) for _ in range(3)] == [1, 1, 1]
    assert template_service.asked("Template") == 1


def test_one_that_is_gone_keeps_the_version_known(template_service):
    template_service.put(template("welcome"))
    mirror_all(now=NOW)
    template_service.remove("welcome")
    assert mirror.current(of().pk, now=NOW) == 1


def test_nobody_is_asked_for_a_template_of_ours(template_service):
    assert mirror.current(TemplateFactory().pk, now=NOW) is None
    assert mirror.current(10**9, now=NOW) is None
    assert template_service.asked("Template") == 0


# Whose it is


@pytest.mark.parametrize(
    "change",
    [
        lambda pk: templates.change(template_id=pk, changes={"default_locale": "de"}, by=BY, now=NOW),
        lambda pk: templates.delete(template_id=pk, by=BY, now=NOW),
        lambda pk: templates.duplicate(template_id=pk, name="Copy", by=BY, now=NOW),
        lambda pk: templates.publish(template_id=pk, by=BY, now=NOW),
        lambda pk: templates.save(name="Template welcome", contents=GREETING, by=BY, now=NOW),
    ],
    ids=["change", "delete", "duplicate", "publish", "import"],
)
def test_nothing_of_it_is_changed_here(template_service, change):
    template_service.put(template("welcome"))
    mirror_all(now=NOW)
    with pytest.raises(templates.KeptElsewhere, match="change it there"):
        change(of().pk)
    assert (of().version, of().deleted_at) == (1, None)
    assert not TemplateContent.objects.exists()


# Doors


def test_the_command_says_what_has_changed(template_service, monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: NOW)
    template_service.put(template("welcome"), template("other"))
    said = io.StringIO()
    call_command("mirror_templates", stdout=said)
    assert said.getvalue() == "The template service lists 2 templates.\n  2 are new here\n"
    template_service.fault("status", operation="List", status=401)
    with pytest.raises(CommandError, match="does not take the token"):
        call_command("mirror_templates")


def test_the_clock_reads_the_list_and_counts_how_that_went(template_service):
    template_service.put(template("welcome"))
    assert template_lists.mirror(now=NOW)
    template_service.fault("status", operation="List", status=503)
    assert not template_lists.mirror(now=NOW)
    found = Count.objects.filter(name="template_service_lists_total").values_list("label", "value")
    assert dict(found) == {"ok": 1, "server_error": 1}


def test_without_a_template_service_nothing_is_read(template_service, settings):
    settings.TEMPLATE_SERVICE_URL = ""
    assert not template_lists.mirror(now=NOW)
    assert template_service.asked("List") == 0


def test_how_long_ago_the_list_was_read_is_a_metric(template_service):
    heartbeats.beat(heartbeats.TEMPLATES)
    page = metrics.page(now=lambda: NOW).decode()
    assert "\ntemplate_service_listed_seconds " in page
