"""What stands beside each page: the lists of links that the documents have themselves.

`docs/README.md` is what a reader of the repository opens first, and where each page gets its place: the links in the
list under a second heading are that part's pages. A `README.md` in a folder below leads to the others there: those
that it links to, in their order, then the others by name. So no second list can say something else, and a page that
nobody leads to is an error of the build.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

_MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})


class Link(NamedTuple):
    part: str
    """The second heading that it stands under; empty above the first."""
    title: str
    target: str
    """As it is written, without what follows `#`."""
    in_list: bool


def links(text: str) -> Iterator[Link]:
    """The links to files of a document."""
    part, lists = "", 0
    tokens = _MARKDOWN.parse(text)
    for place, token in enumerate(tokens):
        lists += (token.type == "list_item_open") - (token.type == "list_item_close")
        if token.type == "heading_open" and token.tag == "h2":
            part = tokens[place + 1].content
        if token.type == "inline":
            yield from (
                Link(part, title, target, lists > 0) for title, target in _inline(token.children or []) if target
            )


def _inline(tokens: list[Token]) -> Iterator[tuple[str, str]]:
    for place, token in enumerate(tokens):
        if token.type == "link_open":
            href = urlsplit(str(token.attrs["href"]))
            words = "".join(each.content for each in tokens[place + 1 : _closing(tokens, place)])
            yield words, "" if href.scheme or href.netloc else href.path


def _closing(tokens: list[Token], place: int) -> int:
    return next(at for at in range(place, len(tokens)) if tokens[at].type == "link_close")


def first_page(text: str, *, folder: PurePosixPath) -> str:
    """Directives that make of the lists of the first page the site's navigation."""
    parts: dict[str, list[str]] = {}
    for link in links(text):
        if link.in_list and link.target.endswith(".md"):
            parts.setdefault(link.part, []).append(f"{link.title} </{_document(folder, link.target)}>")
    return "\n".join(_toctree(entries, caption=part) for part, entries in parts.items())


def folder_page(text: str, *, folder: PurePosixPath, pages: list[str]) -> str:
    """The directive that hangs the ``pages`` of a folder, by their names, below its README."""
    linked = [PurePosixPath(link.target).stem for link in links(text) if "/" not in link.target]
    named = [page for page in dict.fromkeys(linked) if page in pages]
    others = [page for page in pages if page not in named]
    return _toctree([f"/{folder / page}" for page in [*named, *others]])


def _document(folder: PurePosixPath, target: str) -> PurePosixPath:
    """The name that Sphinx has for what ``target`` leads to from ``folder``."""
    steps: list[str] = []
    for step in (folder / target).with_suffix("").parts:
        steps = steps[:-1] if step == ".." else [*steps, step]
    return PurePosixPath(*steps)


def _toctree(entries: list[str], *, caption: str = "") -> str:
    options = [":hidden:", f":caption: {caption}"] if caption else [":hidden:"]
    return "\n".join(["", "```{toctree}", *options, "", *entries, "```", ""])


def _hang(app: Sphinx, docname: str, source: list[str]) -> None:
    name = PurePosixPath(docname)
    if name.name != "README" or name.parent == PurePosixPath():
        return
    if docname == app.config.root_doc:
        source[0] += first_page(source[0], folder=name.parent)
    else:
        pages = sorted(path.stem for path in Path(app.srcdir, name.parent).glob("*.md") if path.stem != name.name)
        source[0] += folder_page(source[0], folder=name.parent, pages=pages)


def _hang_anew(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """What is read again though it has not changed: pages have come to a folder or gone from it."""
    return [name for name in env.found_docs if name.endswith("/README")] if added or removed else []


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _hang)
    app.connect("env-get-outdated", _hang_anew)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
