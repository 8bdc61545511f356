"""Who may call what: every address of the API × every method × every kind of caller.

``NEEDS`` is written by hand, so that a view that asks for too little is found; the addresses are those that Django
resolves, so that none is forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from oauth2_provider.models import AccessToken

from delivery.models import InboxMessage
from frontend.api.urls import urlpatterns
from schedules import suppressions
from schedules.models import Catalogue, Device, Occurrence, Suppression
from schedules.permissions import Role, Scope
from tests import subscribers
from tests.accounts import account
from tests.api import READ_WRITE, Api, token
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TopicFactory

pytestmark = pytest.mark.django_db

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
READ, SCHEDULES, TEMPLATES, RECIPIENTS, INBOX = "read", "edit schedules", "edit templates", "edit recipients", "inbox"
SUPPRESS, ENDPOINTS = "suppress", "manage endpoints"
# What a method of an address needs, and its answer to who may, without a body and without If-Match.
NEEDS: dict[str, dict[str, tuple[str, int]]] = {
    "schedules": {"GET": (READ, 200), "POST": (SCHEDULES, 400)},
    "schedules/<int:schedule_id>": {
        "GET": (READ, 200),
        "PUT": (SCHEDULES, 428),
        "PATCH": (SCHEDULES, 428),
        "DELETE": (SCHEDULES, 428),
    },
    "schedules/<int:schedule_id>/activate": {"POST": (SCHEDULES, 409)},
    "schedules/<int:schedule_id>/pause": {"POST": (SCHEDULES, 200)},
    "schedules/<int:schedule_id>/resume": {"POST": (SCHEDULES, 200)},
    "schedules/<int:schedule_id>/cancel": {"POST": (SCHEDULES, 200)},
    "schedules/<int:schedule_id>/duplicate": {"POST": (SCHEDULES, 201)},
    "schedules/<int:schedule_id>/run-now": {"POST": (SCHEDULES, 202)},
    "schedules/<int:schedule_id>/test-send": {"POST": (SCHEDULES, 400)},
    "schedules/<int:schedule_id>/next-runs": {"GET": (READ, 200)},
    "schedules/<int:schedule_id>/history": {"GET": (READ, 200)},
    "schedules/<int:schedule_id>/occurrences": {"GET": (READ, 200)},
    "schedules:validate": {"POST": (READ, 200)},
    "schedules:forecast": {"POST": (READ, 400)},
    "audiences:preview": {"POST": (READ, 400)},
    "test-sends/<int:test_send_id>": {"GET": (READ, 404)},
    "templates": {"GET": (READ, 200), "POST": (TEMPLATES, 400)},
    "templates/<int:template_id>": {
        "GET": (READ, 200),
        "PUT": (TEMPLATES, 428),
        "PATCH": (TEMPLATES, 428),
        "DELETE": (TEMPLATES, 428),
    },
    "templates/<int:template_id>/versions": {"GET": (READ, 200)},
    "templates/<int:template_id>/versions/<int:version>": {"GET": (READ, 200)},
    "templates:preview": {"POST": (READ, 400)},
    "catalogues": {"GET": (READ, 200)},
    "catalogues/<str:locale>": {"GET": (READ, 200), "PUT": (TEMPLATES, 428), "DELETE": (TEMPLATES, 428)},
    "topics": {"GET": (READ, 200), "POST": (TEMPLATES, 400)},
    "topics/<str:key>": {"GET": (READ, 200), "PATCH": (TEMPLATES, 428)},
    "topics/<str:key>/archive": {"POST": (TEMPLATES, 200)},
    "topics/<str:key>/restore": {"POST": (TEMPLATES, 200)},
    "occurrences/<int:occurrence_id>": {"GET": (READ, 200)},
    "occurrences/<int:occurrence_id>:retry-failed": {"POST": (SCHEDULES, 200)},
    "occurrences/<int:occurrence_id>:release": {"POST": (SCHEDULES, 200)},
    "deliveries": {"GET": (READ, 200)},
    "explain": {"GET": (READ, 400)},
    "recipients": {"GET": (READ, 200)},
    "recipients:bulk": {"POST": (RECIPIENTS, 400)},
    "recipients:export": {"GET": (RECIPIENTS, 200)},
    "schedules:export": {"GET": (READ, 200)},
    "schedules:import": {"POST": (SCHEDULES, 400)},
    "templates:export": {"GET": (READ, 200)},
    "templates:import": {"POST": (TEMPLATES, 400)},
    "recipients/<external:external_id>": {
        "GET": (READ, 200),
        "PUT": (RECIPIENTS, 428),
        "PATCH": (RECIPIENTS, 428),
        "DELETE": (RECIPIENTS, 428),
    },
    "recipients/<external:external_id>/export": {"GET": (RECIPIENTS, 200)},
    "recipients/<external:external_id>/devices": {"GET": (READ, 200), "POST": (RECIPIENTS, 400)},
    "recipients/<external:external_id>/devices/<int:device_id>": {"DELETE": (RECIPIENTS, 204)},
    "me/devices": {"POST": (INBOX, 400)},
    "me/inbox/stream": {"GET": (INBOX, 421)},
    "suppressions": {"GET": (READ, 200), "POST": (SUPPRESS, 400)},
    "suppressions/<int:suppression_id>": {"GET": (READ, 200), "DELETE": (SUPPRESS, 204)},
    "endpoints": {"GET": (ENDPOINTS, 200), "POST": (ENDPOINTS, 400)},
    "endpoints/<int:endpoint_id>": {"GET": (ENDPOINTS, 200), "PATCH": (ENDPOINTS, 428), "DELETE": (ENDPOINTS, 204)},
    "endpoints/<int:endpoint_id>/on": {"POST": (ENDPOINTS, 200)},
    "endpoints/<int:endpoint_id>/off": {"POST": (ENDPOINTS, 200)},
    "endpoints/<int:endpoint_id>/rotate-secret": {"POST": (ENDPOINTS, 200)},
    "endpoints/<int:endpoint_id>/test": {"POST": (ENDPOINTS, 202)},
    "endpoints/<int:endpoint_id>/replay": {"POST": (ENDPOINTS, 400)},
    "endpoints/<int:endpoint_id>/events": {"GET": (ENDPOINTS, 200)},
    "endpoints/<int:endpoint_id>/events/<int:posting_id>/replay": {"POST": (ENDPOINTS, 202)},
    "inbox": {"GET": (INBOX, 200)},
    "inbox/unread-count": {"GET": (INBOX, 200)},
    "inbox/<int:message_id>:read": {"POST": (INBOX, 200)},
    "inbox/<int:message_id>:unread": {"POST": (INBOX, 200)},
    "inbox/<int:message_id>:archive": {"POST": (INBOX, 200)},
    "inbox:read-all": {"POST": (INBOX, 200)},
}
EVERYTHING = {READ, SCHEDULES, TEMPLATES, RECIPIENTS, SUPPRESS, ENDPOINTS}
ALL_SCOPES = f"{READ_WRITE} {Scope.INBOX}"


@dataclass(frozen=True)
class Caller:
    """``may``: what it is let in for. Who is not even known (``known`` is false) gets 401, the others 403."""

    make: Callable[[], str | None]
    may: frozenset[str] = frozenset()
    known: bool = True


def _person(role: Role | None, scopes: str = READ_WRITE, *, name: str = "", **options: Any) -> str:
    return token(user=account(role, name=name or f"a {role}"), scopes=scopes, **options)


def _revoked() -> str:
    bearer = _person(Role.ADMIN, name="revoked")
    AccessToken.objects.get(user__username="revoked").revoke()
    return bearer


def _deactivated() -> str:
    person = account(Role.ADMIN, name="deactivated")
    bearer = token(user=person, scopes=ALL_SCOPES)
    person.is_active = False
    person.save()
    return bearer


def _demoted(to: Role | None) -> str:
    """The token has been used before, so that nothing that it found out then may serve again."""
    person = account(Role.ADMIN, name=f"demoted to {to}")
    bearer = token(user=person)
    assert Api(bearer).get("schedules").status_code == 200
    person.groups.clear()
    if to:
        person.groups.add(account(to, name=f"for the group {to}").groups.get())
    return bearer


def _client_is_gone() -> str:
    bearer = token()
    AccessToken.objects.latest("pk").application.delete()
    return bearer


CALLERS: dict[str, Caller] = {
    "no token": Caller(lambda: None, known=False),
    "garbage": Caller(lambda: "x" * 32, known=False),
    "expired": Caller(lambda: _person(Role.ADMIN, name="expired", lives_s=-1), known=False),
    "revoked": Caller(_revoked, known=False),
    "deactivated": Caller(_deactivated, known=False),
    "a client that was removed": Caller(_client_is_gone, known=False),
    "a service that reads": Caller(lambda: token(scopes=Scope.READ), frozenset({READ})),
    "a service that writes": Caller(lambda: token(scopes=Scope.WRITE), frozenset(EVERYTHING - {READ})),
    "a service that reads and writes": Caller(token, frozenset(EVERYTHING)),
    "a service that got hold of inbox": Caller(lambda: token(scopes=Scope.INBOX)),
    "without any scope": Caller(lambda: _person(Role.ADMIN, "", name="without scopes")),
    "MARKETER": Caller(lambda: _person(Role.MARKETER), frozenset({READ, SCHEDULES, TEMPLATES, SUPPRESS})),
    "ADMIN": Caller(lambda: _person(Role.ADMIN), frozenset(EVERYTHING)),
    "ANALYST": Caller(lambda: _person(Role.ANALYST), frozenset({READ})),
    "an ADMIN whose token only reads": Caller(lambda: _person(Role.ADMIN, Scope.READ, name="x"), frozenset({READ})),
    "an ADMIN whose token only writes": Caller(
        lambda: _person(Role.ADMIN, Scope.WRITE, name="x"), frozenset(EVERYTHING - {READ})
    ),
    "without a role": Caller(lambda: _person(None)),
    "demoted to ANALYST": Caller(lambda: _demoted(Role.ANALYST), frozenset({READ})),
    "demoted to nothing": Caller(lambda: _demoted(None)),
    "owner of the inbox": Caller(lambda: _person(None, Scope.INBOX, name="owner"), frozenset({INBOX})),
}


@pytest.fixture(scope="module")
def addresses(service) -> dict[str, object]:
    """Something at every address: a schedule with a run, its template, a catalogue, a person with an inbox."""
    owner, _ = RecipientFactory.create(external_id="owner"), RecipientFactory.create(external_id="other")
    DeviceFactory.create(recipient=owner)
    schedule = ScheduleFactory.create(channel="in_app", cron="0 * * * *")
    service.run_to(NOW.replace(hour=11))
    Catalogue.objects.create(locale="de", messages={}, updated_by=BY)
    posting = subscribers.shown()
    return {
        "<int:schedule_id>": schedule.pk,
        "<int:template_id>": schedule.template_id,
        "<int:version>": 1,
        "<str:locale>": "de",
        "<str:key>": TopicFactory.create().key,
        "<int:test_send_id>": 1,
        "<int:occurrence_id>": Occurrence.objects.latest("pk").pk,
        "<external:external_id>": owner.external_id,
        "<int:device_id>": Device.objects.get().pk,
        "<int:suppression_id>": _blocked(owner.email).pk,
        "<int:endpoint_id>": posting.endpoint_id,
        "<int:posting_id>": posting.pk,
        "<int:message_id>": InboxMessage.objects.get(recipient_id=owner.pk).pk,
    }


def _blocked(address: str) -> Suppression:
    return suppressions.block(fingerprint=suppressions.fingerprint_to_block(address), by=BY, now=NOW)[0]


def _path(pattern: str, addresses: dict[str, object]) -> str:
    for name, value in addresses.items():
        pattern = pattern.replace(name, str(value))
    assert "<" not in pattern, f"the scene has nothing at {pattern}"
    return pattern


def test_the_matrix_knows_every_address_and_method():
    served = {
        str(each.pattern): {method for method in METHODS if hasattr(each.callback.cls, method.lower())}
        for each in urlpatterns[:-1]  # the last one answers 404
    }
    assert {pattern: set(needs) for pattern, needs in NEEDS.items()} == served


@pytest.mark.parametrize("pattern", NEEDS)
def test_everyone_may_what_he_should_and_nothing_else(addresses, pattern):
    path, wrong = _path(pattern, addresses), []
    for who, caller in CALLERS.items():
        with transaction.atomic():
            api = Api(caller.make())
            # A method that is not there is asked about by somebody who may nothing and by somebody who may all.
            for method in METHODS if who in ("no token", "ADMIN") else NEEDS[pattern]:
                with transaction.atomic():
                    status = api.call(method, path).status_code
                    transaction.set_rollback(True)
                expected = _expected(caller, NEEDS[pattern].get(method))
                if status != expected:
                    wrong.append(f"{who}: {method} {path} is answered {status}, not {expected}")
            transaction.set_rollback(True)
    assert not wrong, "\n".join(wrong)


def _expected(caller: Caller, need: tuple[str, int] | None) -> int:
    if need is None:
        return 405
    if not caller.known:
        return 401
    return need[1] if need[0] in caller.may else 403


def test_nobody_reads_or_changes_the_inbox_of_another(addresses):
    message = addresses["<int:message_id>"]
    other = Api(_person(None, Scope.INBOX, name="other"))
    stranger = Api(_person(Role.ADMIN, ALL_SCOPES, name="stranger"))
    own = InboxMessage.objects.exclude(pk=message).get()
    assert [each["id"] for each in other.get("inbox").json()["items"]] == [own.pk]
    for action in ("read", "unread", "archive"):
        assert other.post(f"inbox/{message}:{action}").status_code == 404
        assert stranger.post(f"inbox/{message}:{action}").status_code == 404
    assert other.post("inbox:read-all").json() == {"read": 1}
    assert stranger.get("inbox").status_code == 404  # an admin has no inbox unless he is a recipient
    untouched = InboxMessage.objects.get(pk=message)
    assert (untouched.read_at, untouched.archived_at) == (None, None)


def test_what_is_refused_says_what_is_missing(addresses):
    path = f"schedules/{addresses['<int:schedule_id>']}/pause"
    for bearer, words in (
        (token(scopes=Scope.READ), "lacks the scope notification:write"),
        (_person(None), "has no role"),
        (_person(Role.ANALYST), "role does not allow it"),
    ):
        refused = Api(bearer).post(path)
        assert refused.status_code == 403
        assert words in refused.json()["detail"]
        assert refused["Content-Type"] == "application/problem+json"
        # RFC 6750, 3.1: which scope it takes is told to a program too.
        challenge = 'Bearer realm="api",error="insufficient_scope",scope="notification:write"'
        assert refused.get("WWW-Authenticate") == (challenge if "scope" in words else None)
    nobody = Api().post(path)
    assert nobody.status_code == 401
    assert nobody["WWW-Authenticate"].startswith("Bearer")
    assert nobody["Content-Type"] == "application/problem+json"


def test_a_token_counts_only_in_its_header():
    bearer = token()
    api = Api()
    assert api.get(f"schedules?access_token={bearer}").status_code == 401
    assert api.call("POST", "schedules", f"access_token={bearer}".encode()).status_code == 401
    for header in (bearer, f"Basic {bearer}", f"bearer{bearer}", f"Bearer {bearer} x", "Bearer", "Bearer \xff"):
        answer = api.call("GET", "schedules", headers={"Authorization": header})
        assert answer.status_code == 401, header
        assert ("invalid_token" in answer["WWW-Authenticate"]) == header.startswith("Bearer "), header
