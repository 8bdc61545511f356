"""The admin: every model to look at, every change through its operation."""

from datetime import timedelta
from html import unescape

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import DateTimeField
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import translation
from django.utils.html import strip_tags
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from audit.models import Action, AuditEvent, ExportedSeal, Seal
from delivery import continuity
from delivery.endpoint_models import (
    Attempt,
    AuditPlace,
    ClosedRun,
    Endpoint,
    Event,
    Posting,
    Report,
    ToldBatch,
)
from delivery.models import (
    Batch,
    Continuity,
    Count,
    Delivery,
    FailedAttempt,
    Feedback,
    FeedbackCount,
    Figure,
    Heartbeat,
    InboxMessage,
    OutboxMessage,
    ProviderAccount,
)
from frontend.admin import paginator
from frontend.urls import site
from schedules import models as schedule_models
from schedules import stops, templates
from schedules.models import (
    Catalogue,
    Device,
    ErasedPerson,
    LeftAlone,
    MessageTemplate,
    MirroredPerson,
    Occurrence,
    Recipient,
    RecipientImport,
    RecipientImportChunk,
    Resolution,
    ResolutionPage,
    ResolutionUse,
    Schedule,
    ScheduleVersion,
    ServedCount,
    SoftBounce,
    StopSwitch,
    Suppression,
    TemplateContent,
    TemplateVersion,
    Topic,
)
from schedules.permissions import Role
from tests.accounts import PASSWORD, account, signed_in
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

OURS = ("audit", "schedules", "delivery")
FOR_ADMINS = ("admin:auth_", "admin:frontend_client_")
PATHS_FOR_ADMINS = ("/admin/auth/", "/admin/frontend/client/")
# Pages of ours show them; of seals and fingerprints there is nothing to look at.
ELSEWHERE = {
    *(Seal, ExportedSeal, ErasedPerson),
    *(Delivery, FailedAttempt, Feedback, FeedbackCount, Figure, AuditEvent, Occurrence, InboxMessage, OutboxMessage),
    *(Count, Heartbeat, ProviderAccount, Continuity),
    *(Suppression, SoftBounce),
    *(Endpoint, Event, Posting, Attempt, ToldBatch, ClosedRun, Report, AuditPlace),
    *(Recipient, Device, RecipientImport, RecipientImportChunk, MirroredPerson, Resolution, ResolutionPage),
    *(ResolutionUse, ServedCount, LeftAlone),
    *(Topic, Schedule, ScheduleVersion, MessageTemplate, TemplateContent, TemplateVersion, Catalogue),
}
LISTS = sorted(
    (f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist" for model in site._registry), key=str
)


def url(model, view, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}", args=args)


def text_of(response) -> str:
    return unescape(response.content.decode())


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
    assert opened > 8


def test_no_list_counts_the_ledger_or_reads_it_at_all(service):
    a_bit_of_everything(service)
    client = signed_in(Role.ADMIN)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        for model in site._registry:
            client.get(url(model, "changelist"))
    assert not [query["sql"] for query in queries if "delivery_delivery" in query["sql"]]


@pytest.mark.parametrize("model", [Batch])
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


def test_a_large_table_is_estimated_and_a_filtered_one_counted_to_a_limit(service, monkeypatch):
    assert paginator._estimate("delivery_batch") < 1000
    monkeypatch.setattr(paginator, "_estimate", {"delivery_batch": 2_000_000}.get)
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
    for name in ("admin:index", "schedules", "ledger", "outbox"):
        assert "ns-banner" not in text_of(client.get(reverse(name)))
    stops.stop_sending(scope="all", reason="The mail server moves.", by="user:1", now=NOW)
    schedule_models.TestClock.objects.create(id=1, shift=timedelta(hours=3))
    for name in ("admin:index", "schedules", "ledger", "outbox"):
        page = text_of(client.get(reverse(name)))
        since = '<span class="ns-whole">2026-11-21 10:00:00</span> UTC'  # in one line, however narrow the page
        assert f"All sending is stopped since {since}. Reason: The mail server moves." in page
        assert "3 hours ahead of the real time" in page


def test_whatever_the_admin_shows_has_a_name_in_the_viewers_language(service):
    a_bit_of_everything(service)
    client = signed_in(Role.ADMIN)
    client.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    stop, batch, entry = StopSwitch.objects.get(), Batch.objects.first(), PeriodicTask.objects.get(name="tick")
    named = {stop: ("Sendestopps", "Push"), batch: ("Stapel", f"Stapel {batch.pk} von Lauf {batch.occurrence_id}")}
    named[entry] = ("Einträge der Uhr", "Eröffnet die fälligen Läufe")
    for item, said in named.items():
        page = text_of(client.get(url(type(item), "change", item.pk)))
        assert [words for words in said if words not in page] == []
        assert "channel:push" not in page
    gone = client.post(url(StopSwitch, "delete", stop.pk), {"post": "yes"}, follow=True)
    assert "„Push“" in text_of(gone)
    assert gone.redirect_chain[-1][0] == url(StopSwitch, "changelist")
    translation.deactivate()  # a request leaves its language to whatever its thread does next


def test_people_are_filtered_by_their_role_in_words():
    client = signed_in(Role.ADMIN)
    account(Role.ANALYST, name="somebody")
    listed = client.get(url(User, "changelist"), {"role": "ANALYST"})
    assert [user.username for user in listed.context["cl"].result_list] == ["somebody"]
    assert "ANALYST" not in strip_tags(text_of(listed))


# Signing in


@pytest.mark.parametrize("role", Role)
def test_a_role_lets_in_and_leads_home(client, role):
    account(role, password=PASSWORD)
    page = client.get("/", follow=True)
    assert page.redirect_chain[-1][0] == "/admin/login/?next=/"
    response = client.post(page.redirect_chain[-1][0], {"username": role.lower(), "password": PASSWORD})
    assert response.headers["Location"] == "/"


def test_an_account_without_a_role_is_told_what_to_do(client):
    account(None, password=PASSWORD)
    response = client.post("/admin/login/?next=/admin/", {"username": "nobody", "password": PASSWORD})
    assert "This account has no role yet: ask an admin to give it one." in text_of(response)


# Control


def test_the_stop_switch_is_put_on_and_taken_off_through_the_operations():
    client = signed_in(Role.ADMIN)
    client.post(url(StopSwitch, "add"), {"scope": "channel:email", "reason": "Bounces"})
    stop = StopSwitch.objects.get()
    assert (stop.scope, stop.reason, last_event().action) == ("channel:email", "Bounces", Action.SENDING_STOP)
    client.post(url(StopSwitch, "delete", stop.pk), {"post": "yes"})
    assert not StopSwitch.objects.exists()
    assert last_event().action == Action.SENDING_GO


def test_what_stops_a_restored_database_is_not_taken_off_by_a_page_until_it_is_settled(same_numbers):
    continuity.declare(restored_to=NOW, now=NOW)
    client, stop = signed_in(Role.ADMIN), StopSwitch.objects.get()
    several = {"action": "delete_selected", "_selected_action": [stop.pk], "post": "yes"}
    assert client.post(url(StopSwitch, "delete", stop.pk), {"post": "yes"}).status_code == 403
    assert client.post(url(StopSwitch, "changelist"), several).status_code == 200
    assert StopSwitch.objects.get() == stop
    continuity.settled(now=NOW)
    client.post(url(StopSwitch, "changelist"), several)
    assert not StopSwitch.objects.exists()


def test_one_schedule_is_stopped_by_its_number_and_the_list_says_so_in_words():
    client, schedule = signed_in(Role.ADMIN), ScheduleFactory()
    client.post(url(StopSwitch, "add"), {"scope": "schedule", "schedule": schedule.pk, "reason": ""})
    assert StopSwitch.objects.get().scope == f"schedule:{schedule.pk}"
    page = text_of(client.get(url(StopSwitch, "changelist")))
    assert f"Schedule #{schedule.pk}" in page
    assert "user:" not in page


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ({"scope": "everything"}, "scope"),
        ({"scope": "channel:fax"}, "scope"),
        ({"scope": "schedule:1"}, "scope"),
        ({"scope": ""}, "scope"),
        ({"scope": "schedule"}, "schedule"),
        ({"scope": "schedule", "schedule": "one"}, "schedule"),
        ({"scope": "schedule", "schedule": "0"}, "schedule"),
    ],
)
def test_a_stop_of_something_unknown_is_refused(typed, field):
    response = signed_in(Role.ADMIN).post(url(StopSwitch, "add"), {"reason": "", **typed})
    assert list(response.context["adminform"].form.errors) == [field]
    assert not StopSwitch.objects.exists()


def test_a_stop_of_a_schedule_that_there_is_not_is_said_in_the_form():
    typed = {"scope": "schedule", "schedule": "99999", "reason": ""}
    response = signed_in(Role.ADMIN).post(url(StopSwitch, "add"), typed)
    assert "There is no schedule 99999" in response.context["adminform"].form.errors["schedule"][0]
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


@pytest.mark.parametrize("model", [Batch, schedule_models.TestClock])
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


@pytest.mark.parametrize("role", [*Role, None])
def test_everybody_may_change_the_own_password(role):
    account(role, name="somebody", password=PASSWORD)
    client = Client()
    for address in ("/admin/password_change/", "/admin/password_change/done/"):
        assert client.get(address)["Location"].startswith("/admin/login/")
        assert client.post(address).status_code in (302, 405)
    assert not AuditEvent.objects.exists()
    client.force_login(User.objects.get())
    new = {"old_password": PASSWORD, "new_password1": "another-42-word", "new_password2": "another-42-word"}
    assert client.get("/admin/password_change/").status_code == 200
    done = client.post("/admin/password_change/", new)
    assert client.get(done["Location"]).status_code == 200
    assert User.objects.get().check_password("another-42-word")


def test_who_has_no_role_is_told_nothing_of_the_service(service):
    StopSwitch.objects.create(scope=StopSwitch.ALL, reason="Provider leaked", created_by=BY, created_at=NOW)
    assert b"Provider leaked" in signed_in(Role.ANALYST).get("/account/").content
    page = signed_in(None).get("/account/")
    assert (page.status_code, b"Provider leaked" in page.content) == (200, False)


def test_nobody_deletes_his_own_account():
    client = signed_in(Role.ADMIN)
    me = User.objects.get()
    assert client.post(url(User, "delete", me.pk), {"post": "yes"}).status_code == 403
