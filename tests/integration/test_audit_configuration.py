"""Whatever somebody may change on the admin site is in the audit: who it was, and what was before and after.

The table below has a deed for each thing that the site lets an admin do. A model that is registered with more rights,
or a new action, makes the first test fail until it has a deed too.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client as Browser
from django.urls import reverse
from django.utils import translation
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from audit.models import AuditEvent
from frontend.admin_site import site
from frontend.models import Client
from schedules import stops
from schedules.models import StopSwitch
from schedules.permissions import Role
from tests.accounts import account, signed_in
from tests.api import service_client, token
from tests.factories import NOW

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _at_now(service):
    """What is done is done at ``NOW``. A request leaves its language to whatever its thread does next."""
    yield
    translation.deactivate()


def of(model: Any, view: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}", args=args)


def acts(model: Any, action: str) -> Callable[[Browser, Any], Any]:
    """Do the action to one object, and say yes where it asks."""

    def act(ada: Browser, pk: Any) -> Any:
        return ada.post(of(model, "changelist"), {"action": action, "_selected_action": [pk], "post": "yes"})

    return act


def deletes(model: Any) -> Callable[[Browser, Any], Any]:
    return lambda ada, pk: ada.post(of(model, "delete", pk), {"post": "yes"})


def mara() -> Any:
    return account(Role.MARKETER, name="mara").pk


def mara_signed_in() -> Any:
    signed_in(Role.MARKETER, name="mara")
    return User.objects.get(username="mara").pk


def a_stop() -> Any:
    stops.stop_sending(scope="channel:push", reason="Prices", by="system:test", now=NOW)
    return StopSwitch.objects.get().pk


def a_program() -> Any:
    client = service_client(name="the shop")
    token(client=client)
    return Client.objects.get(client_id=client.client_id).pk


def the_seals() -> Any:
    return PeriodicTask.objects.get(task="delivery.seal_audit").pk


def changes_the_clock(ada: Browser, pk: Any) -> Any:
    slower = IntervalSchedule.objects.create(every=7, period="hours")
    return ada.post(of(PeriodicTask, "change", pk), {"interval": slower.pk, "expire_seconds": 60})


def gives_a_role(ada: Browser, pk: Any) -> Any:
    groups = [Group.objects.get_or_create(name=Role.ADMIN)[0].pk]
    return ada.post(of(User, "change", pk), {"username": "mara", "groups": groups})


def makes_an_account(ada: Browser, _pk: Any) -> Any:
    word = "right-9-word"
    form = {"username": "new", "usable_password": "true", "password1": word, "password2": word}
    return ada.post(of(User, "add"), form)


# What may be done: (model, kind), what there must be first, the deed, and what the audit then has to tell beside who it
# is about: {field: [before, after]}.
DEEDS: dict[tuple[Any, str], tuple[Callable[[], Any], Callable[[Browser, Any], Any], dict[str, Any]]] = {
    (PeriodicTask, "change"): (
        the_seals,
        changes_the_clock,
        {"entry": "seals of the audit", "interval": ["every 60 seconds", "every 7 hours"], "enabled": [True, False]},
    ),
    (IntervalSchedule, "add"): (
        lambda: None,
        lambda ada, _: ada.post(of(IntervalSchedule, "add"), {"every": 9, "period": "days"}),
        {"interval": [None, "every 9 days"]},
    ),
    (StopSwitch, "add"): (
        lambda: None,
        lambda ada, _: ada.post(of(StopSwitch, "add"), {"scope": "all", "reason": "Wrong prices"}),
        {"scope": [None, "all"], "reason": [None, "Wrong prices"]},
    ),
    (StopSwitch, "delete"): (a_stop, deletes(StopSwitch), {"scope": ["channel:push", None]}),
    (StopSwitch, "delete_selected"): (a_stop, acts(StopSwitch, "delete_selected"), {"scope": ["channel:push", None]}),
    (Client, "delete"): (a_program, deletes(Client), {"name": ["the shop", None]}),
    (Client, "delete_selected"): (a_program, acts(Client, "delete_selected"), {"name": ["the shop", None]}),
    (Client, "revoke"): (a_program, acts(Client, "revoke"), {"name": "the shop", "tokens": [1, 0]}),
    (User, "add"): (lambda: None, makes_an_account, {}),
    (User, "change"): (mara, gives_a_role, {"roles": [["MARKETER"], ["ADMIN"]]}),
    (User, "sign_out"): (mara_signed_in, acts(User, "sign_out"), {"sessions": 1}),
    (User, "delete"): (mara, deletes(User), {}),
    (User, "delete_selected"): (mara, acts(User, "delete_selected"), {}),
}


def allowed() -> set[tuple[Any, str]]:
    """What the site lets an admin do, as it says itself."""
    request = signed_in(Role.ADMIN, name="ada").get("/admin/").wsgi_request
    found = set()
    for model, admin in site._registry.items():
        for kind in ("add", "change", "delete"):
            if getattr(admin, f"has_{kind}_permission")(request):
                found.add((model, kind))
        found |= {(model, action) for action in admin.get_actions(request)}
    return found


def test_the_table_knows_everything_that_may_be_changed():
    assert allowed() == DEEDS.keys() | {(User, "reset_second_factor")}  # tests of the second factor have it


@pytest.mark.parametrize(("model", "kind"), DEEDS, ids=lambda each: getattr(each, "__name__", each))
def test_what_an_admin_changes_is_kept_with_who_it_was_and_what_it_was_before(model, kind):
    prepare, deed, told = DEEDS[model, kind]
    ada = signed_in(Role.ADMIN, name="ada")
    ada.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"  # what is kept is English all the same
    pk = prepare()
    before = set(AuditEvent.objects.values_list("pk", flat=True))
    answer = deed(ada, pk)
    assert answer.status_code == 302, answer.content.decode()[:3000]
    new = list(AuditEvent.objects.exclude(pk__in=before))
    assert {event.actor_label for event in new} == {"ada"}
    kept = {name: value for event in new for name, value in event.payload_diff.items()}
    assert {name: kept.get(name) for name in told} == told
    if model is User:
        assert kept["account"] == (pk or User.objects.get(username="new").pk)


def test_a_save_that_changes_nothing_keeps_nothing():
    ada = signed_in(Role.ADMIN, name="ada")
    entry = PeriodicTask.objects.get(pk=the_seals())
    before = AuditEvent.objects.count()
    form = {"interval": entry.interval_id, "expire_seconds": entry.expire_seconds, "enabled": "on"}
    assert ada.post(of(PeriodicTask, "change", entry.pk), form).status_code == 302
    assert AuditEvent.objects.count() == before


def test_the_changed_clock_is_told_in_words():
    ada = signed_in(Role.ADMIN, name="ada")
    changes_the_clock(ada, the_seals())
    page = ada.get("/audit/")
    told = page.context["listed"].told[0]
    assert told.plain == "ada (admin) changed the clock's entry “seals of the audit”"
    assert ("Interval", "every 60 seconds", "every 7 hours") in told.changes
    german = ada.get("/audit/", headers={"Accept-Language": "de"}).context["listed"].told[0]
    assert ("Intervall", "alle 60 Sekunden", "alle 7 Stunden") in german.changes
    assert timedelta(0) == NOW - told.event.created_at
