"""The checks of a template service: the reference passes them all, and what is broken in one way fails one of them."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from scheduler_project.demo import content
from scheduler_project.demo.template_service import TemplateService
from schedules.remote import checking
from schedules.remote.checking import Outcome
from schedules.template_service.client import Client, Gone, Item, ItemError, Message
from schedules.template_service.conformance.subject import Subject
from schedules.template_service.conformance.suite import CHECKS
from stubs.log import Log
from stubs.testing import running_template_service
from tests.conformance.template_services import BROKEN, MAX_BYTES, TEMPLATES, TOKEN, Service
from tests.conformance.user_services import serving
from tests.template_service import template


def outcomes(url: str, *, token: str = TOKEN) -> dict[str, list[str]]:
    client = Client(url, token=token, timeout_s=10, max_bytes=MAX_BYTES)
    found: dict[str, list[str]] = {str(outcome): [] for outcome in Outcome}
    for result in checking.run(CHECKS, Subject(client, has_token=bool(token))):
        found[result.outcome].append(result.name)
        assert result.came
        assert result.asked or result.outcome is Outcome.SKIPPED
    return found


def test_the_reference_passes_every_check():
    with serving(Service()) as url:
        assert outcomes(url) == {"passed": [check.name for check in CHECKS], "failed": [], "skipped": []}


def test_the_reference_with_the_engine_of_the_house_passes_every_check_with_the_templates_of_the_demo():
    service = TemplateService(Log(None))
    service.translate(content.CATALOGUES)
    for number, (name, contents) in enumerate(content.templates().items()):
        service.templates.put([json.dumps({"id": f"demo-{number}", "name": name, "contents": contents})])
    with serving(service) as url:
        found = outcomes(url, token="")
    assert found["failed"] == []
    assert found["skipped"] == ["token"]


def test_there_is_a_broken_service_for_each_check():
    assert list(BROKEN) == [check.name for check in CHECKS]


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_in_one_way_fails_that_check_and_no_other(name):
    with serving(Service(BROKEN[name])) as url:
        found = outcomes(url)
    assert found["failed"] == [name]
    needing = {check.name for check in CHECKS if {name, *found["skipped"]} & set(check.needs)}
    assert set(found["skipped"]) == needing, "and whatever tells nothing without it is skipped, and nothing else"


def test_a_check_is_only_made_when_what_it_needs_was_asked_before():
    known: set[str] = set()
    for check in CHECKS:
        assert known.issuperset(check.needs), check.name
        known.add(check.name)


def test_a_service_with_one_template_of_few_words_passes_what_can_be_asked_of_it():
    words = [{"channel": channel, "locale": "en-GB", "subject": "Hi", "text": "Hi"} for channel in ("email", "push")]
    with serving(Service(templates=[{"id": "one", "defaultLocale": "en-GB", "contents": words}])) as url:
        found = outcomes(url)
    assert found["failed"] == []
    assert found["skipped"] == ["tokens", "html", "plain", "subject_line", "order", "missing", "time_zone"]


def test_a_service_without_templates_is_told_so_once():
    with serving(Service(templates=[])) as url:
        assert outcomes(url)["failed"] == ["templates"]


def test_who_is_not_let_in_is_told_so():
    with serving(Service()) as url:
        assert outcomes(url, token="another")["failed"] == ["reachable"]


def test_a_service_that_is_away_fails_one_check():
    with serving(Service()) as url:
        pass
    assert outcomes(url)["failed"] == ["reachable"]


# The command


def test_the_command_says_of_each_check_what_came():
    out = io.StringIO()
    with serving(Service()) as url:
        call_command("check_template_service", url, "--token", TOKEN, stdout=out)
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines[:-1]] == [check.name for check in CHECKS]
    assert lines[-1] == f"{len(CHECKS)} checks passed."


def test_the_command_ends_with_1_and_says_what_was_asked_what_came_and_what_to_do():
    out = io.StringIO()
    with serving(Service(BROKEN["no_content"])) as url, pytest.raises(CommandError) as ended:
        call_command("check_template_service", url, "--token", TOKEN, stdout=out)
    assert (ended.value.returncode, str(ended.value)) == (1, f"1 of {len(CHECKS)} checks failed.")
    check = next(check for check in CHECKS if check.name == "no_content")
    lines = [line.strip() for line in out.getvalue().splitlines()]
    at = next(number for number, line in enumerate(lines) if line.startswith("FAILED"))
    assert "a message for in_app, in which welcome says nothing" in lines[at]
    assert lines[at + 1].startswith(
        'asked     POST /render {"template": "welcome", "version": "v1", "channel": "in_app"'
    )
    assert lines[at + 2 : at + 4] == [f"contract  {check.contract}", f"remedy    {check.remedy}"]
    assert TOKEN not in out.getvalue()


def test_the_command_answers_as_json():
    out = io.StringIO()
    with serving(Service(BROKEN["order"])) as url, pytest.raises(CommandError):
        call_command("check_template_service", url, "--token", TOKEN, "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert (found["failed"], found["passed"] + found["skipped"]) == (1, len(CHECKS) - 1)
    assert [each["name"] for each in found["checks"] if each["outcome"] == "failed"] == ["order"]


def test_the_command_does_not_begin_without_an_address():
    with pytest.raises(CommandError, match="stands before /templates") as ended:
        call_command("check_template_service", "templates.example.com")
    assert ended.value.returncode == 2


def test_the_token_of_the_settings_goes_to_no_other_address(settings):
    settings.TEMPLATE_SERVICE_TOKEN = TOKEN
    with serving(Service()) as url:
        settings.TEMPLATE_SERVICE_URL = url
        call_command("check_template_service", stdout=io.StringIO())
        with pytest.raises(CommandError, match=f"1 of {len(CHECKS)} checks failed"):
            call_command("check_template_service", url, stdout=io.StringIO())


# The reference


def test_the_reference_runs_as_a_program_and_templates_change_while_it_runs(tmp_path):
    file = tmp_path / "templates.ndjson"
    file.write_text("".join(f"{json.dumps(each)}\n" for each in TEMPLATES))
    with running_template_service(templates=file, token=TOKEN) as reference:
        client = Client(reference.url, token=TOKEN)
        assert len(client.read_templates(cursor=None).templates) == len(TEMPLATES)
        reference.put(template("welcome", name="Welcome again"))
        reference.remove(TEMPLATES[1]["id"])
        found = client.read_template("welcome")
        assert (found.version, found.name, found.tokens) == ("v2", "Welcome again", ("first_name",))
        assert len(client.read_templates(cursor=None).templates) == len(TEMPLATES) - 1
        items = [Item("", "UTC", {"first_name": "Eva", "occurrence.at": "2026-11-22T10:00:00Z"})]
        for version, subject in (("v1", "Hi Eva"), ("v2", "Hello Eva")):
            channel = "push" if version == "v1" else "email"
            (made,) = client.render(template_id="welcome", version=version, channel=channel, items=items)
            assert isinstance(made, Message)
            assert made.subject == subject
        reference.remove("welcome", version="v1")
        with pytest.raises(Gone):
            client.render(template_id="welcome", version="v1", channel="email", items=items)
        assert reference.stats()["calls"] == {"List": 2, "Template": 1, "Render": 3}


def test_a_fault_concerns_the_items_whose_tokens_it_names():
    service = Service()
    service.faults.replace([{"kind": "bulk_entry_status", "code": "TOO_SAD", "match": {"to": "*Eva*"}}])
    with serving(service) as url:
        items = [Item("", "UTC", {"first_name": name}) for name in ("Max", "Eva")]
        max_, eva = Client(url, token=TOKEN).render(template_id="welcome", version="v1", channel="push", items=items)
    assert isinstance(max_, Message)
    assert eva == ItemError("too_sad", "injected fault")
