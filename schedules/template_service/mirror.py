"""What the template service keeps, known here: a row for each template, and a version for each that it has published.

So whatever points at a template or pins a version of one does not ask whose it is. Only what is new is written; the
service is asked outside of transactions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import count
from typing import Any, Final, NamedTuple

import structlog
from django.db import connection, transaction
from django.db.models import F

from audit import trail
from audit.models import Action
from schedules.models import MessageTemplate, TemplateVersion
from schedules.template_service import client
from schedules.template_service.client import BadTemplate, Template
from schedules.templates import LONGEST_NAME

# Who has changed the templates, in the audit.
BY: Final = "system:template_service"
# Of templates: a list that is longer goes on for ever.
MOST: Final = 20_000
# Real seconds for which a process keeps what one template is now, and leaves alone a service that did not answer.
_KEPT_S: Final = 5.0
_LEFT_ALONE_S: Final = 15.0
_MOST_KEPT: Final = 1_000

log = structlog.get_logger(__name__)


class Mirrored(NamedTuple):
    """``known``: templates of the service; of these ``new`` and ``changed`` ones. ``gone``: those that it had before.
    ``unreadable``: those that can't be read, and stay as they were."""

    known: int
    new: int
    changed: int
    gone: int
    unreadable: int


class _Listed(NamedTuple):
    """``named``: ids of all that are there, readable or not."""

    templates: list[Template]
    named: frozenset[str]
    unreadable: int


class _Told(NamedTuple):
    """``asked_at``: business time; what has been written since is newer."""

    said: Template
    asked_at: datetime


def mirror_all(*, now: datetime) -> Mirrored:
    """Bring what is known here up to the service's whole list.

    What it lists no longer is deleted here, though schedules may use it: its versions stay. Raises
    ``TemplateServiceError``; then nothing has changed.
    """
    listed = _read_list()
    with transaction.atomic():
        _take_turn()
        known = {each.service_id: each for each in MessageTemplate.objects.exclude(service_id="").select_for_update()}
        last = _last_versions(known.values())
        names = _Names(known.values())
        before = [_keep(said, known.get(said.id), last, names, asked_at=now) for said in listed.templates]
        gone = [each for each in known.values() if each.service_id not in listed.named and _is_gone(each, asked_at=now)]
        for template in gone:
            _delete(template, now=now)
    done = Mirrored(len(listed.templates), before.count("new"), before.count("changed"), len(gone), listed.unreadable)
    if any(done[1:]):
        log.info("templates_mirrored", **done._asdict())
    return done


def current(template_id: int, *, now: datetime) -> int | None:
    """The version in which a remote template is to be sent now: the service is asked, at most every few seconds.

    Where it does not answer, the version known here. None for a template of our own, or none at all.
    """
    known = MessageTemplate.objects.exclude(service_id="").filter(pk=template_id).first()
    if known is None:
        return None
    told = _asked.ask(known.service_id, now=now) if client.is_configured() else None
    return known.version if told is None else _publish(known.pk, told)


@transaction.atomic
def _publish(template_id: int, told: _Told) -> int:
    """Names and deletions are for ``mirror_all``, which knows the others."""
    template = MessageTemplate.objects.select_for_update().get(pk=template_id)
    if template.mirrored_at is None or template.mirrored_at <= told.asked_at:
        _say(template, told.said, _last_versions([template]), asked_at=told.asked_at)
    return template.version


def _take_turn() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('mirror templates', 0))")


def _read_list() -> _Listed:
    """All pages. Raises ``TemplateServiceError``."""
    found: dict[str, Template | BadTemplate] = {}
    unreadable = 0
    seen: set[str | None] = set()
    cursor = None
    while cursor not in seen:
        seen.add(cursor)
        page = client.read_templates(cursor=cursor)
        for each in page.templates:
            unreadable += isinstance(each, BadTemplate)
            if isinstance(each, BadTemplate):
                log.warning("template_unreadable", id=each.id, place=each.place, reason=each.reason)
            if each.id:
                found.setdefault(each.id, each)
        if page.next_cursor is None:
            templates = [each for each in found.values() if isinstance(each, Template)]
            return _Listed(templates, frozenset(found), unreadable)
        if len(found) > MOST:
            raise client.Unavailable("too_many", f"lists more than {MOST:,} templates")
        cursor = page.next_cursor
    raise client.Unavailable("wrong_shape", "sent a cursor for the second time")


def _last_versions(templates: Iterable[MessageTemplate]) -> dict[int, TemplateVersion]:
    last = TemplateVersion.objects.filter(template__in=[each.pk for each in templates], version=F("template__version"))
    return {each.template_id: each for each in last}


class _Names:
    """Which names are taken; the service's may be the same as ours, or as each other."""

    def __init__(self, remote: Iterable[MessageTemplate]) -> None:
        self._taken = set(MessageTemplate.objects.live().values_list("name", flat=True))

    def choose(self, said: Template, had: str) -> str:
        """The name that the service gives, or what comes next to it; ``had``: the one that it gives free, or ""."""
        self._taken.discard(had)
        name = next(each for each in _candidates(said) if each not in self._taken)
        self._taken.add(name)
        return name


def _candidates(said: Template) -> Iterator[str]:
    name = said.name[:LONGEST_NAME]
    yield name
    known_as = f" ({said.id[:60]})"
    yield name[: LONGEST_NAME - len(known_as)] + known_as
    yield from (f"{name[: LONGEST_NAME - 8].rstrip()} {number}" for number in count(2))


def _keep(
    said: Template,
    template: MessageTemplate | None,
    last: dict[int, TemplateVersion],
    names: _Names,
    *,
    asked_at: datetime,
) -> str:
    """“new”, “changed”, or nothing where nothing is."""
    if template is None:
        name = names.choose(said, "")
        template = MessageTemplate(name=name, service_id=said.id, created_at=asked_at)
        _say(template, said, last, asked_at=asked_at)
        return "new"
    if template.mirrored_at is not None and template.mirrored_at > asked_at:
        return ""
    name = names.choose(said, "" if template.deleted_at else template.name)
    is_renamed = name != template.name or template.deleted_at is not None
    template.name, template.deleted_at = name, None
    return "changed" if _say(template, said, last, asked_at=asked_at, anyway=is_renamed) else ""


def _say(
    template: MessageTemplate,
    said: Template,
    last: dict[int, TemplateVersion],
    *,
    asked_at: datetime,
    anyway: bool = False,
) -> bool:
    """Make what the service says the template's next version, if anything is new; whether something was written."""
    before, after = _content(last.get(template.pk) if template.pk else None), _said(said)
    if before == after and not anyway:
        return False
    is_next = before != after
    template.version += is_next
    template.default_locale = said.default_locale
    template.updated_at = template.mirrored_at = asked_at
    template.save()
    if is_next:
        TemplateVersion.objects.create(
            template=template, version=template.version, created_by=BY, created_at=asked_at, **after
        )
    changes = trail.diff({**before, "version": template.version - is_next}, {**after, "version": template.version})
    told = {"template": template.pk, "name": template.name, "service_id": template.service_id}
    trail.record(action=Action.TEMPLATE_PUBLISH, by=BY, now=asked_at, changes={**told, **changes})
    return True


def _said(said: Template) -> dict[str, Any]:
    return {
        "contents": [{"channel": channel, "locale": locale} for channel, locale in sorted(said.contents)],
        "default_locale": said.default_locale,
        "service_version": said.version,
        "tokens": sorted(said.tokens),
    }


def _content(last: TemplateVersion | None) -> dict[str, Any]:
    names = ("contents", "default_locale", "service_version", "tokens")
    return {} if last is None else {name: getattr(last, name) for name in names}


def _is_gone(template: MessageTemplate, *, asked_at: datetime) -> bool:
    return template.deleted_at is None and (template.mirrored_at is None or template.mirrored_at <= asked_at)


def _delete(template: MessageTemplate, *, now: datetime) -> None:
    template.deleted_at = template.updated_at = template.mirrored_at = now
    template.save()
    changes = {"template": template.pk, "name": [template.name, None], "version": [template.version, None]}
    trail.record(action=Action.TEMPLATE_DELETE, by=BY, now=now, changes=changes)


class _Asked:
    """What single templates were when this process last asked, for some seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, _Told]] = {}
        self._left_alone_until = 0.0

    def ask(self, service_id: str, *, now: datetime) -> _Told | None:
        """None where the service doesn't tell."""
        with self._lock:
            until, kept = self._kept.get(service_id, (0.0, None))
            if until > time.monotonic():
                return kept
            if self._left_alone_until > time.monotonic():
                return None
        try:
            told = _Told(client.read_template(service_id), now)
        except client.TemplateServiceError as error:
            log.warning("template_not_read", code=error.code, service_id=service_id)
            if not isinstance(error, client.Gone):
                self._left_alone_until = time.monotonic() + _LEFT_ALONE_S
            return None
        with self._lock:
            if len(self._kept) > _MOST_KEPT:
                self._kept.clear()
            self._kept[service_id] = time.monotonic() + _KEPT_S, told
        return told

    def forget(self) -> None:
        """As in a process that has just begun."""
        self._kept.clear()
        self._left_alone_until = 0.0


_asked = _Asked()
