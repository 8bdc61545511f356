"""The checks of a user service: the reference passes them all, and whatever is broken in one way fails one of them."""

import io
import json
from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command

from schedules.remote import checking
from schedules.remote.checking import Outcome
from schedules.user_service.client import Client
from schedules.user_service.conformance import suite
from schedules.user_service.conformance.subject import Subject
from stubs.log import Log
from stubs.testing import running_user_service
from stubs.user_service import UserServiceStub
from tests.conformance.user_services import BROKEN, MAX_BYTES, PEOPLE, TOKEN, Service, person, serving

AS_OF = datetime(2026, 11, 22, 10, tzinfo=UTC)


def outcomes(url: str, *, token: str = TOKEN, **options) -> dict[str, list[str]]:
    client = Client(url, token=token, timeout_s=10, max_bytes=MAX_BYTES)
    found: dict[str, list[str]] = {str(outcome): [] for outcome in Outcome}
    subject = Subject(client, as_of=AS_OF, has_token=bool(token), **options)
    for result in checking.run(suite.CHECKS, subject):
        found[result.outcome].append(result.name)
        assert result.came
        assert result.asked or result.outcome is Outcome.SKIPPED
    return found


def test_the_reference_passes_every_check():
    with serving(Service()) as url:
        assert outcomes(url) == {"passed": [check.name for check in suite.CHECKS], "failed": [], "skipped": []}


def test_there_is_a_broken_service_for_each_check():
    assert list(BROKEN) == [check.name for check in suite.CHECKS]


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_in_one_way_fails_that_check_and_no_other(name):
    with serving(Service(BROKEN[name])) as url:
        found = outcomes(url)
    assert found["failed"] == [name]
    needing = {check.name for check in suite.CHECKS if {name, *found["skipped"]} & set(check.needs)}
    assert set(found["skipped"]) == needing, "and whatever tells nothing without it is skipped, and nothing else"


def test_a_check_is_only_made_when_what_it_needs_was_asked_before():
    known: set[str] = set()
    for check in suite.CHECKS:
        assert known.issuperset(check.needs), check.name
        known.add(check.name)


def test_a_service_with_few_people_of_few_words_passes_what_can_be_asked_of_it():
    people = [{"externalId": f"{number}"} for number in range(3)]
    with serving(Service(people=people)) as url:
        found = outcomes(url)
    assert found["failed"] == []
    assert found["skipped"] == ["consent_time", "tags", "numbers", "instants"]


def test_without_a_token_nothing_is_told_of_it():
    service = Service()
    service.page.token = service.count.token = ""
    with serving(service) as url:
        found = outcomes(url, token="")
    assert (found["failed"], found["skipped"]) == ([], ["token"])


def test_who_is_not_let_in_is_told_so():
    with serving(Service()) as url:
        assert outcomes(url, token="another")["failed"] == ["reachable"]


def test_a_service_that_is_away_fails_one_check():
    with serving(Service()) as url:
        pass
    assert outcomes(url)["failed"] == ["reachable"]


# The command


def checked(url: str, *options: str) -> str:
    out = io.StringIO()
    call_command("check_user_service", url, "--token", TOKEN, *options, stdout=out)
    return out.getvalue()


def complained_of(broken, *options: str) -> str:
    """All that the command says of a service that fails."""
    out = io.StringIO()
    with serving(Service(broken)) as url, pytest.raises(CommandError) as ended:
        call_command("check_user_service", url, "--token", TOKEN, *options, stdout=out)
    return out.getvalue() + str(ended.value)


def test_the_command_says_of_each_check_what_came():
    with serving(Service()) as url:
        lines = checked(url).splitlines()
    assert [line.split()[1] for line in lines[:-1]] == [check.name for check in suite.CHECKS]
    assert lines[-1] == f"{len(suite.CHECKS)} checks passed."


def test_the_command_ends_with_1_and_says_what_was_asked_what_came_and_what_to_do():
    out = io.StringIO()
    with serving(Service(BROKEN["page_count"])) as url, pytest.raises(CommandError, match="1 of 33 checks") as ended:
        call_command("check_user_service", url, "--token", TOKEN, stdout=out)
    assert ended.value.returncode == 1
    check = next(check for check in suite.CHECKS if check.name == "page_count")
    lines = [line.strip() for line in out.getvalue().splitlines()]
    at = next(number for number, line in enumerate(lines) if line.startswith("FAILED"))
    assert "count says 25, and the page holds 8" in lines[at]
    assert lines[at + 1].startswith("asked     POST /audience/page {")
    assert lines[at + 2 : at + 4] == [f"contract  {check.contract}", f"remedy    {check.remedy}"]


def test_the_command_answers_as_json():
    with serving(Service(BROKEN["total"])) as url:
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("check_user_service", url, "--token", TOKEN, "--json", stdout=out)
        found = json.loads(out.getvalue())
    assert (found["url"], found["failed"], found["passed"] + found["skipped"]) == (url, 1, len(suite.CHECKS) - 1)
    (failed,) = (each for each in found["checks"] if each["outcome"] == "failed")
    assert failed.keys() == {"name", "outcome", "asked", "came", "contract", "remedy", "seconds"}
    assert failed["name"] == "total"


@pytest.mark.parametrize("name", ["everybody_named", "nobody_twice", "texts", "attributes", "tags"])
def test_the_command_names_nobody_unless_it_is_told_to(name):
    personal = [text for each in PEOPLE for text in (each["externalId"], each["email"], each["timeZone"]) if text]
    personal += [TOKEN, "secret-token", "+43 1 23456", "free"]
    for options, is_named in (((), False), (("--json",), False), (("--show-people",), True)):
        said = complained_of(BROKEN[name], *options)
        assert any(text in said for text in personal) is is_named
        assert TOKEN not in said


def test_the_command_quotes_no_value_of_a_profile_that_is_flawed():
    flawed = [{"externalId": "17", "email": "not an address of Eva's"}, {"externalId": "18", "Eva's own member": 4711}]
    out = io.StringIO()
    with serving(Service(people=[*flawed, *PEOPLE])) as url, pytest.raises(CommandError):
        call_command("check_user_service", url, "--token", TOKEN, "--show-people", stdout=out)
    (line,) = (line for line in out.getvalue().splitlines() if line.startswith("FAILED"))
    assert line.startswith("FAILED   profiles          2 of 42 are flawed: email is no e-mail address")
    assert "; a member is no field" in line
    assert "Eva" not in line
    assert "4711" not in line


@pytest.mark.parametrize(
    "url", ["users.example.com", "ftp://users.example.com", "https://me:word" + "@users.example.com"]
)
def test_the_command_does_not_begin_without_an_address(url):
    with pytest.raises(CommandError, match="Give the address") as ended:
        checked(url)
    assert ended.value.returncode == 2


def test_the_token_of_the_settings_goes_to_no_other_address(settings):
    settings.USER_SERVICE_TOKEN = TOKEN
    with serving(Service()) as url:
        settings.USER_SERVICE_URL = url
        call_command("check_user_service", stdout=io.StringIO())
        with pytest.raises(CommandError, match="1 of 33 checks failed"):
            call_command("check_user_service", url, stdout=io.StringIO())


# The reference


def test_the_reference_runs_as_a_program_and_people_change_while_it_runs(tmp_path):
    file = tmp_path / "people.ndjson"
    file.write_text("".join(f"{json.dumps(each)}\n" for each in PEOPLE))
    with running_user_service(people=file, token=TOKEN) as reference:
        client = Client(reference.url, token=TOKEN)
        assert client.count({"all": []}, as_of=AS_OF) == len(PEOPLE)
        reference.put({"externalId": "new", "locale": "is"})
        reference.remove(PEOPLE[0]["externalId"])
        page = client.read_page({"field": "locale", "op": "eq", "value": "is"}, as_of=AS_OF, cursor=None, limit=10)
        assert [row.external_id for row in page.rows] == ["new"]
        assert client.count({"all": []}, as_of=AS_OF) == len(PEOPLE)
        assert reference.stats()["calls"] == {"Count": 2, "Page": 1}


def test_who_changes_while_the_pages_of_an_answer_are_read_makes_no_difference_to_them():
    service = Service()
    with serving(service) as url:
        client = Client(url, token=TOKEN)
        first = client.read_page({"all": []}, as_of=AS_OF, cursor=None, limit=30)
        service.people.put([json.dumps({**person(39), "locale": "is"}), json.dumps({"externalId": "new"})])
        del service.people.held["Person-038"]
        second = client.read_page({"all": []}, as_of=AS_OF, cursor=first.next_cursor, limit=30)
    found = {row.external_id: row.locale for row in second.rows}
    assert len(found) == 10
    assert found["Person-039"] == person(39)["locale"]
    assert "Person-038" in found


def test_a_consent_is_as_old_as_its_last_change_whatever_else_has_changed_since():
    people = UserServiceStub(Log(None)).people
    for changes in (
        {"updatedAt": "2026-03-01T00:00:00Z"},
        {"locale": "fr", "updatedAt": "2026-04-01T00:00:00Z"},
        {"consent": {"email": False}, "updatedAt": "2026-05-01T00:00:00Z"},
        {"locale": "de", "updatedAt": "2026-06-01T00:00:00Z"},
    ):
        people.put([json.dumps({"externalId": "1", "consent": {"email": True}, **changes})])
        profile = people.held["1"].profile
        told = profile.get("consentUpdatedAt", profile["updatedAt"])[:7]
        assert (
            told
            == {"2026-03": "2026-03", "2026-04": "2026-03", "2026-05": "2026-05", "2026-06": "2026-06"}[
                profile["updatedAt"][:7]
            ]
        )


def test_a_page_that_contradicts_names_somebody_again_otherwise_and_earlier():
    service = Service()
    service.faults.replace([{"kind": "contradict", "match": {"to": "?*"}}])
    with serving(service) as url:
        client = Client(url, token=TOKEN)
        first = client.read_page({"all": []}, as_of=AS_OF, cursor=None, limit=30)
        second = client.read_page({"all": []}, as_of=AS_OF, cursor=first.next_cursor, limit=30)
    named = first.rows[0]
    again = second.rows[-1]
    assert named.external_id == again.external_id
    assert named.locale != again.locale
    assert second.updated[again.line] < first.updated[named.line]
    assert len({row.external_id for row in (*first.rows, *second.rows)}) == len(PEOPLE)


def test_a_page_that_repeats_itself_names_its_own_cursor():
    service = Service()
    service.faults.replace([{"kind": "repeat"}])
    with serving(service) as url:
        client = Client(url, token=TOKEN)
        first = client.read_page({"all": []}, as_of=AS_OF, cursor=None, limit=30)
        second = client.read_page({"all": []}, as_of=AS_OF, cursor=first.next_cursor, limit=30)
    assert second.next_cursor == first.next_cursor
    assert second.rows == first.rows
