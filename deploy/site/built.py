"""What a built site must not have: links that lead nowhere, and anything that is loaded from elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser loads by itself. A link to another site is followed by a person.
_LOADED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}


class _Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: Mapping[str, str] = {name: value or "" for name, value in attrs}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        if tag in _LOADED and _LOADED[tag] in given:
            self.loaded.add(given[_LOADED[tag]])
        if tag == "a" and "href" in given:
            self.links.add(given["href"])


def problems(folder: Path) -> list[str]:
    """In words, by page; none where all is well."""
    page = cache(_Page)
    return [
        f"{path.relative_to(folder)}: {words}"
        for path in sorted(folder.rglob("*.html"))
        for words in _of_page(page(path), path, page)
    ]


def _of_page(page: _Page, path: Path, read: Callable[[Path], _Page]) -> Iterator[str]:
    for address in sorted(page.links | page.loaded):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            if address in page.loaded and parts.scheme != "data":
                yield f"loads {address}, which is not of this site"
            continue
        to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not to.is_file():
            yield f"{address} leads nowhere"
        elif parts.fragment and to.suffix == ".html" and unquote(parts.fragment) not in read(to).ids:
            yield f"{address}: there is no such place on that page"
