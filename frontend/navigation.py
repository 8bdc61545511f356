"""The sidebar: what there is to look at, in the order in which a message comes to be."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from schedules.permissions import Ability, can

_READ = Ability.READ
GROUPS: tuple[tuple[str, tuple[tuple[str, str, str, Ability], ...]], ...] = (
    (
        "Plan",
        (
            ("Schedules", "schedules", "schedule_send", _READ),
            ("Calendar", "calendar", "calendar_month", _READ),
            ("Templates", "templates", "draft", _READ),
            ("Catalogues", "catalogues", "translate", _READ),
            ("Recipients", "recipients", "group", _READ),
        ),
    ),
    (
        "Watch",
        (
            ("Dashboard", "dashboard", "monitoring", _READ),
            ("Runs", "occurrences", "play_circle", _READ),
            ("Ledger", "ledger", "receipt_long", _READ),
            ("Why?", "explain", "help", _READ),
            ("Outbox", "outbox", "outbox", _READ),
            ("Inbox", "inbox", "inbox", _READ),
            ("Audit", "audit", "history", _READ),
        ),
    ),
    (
        "Control",
        (
            ("Stop switch", "admin:schedules_stopswitch_changelist", "front_hand", _READ),
            ("Clock", "admin:django_celery_beat_periodictask_changelist", "timer", _READ),
            ("People and roles", "admin:auth_user_changelist", "manage_accounts", Ability.MANAGE_USERS),
            ("Clients", "admin:frontend_client_changelist", "key", Ability.MANAGE_USERS),
            ("API", "api-docs", "api", _READ),
            ("Everything", "admin:index", "apps", _READ),
        ),
    ),
)


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """What ``request.user`` may open, as unfold's template wants it."""
    return [{"title": title, "items": _items(request, items)} for title, items in GROUPS]


def _items(request: HttpRequest, items: tuple[tuple[str, str, str, Ability], ...]) -> list[dict[str, Any]]:
    shown = []
    for title, name, icon, ability in items:
        link = reverse(name)
        here = request.path == link if name == "admin:index" else request.path.startswith(link)
        if can(request.user, ability):
            shown.append({"title": title, "link": link, "icon": icon, "active": here, "has_permission": True})
    return shown
