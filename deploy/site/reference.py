"""An OpenAPI document as plain Markdown: operations by tag, webhooks, then the objects that they take and give.

A page that says ``<!-- the operations of NAME.yaml -->`` has them from there on; a code host shows what stands above.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from sphinx.application import Sphinx

_MARK = re.compile(r"^<!-- the operations of ([\w./-]+\.yaml) -->$", re.M)
_METHODS = ("get", "put", "post", "patch", "delete")
Node = Mapping[str, Any]


class Reference:
    """``prefix`` keeps the objects of one document apart from another's."""

    def __init__(self, document: Node, *, prefix: str) -> None:
        self._document = document
        self._prefix = prefix

    def text(self) -> str:
        return "\n".join([*self._operations(), *self._objects()])

    def _operations(self) -> Iterator[str]:
        by_tag: dict[str, list[str]] = {}
        paths = [(path, methods, "") for path, methods in self._document["paths"].items()]
        told = [(event, methods, "webhooks") for event, methods in self._document.get("webhooks", {}).items()]
        for path, methods, together in [*paths, *told]:
            for method in _METHODS:
                if method in methods:
                    operation = methods[method]
                    shown = self._operation(f"{method.upper()} {path}", operation, methods.get("parameters", []))
                    by_tag.setdefault(together or operation.get("tags", ["operations"])[0], []).extend(shown)
        for tag, lines in by_tag.items():
            yield from (f"## {_capital(tag.replace('-', ' '))}", "", *lines)

    def _operation(self, address: str, operation: Node, shared: list[Node]) -> Iterator[str]:
        yield from (f"### {_title(operation)}", "", f"`{address}`", "")
        if (words := operation.get("description", "")) != operation.get("summary"):
            yield from (_prose(words), "")
        scopes = [scope for way in operation.get("security", []) for scopes in way.values() for scope in scopes]
        if scopes:
            yield from ("Scope: " + ", ".join(f"`{scope}`" for scope in scopes), "")
        parameters = [self._resolved(each) for each in [*shared, *operation.get("parameters", [])]]
        if parameters:
            yield from ("| parameter | in | type | |", "|---|---|---|---|")
            for each in parameters:
                words = _cell(each.get("description", ""), required=each.get("required", False))
                yield f"| `{each['name']}` | {each['in']} | {self._type(each['schema'])} | {words} |"
            yield ""
        if "requestBody" in operation:
            yield from (f"Takes {self._bodies(self._resolved(operation['requestBody']))}.", "")
        yield from self._answers(operation["responses"])

    def _answers(self, responses: Node) -> Iterator[str]:
        """What went well as a table, errors in a line: they are much the same everywhere."""
        answers = {status: self._resolved(answer) for status, answer in responses.items()}
        errors = {status: answer for status, answer in answers.items() if status >= "400"}
        yield from ("| answer | | body |", "|---|---|---|")
        for status, answer in answers.items():
            if status not in errors:
                yield f"| {status} | {_cell(answer.get('description', ''))} | {self._bodies(answer)} |"
        yield ""
        if errors:
            bodies = [body for body in dict.fromkeys(self._bodies(answer) for answer in errors.values()) if body]
            told = " · ".join(f"{status} {_cell(answer.get('description', ''))}" for status, answer in errors.items())
            yield from (f"{', '.join(['Errors', *bodies])}: {told}", "")

    def _bodies(self, holder: Node) -> str:
        kinds: dict[str, list[str]] = {}
        for media, content in holder.get("content", {}).items():
            kinds.setdefault(self._type(content.get("schema", {})), []).append(f"`{media}`")
        return "; ".join(f"{kind} as {' or '.join(media)}" for kind, media in kinds.items())

    def _objects(self) -> Iterator[str]:
        schemas = self._document.get("components", {}).get("schemas", {})
        if schemas:
            yield from ("## Objects", "", "What operations take and give, by name.", "")
        for name, schema in sorted(schemas.items()):
            yield from (f"({self._target(name)})=", f"**{name}**", "")
            if words := _prose(schema.get("description", "")):
                yield from (words, "")
            if "properties" in schema:
                yield from self._fields(schema)
            else:
                yield from (f"Is {self._type(schema)}.", "")

    def _fields(self, schema: Node) -> Iterator[str]:
        yield from ("| field | type | |", "|---|---|---|")
        for field, given in schema["properties"].items():
            about = "" if isinstance(given, bool) else given.get("description", "")
            words = _cell(about, required=field in schema.get("required", []))
            yield f"| `{field}` | {self._type(given)} | {words} |"
        yield ""

    def _type(self, schema: Node | bool) -> str:
        """In words, with the bounds."""
        if isinstance(schema, bool):
            return "anything" if schema else "nothing"
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return f"[{name}](#{self._target(name)})"
        for together, word in (("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")):
            if together in schema:
                return word.join(self._type(each) for each in schema[together])
        if "enum" in schema:
            return ", ".join(f"`{value if value != '' else '(empty)'}`" for value in schema["enum"])
        kinds = schema.get("type", "anything")
        kind = " or ".join(kinds) if isinstance(kinds, list) else kinds
        if "items" in schema:
            return f"{kind} of {self._type(schema['items'])}"
        return kind + "".join(f", {word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema)

    def _resolved(self, node: Node) -> Node:
        while "$ref" in node:
            at: Any = self._document
            for step in node["$ref"].removeprefix("#/").split("/"):
                at = at[step]
            node = at
        return node

    def _target(self, name: str) -> str:
        return f"{self._prefix}-{name.lower()}"


_BOUNDS = {
    "format": "as",
    "minimum": "from",
    "maximum": "to",
    "minLength": "of at least",
    "maxLength": "of at most",
    "default": "else",
}


def _title(operation: Node) -> str:
    if summary := operation.get("summary"):
        return str(summary)
    return _capital(re.sub(r"(?<!^)(?=[A-Z])", " ", operation["operationId"]).lower())


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _prose(text: str) -> str:
    return text.replace("<", "&lt;").strip()


def _cell(text: str, *, required: bool = False) -> str:
    words = " ".join(text.replace("<", "&lt;").replace("|", "\\|").split())
    return f"**required** {words}".strip() if required else words


def _render(app: Sphinx, docname: str, source: list[str]) -> None:
    found = _MARK.search(source[0])
    if not found:
        return
    path = Path(app.srcdir, docname).parent / found[1]
    app.env.note_dependency(str(path), docname=docname)
    document = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    rendered = Reference(document, prefix=path.stem).text()
    source[0] = source[0][: found.start()] + rendered + source[0][found.end() :]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _render)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
