"""Every address for people: what it is and what it needs. Tests, benchmarks and screenshots of pages go by this list.

``test_page_access`` fails while an address of ``frontend.urls`` is in none of the tables, or in two.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from django.urls import URLPattern, URLResolver, reverse
from django.urls.resolvers import RoutePattern

from frontend.urls import urlpatterns
from schedules.permissions import Ability

_READ, _PLAN, _WRITE = Ability.READ, Ability.EDIT_SCHEDULES, Ability.EDIT_TEMPLATES
_KNOW, _TELL = Ability.EDIT_RECIPIENTS, Ability.MANAGE_ENDPOINTS

# Whole pages, by the name of their address. Those that need more than READ have a form that writes.
PAGES: Mapping[str, Ability] = {
    "schedules": _READ,
    "schedule": _READ,
    "schedule-history": _READ,
    "schedule-do": _PLAN,
    "schedule-test": _PLAN,
    "schedule-edit": _PLAN,
    "schedule-import": _PLAN,
    "wizard": _PLAN,
    "wizard-step": _PLAN,
    "schedule-test-result": _PLAN,
    "calendar": _READ,
    "templates": _READ,
    "template": _READ,
    "template-versions": _READ,
    "template-new": _WRITE,
    "template-import": _WRITE,
    "catalogues": _READ,
    "catalogue": _READ,
    "catalogue-new": _WRITE,
    "catalogue-message": _WRITE,
    "topics": _READ,
    "topic": _READ,
    "topic-new": _WRITE,
    "recipients": _READ,
    "recipient": _READ,
    "recipient-new": _KNOW,
    "recipient-edit": _KNOW,
    "recipient-erase": _KNOW,
    "recipient-imports": _KNOW,
    "recipient-import": _KNOW,
    "audit": _READ,
    "dashboard": _READ,
    "ledger": _READ,
    "delivery": _READ,
    "explain": _READ,
    "occurrence": _READ,
    "occurrences": _READ,
    "outbox": _READ,
    "outbox-message": _READ,
    "endpoints": _TELL,
    "endpoint": _TELL,
    "endpoint-new": _TELL,
    "endpoint-edit": _TELL,
    "inbox": _READ,
    "inbox-message": _READ,
}
# What pages load beside themselves, or give away as a file.
PARTS: Mapping[str, Ability] = {
    "schedule-forecast": _READ,
    "schedule-people": _PLAN,
    "wizard-body": _PLAN,
    "wizard-look": _PLAN,
    "wizard-people": _PLAN,
    "wizard-templates": _PLAN,
    "wizard-test": _PLAN,
    "template-body": _READ,
    "recipient-import-report": _KNOW,
    "recipients-file": _KNOW,
    "schedules-file": _READ,
    "templates-file": _READ,
    "audit-csv": _READ,
    "dashboard-csv": _READ,
    "dashboard-health": _READ,
    "occurrence-people": _READ,
    "occurrence-person": _READ,
    "occurrence-progress": _READ,
    "outbox-body": _READ,
}
# What is only posted to.
ACTIONS: Mapping[str, Ability] = {
    "schedules-bulk": _PLAN,
    "template-preview": _WRITE,
    "template-preview-body": _WRITE,
    "template-duplicate": _WRITE,
    "template-delete": _WRITE,
    "catalogue-remove": _WRITE,
    "topic-archive": _WRITE,
    "topic-restore": _WRITE,
    "recipient-import-confirm": _KNOW,
    "recipient-import-discard": _KNOW,
    "recipient-block": Ability.SUPPRESS,
    "recipient-unblock": Ability.SUPPRESS,
    "recipient-device-add": _KNOW,
    "recipient-device-remove": _KNOW,
    "occurrence-again": _PLAN,
    "occurrence-decide": _PLAN,
    "occurrence-release": _PLAN,
    "endpoint-switch": _TELL,
    "endpoint-rotate": _TELL,
    "endpoint-delete": _TELL,
    "endpoint-send": _TELL,
}
# Open to everybody, signed in or not, or for programs.
OTHERS = frozenset(
    {
        *(
            "home",
            "display",
            "set_language",
            "metrics",
            "policy-reports",
            "security-txt",
            "user-service-hook",
            "ses-hook",
        ),
        # Of whoever has a link out of a message: test_preferences asks what it opens.
        *("unsubscribe", "preferences"),
        *("oauth2_provider:authorize", "oauth2_provider:token", "oauth2_provider:revoke-token"),
        *("oauth2_provider:oauth-server-metadata", "api-problems", "openapi", "api-docs", "api-reference"),
        # Everybody's own, whatever the role, and steps of signing in: test_own_account asks who may open them.
        *("account", "here", "second-factor", "second-factor-off", "sign-out-everywhere", "sign-in-code"),
    }
)
# The admin's pages, by role: the rest of what its models have is checked by their own permissions.
ADMIN: tuple[str, ...] = (
    "/admin/",
    "/admin/schedules/stopswitch/",
    "/admin/schedules/stopswitch/add/",
    "/admin/django_celery_beat/periodictask/",
    "/admin/auth/user/",
    "/admin/auth/user/add/",
    "/admin/frontend/client/",
    "/admin/password_change/",
)
# The same page with something asked of it.
ASKED: Mapping[str, tuple[str, ...]] = {
    "catalogue-message": ("?key=greeting",),
    "ledger": ("?state=11", "?recipient=nobody"),
}
# Under these addresses lie the admin, whose pages are named above, and the API, which has tables of its own.
_ELSEWHERE = ("admin/", "api/v1/")

Values = Mapping[str, Any]
"""What to put into an address, by the name of its converter; a list for each of them in turn, if any.

Where a name means several things, the one for an address stands under both: ``"inbox-message message_id"``.
"""


def named() -> Iterator[tuple[str, list[str]]]:
    """Every address of ``frontend.urls``: its name, and the names of its converters."""
    yield from _named(urlpatterns, "")


def _named(patterns: list[URLPattern | URLResolver], space: str) -> Iterator[tuple[str, list[str]]]:
    for each in patterns:
        if isinstance(each, URLResolver):
            if str(each.pattern) not in _ELSEWHERE:
                yield from _named(each.url_patterns, f"{space}{each.namespace}:" if each.namespace else space)
            continue
        assert isinstance(each.pattern, RoutePattern)
        yield f"{space}{each.name}", list(each.pattern.converters)


def addresses(names: Mapping[str, Ability], values: Values) -> Iterator[tuple[str, str]]:
    """Name and path of each, with ``values`` in the places of its converters."""
    for name, converters in named():
        if name not in names:
            continue
        choices = [_all(values[f"{name} {each}" if f"{name} {each}" in values else each]) for each in converters]
        for chosen in product(*choices):
            path = reverse(name, kwargs=dict(zip(converters, chosen, strict=True)))
            yield name, path
            yield from ((name, path + query) for query in ASKED.get(name, ()))


def _all(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
