"""Exporting what schedules refer to: templates, catalogues and topics, a JSON file each, as ``import_templates`` reads
them. What a template service keeps is not ours to give away."""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from typing import IO, Any, Final, NamedTuple

from django.db.models import F

from audit import trail
from audit.models import Action
from schedules.models import Catalogue, MessageTemplate, TemplateVersion, Topic
from schedules.templates import PARTS

_AT_ONCE: Final = 50  # templates that are in memory at once
_LONGEST_STEM: Final = 60
_UNSAFE: Final = re.compile(r"[^a-z0-9]+")
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)  # so that the same content makes the same archive


class Entry(NamedTuple):
    """``path`` is relative, of ASCII alone, and the same for the same name on every file system."""

    path: str
    data: bytes


def export_templates(*, by: str, now: datetime) -> Iterator[Entry]:
    """All of them, by path; the audit has it before the first is read."""
    paths = {f"templates/{_stem(name)}.json": pk for pk, name in _ours().values_list("pk", "name")}
    catalogues = Catalogue.objects.live()
    counts = {"templates": len(paths), "catalogues": catalogues.count(), "topics": Topic.objects.count()}
    trail.record(action=Action.EXPORT_FILE, by=by, now=now, changes={"file": "templates", **counts})
    return _entries(paths)


def write_archive(entries: Iterable[Entry], stream: IO[bytes]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in entries:
            about = zipfile.ZipInfo(path, _NO_TIME)
            about.compress_type, about.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(about, data)


def _ours() -> Any:
    """Those that have been published here."""
    return MessageTemplate.objects.live().filter(service_id="", version__gt=0)


def _entries(paths: dict[str, int]) -> Iterator[Entry]:
    for catalogue in Catalogue.objects.live().order_by("locale"):
        said = {"locale": catalogue.locale, "messages": _sorted(catalogue.messages)}
        yield Entry(f"catalogues/{catalogue.locale}.json", _json(said))
    current = TemplateVersion.objects.filter(version=F("template__version"), template__deleted_at__isnull=True)
    in_order = sorted(paths)
    for start in range(0, len(in_order), _AT_ONCE):
        some = in_order[start : start + _AT_ONCE]
        named = current.filter(template__in=[paths[path] for path in some]).select_related("template")
        found = {each.template_id: each for each in named}
        for path in some:
            if version := found.get(paths[path]):  # else it was deleted meanwhile
                yield Entry(path, _json(_template(version)))
    for topic in Topic.objects.order_by("key"):
        yield Entry(f"topics/{topic.key}.json", _json(_topic(topic)))


def _template(version: TemplateVersion) -> dict[str, Any]:
    contents = sorted(version.contents, key=lambda content: (content["channel"], content["locale"]))
    return {
        "name": version.template.name,
        "default_locale": version.default_locale,
        "contents": [{part: content[part] for part in PARTS if content.get(part)} for content in contents],
    }


def _topic(topic: Topic) -> dict[str, Any]:
    return {
        "key": topic.key,
        "default": topic.default,
        "name": topic.name,
        "names": _sorted(topic.names),
        "description": topic.description,
        "archived": topic.archived_at is not None,
    }


def _sorted(members: dict[str, Any]) -> dict[str, Any]:
    """However the database keeps them, down to the forms of a plural."""
    return {
        name: dict(sorted(value.items())) if isinstance(value, dict) else value
        for name, value in sorted(members.items())
    }


def _json(document: dict[str, Any]) -> bytes:
    return f"{json.dumps(document, ensure_ascii=False, indent=2)}\n".encode()


def _stem(name: str) -> str:
    """A name's letters and digits, and a digest where that is not the whole name: names differ by capitals too."""
    stem = _UNSAFE.sub("-", name.lower()).strip("-")[:_LONGEST_STEM].rstrip("-")
    return stem if stem == name else f"{stem or 'x'}-{sha256(name.encode()).hexdigest()[:12]}"
