"""Topics: made, changed, archived; each is one transaction of change and audit event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db import IntegrityError, transaction

from audit import trail
from audit.models import Action
from schedules import storable
from schedules.consents import is_topic_key, parted
from schedules.content import locale_chain, normalise_locale
from schedules.models import LONGEST_KEY, Default, Schedule, ScheduleStatus, Topic
from schedules.problems import Problem, say

LONGEST_NAME: Final = int(Topic._meta.get_field("name").max_length or 0)
LONGEST_DESCRIPTION: Final = int(Topic._meta.get_field("description").max_length or 0)
# A page of preferences shows all of them.
MOST_TOPICS: Final = 100
_LONGEST_LOCALE: Final = 35
_MOST_NAMES: Final = 100
_LIVE: Final = (ScheduleStatus.DRAFT, ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED, ScheduleStatus.BROKEN)
_NAMED: Final = 5  # schedules that a refusal to archive names
_CHANGEABLE: Final = ("name", "names", "description")


class InvalidTopic(ValueError):
    """The topic can't be kept; ``problems`` name the field (as on the wire) and the remedy."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


class NoSuchTopic(LookupError):
    """There is no topic of that key."""

    def __init__(self, key: str) -> None:
        super().__init__("There is no such topic.")
        self.key = key


class TopicInUse(Exception):
    """Schedules that are not over write about it: ``schedules`` are (id, name), the first of ``count``."""

    def __init__(self, *, schedules: Sequence[tuple[int, str]], count: int) -> None:
        super().__init__(f"{count} schedules that are not over write about it.")
        self.schedules = schedules
        self.count = count


class TopicChanged(Exception):
    """The topic is not at the version that was expected; ``current`` is that which stands, made by whom and when."""

    def __init__(self, standing: Topic) -> None:
        super().__init__(f"The topic is at version {standing.version} by now: read it again and repeat the change.")
        self.current = standing.version
        self.by = standing.updated_by
        self.at = standing.updated_at


@dataclass(frozen=True)
class Told:
    """What one says of a topic. ``names``: in other languages, by locale."""

    name: str
    names: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


def find(key: str) -> Topic:
    """Raises ``NoSuchTopic``."""
    found = Topic.objects.filter(key=key).first() if is_topic_key(key) else None
    if found is None:
        raise NoSuchTopic(key[:LONGEST_KEY])
    return found


def name_of(key: str) -> str:
    """Of what a schedule says that it is about; the key itself where there is no such topic."""
    return Topic.objects.filter(key=key).values_list("name", flat=True).first() or key


def offered() -> list[Topic]:
    """Those that schedules may choose and people subscribe to, by name."""
    return list(Topic.objects.filter(archived_at__isnull=True))


def name_in(topic: Topic, locale: str) -> str:
    """Its name in the language, from the region down: de-AT, de, then English, then the one for all."""
    chain = locale_chain(locale=locale, default_locale="en")
    return next((str(topic.names[tag]) for tag in chain if tag in topic.names), topic.name)


def unknown(keys: Iterable[str]) -> list[str]:
    """Of a ``consent``'s keys those whose topic is not there; no statement where none names a topic."""
    named = {said: topic for said in keys if (topic := parted(said)[0])}
    if not named:
        return []
    known = set(Topic.objects.filter(key__in=set(named.values())).values_list("key", flat=True))
    return sorted(said for said, topic in named.items() if topic not in known)


@transaction.atomic
def create(*, key: str, default: str, told: Told, by: str, now: datetime) -> Topic:
    """Keep a new topic. Raises ``InvalidTopic``."""
    problems = [*_check_key(key), *_check_default(default), *check(told)]
    if not problems and Topic.objects.count() >= MOST_TOPICS:
        words = say("There are %(most)s topics, and more are not allowed.", most=MOST_TOPICS)
        problems = [Problem("key", "too_many", words)]
    _refuse(problems)
    made = Topic(key=key, default=default, updated_by=by, created_at=now, updated_at=now, **_kept(told))
    try:
        with transaction.atomic():
            made.save(force_insert=True)
    except IntegrityError:
        words = say("There is a topic of that key already: change that one, or choose another key.")
        raise InvalidTopic([Problem("key", "taken", words)]) from None
    after = {"key": key, "default": default, **_kept(told)}
    _record(Action.TOPIC_CREATE, made, trail.diff({}, after), by=by, now=now)
    return made


@transaction.atomic
def change(*, key: str, told: Told, by: str, now: datetime, expected_version: int | None = None) -> Topic:
    """Say it otherwise; key and default stay. Raises ``NoSuchTopic``, ``InvalidTopic`` and ``TopicChanged``."""
    topic = _lock(key, expected_version)
    _refuse(check(told))
    before = {name: getattr(topic, name) for name in _CHANGEABLE}
    if changes := trail.diff(before, _kept(told)):
        for name, value in _kept(told).items():
            setattr(topic, name, value)
        _save(topic, by=by, now=now)
        _record(Action.TOPIC_UPDATE, topic, changes, by=by, now=now)
    return topic


@transaction.atomic
def archive(*, key: str, by: str, now: datetime, expected_version: int | None = None) -> Topic:
    """Offer it no more. Raises ``NoSuchTopic``, ``TopicChanged``, and ``TopicInUse`` while schedules write about it."""
    topic = _lock(key, expected_version)
    if topic.archived_at is None:
        using = Schedule.objects.filter(topic=key, status__in=_LIVE)
        if named := list(using.order_by("pk").values_list("pk", "name")[:_NAMED]):
            raise TopicInUse(schedules=named, count=using.count())
        topic.archived_at = now
        _save(topic, by=by, now=now)
        _record(Action.TOPIC_ARCHIVE, topic, {}, by=by, now=now)
    return topic


@transaction.atomic
def restore(*, key: str, by: str, now: datetime, expected_version: int | None = None) -> Topic:
    """Offer it again. Raises ``NoSuchTopic`` and ``TopicChanged``."""
    topic = _lock(key, expected_version)
    if topic.archived_at is not None:
        topic.archived_at = None
        _save(topic, by=by, now=now)
        _record(Action.TOPIC_RESTORE, topic, {}, by=by, now=now)
    return topic


def check(told: Told) -> list[Problem]:
    """Everything wrong with what is said of a topic."""
    problems = []
    for name, text, most in (("name", told.name, LONGEST_NAME), ("description", told.description, LONGEST_DESCRIPTION)):
        problems += _check_text(name, text, most)
    if not told.name.strip():
        problems.append(Problem("name", "required", say("Give the topic a name: people see it.")))
    if len(told.names) > _MOST_NAMES:
        words = say("Use at most %(most)s languages.", most=_MOST_NAMES)
        return [*problems, Problem("names", "too_many", words)]
    for locale, name in told.names.items():
        if storable.text_fault(locale) or len(locale) > _LONGEST_LOCALE or not _is_locale(locale):
            words = say("That is no language: use a tag such as de or pt-BR.")
            problems.append(Problem("names", "unknown_locale", words))
        else:
            problems += _check_text(f"names/{locale}", name, LONGEST_NAME)
    return problems


def _is_locale(tag: str) -> bool:
    return normalise_locale(tag) == tag


def _check_key(key: str) -> list[Problem]:
    if is_topic_key(key):
        return []
    words = say(
        "Use 1 to %(most)s small letters, digits, - and _, with a letter or digit in front; no channel's name.",
        most=LONGEST_KEY,
    )
    return [Problem("key", "invalid", words)]


def _check_default(default: str) -> list[Problem]:
    if default in Default.values:
        return []
    return [Problem("default", "unknown", say("Use one of: %(known)s.", known=", ".join(Default.values)))]


def _check_text(name: str, text: str, most: int) -> list[Problem]:
    if len(text) <= most and text.isprintable():
        return []
    words = say("Use at most %(most)s printable characters on one line.", most=most)
    return [Problem(name, "too_long", words)]


def _kept(told: Told) -> dict[str, Any]:
    names = {locale: name.strip() for locale, name in told.names.items() if name.strip()}
    return {"name": told.name.strip(), "names": names, "description": told.description.strip()}


def _lock(key: str, expected_version: int | None) -> Topic:
    # Whoever activates a schedule with it holds it by its key.
    topic = Topic.objects.select_for_update().filter(key=key).first() if is_topic_key(key) else None
    if topic is None:
        raise NoSuchTopic(key[:LONGEST_KEY])
    if expected_version is not None and expected_version != topic.version:
        raise TopicChanged(topic)
    return topic


def _save(topic: Topic, *, by: str, now: datetime) -> None:
    topic.version += 1
    topic.updated_at, topic.updated_by = now, by
    topic.save()


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise InvalidTopic(problems)


def _record(action: Action, topic: Topic, changes: Mapping[str, Any], *, by: str, now: datetime) -> None:
    trail.record(action=action, by=by, now=now, changes={"topic": topic.key, **changes})
