"""The page for engineers of other services, followed to the letter; then a client made from the document."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler_project.local import ports
from scheduler_project.local.fleet import fleet, web
from tests.running import PROJECT, Running, running_service

GUIDE = PROJECT / "docs" / "api.md"


@pytest.fixture(scope="module")
def port() -> int:
    return ports.free_port()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Running]:
    queues = {"clock": 1, "materialise": 1, "email": 1}
    with running_service(
        tmp_path_factory.mktemp("guide"),
        lambda env: [web(port, env=env, ready=lambda: ports.answers(port)), *fleet(concurrency=queues, env=env)],
    ) as service:
        service.wait_for("the web server", lambda: ports.answers(port), seconds=30)
        yield service


@pytest.fixture(scope="module")
def followed(running: Running, port: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the page's commands print, and the folder of the client that they make."""
    client = tmp_path_factory.mktemp("client") / "made"
    commands = "\n".join(re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL))
    # As a reader would see it: what a command prints, after the command; the first that fails ends it.
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands.replace(".venv/bin", str(Path(sys.executable).parent))],
        cwd=PROJECT,
        env={**running.env, "HOST": f"http://127.0.0.1:{port}", "CLIENT_DIR": str(client), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr, client


def test_its_commands_do_what_it_says(running: Running, followed: tuple[str, Path]) -> None:
    printed, _ = followed
    assert "201 Created" in printed
    forecast, occurrence, explained = (_answer(printed, key) for key in ("attempted", "books", "code"))
    assert (forecast["targeted"], forecast["suppressed"], forecast["attempted"]) == (2, 1, 1)
    assert occurrence["books"]["closes"]
    assert {name: n for name, n in occurrence["books"]["counted"].items() if n} == {"sent": 1, "suppressed": 1}
    assert explained["code"] == "opted_out"
    assert "Idempotency-Replayed: true" in printed or "idempotency-replayed: true" in printed
    told = [problem for problem in _answers(printed) if problem.get("status") == 400]
    assert {error["pointer"] for error in told[0]["errors"]} >= {"/name", "/channel", "/runAt", "/colour"}
    # What the API says is what the provider saw.
    assert [(line["to"], line["subject"]) for line in running.accepted()] == [("ada@example.com", "Hello Ada")]


def test_a_client_made_from_the_document_creates_lists_and_deletes(
    running: Running, port: int, followed: tuple[str, Path]
) -> None:
    _, folder = followed
    (package,) = (each.parent.name for each in folder.glob("*/client.py"))
    made = json.loads(running.manage("create_service_client", "generated", "--json"))
    script = _SCRIPT.format(package=package, host=f"http://127.0.0.1:{port}", **made)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**running.env, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"created": 201, "listed": True, "deleted": 200, "gone": 404}


_SCRIPT = """
import base64, datetime, json, urllib.parse, urllib.request
from {package} import AuthenticatedClient
from {package}.api.schedules import create_schedule, delete_schedule, get_schedule, list_schedules
from {package}.api.templates import list_templates
from {package}.models import (
    ChannelEnum, NewScheduleRequest, NewScheduleRequestAudienceQuery, ScheduleTypeEnum,
)

form = urllib.parse.urlencode({{"grant_type": "client_credentials"}}).encode()
request = urllib.request.Request("{host}/oauth/token", data=form)
request.add_header("Authorization", "Basic " + base64.b64encode(b"{client_id}:{client_secret}").decode())
token = json.load(urllib.request.urlopen(request))["access_token"]
client = AuthenticatedClient(base_url="{host}", token=token)
template = list_templates.sync(client=client).items[0]
body = NewScheduleRequest(
    name="Made by the generated client",
    channel=ChannelEnum.EMAIL,
    audience_query=NewScheduleRequestAudienceQuery.from_dict({{"all": []}}),
    template_id=template.id,
    schedule_type=ScheduleTypeEnum.ONCE,
    run_at=datetime.datetime(2030, 1, 1, 9, tzinfo=datetime.UTC),
)
created = create_schedule.sync_detailed(client=client, body=body)
made = created.parsed
listed = list_schedules.sync(client=client)
deleted = delete_schedule.sync_detailed(made.id, client=client, if_match='"1"')
gone = get_schedule.sync_detailed(made.id, client=client)
print(json.dumps({{
    "created": created.status_code,
    "listed": made.id in [each.id for each in listed.items],
    "deleted": deleted.status_code,
    "gone": gone.status_code,
}}))
"""


def _answers(printed: str) -> list[dict[str, object]]:
    """Every JSON object that stands in a line of its own, or in one that another follows without a break."""
    found, decoder = [], json.JSONDecoder()
    for line in printed.splitlines():
        at = line.find("{")
        while at >= 0:
            try:
                answer, at = decoder.raw_decode(line, at)
            except ValueError:
                break
            found.append(answer)
            at = line.find("{", at)
    return found


def _answer(printed: str, key: str) -> dict[str, object]:
    return next(answer for answer in _answers(printed) if key in answer)
