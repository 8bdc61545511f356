"""The admin: every model to look at, every change through its operation."""

import json
from datetime import timedelta
from html import unescape

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import DateTimeField
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from audit.models import Action, AuditEvent
from delivery.models import Batch, Delivery, FailedAttempt, Figure, InboxMessage, OutboxMessage
from frontend.urls import site
from schedules import models as schedule_models
from schedules import operations, stops, templates
from schedules.models import (
    Catalogue,
    Device,
    MessageTemplate,
    Occurrence,
    Recipient,
    RecipientImport,
    RecipientImportChunk,
    Schedule,
    ScheduleVersion,
    StopSwitch,
    TemplateContent,
    TemplateVersion,
)
from schedules.permissions import Role
from tests.accounts import PASSWORD, account, signed_in
from tests.factories import NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

OURS = ("audit", "schedules", "delivery")
FOR_ADMINS = ("admin:auth_", "admin:frontend_client_")
PATHS_FOR_ADMINS = ("/admin/auth/", "/admin/frontend/client/")
# Pages of ours show them.
ELSEWHERE = {
    *(Delivery, FailedAttempt, Figure, AuditEvent, Occurrence, InboxMessage, OutboxMessage),
    *(Recipient, Device, RecipientImport, RecipientImportChunk),
    *(MessageTemplate, TemplateContent, TemplateVersion, Catalogue),
}
LISTS = sorted(
    (f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist" for model in site._registry), key=str
)


def url(model, view, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}", args=args)


def text_of(response) -> str:
    return unescape(response.content.decode())


def schedule_form(**changes):
    """What a browser posts for a valid one-off, tomorrow at noon UTC."""
    tomorrow = NOW + timedelta(days=1)
    return {
        "name": "Offer",
        "channel": "email",
        "template": TemplateFactory().pk if "template" not in changes else "",
        "audience_query": json.dumps({"all": []}),
        "schedule_type": "once",
        "time_zone_mode": "fixed",
        "run_at_0": tomorrow.strftime("%Y-%m-%d"),
        "run_at_1": "12:00:00",
        "cron": "",
        "time_zone": "UTC",
        "counts_toward_caps": "on",
        "misfire_grace_minutes": "60",
        "on_past": "skip",
        "recheck_audience": "unknown",
        **changes,
    }


def form_of(schedule, **changes):
    """What a browser posts for ``schedule`` as it stands."""
    values = {
        "name": schedule.name,
        "channel": schedule.channel,
        "template": schedule.template_id or "",
        "audience_query": json.dumps(schedule.audience_query),
        "schedule_type": schedule.schedule_type,
        "time_zone_mode": schedule.time_zone_mode,
        "run_at_0": schedule.run_at.strftime("%Y-%m-%d") if schedule.run_at else "",
        "run_at_1": schedule.run_at.strftime("%H:%M:%S") if schedule.run_at else "",
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "counts_toward_caps": "on",
        "misfire_grace_minutes": schedule.misfire_grace_minutes,
        "on_past": schedule.on_past,
        "recheck_audience": "unknown",
        "apply_to": "next",
        "expected_version": schedule.version,
    }
    return {**values, **changes}


def last_event() -> AuditEvent:
    return AuditEvent.objects.order_by("-id").first()


# Looking


def test_every_model_is_registered_or_has_pages_of_ours():
    ours = {model for model in apps.get_models() if model._meta.app_label in OURS}
    assert ours - set(site._registry) == ELSEWHERE
    assert {User, PeriodicTask, IntervalSchedule} <= set(site._registry)


def test_times_are_shown_with_their_zone_in_every_list_and_form():
    client_request = type("Request", (), {"user": account(Role.ADMIN), "GET": {}})()
    for model, admin in site._registry.items():
        instants = {field.name for field in model._meta.fields if isinstance(field, DateTimeField)}
        if model._meta.app_label not in OURS:
            continue
        assert not instants & set(admin.get_list_display(client_request)), model
        assert not instants & set(admin.get_readonly_fields(client_request, model())), model


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", LISTS)
def test_every_list_opens_while_empty_or_is_refused(role, name):
    response = signed_in(role).get(reverse(name))
    expected = 403 if name.startswith(FOR_ADMINS) and role is not Role.ADMIN else 200
    assert response.status_code == expected


def a_bit_of_everything(service) -> None:
    """Something in every table."""
    person, *_ = people(6, time_zone="Europe/Berlin")
    RecipientFactory(external_id="no-address", email="", tags=["beta"])
    DeviceFactory(recipient=person, token="token-secret-123456")
    ScheduleFactory(name="Mail")
    ScheduleFactory(name="Note", channel="in_app")
    ScheduleFactory(name="Daily", cron="0 9 * * *", time_zone_mode="user_local")
    templates.save_catalogue(locale="de", messages={"hello": "Hallo"}, by="user:1", now=NOW)
    stops.stop_sending(scope="channel:push", by="user:1", now=NOW, reason="being tested")
    schedule_models.TestClock.objects.create(id=1, shift=timedelta(hours=1))
    service.step()
    assert OutboxMessage.objects.exists()
    assert InboxMessage.objects.exists()


@pytest.mark.parametrize("role", Role)
def test_every_list_and_every_object_opens_for_each_role(service, role):
    a_bit_of_everything(service)
    client = signed_in(role)
    opened = 0
    for model in site._registry:
        refused = url(model, "changelist").startswith(PATHS_FOR_ADMINS) and role is not Role.ADMIN
        assert client.get(url(model, "changelist")).status_code == (403 if refused else 200), model
        for item in model._default_manager.all()[:2]:
            response = client.get(url(model, "change", item.pk))
            assert response.status_code == (403 if refused else 200), item
            opened += 1
    assert opened > 10


def test_no_list_counts_the_ledger_or_reads_it_at_all(service):
    a_bit_of_everything(service)
    client = signed_in(Role.ADMIN)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        for model in site._registry:
            client.get(url(model, "changelist"))
    assert not [query["sql"] for query in queries if "delivery_delivery" in query["sql"]]


@pytest.mark.parametrize("model", [Schedule, Batch])
def test_a_list_needs_no_more_queries_for_more_rows(service, model, django_assert_max_num_queries):
    a_bit_of_everything(service)
    client = signed_in(Role.ADMIN)
    with CaptureQueriesContext(connection) as few:
        client.get(url(model, "changelist"))
    people(20)
    for _ in range(6):
        ScheduleFactory(template_id=MessageTemplate.objects.first().pk)
    service.step()
    with django_assert_max_num_queries(len(few) + 1):
        client.get(url(model, "changelist"))


def test_a_large_table_is_estimated_and_a_filtered_one_counted_to_a_limit(service):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_class SET reltuples = 2000000 WHERE oid = 'delivery_batch'::regclass")
    people(3)
    ScheduleFactory()
    service.open()
    client = signed_in(Role.ADMIN)
    with CaptureQueriesContext(connection) as queries:
        response = client.get(url(Batch, "changelist"))
    assert response.context["cl"].result_count == 2_000_000
    assert not [query for query in queries if "COUNT(*)" in query["sql"] and "delivery_batch" in query["sql"]]
    with CaptureQueriesContext(connection) as queries:
        response = client.get(url(Batch, "changelist"), {"channel__exact": "email"})
    assert response.context["cl"].result_count == 1
    (count,) = [query["sql"] for query in queries if "COUNT(*)" in query["sql"]]
    assert "LIMIT 10000" in count


def test_banners_tell_of_a_stop_and_of_a_shifted_clock_on_every_page(service, settings):
    settings.TEST_CLOCK = True
    client = signed_in(Role.ANALYST)
    for name in ("admin:index", "admin:schedules_schedule_changelist", "ledger", "outbox"):
        assert "ns-banner" not in text_of(client.get(reverse(name)))
    stops.stop_sending(scope="all", reason="The mail server moves.", by="user:1", now=NOW)
    schedule_models.TestClock.objects.create(id=1, shift=timedelta(hours=3))
    for name in ("admin:index", "admin:schedules_schedule_changelist", "ledger", "outbox"):
        page = text_of(client.get(reverse(name)))
        assert "All sending is stopped since 2026-11-21 10:00:00 UTC. Reason: The mail server moves." in page
        assert "3.0 h ahead of the real time" in page


# Signing in


@pytest.mark.parametrize("role", Role)
def test_a_role_lets_in_and_leads_to_the_admin(client, role):
    account(role, password=PASSWORD)
    page = client.get("/", follow=True)
    assert page.redirect_chain[-1][0] == "/admin/login/?next=/admin/"
    response = client.post(page.redirect_chain[-1][0], {"username": role.lower(), "password": PASSWORD})
    assert response.headers["Location"] == "/admin/"


def test_an_account_without_a_role_is_told_what_to_do(client):
    account(None, password=PASSWORD)
    response = client.post("/admin/login/?next=/admin/", {"username": "nobody", "password": PASSWORD})
    assert "This account has no role yet: ask an admin to give it one." in text_of(response)


# Schedules


@pytest.mark.parametrize("role", [Role.MARKETER, Role.ADMIN])
def test_a_schedule_is_created_active_with_its_author_in_the_audit(role):
    client = signed_in(role)
    response = client.post(url(Schedule, "add"), schedule_form())
    assert response.status_code == 302
    schedule = Schedule.objects.get()
    assert (schedule.name, schedule.status, schedule.version) == ("Offer", "active", 1)
    assert schedule.run_at == (NOW + timedelta(days=1)).replace(hour=12)
    assert schedule.recheck_audience is None
    assert (last_event().action, last_event().actor_id) == (
        Action.SCHEDULE_CREATE,
        f"user:{User.objects.get(username=role.lower()).pk}",
    )


def test_a_draft_may_be_incomplete_and_is_activated_by_a_button():
    client = signed_in(Role.MARKETER)
    client.post(url(Schedule, "add"), schedule_form(template="", run_at_0="", run_at_1="", save_as_draft="on"))
    draft = Schedule.objects.get()
    assert draft.status == "draft"
    activate = reverse("admin:schedules_schedule_transition", args=[draft.pk, "activate"])
    page = text_of(client.post(activate, follow=True))
    assert "templateId: Choose a template." in page
    operations.update(
        schedule_id=draft.pk,
        changes={"template_id": TemplateFactory().pk, "run_at": NOW + timedelta(hours=1)},
        by="user:1",
        now=NOW,
    )
    assert "The schedule is active." in text_of(client.post(activate, follow=True))
    assert last_event().action == Action.SCHEDULE_ACTIVATE


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        (
            {"audience_query": '{"all": [{"field": "email", "op": "eq"}]}'},
            "audience_query",
            "At /all/0: ",
        ),
        ({"audience_query": "{"}, "audience_query", "Enter a valid JSON."),
        ({"template": ""}, "template", "Choose a template."),
        ({"schedule_type": "cron", "run_at_0": "", "run_at_1": "", "cron": "61 * * * *"}, "cron", ""),
        ({"time_zone": "Mars/Base"}, "time_zone", "IANA time zone"),
        ({"run_at_0": "2020-01-01"}, "run_at", "has passed"),
        ({"max_per_user_per_day": "0"}, "max_per_user_per_day", "from 1 to"),
        ({"name": ""}, "name", "required"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_kept(changes, field, said):
    response = signed_in(Role.MARKETER).post(url(Schedule, "add"), schedule_form(**changes))
    errors = response.context["adminform"].form.errors
    assert list(errors) == [field]
    assert said in errors[field][0]
    assert not Schedule.objects.exists()
    assert not AuditEvent.objects.filter(action=Action.SCHEDULE_CREATE).exists()


def test_an_edit_goes_through_the_operation_and_makes_a_version():
    schedule = ScheduleFactory(run_at=NOW + timedelta(hours=2))
    response = signed_in(Role.MARKETER).post(url(Schedule, "change", schedule.pk), form_of(schedule, name="Better"))
    assert response.status_code == 302
    schedule.refresh_from_db()
    assert (schedule.name, schedule.version) == ("Better", 2)
    assert ScheduleVersion.objects.filter(schedule=schedule).count() == 2
    assert last_event().payload_diff["name"][1] == "Better"


def test_the_form_says_what_limits_do():
    page = text_of(signed_in(Role.MARKETER).get(url(Schedule, "add")))
    assert "The windows roll" in page
    assert "At most so many messages to one person in any 24 hours. Empty: no limit." in page
    assert "Whether this schedule's messages use up the limits of others." in page
    assert "not enforced" not in page


def test_saving_without_a_change_makes_no_version():
    schedule = ScheduleFactory(run_at=NOW + timedelta(hours=2), audience_query={"all": []})
    signed_in(Role.MARKETER).post(url(Schedule, "change", schedule.pk), form_of(schedule))
    schedule.refresh_from_db()
    assert schedule.version == 1


def test_an_edit_of_what_somebody_else_has_changed_is_refused_with_a_remedy():
    schedule = ScheduleFactory(run_at=NOW + timedelta(hours=2))
    form = form_of(schedule, name="Mine")
    operations.update(schedule_id=schedule.pk, changes={"name": "Theirs"}, by="user:7", now=NOW)
    page = text_of(signed_in(Role.MARKETER).post(url(Schedule, "change", schedule.pk), form))
    assert "Somebody else has changed this schedule meanwhile: it is at version 2 now." in page
    schedule.refresh_from_db()
    assert schedule.name == "Theirs"


def test_an_edit_says_what_it_did_to_a_run_that_is_open(service):
    people(3)
    schedule = ScheduleFactory(run_at=NOW + timedelta(seconds=30), now=NOW)
    service.open()
    client = signed_in(Role.MARKETER)
    page = client.post(url(Schedule, "change", schedule.pk), form_of(schedule, name="New name"), follow=True)
    assert "follows the edit" in text_of(page)


def test_what_has_ended_can_only_be_read(service):
    schedule = ScheduleFactory()
    operations.cancel(schedule_id=schedule.pk, by="user:1", now=NOW)
    client = signed_in(Role.ADMIN)
    assert client.post(url(Schedule, "change", schedule.pk), form_of(schedule)).status_code == 403
    assert "_save" not in text_of(client.get(url(Schedule, "change", schedule.pk)))


@pytest.mark.parametrize(
    ("verb", "status", "action"),
    [
        ("pause", "paused", Action.SCHEDULE_PAUSE),
        ("cancel", "cancelled", Action.SCHEDULE_CANCEL),
    ],
)
def test_buttons_change_the_state_through_the_operations(verb, status, action):
    schedule = ScheduleFactory(run_at=NOW + timedelta(hours=1))
    client = signed_in(Role.MARKETER)
    where = reverse("admin:schedules_schedule_transition", args=[schedule.pk, verb])
    assert client.get(where).status_code == 405
    assert f"The schedule is {status}." in text_of(client.post(where, follow=True))
    schedule.refresh_from_db()
    assert schedule.status == status
    assert last_event().action == action


def test_a_button_that_came_too_late_says_so():
    schedule = ScheduleFactory(run_at=NOW + timedelta(hours=1))
    operations.cancel(schedule_id=schedule.pk, by="user:1", now=NOW)
    where = reverse("admin:schedules_schedule_transition", args=[schedule.pk, "pause"])
    assert "The schedule is cancelled." in text_of(signed_in(Role.MARKETER).post(where, follow=True))
    assert last_event().action == Action.SCHEDULE_CANCEL


def test_actions_on_several_schedules_do_what_can_be_done_and_say_the_rest():
    first, second, over = (ScheduleFactory(run_at=NOW + timedelta(hours=1)) for _ in range(3))
    operations.cancel(schedule_id=over.pk, by="user:1", now=NOW)
    client = signed_in(Role.MARKETER)

    def act(name):
        chosen = [first.pk, second.pk, over.pk]
        return text_of(
            client.post(url(Schedule, "changelist"), {"action": name, "_selected_action": chosen}, follow=True)
        )

    page = act("pause_selected")
    assert "2 schedules paused." in page
    assert f"{over.name}: The schedule is cancelled." in page
    assert "2 schedules resumed." in act("resume_selected")
    assert "3 schedules cancelled." in act("cancel_selected")
    assert "3 schedules deleted." in act("delete_chosen")
    assert Schedule.objects.filter(status="deleted").count() == 3


def test_deleting_is_soft_and_takes_the_schedule_out_of_the_list(service):
    people(2)
    schedule = ScheduleFactory(name="Gone soon")
    service.step()
    client = signed_in(Role.MARKETER)
    assert "There is no way back." in text_of(client.get(url(Schedule, "delete", schedule.pk)))
    client.post(url(Schedule, "delete", schedule.pk), {"post": "yes"})
    schedule.refresh_from_db()
    assert schedule.status == "deleted"
    assert last_event().action == Action.SCHEDULE_DELETE
    assert schedule.occurrences.count() == 1
    assert client.get(url(Schedule, "changelist")).context["cl"].result_count == 0
    assert client.get(url(Schedule, "change", schedule.pk)).status_code == 302


def test_an_analyst_reads_schedules_and_changes_none():
    schedule = ScheduleFactory(run_at=NOW + timedelta(hours=1))
    client = signed_in(Role.ANALYST)
    page = text_of(client.get(url(Schedule, "change", schedule.pk)))
    assert "ns-button" not in page.partition("ns-summary")[2].partition("</section>")[0]
    assert client.get(url(Schedule, "add")).status_code == 403
    assert client.post(url(Schedule, "add"), schedule_form()).status_code == 403
    assert client.post(url(Schedule, "change", schedule.pk), form_of(schedule, name="Mine")).status_code == 403
    assert client.post(url(Schedule, "delete", schedule.pk), {"post": "yes"}).status_code == 403
    where = reverse("admin:schedules_schedule_transition", args=[schedule.pk, "pause"])
    assert client.post(where).status_code == 403
    client.post(url(Schedule, "changelist"), {"action": "pause_selected", "_selected_action": [schedule.pk]})
    schedule.refresh_from_db()
    assert (schedule.status, schedule.version) == ("active", 1)


def test_a_schedule_says_when_it_runs_next_in_its_zone():
    schedule = ScheduleFactory(cron="30 8 * * 1", time_zone="Europe/Berlin")
    page = text_of(signed_in(Role.ANALYST).get(url(Schedule, "change", schedule.pk)))
    assert "2026-11-23 08:30:00 Europe/Berlin (UTC+01:00)" in page
    assert "At 08:30 on Monday, Europe/Berlin" in page


# Control


def test_the_stop_switch_is_put_on_and_taken_off_through_the_operations():
    client = signed_in(Role.ADMIN)
    client.post(url(StopSwitch, "add"), {"scope": "channel:email", "reason": "Bounces"})
    stop = StopSwitch.objects.get()
    assert (stop.scope, stop.reason, last_event().action) == ("channel:email", "Bounces", Action.SENDING_STOP)
    client.post(url(StopSwitch, "delete", stop.pk), {"post": "yes"})
    assert not StopSwitch.objects.exists()
    assert last_event().action == Action.SENDING_GO


@pytest.mark.parametrize("scope", ["everything", "channel:fax", "schedule:one", ""])
def test_a_stop_of_something_unknown_is_refused(scope):
    response = signed_in(Role.ADMIN).post(url(StopSwitch, "add"), {"scope": scope, "reason": ""})
    assert list(response.context["adminform"].form.errors) == ["scope"]


def test_a_stop_of_a_schedule_that_there_is_not_is_said_in_the_form():
    response = signed_in(Role.ADMIN).post(url(StopSwitch, "add"), {"scope": "schedule:99999", "reason": ""})
    assert "There is no schedule 99999" in response.context["adminform"].form.errors["scope"][0]
    assert not StopSwitch.objects.exists()


@pytest.mark.parametrize("reason", ["r" * 501, "a\0b"])
def test_a_reason_that_can_not_be_kept_is_said_in_the_form(reason):
    response = signed_in(Role.ADMIN).post(url(StopSwitch, "add"), {"scope": "all", "reason": reason})
    assert list(response.context["adminform"].form.errors) == ["reason"]


def test_only_an_admin_stops_sending_and_touches_the_clock():
    stops.stop_sending(scope="all", by="user:1", now=NOW)
    task = PeriodicTask.objects.create(
        name="other tick", task="delivery.tick", interval=IntervalSchedule.objects.create(every=7, period="seconds")
    )
    for role in (Role.MARKETER, Role.ANALYST):
        client = signed_in(role)
        assert client.post(url(StopSwitch, "add"), {"scope": "channel:email"}).status_code == 403
        assert client.post(url(StopSwitch, "delete", StopSwitch.objects.get().pk), {"post": "yes"}).status_code == 403
        assert client.post(url(PeriodicTask, "change", task.pk), {"enabled": ""}).status_code == 403
    form = {"interval": task.interval_id, "expire_seconds": "9"}
    assert signed_in(Role.ADMIN).post(url(PeriodicTask, "change", task.pk), form).status_code == 302
    task.refresh_from_db()
    assert (task.enabled, task.expire_seconds) == (False, 9)


@pytest.mark.parametrize("model", [Batch, ScheduleVersion, schedule_models.TestClock])
def test_what_the_service_writes_nobody_writes_by_hand(model):
    client = signed_in(Role.ADMIN)
    assert client.get(url(model, "add")).status_code == 403
    admin = site._registry[model]
    request = type("Request", (), {"user": User.objects.get()})()
    assert not admin.has_change_permission(request)
    assert not admin.has_delete_permission(request)


def test_an_admin_gives_somebody_a_role():
    client = signed_in(Role.ADMIN)
    newcomer = account(None)
    form = {
        "username": "nobody",
        "is_active": "on",
        "groups": [str(User.objects.get(username="admin").groups.get().pk)],
    }
    assert client.post(url(User, "change", newcomer.pk), form).status_code == 302
    assert newcomer.groups.get().name == Role.ADMIN
    assert not User.objects.get(pk=newcomer.pk).is_staff


@pytest.mark.parametrize("role", Role)
def test_everybody_may_change_the_own_password(role):
    assert signed_in(role).get("/admin/password_change/").status_code == 200


def test_nobody_deletes_his_own_account():
    client = signed_in(Role.ADMIN)
    me = User.objects.get()
    assert client.post(url(User, "delete", me.pk), {"post": "yes"}).status_code == 403


# JSON that Python or PostgreSQL would choke on

UNKEEPABLE = [
    pytest.param(r'{"a": "x\u0000"}', "remove it", id="nul"),
    pytest.param(r'{"x\u0000": "a"}', "remove it", id="nul in a key"),
    pytest.param(r'{"a": "\ud800"}', "write whole characters", id="half a pair"),
    pytest.param("[" * 100_000, "at most 50 levels", id="endless"),
    pytest.param('{"not":' * 3_000 + "1" + "}" * 3_000, "at most 50 levels", id="deep"),
    pytest.param('{"not":' * 60 + "1" + "}" * 60, "at most 50 levels", id="deeper than meant"),
    pytest.param('{"a": NaN}', "finite numbers", id="nan"),
    pytest.param('{"a": [-Infinity]}', "finite numbers", id="infinity"),
    pytest.param('{"a": 1e999}', "finite numbers", id="beyond a float"),
    pytest.param('{"a": ' + "9" * 5_000 + "}", "at most 4,000 digits", id="long number"),
    pytest.param('{"a": }', "Enter a valid JSON. Line 1, character 7: ", id="no json"),
]


def refusal(response, field) -> str:
    assert response.status_code == 200
    errors = response.context["adminform"].form.errors
    assert list(errors) == [field]
    return errors[field][0]


@pytest.mark.parametrize("draft", [{}, {"save_as_draft": "on"}], ids=["whole", "draft"])
@pytest.mark.parametrize(("text", "remedy"), UNKEEPABLE)
def test_an_audience_that_can_not_be_kept_is_refused_in_words(text, remedy, draft):
    response = signed_in(Role.ADMIN).post(url(Schedule, "add"), schedule_form(audience_query=text, **draft))
    assert remedy in refusal(response, "audience_query")
    assert not Schedule.objects.exists()
