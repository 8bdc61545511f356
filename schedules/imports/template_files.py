"""JSON files that hold a template, a catalogue or a topic, and the texts that stand in files beside them.

{"name": "welcome", "default_locale": "en", "contents": [
    {"channel": "email", "locale": "en", "subject": "Hello", "text": "...", "html_file": "welcome.en.html"}]}
{"locale": "de", "messages": {"hello": "Hallo", "items": {"one": "{count} Ding", "other": "{count} Dinge"}}}
{"key": "news", "default": "opted_in", "name": "News", "names": {"de": "Neues"}, "description": "", "archived": false}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from schedules.imports.values import Refused, read_json
from schedules.models import Default
from schedules.problems import say
from schedules.topics import Told

MAX_FILE: Final = 20 * 1024 * 1024  # bytes: a long message in all of the languages that anybody has
MAX_NAME: Final = 200  # characters, as in the columns
MAX_LOCALE: Final = 35

_TEMPLATE_KEYS: Final = ("name", "default_locale", "contents")
_CATALOGUE_KEYS: Final = ("locale", "messages")
_TOPIC_KEYS: Final = ("key", "default", "name", "names", "description", "archived")
_IN_FILES: Final = {"text_file": "text", "html_file": "html"}
_CONTENT_KEYS: Final = ("channel", "locale", "subject", "text", "html", *_IN_FILES)


class FileProblem(NamedTuple):
    """``pointer`` is a JSON pointer (RFC 6901) into the file, empty for the whole; ``message`` names the remedy."""

    file: Path
    pointer: str
    message: str


class Faulty(Exception):
    """Files can't be imported; ``problems`` holds all that was found."""

    def __init__(self, problems: list[FileProblem]) -> None:
        super().__init__(problems)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class TemplateDocument:
    """``contents`` as ``schedules.templates.save`` takes them, ``text_file`` and ``html_file`` read."""

    file: Path
    name: str
    default_locale: str
    contents: list[dict[str, str]]
    keys: list[dict[str, str]]  # for each content, which of its keys gave a part

    def pointer(self, field: str) -> str:
        """Where a problem's field stands in the file: ``contents/3/html`` may be ``/contents/3/html_file``."""
        match field.split("/"):
            case ["contents", index, part]:
                return f"/contents/{index}/{self.keys[int(index)].get(part, part)}"
            case ["defaultLocale"]:
                return "/default_locale"
        return f"/{field}"


@dataclass(frozen=True, slots=True)
class CatalogueDocument:
    file: Path
    locale: str
    messages: Mapping[str, Any]

    def pointer(self, field: str) -> str:
        """Where a problem's field stands in the file: ``messages/hello`` is ``/messages/hello``."""
        return f"/{field}"


@dataclass(frozen=True, slots=True)
class TopicDocument:
    file: Path
    key: str
    default: str
    told: Told
    is_archived: bool

    def pointer(self, field: str) -> str:
        return f"/{field}"


Document = TemplateDocument | CatalogueDocument | TopicDocument


def find_files(path: Path) -> list[Path]:
    """``path`` itself, or every JSON file below the folder, hidden ones left out. Raises ``Faulty``."""
    if not path.is_dir():
        return [path]
    found = [each for each in sorted(path.rglob("*.json")) if not _is_hidden(each.relative_to(path))]
    if not found:
        raise Faulty([FileProblem(path, "", say("holds no .json file: name the folder of the templates"))])
    return found


def read_document(file: Path) -> Document:
    """What is in ``file``, its keys known and its values of their types. Raises ``Faulty``."""
    reader = _Reader(file)
    document = reader.document()
    if document is None or reader.problems:
        raise Faulty(reader.problems)
    return document


class _Reader:
    """Collects the problems of one file."""

    def __init__(self, file: Path) -> None:
        self.problems: list[FileProblem] = []
        self._file = file

    def document(self) -> Document | None:
        data = self._json()
        if isinstance(data, dict) and "messages" in data:
            self._refuse_unknown("", data, _CATALOGUE_KEYS)
            return CatalogueDocument(self._file, self._text("", data, "locale", MAX_LOCALE), data["messages"])
        if isinstance(data, dict) and "contents" in data:
            return self._template(data)
        if isinstance(data, dict) and "key" in data:
            return self._topic(data)
        if not self.problems:
            self._add(
                "",
                say(
                    "is no template ({name, contents}), no catalogue ({locale, messages}) and no topic ({key, name}): "
                    "add what is missing"
                ),
            )
        return None

    def _topic(self, data: dict[str, Any]) -> TopicDocument:
        data = {"default": Default.OPTED_IN.value, "names": {}, "description": "", "archived": False, **data}
        self._refuse_unknown("", data, _TOPIC_KEYS)
        key, default, name, description = (
            self._text("", data, each, None) for each in ("key", "default", "name", "description")
        )
        names = data["names"]
        if not isinstance(names, dict) or not all(isinstance(each, str) for each in names.values()):
            self._add("/names", say('is no object of texts: write one such as {"de": "Neues"}'))
            names = {}
        if not isinstance(data["archived"], bool):
            self._add("/archived", say("is neither true nor false"))
        return TopicDocument(self._file, key, default, Told(name, names, description), data["archived"] is True)

    def _template(self, data: dict[str, Any]) -> TemplateDocument:
        self._refuse_unknown("", data, _TEMPLATE_KEYS)
        contents: list[dict[str, str]] = []
        keys: list[dict[str, str]] = []
        for index, item in enumerate(data["contents"] if isinstance(data["contents"], list) else ()):
            if isinstance(item, dict):
                content, key_of = self._content(f"/contents/{index}", item)
                contents.append(content)
                keys.append(key_of)
            else:
                self._add(f"/contents/{index}", say("is no object with channel, locale and texts"))
        if not isinstance(data["contents"], list):
            self._add("/contents", say("is no list: write one object for each channel and locale"))
        name = self._text("", data, "name", MAX_NAME)
        default_locale = self._text("", {"default_locale": "en", **data}, "default_locale", MAX_LOCALE)
        return TemplateDocument(self._file, name, default_locale, contents, keys)

    def _content(self, pointer: str, item: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
        """A content's parts, and which of its keys gave each."""
        self._refuse_unknown(pointer, item, _CONTENT_KEYS)
        content: dict[str, str] = {}
        key_of: dict[str, str] = {}
        for key in _CONTENT_KEYS:
            if key not in item and key not in ("channel", "locale"):
                continue
            part = _IN_FILES.get(key, key)
            if part in key_of:
                words = say("is given besides %(other)s: keep one of the two", other=key_of[part])
                self._add(f"{pointer}/{key}", words)
            text = self._text(pointer, item, key, MAX_LOCALE if key in ("channel", "locale") else None)
            content[part] = self._beside(f"{pointer}/{key}", text) if key in _IN_FILES and text else text
            key_of[part] = key
        return content, key_of

    def _text(self, pointer: str, data: Mapping[str, Any], key: str, longest: int | None) -> str:
        text = data.get(key)
        if not isinstance(text, str):
            self._add(f"{pointer}/{key}", say("is no text") if key in data else say("is missing: it is needed"))
            return ""
        if longest and not 0 < len(text.strip()) <= len(text) <= longest:
            words = say("has %(size)s characters: 1 to %(most)s are needed", size=str(len(text)), most=str(longest))
            self._add(f"{pointer}/{key}", words)
        return text

    def _beside(self, pointer: str, name: str) -> str:
        """The text of a file that stands in the JSON file's folder, or below it."""
        folder = self._file.parent.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            self._add(pointer, say("leads out of the folder of this file: move the text beside it"))
            return ""
        text = self._read(path, pointer)
        if "\0" in text:
            self._add(pointer, say("names a file that holds a NUL character: remove it"))
        return text

    def _json(self) -> object:
        text = self._read(self._file, "")
        try:
            return None if self.problems else read_json("", text)
        except Refused as refused:
            self._add("", refused.reason)
            return None

    def _read(self, path: Path, pointer: str) -> str:
        """A UTF-8 file; empty, with a problem, when it can't be read."""
        try:
            if path.stat().st_size <= MAX_FILE:
                return path.read_text("utf-8-sig")
            fault = say("is larger than %(most)s bytes: shorten it", most=MAX_FILE)
        except OSError as error:
            fault = say("can't be read: %(why)s", why=error.strerror or "")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            fault = say("is not valid UTF-8 (line %(line)s): save it as UTF-8", line=str(line))
        is_beside = path != self._file
        self._add(pointer, say("names %(file)s, which %(fault)s", file=path.name, fault=fault) if is_beside else fault)
        return ""

    def _refuse_unknown(self, pointer: str, data: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in data:
            if key not in known:
                self._add(f"{pointer}/{_escape(key)}", say("is unknown: use %(known)s", known=", ".join(known)))

    def _add(self, pointer: str, message: str) -> None:
        self.problems.append(FileProblem(self._file, pointer, message))


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
