"""What the documents tell somebody to type: run by a test, held against the program that it calls, or marked.

A block whose first line is ``# needs …`` needs what no test has; which words may stand there is in ``NEEDS``.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, get_commands, load_command_class
from django.urls import Resolver404, resolve

from scheduler_project.local import ports
from tests.documents import DOCUMENTS, ROOT, Block, blocks, name

pytestmark = pytest.mark.django_db  # serve_streams looks into the database when it is imported

NEEDS = {"Docker", "a cluster of Kubernetes", "a deployment", "an AWS account"}
# Pages whose blocks of bash a test runs as they stand.
RUN_BY = {
    "docs/api.md": "tests/journeys/test_api_guide.py",
    "docs/security.md": "tests/integration/test_demo.py",
    "docs/backup.md": "tests/integration/test_backup.py",
    "docs/user-service.md": "tests/integration/test_user_service_hook.py",
    "docs/contracts/README.md": "tests/integration/test_documented_commands.py",
}
# Of these pages every statement is run by test_runbooks, and their first one says where they are typed.
RUNBOOKS = "docs/runbooks/"
# With what comes out of another command, or goes into it.
FILTERS = {"grep", "tail", "head", "sort"}
# Up to where a command goes on: the end of its line or of the code in a sentence, a comment, or the next program.
_COMMAND = re.compile(r"manage\.py ([a-z_]+)([^\n`|#;&>”]*)")
_OPTION = re.compile(r"(?<!\S)\[?(--[a-z][a-z-]*)")
_PLACEHOLDER = re.compile(r"…|[A-Z][A-Z_]+")
_PROGRAMS = (
    r"(?:\$ |[A-Z_]+=\S* )*"
    r"(?:make|(?:\.venv/bin/)?python|manage\.py|docker|kubectl|curl|psql|redis-cli|aws|openssl|celery|pg_dump|cp) "
)


def is_shell(block: Block) -> bool:
    return block.language in {"bash", "sh"} or (
        block.language == "" and any(re.match(_PROGRAMS, line) for line in block.text.splitlines())
    )


def need(block: Block) -> str:
    """What the block says that it needs; empty where it says nothing."""
    found = re.match(r"# needs (.+)\n", block.text)
    return found[1] if found else ""


SHELL = [block for path in DOCUMENTS for block in blocks(path) if is_shell(block)]


def simple_commands(block: Block) -> Iterator[list[str]]:
    """The words of each command, without comments and what is assigned before it."""
    text = block.text.replace("\\\n", " ")
    if re.search(r"^\$ ", text, re.M):  # a session: what does not begin so was printed
        text = "\n".join(re.findall(r"^\$ (.*)$", text, re.M))
    text = re.sub(r"(^|\s)# .*$", "", text, flags=re.M)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace = " \t"
    lexer.commenters, lexer.whitespace_split = "", True
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if not set(word) <= set(";|&\n"):
            words.append(word)
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            yield words
        words = []


def complaint(words: list[str], *, page: str) -> str:
    """Why the command can't be what is meant; empty where all is well."""
    program, *arguments = words
    if program.endswith("python") and arguments[:1] == ["manage.py"]:
        program, arguments = "manage.py", arguments[1:]
    if program == "manage.py":
        return of_manage(arguments)
    if program.endswith("python") and arguments[:1] == ["-m"]:
        return of_module(arguments[1], arguments[2:])
    if program == "make":
        return of_make(arguments)
    if page.startswith(RUNBOOKS) and program == "curl":
        return of_address(arguments)
    if page.startswith(RUNBOOKS) and program in {"psql", "redis-cli"}:
        return ""
    return "" if program in FILTERS else "no test runs it, and its block does not say what it needs"


def of_manage(arguments: list[str]) -> str:
    command, *rest = [word.strip("[]") for word in arguments]
    if command not in get_commands():
        return "there is no such command"
    given = []
    for word in rest:
        if set(word) <= set("<>"):  # where it writes to is the shell's
            break
        given.append("17" if _PLACEHOLDER.fullmatch(word) else word)
    try:
        parser(command).parse_args(given)
    except CommandError as error:
        return str(error)
    return ""


@cache
def parser(command: str):
    return load_command_class(get_commands()[command], command).create_parser("manage.py", command)


def of_module(module: str, arguments: list[str]) -> str:
    """Whether the module is there, and each option in its folder's words: importing it may take seconds."""
    path = ROOT.joinpath(*module.split("."))
    if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
        return "there is no such module"
    sources = "".join(file.read_text() for file in path.parent.glob("*.py"))
    return ", ".join(word for word in arguments if word.startswith("--") and f'"{word}"' not in sources)


def of_make(arguments: list[str]) -> str:
    """The target is there; what ``ARGS`` hands on is an option of the program that its recipe calls."""
    rules = dict(re.findall(r"^([a-z]+):.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.M))
    for word in arguments:
        variable, is_given, value = word.partition("=")
        if not is_given:
            target = word
            if target not in rules:
                return f"there is no target {target}"
        elif variable == "ARGS":
            called = re.search(r"manage\.py (\w+)|-m ([\w.]+)", rules[target])
            assert called, target
            options = shlex.split(value)
            wrong = of_manage([called[1], *options]) if called[1] else of_module(called[2], options)
            if wrong:
                return wrong
        elif f"$({variable})" not in rules[target]:
            return f"{target} takes no {variable}"
    return ""


def of_address(arguments: list[str]) -> str:
    address = next(urlsplit(word) for word in arguments if word.startswith("http"))
    path = address.path
    if address.hostname == "streams":  # serve_streams has no urls.py
        return "" if path in {"/healthz", "/metrics"} else f"{path} leads nowhere"
    try:
        resolve(path)
    except Resolver404:
        return f"{path} leads nowhere"
    return ""


def test_there_are_blocks_to_look_at():
    assert len(SHELL) > 60
    assert {block.document for block in SHELL} >= {"README.md", "CONTRIBUTING.md", *RUN_BY}


@pytest.mark.parametrize(
    "block",
    [block for block in SHELL if not need(block) and block.document not in RUN_BY],
    ids=lambda block: f"{block.document}:{block.line}",
)
def test_a_block_of_commands_can_be_typed_as_it_stands(block):
    found = [(words, complaint(words, page=block.document)) for words in simple_commands(block)]
    assert found
    assert [f"{shlex.join(words)}: {why}" for words, why in found if why] == []


def test_what_a_block_needs_is_said_in_words_that_readers_know():
    said = {need(block) for block in SHELL} - {""}
    assert said == NEEDS


def test_what_runs_a_page_names_it():
    for page, test in RUN_BY.items():
        assert Path(page).name in (ROOT / test).read_text(), page


def test_blocks_of_a_page_that_a_test_runs_are_marked_as_what_it_runs():
    """Such a test takes the blocks of bash: another one beside it needs a mark, or to be held like all others."""
    for block in SHELL:
        if block.document in RUN_BY and block.language != "bash" and not need(block):
            wrong = [complaint(words, page=block.document) for words in simple_commands(block)]
            assert not any(wrong), f"{block.document}:{block.line}: {wrong}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("manage.py books --occurence 17", "unrecognized arguments"),
        ("manage.py stop --channel", "expected one argument"),
        ("manage.py book", "no such command"),
        (".venv/bin/python -m benchmarks.thruput", "no such module"),
        (".venv/bin/python -m stubs.ses --prot 1", "--prot"),
        ("make demos", "no target"),
        ('make demo ARGS="--recipient-count 5"', "unrecognized arguments"),
        ("make demo SEED=1", "takes no SEED"),
        ("kubectl get pods", "does not say what it needs"),
        ("curl http://web:8000/readiness", "no test runs it"),
    ],
)
def test_a_command_that_does_not_work_would_be_found(text, why):
    (words,) = simple_commands(Block("docs/x.md", 1, "bash", text))
    assert why in complaint(words, page="docs/x.md")


def named() -> Iterator[tuple[str, str, set[str]]]:
    """(document, command, options), in sentences too."""
    for path in DOCUMENTS:
        for command, rest in _COMMAND.findall(path.read_text()):
            yield name(path), command, set(_OPTION.findall(rest))


def test_the_commands_in_sentences_are_there_with_their_options():
    found = list(named())
    assert {"books", "stop", "go", "audit_verify", "poll_ses_events"} <= {command for _, command, _ in found}
    unknown = {f"{document}: manage.py {command}" for document, command, _ in found if command not in get_commands()}
    assert unknown == set()
    lacking = {
        f"{document}: manage.py {command} {option}"
        for document, command, wanted in found
        for option in wanted - set(parser(command)._option_string_actions)
    }
    assert lacking == set()


def test_the_reference_services_answer_as_docs_contracts_README_md_shows(tmp_path):
    """Its first block of each service, as it stands but for the port: somebody else may have that one."""
    page = ROOT / "docs" / "contracts" / "README.md"
    (person,) = set(re.findall(r'`({"externalId": "7".*?}})`', page.read_text()))
    (tmp_path / "people.ndjson").write_text(person + "\n")
    printed = []
    for block in blocks(page):
        started = re.search(r"^\S+ -m (stubs\.\w+) (.*) --port (\d+)$", block.text, re.M)
        if not started or block.language != "bash":
            continue
        port = ports.free_port()
        before, after = block.text[: started.start()], block.text[started.end() :]
        subprocess.run(["bash", "-euc", before], cwd=tmp_path, check=True)
        command = [sys.executable, "-m", started[1], *shlex.split(started[2]), "--port", str(port)]
        with subprocess.Popen(
            command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
        ) as service:
            try:
                give_up = time.monotonic() + 60
                while not ports.answers(port) and service.poll() is None and time.monotonic() < give_up:
                    time.sleep(0.1)
                asked = after.replace(started[3], str(port))
                answer = subprocess.run(
                    ["bash", "-euc", asked], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
                )
                printed.append(answer.stdout)
            finally:
                service.terminate()
    people, templates = printed
    assert json.loads(people)["profiles"][0]["externalId"] == "7"
    assert "Hello Eva" in templates
