"""``/api/v1/inbox``: a person's own messages, and nobody else's."""

from datetime import timedelta

import pytest

from delivery.models import InboxMessage
from frontend.instants import instant
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import READ_WRITE, Api, token
from tests.factories import NOW, RecipientFactory, ScheduleFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def eva(service):
    return RecipientFactory(external_id="eva")


@pytest.fixture
def api(eva) -> Api:
    """Eva's, who has no role."""
    return Api(token(scopes=str(Scope.INBOX), user=account(None, name="eva")))


def message(person, number, **fields):
    return InboxMessage.objects.create(
        recipient=person, occurrence_id=number, title=f"Title {number}", body="Body", created_at=NOW, **fields
    )


def ids(answer):
    assert answer.status_code == 200, answer.json()
    return [item["id"] for item in answer.json()["items"]]


def test_what_the_service_has_sent_is_read_there(api, eva, service):
    schedule = ScheduleFactory(channel="in_app")
    service.step()
    (item,) = api.get("inbox").json()["items"]
    assert item == {
        "id": InboxMessage.objects.get(recipient=eva).pk,
        "title": "Hello eva",
        "body": "Dear , it is time.",
        "occurrenceId": schedule.occurrences.get().pk,
        "createdAt": instant(NOW),
        "readAt": None,
        "archivedAt": None,
    }
    assert api.get("inbox/unread-count").json() == {"unread": 1}


def test_a_message_is_read_unread_and_archived(api, eva, service):
    pk = message(eva, 1).pk
    read = api.post(f"inbox/{pk}:read")
    assert (read.status_code, read.json()["readAt"]) == (200, instant(NOW))
    service.after(timedelta(hours=1))
    assert api.post(f"inbox/{pk}:read").json()["readAt"] == instant(NOW)
    assert api.get("inbox/unread-count").json() == {"unread": 0}
    assert api.post(f"inbox/{pk}:unread").json()["readAt"] is None
    assert api.get("inbox/unread-count").json() == {"unread": 1}
    assert api.post(f"inbox/{pk}:archive").json()["archivedAt"] == instant(NOW + timedelta(hours=1))
    assert api.get("inbox/unread-count").json() == {"unread": 0}
    assert ids(api.get("inbox")) == []
    assert ids(api.get("inbox?archived=true")) == [pk]


def test_the_inbox_is_filtered_and_paged(api, eva, django_assert_max_num_queries):
    old = [message(eva, number).pk for number in range(20)]
    read = message(eva, 20, read_at=NOW).pk
    message(eva, 21, archived_at=NOW)
    assert ids(api.get("inbox?unread=false")) == [read]
    assert ids(api.get("inbox?unread=true&limit=2")) == [old[19], old[18]]
    first = api.get("inbox?limit=2").json()
    message(eva, 22)
    assert ids(api.get(f"inbox?limit=1&cursor={first['nextCursor']}")) == [old[18]]
    for limit in (2, 20):
        with django_assert_max_num_queries(4):
            assert len(ids(api.get(f"inbox?limit={limit}"))) == limit
    refused = api.get("inbox?unread=1&colour=red")
    assert refused.status_code == 400
    assert {error["parameter"] for error in refused.json()["errors"]} == {"unread", "colour"}


def test_all_are_read_up_to_what_the_person_has_seen(api, eva):
    first, second, third = (message(eva, number) for number in range(3))
    archived = message(eva, 3, archived_at=NOW)
    assert api.post("inbox:read-all", {"upTo": second.pk}).json() == {"read": 2}
    third.refresh_from_db()
    assert third.read_at is None
    assert api.post("inbox:read-all").json() == {"read": 1}
    assert api.post("inbox:read-all", {}).json() == {"read": 0}
    archived.refresh_from_db()
    assert archived.read_at is None
    refused = api.post("inbox:read-all", {"upTo": str(first.pk), "all": True})
    assert {error["pointer"] for error in refused.json()["errors"]} == {"/upTo", "/all"}


def test_another_person_s_message_is_not_there(api):
    other = message(RecipientFactory(external_id="max"), 1)
    for action in ("read", "unread", "archive"):
        assert api.post(f"inbox/{other.pk}:{action}").status_code == 404
        assert api.post(f"inbox/{10**30}:{action}").status_code == 404
    assert ids(api.get("inbox")) == []
    assert api.post("inbox:read-all").json() == {"read": 0}
    other.refresh_from_db()
    assert (other.read_at, other.archived_at) == (None, None)


CALLS = [
    ("GET", "inbox"), ("GET", "inbox/unread-count"), ("POST", "inbox/1:read"), ("POST", "inbox/1:unread"),
    ("POST", "inbox/1:archive"), ("POST", "inbox:read-all"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_inbox_needs_its_person_s_own_token_with_its_scope(eva, method, path):
    admin = account(Role.ADMIN, name="admin")
    with_all = f"{READ_WRITE} {Scope.INBOX}"
    assert Api().call(method, path).status_code == 401
    assert Api(token(scopes=with_all)).call(method, path).status_code == 403
    assert Api(token(scopes=READ_WRITE, user=admin)).call(method, path).status_code == 403
    nobody = Api(token(scopes=with_all, user=admin)).call(method, path)
    assert nobody.status_code == 404
    assert "externalId" in nobody.json()["detail"]
