"""The German catalogue of what people read: its strings found, kept up to date, and compiled.

    python -m scheduler_project.catalogue find       # after strings were changed: write them into the .po
    python -m scheduler_project.catalogue compile    # the .mo that Django reads, which isn't committed

Babel does the work, so gettext's own programs are not needed; the templates are read as Django's own ``makemessages``
reads them. Unfold comes without translations: what its pages say beyond Django's words is found here too.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator
from gettext import GNUTranslations
from pathlib import Path
from typing import Any

import django
import unfold
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
LOCALES = ROOT / "frontend" / "locale"
GERMAN = LOCALES / "de" / "LC_MESSAGES" / "django.po"
_OURS = ("audit", "schedules", "delivery", "frontend")
_UNFOLD = Path(unfold.__file__).parent
# What of unfold the admin shows; the rest of it is for programs that aren't installed.
_SHOWN_OF_UNFOLD = (
    *("templates/admin/**/*.html", "templates/registration/*.html", "templates/unfold/**/*.html"),
    *("admin.py", "forms.py", "mixins/base_model_admin.py", "templatetags/*.py"),
)
_KEYWORDS = {
    **dict.fromkeys(("_", "gettext", "gettext_lazy", "gettext_noop", "say"), None),
    **dict.fromkeys(("ngettext", "ngettext_lazy"), (1, 2)),
    **dict.fromkeys(("pgettext", "pgettext_lazy"), ((1, "c"), 2)),
    **dict.fromkeys(("npgettext", "npgettext_lazy"), ((1, "c"), 2, 3)),
}
_LITERAL = r"""u?(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
_CALL = re.compile(rf"\b(n?p?gettext|_)\(({_LITERAL}(?:, {_LITERAL})*)")

Found = tuple[str, str | tuple[str, str], str | None]
"""Where (a path), what (with its plural, if any), in which context."""


def find() -> Catalog:
    """Every string of ours and of unfold's pages, untranslated."""
    catalogue = Catalog(locale="de", charset="utf-8", fuzzy=False)
    for path, text, context in _found():
        catalogue.add(text, locations=[(path, 0)], context=context)
    return catalogue


def read(path: Path = GERMAN) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale="de")


def update() -> None:
    """Write the strings found into the .po; what stands there of others is removed, translations are kept."""
    kept = read()
    kept.update(find(), no_fuzzy_matching=True, update_creation_date=False)
    kept.obsolete.clear()
    with GERMAN.open("wb") as file:
        write_po(file, kept, width=100, sort_by_file=True, include_lineno=False, ignore_obsolete=True)


def compile_all() -> None:
    """Write the .mo beside each .po that is newer. Several processes may do so at once."""
    for source in LOCALES.glob("*/LC_MESSAGES/*.po"):
        compiled = source.with_suffix(".mo")
        if compiled.exists() and compiled.stat().st_mtime >= source.stat().st_mtime:
            continue
        half = compiled.with_suffix(f".{os.getpid()}")
        with half.open("wb") as file:
            write_mo(file, read(source))
        half.replace(compiled)


def _found() -> Iterator[Found]:
    for app in _OURS:
        for path in sorted((ROOT / app).rglob("*.py")):
            yield from _in_python(path, path.relative_to(ROOT))
        for path in sorted((ROOT / app).rglob("templates/**/*.html")):
            yield from _in_template(path, path.relative_to(ROOT))
    known = _known_to_django()
    for shown in _SHOWN_OF_UNFOLD:
        for path in sorted(_UNFOLD.glob(shown)):
            read = _in_template if path.suffix == ".html" else _in_python
            for where, text, context in read(path, path.relative_to(_UNFOLD.parent)):
                if (text if isinstance(text, str) else text[0]) not in known:
                    yield where, text, context


def _in_python(path: Path, name: Path) -> Iterator[Found]:
    with path.open("rb") as file:
        for _line, function, words, _comments in extract_python(file, _KEYWORDS, (), {}):
            arguments: list[Any] = list(words) if isinstance(words, tuple) else [words]
            yield from _told(name, str(function), arguments)


def _in_template(path: Path, name: Path) -> Iterator[Found]:
    for function, literals in _CALL.findall(templatize(path.read_text(), origin=str(name))):
        yield from _told(name, function, list(ast.literal_eval(f"({literals},)")))


def _told(name: Path, function: str, arguments: list[str | None]) -> Iterator[Found]:
    """The string of a call; one that isn't a literal is told nothing of."""
    context = arguments.pop(0) if "pgettext" in function else None
    texts = arguments[: 2 if function.startswith("n") else 1]
    literal = [text for text in texts if text]
    if len(literal) == len(texts):
        yield name.as_posix(), literal[0] if len(literal) == 1 else (literal[0], literal[1]), context


def _known_to_django() -> set[str]:
    known: set[str] = set()
    for path in Path(django.__file__).parent.rglob("locale/de/LC_MESSAGES/django.mo"):
        with path.open("rb") as file:
            catalogue: dict[str | tuple[str, int], str] = GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        known |= {key if isinstance(key, str) else key[0] for key in catalogue}
    return known


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["find"]:
            update()
        case ["compile"]:
            compile_all()
        case _:
            sys.exit(__doc__)
