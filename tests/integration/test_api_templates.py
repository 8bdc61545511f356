"""``/api/v1/templates`` and ``/catalogues``: kept, versioned, refused in words, and gone without harming the past."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit.models import Action, AuditEvent
from frontend.instants import instant
from schedules import operations, templates
from schedules.definition import Definition
from schedules.models import Catalogue, MessageTemplate, Schedule, TemplateVersion
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import Api, token
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory, people

pytestmark = pytest.mark.django_db

EMAIL = {"channel": "email", "locale": "en", "subject": "Hello", "text": "Dear {{ first_name }}"}
GERMAN = {"channel": "email", "locale": "de", "subject": "Hallo", "text": "x", "html": "<p>x</p>"}


@pytest.fixture
def api(service) -> Api:
    return Api(token())


def body(**changes: object) -> dict[str, object]:
    return {"name": "Welcome", "contents": [EMAIL], **changes}


def pointers(answer) -> dict[str, str]:
    assert answer.status_code == 400, answer.json()
    return {error["pointer"]: error["code"] for error in answer.json()["errors"]}


def test_a_template_is_created_read_changed_and_deleted(api):
    created = api.post("templates", body(contents=[GERMAN, EMAIL]))
    assert created.status_code == 201, created.json()
    kept = created.json()
    path = f"templates/{kept['id']}"
    assert created["Location"] == f"/api/v1/{path}"
    assert created["ETag"] == '"1"'
    assert kept["defaultLocale"] == "en"
    assert [content["locale"] for content in kept["contents"]] == ["de", "en"]
    assert kept["contents"][0]["html"] == "<p>x</p>"
    assert kept["createdAt"] == kept["updatedAt"] == instant(NOW)
    assert api.get(path).json() == kept

    changed = api.patch(path, {"defaultLocale": "de"}, version=1)
    assert changed.status_code == 200
    assert changed["ETag"] == '"2"'
    assert changed.json()["contents"] == kept["contents"]
    replaced = api.put(path, body(), version=2).json()
    assert replaced["version"] == 3
    assert replaced["defaultLocale"] == "en"
    assert [content["locale"] for content in replaced["contents"]] == ["en"]
    assert api.put(path, body(), version=3)["ETag"] == '"3"'  # nothing new was said

    deleted = api.delete(path, version=3)
    assert deleted.status_code == 204
    assert deleted.content == b""
    assert api.get(path).status_code == 404
    assert api.delete(path).status_code == 404
    assert api.patch(path, {"defaultLocale": "de"}).status_code == 404
    assert api.get("templates").json() == {"items": [], "nextCursor": None}
    event = AuditEvent.objects.latest("id")
    assert event.action == Action.TEMPLATE_DELETE
    assert event.actor_id.startswith("client:")
    assert event.payload_diff == {"template": kept["id"], "name": ["Welcome", None], "version": [3, None]}


def test_its_versions_tell_who_said_what_and_when(api, service):
    template_id = api.post("templates", body()).json()["id"]
    service.now = NOW + timedelta(hours=1)
    templates.change(template_id=template_id, changes={"contents": [GERMAN]} | {"default_locale": "de"}, by=BY, now=NOW)
    page = api.get(f"templates/{template_id}/versions?limit=1").json()
    assert [(each["version"], each["createdBy"], each["defaultLocale"]) for each in page["items"]] == [(2, BY, "de")]
    rest = api.get(f"templates/{template_id}/versions?cursor={page['nextCursor']}").json()
    assert [each["version"] for each in rest["items"]] == [1]
    assert rest["items"][0]["createdBy"].startswith("client:")
    first = api.get(f"templates/{template_id}/versions/1").json()
    assert [content["subject"] for content in first["contents"]] == ["Hello"]
    assert api.get(f"templates/{template_id}/versions/3").status_code == 404
    assert api.get("templates/999/versions").status_code == 404


def test_every_problem_points_into_the_body(api):
    told = pointers(
        api.post(
            "templates",
            {
                "name": " ",
                "defaultLocale": "en",
                "contents": [
                    {**EMAIL, "subject": "{{ unclosed"},
                    {"channel": "push", "locale": "de/at", "text": "x", "html": "<p>"},
                    {**EMAIL, "locale": "EN"},
                ],
            },
        )
    )
    assert set(told) == {
        "/name", "/contents/0/subject", "/contents/1/locale", "/contents/1/html", "/contents/2",
    }  # fmt: skip


def test_what_can_not_be_read_is_told_with_what_is_wrong_with_the_rest(api):
    told = pointers(
        api.post(
            "templates",
            {
                "name": 5,
                "version": 3,
                "colour": "red",
                "contents": [{**EMAIL, "text": None}, {**GERMAN, "text": "{% if %}", "colour": "red"}, "text", {}],
            },
        )
    )
    assert set(told) >= {
        "/name", "/version", "/colour", "/contents/0/text", "/contents/1/text", "/contents/1/colour", "/contents/2",
        "/contents/3/channel", "/contents/3/locale",
    }  # fmt: skip
    assert told["/version"] == "read_only"


@pytest.mark.parametrize("contents", [None, "x", {}, 5, [], [[]], [EMAIL] * 301])
def test_contents_are_a_list_that_says_something(api, contents):
    (pointer,) = set(pointers(api.post("templates", body(contents=contents))))
    assert pointer in ("/contents", "/contents/0")
    assert not MessageTemplate.objects.exists()


def test_a_name_is_taken_once_and_stays(api):
    first = api.post("templates", body()).json()
    assert pointers(api.post("templates", body())) == {"/name": "taken"}
    assert pointers(api.patch(f"templates/{first['id']}", {"name": "Other"})) == {"/name": "immutable"}
    api.delete(f"templates/{first['id']}")
    again = api.post("templates", body())
    assert again.status_code == 201
    assert again.json()["id"] != first["id"]


@pytest.mark.django_db(transaction=True)
def test_of_many_who_take_a_name_at_once_one_gets_it(service):
    bearer = token()

    def post(_: int) -> int:
        try:
            return int(Api(bearer).post("templates", body()).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(post, range(8))) == [201] + [400] * 7
    assert MessageTemplate.objects.count() == 1


def test_a_change_says_which_version_it_means(api):
    template = TemplateFactory.create()
    path = f"templates/{template.pk}"
    assert api.call("PATCH", path, {"defaultLocale": "en"}).status_code == 428
    assert api.call("DELETE", path).status_code == 428
    templates.change(template_id=template.pk, changes={"contents": [EMAIL]}, by="user:7", now=NOW)
    for stale in (api.put(path, body(), version=1), api.delete(path, version=1)):
        assert stale.status_code == 412
        assert stale.json()["currentVersion"] == 2
        assert stale.json()["changedBy"] == "user:7"
        assert stale.json()["changedAt"] == instant(NOW)
    assert api.delete(path, version="*").status_code == 204


def test_one_that_may_run_still_is_not_deleted_and_its_schedules_are_named(api):
    template = TemplateFactory.create()
    schedules = [
        ScheduleFactory.create(template_id=template.pk, name=f"Plan {number}", draft=number == 0) for number in range(6)
    ]
    operations.pause(schedule_id=schedules[1].pk, by=BY, now=NOW)
    refused = api.delete(f"templates/{template.pk}")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("#in-use")
    assert refused.json()["scheduleCount"] == 6
    assert refused.json()["schedules"] == [{"id": each.pk, "name": each.name} for each in schedules[:5]]
    assert "Plan 0" in refused.json()["detail"]
    for schedule in schedules[:5]:
        operations.cancel(schedule_id=schedule.pk, by=BY, now=NOW)
    assert api.delete(f"templates/{template.pk}").json()["scheduleCount"] == 1
    operations.delete(schedule_id=schedules[5].pk, by=BY, now=NOW)
    assert api.delete(f"templates/{template.pk}").status_code == 204


def test_deleting_it_leaves_the_past_explained(api, service, provider):
    people(2)
    schedule = ScheduleFactory.create()
    service.run_to(NOW + timedelta(hours=2))
    assert sorted(provider.reached().values()) == [1, 1]
    Schedule.objects.filter(pk=schedule.pk).update(status="finished")
    assert api.delete(f"templates/{schedule.template_id}").status_code == 204
    occurrence = schedule.occurrences.get()
    said = api.get(f"templates/{schedule.template_id}/versions/{occurrence.template_version}").json()
    assert said["contents"][0]["text"] == "Dear {{ first_name }}, it is time."
    assert api.get(f"schedules/{schedule.pk}").json()["templateId"] == schedule.template_id
    copy = api.post(f"schedules/{schedule.pk}/duplicate").json()
    assert copy["templateId"] is None


def test_no_schedule_takes_a_deleted_one(api):
    template = TemplateFactory.create()
    api.delete(f"templates/{template.pk}")
    for draft in (True, False):
        asked = {
            "name": "x", "channel": "email", "audienceQuery": {"all": []}, "templateId": template.pk,
            "scheduleType": "cron", "cron": "0 9 * * *", "status": "draft" if draft else "active",
        }  # fmt: skip
        assert pointers(api.post("schedules", asked)) == {"/templateId": "not_found"}


@pytest.mark.django_db(transaction=True)
def test_a_schedule_and_a_deletion_at_once_never_leave_a_schedule_without_its_template(service):
    def make(template_id: int) -> bool:
        try:
            definition = Definition("x", "email", template_id, "cron", {"all": []}, cron="0 9 * * *")
            operations.create(definition=definition, by=BY, now=NOW)
        except ValueError:
            return False
        finally:
            connection.close()
        return True

    def remove(template_id: int) -> bool:
        try:
            templates.delete(template_id=template_id, by=BY, now=NOW)
        except templates.TemplateInUse:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            template_id = TemplateFactory.create().pk
            made, removed = pool.submit(make, template_id), pool.submit(remove, template_id)
            assert made.result() != removed.result()


def test_a_page_of_templates_costs_the_same_whatever_its_size(api):
    bearer = Api(token())

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert bearer.get("templates?limit=100").status_code == 200
        return len(captured)

    TemplateFactory.create_batch(2)
    few = queries()
    TemplateFactory.create_batch(18)
    assert queries() == few
    with CaptureQueriesContext(connection) as captured:
        api.post("templates", body(contents=[{**EMAIL, "locale": f"en-{n:03}"} for n in range(100)] + [EMAIL]))
    assert len(captured) < 25


def test_the_list_is_filtered_ordered_and_leaves_the_texts_out(api):
    for name in ("Winter sale", "Spring sale", "Welcome"):
        TemplateFactory.create(name=name, channels=["email"])
    found = api.get("templates?text=SALE&order=name&limit=1").json()
    assert [each["name"] for each in found["items"]] == ["Spring sale"]
    assert found["items"][0]["contents"] == [
        {"channel": "email", "locale": "en", "subject": "Hello {{ recipient.external_id }}"}
    ]
    rest = api.get(f"templates?text=SALE&order=name&cursor={found['nextCursor']}").json()
    assert [each["name"] for each in rest["items"]] == ["Winter sale"]
    assert api.get("templates?order=text").status_code == 400


def test_a_repeated_post_makes_one_template(api):
    key = {"Idempotency-Key": "welcome-1"}
    first, second = (api.post("templates", body(), headers=key) for _ in range(2))
    assert first.json() == second.json()
    assert second.status_code == 201
    assert second["ETag"] == first["ETag"]
    assert TemplateVersion.objects.count() == 1


def test_a_catalogue_is_made_read_changed_and_deleted(api):
    new = {"If-None-Match": "*"}
    made = api.call("PUT", "catalogues/de_at", {"messages": {"hello": "Servus"}}, headers=new)
    assert made.status_code == 201, made.json()
    assert made["Location"] == "/api/v1/catalogues/de-AT"
    assert made["ETag"] == '"1"'
    assert made.json()["updatedBy"].startswith("client:")
    assert api.get("catalogues/de-at").json() == made.json()

    changed = api.put("catalogues/de-AT", {"messages": {"hello": "Grüß Gott", "a/b": "x"}}, version=1)
    assert changed["ETag"] == '"2"'
    assert [each["locale"] for each in api.get("catalogues").json()["items"]] == ["de-AT"]
    for stale in (
        api.put("catalogues/de-AT", {"messages": {}}, version=1),
        api.delete("catalogues/de-AT", version=1),
        api.call("PUT", "catalogues/de-AT", {"messages": {}}, headers=new),
    ):
        assert stale.status_code == 412
        assert stale.json()["changedBy"].startswith("client:")
        assert stale.json()["currentVersion"] == 2

    assert api.delete("catalogues/de-AT", version=2).status_code == 204
    assert api.get("catalogues/de-AT").status_code == 404
    assert api.get("catalogues").json()["items"] == []
    assert api.delete("catalogues/de-AT").status_code == 404
    assert api.put("catalogues/de-AT", {"messages": {}}).status_code == 404
    event = AuditEvent.objects.latest("id")
    assert event.action == Action.CATALOGUE_DELETE
    assert event.payload_diff == {
        "locale": "de-AT", "messages/hello": ["Grüß Gott", None], "messages/a/b": ["x", None],
    }  # fmt: skip

    anew = api.call("PUT", "catalogues/de-AT", {"messages": {}}, headers=new)
    assert anew.status_code == 201
    assert anew["ETag"] == '"4"'  # an ETag of the deleted one never fits the new one
    assert Catalogue.objects.count() == 1


def test_a_catalogue_needs_a_condition_and_a_locale(api):
    assert api.call("PUT", "catalogues/de", {"messages": {}}).status_code == 428
    assert api.call("DELETE", "catalogues/de").status_code == 428
    wrong = api.call("PUT", "catalogues/de", {"messages": {}}, headers={"If-None-Match": '"1"'})
    assert wrong.json()["errors"][0]["header"] == "If-None-Match"
    for locale in ("klingon", "%00", "x" * 300, "%ff", "d e"):
        assert api.get(f"catalogues/{locale}").status_code == 404
        assert api.put(f"catalogues/{locale}", {"messages": {}}).status_code == 404
        assert api.delete(f"catalogues/{locale}").status_code == 404


def test_problems_of_messages_point_at_them(api):
    messages = {"a/b": 3, "c~": {"one": "x"}, "ok": "x", "t": "{{ name }}"}
    answer = api.call("PUT", "catalogues/de", {"messages": messages}, headers={"If-None-Match": "*"})
    assert set(pointers(answer)) == {"/messages/a~1b", "/messages/c~0", "/messages/t"}
    assert set(pointers(api.put("catalogues/de", {"messages": [], "x": 1}))) == {"/messages", "/x"}


def test_templates_are_changed_by_those_who_may(api):
    template = TemplateFactory.create()
    read = Api(token(scopes=Scope.READ))
    analyst = Api(token(user=account(Role.ANALYST)))
    marketer = Api(token(user=account(Role.MARKETER)))
    for caller, status in ((read, 403), (analyst, 403), (marketer, 200)):
        assert caller.get(f"templates/{template.pk}").status_code == 200
        assert caller.put(f"templates/{template.pk}", body(name=template.name)).status_code == status
    assert read.call("PUT", "catalogues/de", {"messages": {}}, headers={"If-None-Match": "*"}).status_code == 403
