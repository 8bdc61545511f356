"""Importing templates, catalogues and topics from JSON files: all of them, or none."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO

from django.db import transaction

from schedules import templates, topics
from schedules.content import normalise_locale
from schedules.imports.archives import unpacked
from schedules.imports.template_files import (
    CatalogueDocument,
    Document,
    Faulty,
    FileProblem,
    TopicDocument,
    find_files,
    read_document,
)
from schedules.models import Catalogue, MessageTemplate, Topic
from schedules.problems import Problem, say
from schedules.templates import InvalidTemplate
from schedules.topics import InvalidTopic, TopicInUse


@dataclass(frozen=True, slots=True)
class TemplatesReport:
    """Templates by name, catalogues by locale, topics by key. With ``problems`` nothing was kept, and
    after a dry run neither."""

    published: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    problems: list[FileProblem] = field(default_factory=list)


def import_templates(*, paths: Sequence[Path], by: str, now: datetime, dry_run: bool = False) -> TemplatesReport:
    """Save everything in ``paths``, files or folders, in one transaction.

    What says the same as before is left as it is; a template that says something new becomes its next version.
    """
    report = TemplatesReport()
    documents = _read(paths, report.problems)
    with transaction.atomic():
        for document in documents:
            try:
                is_new, what = _save(document, by=by, now=now)
            except (InvalidTemplate, InvalidTopic) as error:
                report.problems.extend(
                    FileProblem(document.file, document.pointer(problem.field), problem.message)
                    for problem in error.problems
                )
            else:
                (report.published if is_new else report.unchanged).append(what)
        if report.problems or dry_run:
            transaction.set_rollback(True)
    return report


def import_archive(*, stream: IO[bytes], by: str, now: datetime, dry_run: bool = False) -> TemplatesReport:
    """The same of a zip archive; problems name the files as it does. Raises ``Unreadable``."""
    with unpacked(stream) as folder:
        report = import_templates(paths=[folder], by=by, now=now, dry_run=dry_run)
        problems = [problem._replace(file=problem.file.relative_to(folder)) for problem in report.problems]
    return TemplatesReport(report.published, report.unchanged, problems)


def _read(paths: Sequence[Path], problems: list[FileProblem]) -> list[Document]:
    """The documents that are in order; ``problems`` gets what is wrong with the others."""
    documents: dict[str, Document] = {}
    for file in _files(paths, problems):
        try:
            document = read_document(file)
        except Faulty as faulty:
            problems.extend(faulty.problems)
            continue
        earlier = documents.setdefault(_identity(document), document)
        if earlier is not document:
            words = say("says what %(other)s says already: keep one of the two", other=str(earlier.file))
            problems.append(FileProblem(file, "", words))
    return list(documents.values())


def _files(paths: Sequence[Path], problems: list[FileProblem]) -> list[Path]:
    """Each file once, though a folder and a file in it are both named."""
    files: dict[Path, Path] = {}
    for path in paths:
        try:
            files |= {file.resolve(): file for file in find_files(path)}
        except Faulty as faulty:
            problems.extend(faulty.problems)
    return list(files.values())


def _identity(document: Document) -> str:
    if isinstance(document, CatalogueDocument):
        return f"catalogue {normalise_locale(document.locale)}"
    if isinstance(document, TopicDocument):
        return f"topic {document.key}"
    return f"template {document.name}"


def _save(document: Document, *, by: str, now: datetime) -> tuple[bool, str]:
    """Whether it says anything new, and what it is called. Raises ``InvalidTemplate`` and ``InvalidTopic``."""
    if isinstance(document, TopicDocument):
        return _save_topic(document, by=by, now=now), f"topic {document.key}"
    if isinstance(document, CatalogueDocument):
        before = Catalogue.objects.live().filter(locale=document.locale).values_list("messages", flat=True).first()
        templates.save_catalogue(locale=document.locale, messages=document.messages, by=by, now=now)
        return before != document.messages, f"catalogue {document.locale}"
    # First, since saving writes the contents before it checks them, and a column may be too short for a wrong one.
    if problems := templates.check(document.contents, default_locale=document.default_locale):
        raise InvalidTemplate(problems)
    version = MessageTemplate.objects.live().filter(name=document.name).values_list("version", flat=True).first()
    saved = templates.save(
        name=document.name,
        contents=document.contents,
        default_locale=document.default_locale,
        by=by,
        now=now,
    )
    return saved.version != version, f"template {document.name}"


def _save_topic(document: TopicDocument, *, by: str, now: datetime) -> bool:
    """Whether it says anything new. Raises ``InvalidTopic``."""
    key, told = document.key, document.told
    standing = Topic.objects.filter(key=key).first()
    if standing is None:
        topics.create(key=key, default=document.default, told=told, by=by, now=now)
    elif standing.default != document.default:
        words = say("It was chosen for good when the topic was made: leave it %(default)s.", default=standing.default)
        raise InvalidTopic([Problem("default", "immutable", words)])
    else:
        topics.change(key=key, told=told, by=by, now=now)
    change = topics.archive if document.is_archived else topics.restore
    try:
        saved = change(key=key, by=by, now=now)
    except TopicInUse as error:
        words = say("%(count)s schedules that are not over write about it: end them first.", count=error.count)
        raise InvalidTopic([Problem("archived", "in_use", words)]) from None
    return standing is None or saved.version != standing.version
