"""What the documents point at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_every_named_file_exists(document: Path) -> None:
    text = document.read_text()
    links = {document.parent / target for target in re.findall(r"\]\(([^)#:]+)\)", text)}
    named = {
        ROOT / name for name in re.findall(r"`((?:tests|docs|schedules|delivery|frontend|stubs)/[\w./-]+\.\w+)`", text)
    }
    assert [str(path) for path in links | named if not path.exists()] == []
