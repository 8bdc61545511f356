"""The documents as tests read them: parsed as code hosts parse them."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})


class Block(NamedTuple):
    """A block of code, fenced or indented; ``line`` is where it stands in its document."""

    document: str
    line: int
    language: str
    text: str


@cache
def tokens(path: Path) -> list[Token]:
    return _MARKDOWN.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> Iterator[Block]:
    for token in tokens(path):
        if token.type in {"fence", "code_block"} and token.map:
            yield Block(name(path), token.map[0] + 1, token.info.partition(" ")[0], token.content)


@cache
def anchors(path: Path) -> frozenset[str]:
    """What code hosts name a document's headings: small letters, hyphens for spaces, a number where one comes again."""
    seen: dict[str, int] = {}
    found = set()
    parsed = tokens(path)
    for place, token in enumerate(parsed):
        if token.type == "heading_open":
            words = "".join(each.content for each in parsed[place + 1].children or [])
            slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
            seen[slug] = seen.get(slug, 0) + 1
    return frozenset(found)


def targets(path: Path) -> Iterator[str]:
    """Where its links and pictures lead."""
    for token in tokens(path):
        for child in token.children or []:
            if child.type in {"link_open", "image"}:
                yield str(child.attrs["href" if child.type == "link_open" else "src"])
