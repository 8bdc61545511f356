"""``audiences:preview`` and ``templates:preview``: who is meant, and how it reads."""

from typing import Any

import pytest

from schedules import templates
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import Api, token
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, TemplateFactory, people
from tests.service import Service

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(service: Service) -> Api:
    return Api(token())


# Audiences


def test_an_audience_is_counted_by_zone_and_locale_with_a_masked_sample(api: Api) -> None:
    people(3, time_zone="Europe/Berlin", locale="de", tags=["vip"])
    people(2, time_zone="", locale="de", tags=["vip"])
    people(1, time_zone="Mars/Base", locale="", tags=["vip"])
    people(4, time_zone="Asia/Tokyo", locale="ja")
    asked = {"audienceQuery": {"field": "tags", "op": "contains", "value": "vip"}, "sample": 4}
    told = api.post("audiences:preview", asked).json()
    assert (told["asOf"], told["count"], told["isScan"]) == ("2026-11-21T10:00:00Z", 6, False)
    assert told["timeZones"] == [
        {"name": "Europe/Berlin", "people": 3},
        {"name": "", "people": 2},
        {"name": "Mars/Base", "people": 1},
    ]
    assert told["locales"] == [{"name": "de", "people": 5}, {"name": "", "people": 1}]
    assert (told["suppressed"], told["unaddressable"]) == (None, None)
    assert len({person["externalId"] for person in told["sample"]}) == 4
    assert {person["address"] for person in told["sample"]} == {"p…@example.com"}


def test_a_channel_tells_who_can_not_be_reached_there(api: Api) -> None:
    reached, silent, without = people(1)[0], people(1, consent={"push": False})[0], people(1, email="")[0]
    DeviceFactory.create(recipient=reached)
    DeviceFactory.create(recipient=silent)
    DeviceFactory.create(recipient=without, active=False)
    for channel, suppressed, unaddressable in [("push", 1, 1), ("email", 0, 1), ("in_app", 0, 0)]:
        told = api.post("audiences:preview", {"audienceQuery": {"all": []}, "channel": channel}).json()
        assert (told["suppressed"], told["unaddressable"]) == (suppressed, unaddressable), channel
    sample = {person["externalId"]: person for person in told["sample"]}
    assert sample[reached.external_id]["channels"] == ["email", "in_app", "push"]
    assert sample[silent.external_id]["channels"] == ["email", "in_app"]
    assert (sample[without.external_id]["channels"], sample[without.external_id]["devices"]) == (["in_app"], 0)


def test_zones_too_rare_to_be_named_are_told_together(api: Api) -> None:
    for number in range(102):
        RecipientFactory.create(time_zone=f"Zone/{number}")
    told = api.post("audiences:preview", {"audienceQuery": {"all": []}, "sample": 0}).json()
    assert len(told["timeZones"]) == 101
    assert told["timeZones"][-1] == {"name": None, "people": 2}
    assert told["sample"] == []
    assert told["isScan"] is True


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/audienceQuery"),
        ({"audienceQuery": {}}, "/audienceQuery"),
        ({"audienceQuery": {"all": [{"field": "email", "op": "eq", "value": "a"}]}}, "/audienceQuery/all/0/field"),
        ({"audienceQuery": {"all": []}, "sample": 51}, "/sample"),
        ({"audienceQuery": {"all": []}, "sample": "5"}, "/sample"),
        ({"audienceQuery": {"all": []}, "channel": "fax"}, "/channel"),
        ({"audienceQuery": {"all": []}, "limit": 3}, "/limit"),
    ],
)
def test_an_audience_that_can_not_be_read_is_refused(api: Api, body: dict[str, Any], pointer: str) -> None:
    answer = api.post("audiences:preview", body)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_an_audience_that_takes_too_long_is_refused_with_its_pointer(
    api: Api, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(3_000, attributes={"bio": "x" * 2_000})
    settings.AUDIENCE_STATEMENT_TIMEOUT = 1
    slow = {"audienceQuery": {"field": "attributes.bio", "op": "contains", "value": "xy"}}
    answer = api.post("audiences:preview", slow)
    assert answer.status_code == 400
    assert [(each["pointer"], each["code"]) for each in answer.json()["errors"]] == [("/audienceQuery", "too_slow")]


@pytest.mark.parametrize("count", [2, 20])
def test_a_preview_asks_the_same_number_of_questions(api: Api, django_assert_max_num_queries: Any, count: int) -> None:
    people(count)
    with django_assert_max_num_queries(22):
        told = api.post("audiences:preview", {"audienceQuery": {"all": []}, "sample": 50}).json()
    assert len(told["sample"]) == count


# Messages


@pytest.fixture
def template(db: None) -> Any:
    contents = [
        {"channel": "email", "locale": "en", "subject": "Hi {{ first_name }}", "text": "{{ points|number }} points"},
        {"channel": "email", "locale": "de", "subject": "Hallo {{ first_name }}", "text": "{{ points|number }} Punkte"},
    ]
    return templates.save(name="Points", contents=contents, by=BY, now=NOW)


def test_a_message_is_rendered_for_a_named_reader(api: Api, template: Any) -> None:
    RecipientFactory.create(external_id="ada", locale="de-AT", attributes={"first_name": "Ada", "points": 1234567})
    told = api.post("templates:preview", {"templateId": template.pk, "channel": "email", "recipient": "ada"}).json()
    assert told == {
        "subject": "Hallo Ada",
        "text": "1.234.567 Punkte",
        "html": "",
        "contentLocale": "de",
        "locale": "de-AT",
        "recipient": "ada",
        "missingTokens": [],
        "missingKeys": [],
    }


def test_a_locale_goes_before_the_readers_own_and_missing_tokens_are_named(api: Api, template: Any) -> None:
    RecipientFactory.create(external_id="ada", locale="de", attributes={"points": 7})
    told = api.post("templates:preview", {"templateId": template.pk, "channel": "email", "locale": "en-GB"}).json()
    assert (told["subject"], told["text"], told["recipient"]) == ("Hi ", "7 points", "ada")
    assert (told["contentLocale"], told["locale"]) == ("en", "en-GB")
    assert told["missingTokens"] == ["first_name"]


def test_somebody_of_the_locale_is_the_reader_if_there_is_one(api: Api, template: Any) -> None:
    RecipientFactory.create(external_id="ada", locale="en")
    RecipientFactory.create(external_id="bea", locale="de")
    told = api.post("templates:preview", {"templateId": template.pk, "channel": "email", "locale": "de"}).json()
    assert told["recipient"] == "bea"


def test_a_message_is_rendered_without_anybody(api: Api, template: Any) -> None:
    told = api.post("templates:preview", {"templateId": template.pk, "channel": "email"}).json()
    assert (told["subject"], told["recipient"]) == ("Hi ", None)
    assert told["missingTokens"] == ["first_name", "points"]


def test_an_earlier_version_is_rendered_as_it_was(api: Api, template: Any) -> None:
    contents = [{"channel": "email", "locale": "en", "subject": "Hey", "text": "You"}]
    templates.save(name="Points", contents=contents, by=BY, now=NOW)
    asked = {"templateId": template.pk, "channel": "email"}
    assert api.post("templates:preview", asked).json()["subject"] == "Hey"
    assert api.post("templates:preview", {**asked, "version": 1}).json()["subject"] == "Hi "


def test_contents_that_are_not_kept_are_rendered(api: Api) -> None:
    contents = [{"channel": "in_app", "locale": "fr", "text": "Bonjour {{ t('no.such') }}"}]
    told = api.post("templates:preview", {"contents": contents, "channel": "in_app"}).json()
    assert (told["text"], told["contentLocale"], told["missingKeys"]) == ("Bonjour ", "fr", ["no.such"])


def test_each_part_that_can_not_be_rendered_is_told_with_its_pointer(api: Api) -> None:
    good = {"channel": "email", "locale": "en", "subject": "Hi", "text": "Hi"}
    bad = {
        "channel": "email",
        "locale": "de",
        "subject": "{{ points + 1 }}",
        "text": "fine",
        "html": "{{ 1|currency('XXL') }}",
    }
    RecipientFactory.create(locale="de")
    answer = api.post("templates:preview", {"contents": [good, bad], "channel": "email", "defaultLocale": "en"})
    assert answer.status_code == 400
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [
        ("/contents/1/subject", "template_error"),
        ("/contents/1/html", "template_error"),
    ]
    kept = templates.save(name="Bad", contents=[good, bad], by=BY, now=NOW)
    answer = api.post("templates:preview", {"templateId": kept.pk, "channel": "email"})
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/templateId"}
    assert answer.json()["errors"][0]["detail"].startswith("email in de: subject")


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "", "one_of"),
        ({"templateId": 10**12}, "/templateId", "not_found"),
        ({"templateId": -1}, "/templateId", "not_found"),
        ({"contents": [], "templateId": 1}, "/contents", "empty"),
        ({"contents": [{"channel": "email", "locale": "en", "subject": "{{", "text": "a"}]}, "/contents/0/subject",
         "template_syntax"),
        ({"contents": [{"channel": "in_app", "locale": "en", "text": "a"}]}, "/contents", "no_content"),
        ({"contents": [{"channel": "email", "locale": "en", "subject": "a", "text": "a"}], "version": 1}, "/version",
         "not_applicable"),
        ({"templateId": 1, "defaultLocale": "en"}, "/defaultLocale", "not_applicable"),
        ({"templateId": 1, "recipient": 5}, "/recipient", "invalid"),
    ],
)  # fmt: skip
def test_a_preview_that_makes_no_sense_is_refused(api: Api, body: dict[str, Any], pointer: str, code: str) -> None:
    answer = api.post("templates:preview", {"channel": "email", **body})
    assert answer.status_code == 400, answer.json()
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, code)]


def test_a_reader_or_version_that_is_not_there_is_refused(api: Api, template: Any) -> None:
    asked = {"templateId": template.pk, "channel": "email"}
    for changes, pointer in [({"recipient": "zoe"}, "/recipient"), ({"version": 2}, "/version")]:
        answer = api.post("templates:preview", {**asked, **changes})
        assert [(each["pointer"], each["code"]) for each in answer.json()["errors"]] == [(pointer, "not_found")]


def test_an_address_in_a_message_is_masked_for_who_may_not_see_it(service: Service) -> None:
    RecipientFactory.create(external_id="ada", email="ada@example.com")
    kept = TemplateFactory.create(text="To {{ recipient.email }}")
    asked = {"templateId": kept.pk, "channel": "email", "recipient": "ada"}
    analyst = Api(token(scopes=str(Scope.READ), user=account(Role.ANALYST)))
    assert analyst.post("templates:preview", asked).json()["text"] == "To a…@example.com"
    assert Api(token()).post("templates:preview", asked).json()["text"] == "To ada@example.com"
