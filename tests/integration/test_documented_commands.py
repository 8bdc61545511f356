"""Every ``manage.py`` command that the documents name is there, with the options that they name."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

pytestmark = pytest.mark.django_db
PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*PROJECT.glob("*.md"), *sorted((PROJECT / "docs").rglob("*.md"))]
# Up to where a command goes on: the end of its line or of the code in a sentence, a comment, or the next program.
_COMMAND = re.compile(r"manage\.py ([a-z_]+)([^\n`|#;&>”]*)")
_OPTION = re.compile(r"(?<!\S)\[?(--[a-z][a-z-]*)")


def named() -> Iterator[tuple[str, str, set[str]]]:
    """(document, command, options)."""
    for path in DOCUMENTS:
        for command, rest in _COMMAND.findall(path.read_text()):
            yield str(path.relative_to(PROJECT)), command, set(_OPTION.findall(rest))


@cache
def options(command: str) -> set[str]:
    parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
    return set(parser._option_string_actions)


def test_the_commands_of_the_documents_are_there_with_their_options():
    found = list(named())
    assert {"books", "stop", "go", "audit_verify", "poll_ses_events"} <= {command for _, command, _ in found}
    unknown = {f"{document}: manage.py {command}" for document, command, _ in found if command not in get_commands()}
    assert unknown == set()
    lacking = {
        f"{document}: manage.py {command} {option}"
        for document, command, wanted in found
        for option in wanted - options(command)
    }
    assert lacking == set()
