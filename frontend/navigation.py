"""The sidebar: what there is to look at, in the order in which a message comes to be."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from schedules.permissions import Ability, can

_READ = Ability.READ
_Item = tuple[Promise, str, str, Ability]
GROUPS: tuple[tuple[Promise, tuple[_Item, ...]], ...] = (
    (
        _("Plan"),
        (
            (_("Schedules"), "schedules", "schedule_send", _READ),
            (_("Calendar"), "calendar", "calendar_month", _READ),
            (_("Templates"), "templates", "draft", _READ),
            (_("Catalogues"), "catalogues", "translate", _READ),
            (_("Recipients"), "recipients", "group", _READ),
            (_("Topics"), "topics", "label", _READ),
        ),
    ),
    (
        _("Watch"),
        (
            (_("Dashboard"), "dashboard", "monitoring", _READ),
            (_("Runs"), "occurrences", "play_circle", _READ),
            (_("Ledger"), "ledger", "receipt_long", _READ),
            (_("Why?"), "explain", "help", _READ),
            (_("Outbox"), "outbox", "outbox", _READ),
            (_("Inbox"), "inbox", "inbox", _READ),
            (_("Audit"), "audit", "history", _READ),
        ),
    ),
    (
        _("Control"),
        (
            (_("Stop switch"), "admin:schedules_stopswitch_changelist", "front_hand", _READ),
            (_("Clock"), "admin:django_celery_beat_periodictask_changelist", "timer", _READ),
            (_("People and roles"), "admin:auth_user_changelist", "manage_accounts", Ability.MANAGE_USERS),
            (_("Clients"), "admin:frontend_client_changelist", "key", Ability.MANAGE_USERS),
            (_("Endpoints"), "endpoints", "webhook", Ability.MANAGE_ENDPOINTS),
            (_("API"), "api-docs", "api", _READ),
            (_("Everything"), "admin:index", "apps", _READ),
        ),
    ),
)


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """What ``request.user`` may open, as unfold's template wants it."""
    return [{"title": title, "items": _items(request, items)} for title, items in GROUPS]


def _items(request: HttpRequest, items: tuple[_Item, ...]) -> list[dict[str, Any]]:
    shown = []
    for title, name, icon, ability in items:
        link = reverse(name)
        here = request.path == link if name == "admin:index" else request.path.startswith(link)
        if can(request.user, ability):
            shown.append({"title": title, "link": link, "icon": icon, "active": here, "has_permission": True})
    return shown
