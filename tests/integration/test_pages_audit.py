"""The audit's page: who did what, in words, filtered, live, and as a file."""

import csv
import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit import trail
from audit.models import Action, AuditEvent
from delivery import erasure
from frontend import clients
from frontend.wording import actions, events
from schedules import operations, recipients, stops, templates
from schedules.models import MessageTemplate
from schedules.permissions import Role
from tests.accounts import account, signed_in
from tests.factories import NOW, RecipientFactory, ScheduleFactory, TemplateFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _at_now(service):
    """What is done is done at ``NOW``."""


def text_of(response) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def sentences(response) -> list[str]:
    return [told.plain for told in response.context["listed"].told]


def changes_of(event: AuditEvent) -> dict[str, tuple[str | None, str]]:
    return {label: (before, after) for label, before, after in events.tell([event])[0].changes}


def record(**values) -> AuditEvent:
    return trail.record(**{"action": Action.SENDING_STOP, "by": "user:1", "now": NOW, **values})


def rows_of(response) -> list[list[str]]:
    text = b"".join(response.streaming_content).decode()
    assert text.startswith("\ufeff")
    return list(csv.reader(text[1:].splitlines()))


def test_an_event_is_a_sentence_with_its_actor_his_role_and_a_link_to_the_schedule():
    client = signed_in(Role.MARKETER, name="mara")
    by = f"user:{User.objects.get().pk}"
    schedule = ScheduleFactory(name="Spring <offer>", run_at=NOW + timedelta(hours=1))
    with trail.of_request("order-17"):
        operations.pause(schedule_id=schedule.pk, by=by, now=NOW)
    page = client.get("/audit/")
    assert sentences(page)[0] == "mara (marketer) paused “Spring <offer>”"
    html = page.content.decode()
    assert f'<a href="{events.schedule_page(schedule.pk)}">“Spring &lt;offer&gt;”</a>' in html
    words = text_of(page)
    assert "request order-17" in words
    assert "2026-11-21 10:00:00 UTC" in words
    assert "State before: active → after: paused" in words


@pytest.mark.parametrize("action", Action)
def test_every_action_has_words_even_where_nothing_it_names_is_known(action):
    event = record(action=action, by="user:999", schedule_id=7 if action.startswith("schedule") else None)
    told = events.tell([event])[0]
    assert "{" not in told.plain
    assert told.plain.startswith("A former user (999)")
    assert str(actions.ACTIONS[action])


def test_actors_are_known_by_name_and_who_is_gone_is_said_to_be():
    people = {"user": account(Role.ADMIN, name="ada"), "gone": account(Role.ANALYST, name="gone")}
    program = clients.create_service(name="shop", scopes=["notification:read"], by="system:shell", now=NOW).client
    for by in (f"user:{people['user'].pk}", f"client:{program.pk}", "system:brake", f"user:{people['gone'].pk}"):
        record(by=by)
    people["gone"].delete()
    told = [each.plain.partition(" stopped")[0] for each in events.tell(AuditEvent.objects.order_by("id"))]
    assert told[1:4] == ["ada (admin)", "shop", "The failure brake"]
    assert told[4] == "gone (no longer there)"
    assert told[0] == "A command on the server let the program “shop” in"


def test_an_instant_is_told_by_the_clock_that_the_schedule_had_then():
    schedule = ScheduleFactory(run_at=NOW + timedelta(hours=1), time_zone="Europe/Berlin")
    later = {"run_at": NOW + timedelta(hours=2)}
    operations.update(schedule_id=schedule.pk, changes=later, by="user:1", now=NOW)
    moved = AuditEvent.objects.latest("id")
    local = {"time_zone_mode": "user_local", "run_at": NOW + timedelta(days=2)}
    operations.update(schedule_id=schedule.pk, changes=local, by="user:1", now=NOW + timedelta(minutes=1))
    assert changes_of(moved)["Runs at"][1] == "2026-11-21 13:00:00 Europe/Berlin (UTC+01:00)"


def test_who_was_renamed_stands_there_by_the_name_at_the_time_with_the_one_of_today():
    ada = account(Role.ADMIN, name="ada")
    record(by=f"user:{ada.pk}")
    User.objects.filter(pk=ada.pk).update(username="ada.king")
    assert events.tell([AuditEvent.objects.get()])[0].plain.startswith("ada (today ada.king, admin) stopped")


def test_an_edit_shows_its_fields_before_and_after_in_words_never_as_json():
    old, new = ScheduleFactory(run_at=NOW + timedelta(hours=1)), MessageTemplate.objects.get()
    summer = TemplateFactory(name="Summer")
    vips = {"field": "tags", "op": "contains", "value": "vip"}
    changed = {
        "audience_query": vips, "template_id": summer.pk, "max_per_user_per_day": 3,
        "run_at": NOW + timedelta(hours=2), "time_zone": "Europe/Berlin",
    }  # fmt: skip
    operations.update(schedule_id=old.pk, changes=changed, by="user:1", now=NOW)
    event = AuditEvent.objects.latest("id")
    assert changes_of(event) == {
        "Audience": ("Everyone", "People who have the tag “vip”"),
        "Template": (new.name, "Summer"),
        "Most messages per person in 24 hours": ("no limit", "3"),
        "Runs at": ("2026-11-21 11:00:00 UTC", "2026-11-21 13:00:00 Europe/Berlin (UTC+01:00)"),
        "Time zone": ("UTC", "Europe/Berlin"),
    }
    page = signed_in(Role.ANALYST).get("/audit/").content.decode()
    assert "audienceQuery" not in page
    assert '{"' not in re.sub(r"hx-headers='[^']+'|content='[^']+'", "", page)


def test_a_template_shows_what_it_says_by_channel_language_and_part():
    contents = [{"channel": "email", "locale": "en", "subject": "Hello", "text": "Dear you"}]
    templates.save(name="Spring", contents=contents, by="user:1", now=NOW)
    with_html = [{**contents[0], "subject": "Good day", "html": "<h1>" + "x" * 900}]
    templates.save(name="Spring", contents=with_html, by="user:1", now=NOW)
    event = AuditEvent.objects.latest("id")
    assert events.tell([event])[0].plain.endswith("published version 2 of the template “Spring”")
    found = changes_of(event)
    assert found["E-mail, en: subject"] == ("Hello", "Good day")
    assert len(found["E-mail, en: HTML"][1]) == 401
    assert set(found) == {"E-mail, en: subject", "E-mail, en: HTML"}


def test_people_are_named_by_their_external_id_until_they_are_erased():
    person = RecipientFactory(external_id="mia")
    recipients.update(recipient_id=person.pk, changes={"locale": "de"}, by="user:1", now=NOW)
    event = AuditEvent.objects.latest("id")
    assert events.tell([event])[0].plain.endswith("changed the profile of mia")
    assert changes_of(event) == {"Language": (None, "changed")}
    erasure.forget(recipient_id=person.pk, by="user:1", now=NOW)
    assert events.tell([event])[0].plain.endswith(f"a person since erased (#{person.pk})")


def test_stops_say_what_they_stop_and_why():
    stops.stop_sending(scope="channel:email", by="system:shell", now=NOW, reason="Wrong prices")
    told = events.tell([AuditEvent.objects.latest("id")])[0]
    assert told.plain == "A command on the server stopped sending by E-mail"
    assert told.changes == [("Reason", None, "Wrong prices")]


def test_filters_find_by_who_what_which_schedule_when_and_request():
    client = signed_in(Role.ANALYST, name="ana")
    ana, schedule = f"user:{User.objects.get().pk}", ScheduleFactory(run_at=NOW + timedelta(days=1))
    before = set(AuditEvent.objects.values_list("pk", flat=True))
    with trail.of_request("abc-1"):
        record(by=ana, action=Action.SCHEDULE_PAUSE, schedule_id=schedule.pk)
    record(by="system:tick", action=Action.SCHEDULE_BREAK, schedule_id=schedule.pk, now=NOW + timedelta(hours=2))
    record(by="user:77", action=Action.SENDING_GO, now=NOW + timedelta(hours=4))

    def found(**query: str) -> list[str]:
        page = client.get("/audit/", query)
        return [told.event.action for told in page.context["listed"].told if told.event.pk not in before]

    assert found() == ["sending.go", "schedule.break", "schedule.pause"]
    assert found(actor=ana) == ["schedule.pause"]
    assert found(actor="system") == ["schedule.break"]
    assert found(actor="user:77") == ["sending.go"]
    assert found(action="schedule.break") == ["schedule.break"]
    assert found(schedule=str(schedule.pk)) == ["schedule.break", "schedule.pause"]
    assert found(request="abc") == ["schedule.pause"]
    assert found(request="bc") == []
    assert found(since="2026-11-21T12:00", until="2026-11-21T14:00") == ["schedule.break"]
    client.cookies.load({"times": "mine", "zone": "Asia/Kolkata"})
    assert found(since="2026-11-21T17:30", until="2026-11-21T19:30") == ["schedule.break"]
    page = client.get("/audit/", {"since": "2026-11-21T17:30", "until": "2026-11-21T17:30"})
    assert "by the clock of Asia/Kolkata" in text_of(page)
    assert "Choose a time after the one in “From”." in text_of(page)
    assert "Nothing that fits has happened." in text_of(client.get("/audit/", {"request": "nowhere"}))


@pytest.mark.parametrize("query", ["since=yesterday", "action=made.up", "schedule=-1", "schedule=" + "9" * 30])
def test_what_cannot_be_read_is_said_at_its_field(query):
    page = signed_in(Role.ANALYST).get(f"/audit/?{query}")
    assert page.status_code == 200
    assert "Correct the filter above" in text_of(page)
    assert 'aria-invalid="true"' in page.content.decode()
    assert signed_in(Role.MARKETER).get(f"/audit/file?{query}").status_code == 400


def test_pages_go_back_in_time_without_a_gap_and_cost_the_same_however_much_is_on_them(monkeypatch):
    client = signed_in(Role.ANALYST)
    record()
    with CaptureQueriesContext(connection) as few:
        client.get("/audit/")
    for number in range(120):
        schedule_id = ScheduleFactory(run_at=NOW + timedelta(days=1)).pk if number % 40 == 0 else None
        record(by=f"user:{number}", schedule_id=schedule_id)
    with CaptureQueriesContext(connection) as many:
        page = client.get("/audit/")
    assert len(many) - len(few) <= 3  # schedules and their versions, which the one event did not name
    assert not any("COUNT(" in query["sql"] for query in many)
    seen: list[int] = []
    while True:
        seen += [told.event.pk for told in page.context["listed"].told]
        if not page.context["following"]:
            break
        page = client.get(page.context["following"])
    assert seen == list(AuditEvent.objects.order_by("-id").values_list("id", flat=True))
    assert "This page can't be found" in text_of(client.get("/audit/?before=nonsense"))


def test_the_page_asks_for_what_is_new_and_gets_nothing_while_nothing_is():
    client, htmx = signed_in(Role.ANALYST), {"HX-Request": "true"}
    record()
    page = client.get("/audit/?action=sending.stop")
    poll = page.context["poll"]
    assert 'hx-trigger="every 5s"' in page.content.decode()
    assert client.get(poll, headers=htmx).status_code == 204
    record(action=Action.SENDING_GO)
    assert client.get(poll, headers=htmx).status_code == 204
    new = record()
    answer = client.get(poll, headers=htmx)
    assert "1 new event at the top." in text_of(answer)
    assert f'<li id="event-{new.pk}" class="ns-new">' in answer.content.decode()
    assert "<html" not in answer.content.decode()
    assert client.get(answer.context["poll"], headers=htmx).status_code == 204
    paused = client.get(page.context["switch"])
    assert "hx-trigger" not in paused.content.decode()
    assert "Paused" in text_of(paused)
    assert "every 5s" in client.get(paused.context["switch"]).content.decode()


def test_the_file_holds_all_that_fits_and_no_formula():
    client = signed_in(Role.ANALYST)
    schedule = ScheduleFactory(name="=1+1", run_at=NOW + timedelta(days=1))
    operations.update(schedule_id=schedule.pk, changes={"name": "+2"}, by="user:1", now=NOW)
    for _ in range(3):
        record()
    answer = client.get("/audit/file", {"schedule": schedule.pk})
    assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.csv"'
    heading, changed, made = rows_of(answer)
    assert heading[2] == "What happened"
    assert changed[2] == "A former user (1) changed “+2”"
    assert changed[6] == "Name: =1+1 → +2"
    assert made[3:6] == ["schedule.create", "user:1", str(schedule.pk)]
    with trail.of_request("=cmd"):
        record()
    assert rows_of(client.get("/audit/file", {"request": "=cmd"}))[1][7] == "'=cmd"
    assert len(rows_of(client.get("/audit/file"))) == 1 + AuditEvent.objects.count()


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_nobody_changes_anything_there(method):
    record()
    before = AuditEvent.objects.values_list("id", "payload_diff")[:]
    getattr(signed_in(Role.ADMIN), method)("/audit/", {"action": "x"})
    assert list(AuditEvent.objects.values_list("id", "payload_diff")) == list(before)


def test_an_empty_audit_says_what_will_be_there():
    assert "Nothing has happened yet." in text_of(signed_in(Role.ANALYST).get("/audit/"))
