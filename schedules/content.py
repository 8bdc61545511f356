"""What a template says in a locale: contents, catalogues and plural forms.

Everything here works on plain data; nothing reads the database. The sources are written in the language of
``template_language``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from babel import Locale, UnknownLocaleError
from babel.numbers import format_decimal

from schedules.problems import Problem, say
from schedules.storable import text_fault
from schedules.template_language import SourceError, check_source, survey_source

CHANNELS: Final = ("email", "push", "in_app")
PARTS: Final = ("subject", "text", "html")

MAX_SOURCE: Final = {"subject": 998, "text": 100_000, "html": 250_000}  # characters
MAX_PUSH: Final = 4_096  # bytes of a push notification's payload, keys included (FCM, APNs)
MAX_MESSAGE: Final = 10_000  # characters of one catalogue message
MAX_TRANSLATION: Final = 32 * 1024  # characters, its parameters filled in

CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # none may stand in a header

Message = str | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Content:
    """One template's sources for a channel and a locale; a part that is not there is the empty string.

    ``subject`` is the title in push and in-app. A ``locale`` that is empty or no locale ("default") serves
    everyone whom no other content fits.
    """

    channel: str
    locale: str
    subject: str = ""
    text: str = ""
    html: str = ""


# Locales


_LOCALE = re.compile(r"([a-z]{2,3})(?:-([a-z]{4}))?(?:-([a-z]{2}|\d{3}))?(?:-[a-z0-9-]*)?", re.IGNORECASE | re.ASCII)


@lru_cache(maxsize=4096)
def locale_chain(*, locale: str | None, default_locale: str) -> tuple[str, ...]:
    """Where to look, most specific first, ending with the default's own chain and "".

    ``zh_hant-tw``, default ``en-GB``: zh-Hant-TW, zh-Hant, zh, en-GB, en, "". What is no locale is left out.
    """
    return tuple(dict.fromkeys((*_widening(locale or ""), *_widening(default_locale), "")))


def normalise_locale(locale: str) -> str:
    """``de_at`` → ``de-AT``, ``de_AT.UTF-8`` → ``de-AT``; "" when it is none. Drops variants (BCP 47)."""
    return next(iter(_widening(locale)), "")


def _widening(locale: str) -> list[str]:
    match = _LOCALE.fullmatch(re.split("[.@]", locale.strip(), maxsplit=1)[0].replace("_", "-"))
    if match is None:
        return []
    language, script, region = match.groups()
    subtags = [language.lower()]
    subtags += [script.title()] if script else []
    subtags += [region.upper()] if region else []
    return ["-".join(subtags[:length]) for length in range(len(subtags), 0, -1)]


@lru_cache(maxsize=1024)
def babel_locale(*, locale: str | None, default_locale: str) -> Locale:
    """The CLDR locale whose formats and plural rules serve ``locale``; English when its chain has none."""
    for candidate in locale_chain(locale=locale, default_locale=default_locale):
        try:
            return Locale.parse(candidate, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return Locale("en")


# Contents


def read_contents(rows: Iterable[Mapping[str, str | None]]) -> tuple[Content, ...]:
    """Contents from rows with channel, locale, subject, text and html; a part may be absent or null."""
    return tuple(
        Content(
            channel=row["channel"] or "",
            locale=row.get("locale") or "",
            subject=row.get("subject") or "",
            text=row.get("text") or "",
            html=row.get("html") or "",
        )
        for row in rows
    )


def pick_content(
    *, contents: Iterable[Content], channel: str, locale: str | None, default_locale: str
) -> Content | None:
    """The content of ``channel`` that fits ``locale`` best; None when not even the default is there."""
    by_locale = {normalise_locale(item.locale): item for item in contents if item.channel == channel}
    for candidate in locale_chain(locale=locale, default_locale=default_locale):
        if candidate in by_locale:
            return by_locale[candidate]
    return None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a content takes from elsewhere: dotted ``variables`` and ``keys`` of catalogues."""

    variables: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()


def asked_for(content: Content) -> Asked:
    """Of the parts that can be read; see ``template_language.Survey``. Loop variables are not asked for."""
    names: set[str] = set()
    keys: set[str] = set()
    own = {"loop"}
    for part in PARTS:
        try:
            survey = survey_source(getattr(content, part))
        except SourceError:
            continue
        names |= survey.names
        keys |= survey.keys
        own |= survey.assigned
    return Asked(frozenset(name for name in names if name.partition(".")[0] not in own), frozenset(keys))


# Catalogues


Catalogues = Mapping[str, Mapping[str, Message]]  # messages by key, by normalised locale


def read_catalogues(rows: Iterable[tuple[str, Mapping[str, Message]]]) -> Catalogues:
    """Catalogues from pairs of locale and messages (``{key: text | {plural category: text}}``)."""
    return {normalise_locale(locale): messages for locale, messages in rows}


def translate(
    *,
    catalogues: Catalogues,
    key: str,
    locale: str | None,
    default_locale: str,
    params: Mapping[str, object],
) -> str | None:
    """The message of ``key`` with ``{name}`` replaced by parameters; None when the chain has no such key.

    The plural form follows CLDR's rules of the locale in which the key was *found*, by the parameter
    ``count``; numbers are written as that locale writes them. A placeholder is a bare name: nothing of a
    parameter can be reached through it, and a missing one is empty. Raises ValueError when the text grows
    past MAX_TRANSLATION.
    """
    for candidate in locale_chain(locale=locale, default_locale=default_locale):
        message = catalogues.get(candidate, {}).get(key)
        if message is not None:
            spoken = babel_locale(locale=candidate, default_locale=default_locale)
            return _fill(_choose_plural(message, params.get("count"), spoken), params, spoken)
    return None


def _choose_plural(message: Message, count: object, locale: Locale) -> str:
    if isinstance(message, str):
        return message
    category = "other"
    if isinstance(count, int | float | Decimal) and -(10**15) < count < 10**15:
        category = locale.plural_form(count)
    return message.get(category) or message.get("other", "")


_PLACEHOLDER = re.compile(r"\{(\w{1,64})\}")


def _fill(text: str, params: Mapping[str, object], locale: Locale) -> str:
    if "{" not in text:
        return text
    written = {name: _write(value, locale) for name, value in params.items()}
    names = _PLACEHOLDER.findall(text)
    if len(text) + sum(len(written.get(name, "")) for name in names) > MAX_TRANSLATION:
        raise ValueError(say("a message grows past %(most)s characters: shorten its parameters", most=MAX_TRANSLATION))
    return _PLACEHOLDER.sub(lambda match: written.get(match[1], ""), text)


def _write(value: object, locale: Locale) -> str:
    if value is None:
        return ""
    # Below a thousand no locale groups digits, and Babel costs ten times as much as the rest of a message.
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 1000):
        return str(value)
    if isinstance(value, int | float | Decimal) and -(10**30) < value < 10**30:
        return format_decimal(value, locale=locale)
    return str(value)


# Validation at save


def validate_content(*, channel: str, subject: str = "", text: str = "", html: str = "") -> list[Problem]:
    """What is wrong with one content; empty when it can be saved."""
    if channel not in CHANNELS:
        return [
            Problem(
                "channel",
                "unknown_channel",
                say(
                    "%(channel)s is no channel; there are %(known)s", channel=f"{channel!r}", known=", ".join(CHANNELS)
                ),
            )
        ]
    problems = _missing_parts(channel, subject, text, html)
    if CONTROL.search(subject):
        problems.append(Problem("subject", "header_injection", say("a subject is one line without control characters")))
    for field, source in zip(PARTS, (subject, text, html), strict=True):
        if len(source) > MAX_SOURCE[field]:
            problems.append(
                Problem(field, "too_large", say("has at most %(most)s characters: shorten it", most=MAX_SOURCE[field]))
            )
            continue
        if fault := text_fault(source):
            if field != "subject" or not CONTROL.search(subject):  # else it is said already
                problems.append(Problem(field, "invalid_text", fault))
            continue
        try:
            check_source(part=field, source=source)
        except SourceError as error:
            problems.append(Problem(field, error.code, str(error)))
    if channel == "push" and not problems:
        problems += _push_too_large(subject, text)
    return problems


_OUTPUT = re.compile(r"\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)


def _push_too_large(subject: str, text: str) -> list[Problem]:
    """Whether a notification of these sources can't fit in MAX_PUSH, whatever its tokens turn out to be.

    Of a source with blocks only the sending can tell, since any part of it may be left out.
    """
    sizes = {
        field: 0 if "{%" in source else sum(len(part.strip().encode()) for part in _OUTPUT.split(source))
        for field, source in (("subject", subject), ("text", text))
    }
    size, field = sum(sizes.values()), max(sizes, key=lambda field: sizes[field])
    if size <= MAX_PUSH:
        return []
    words = say(
        "a push notification has at most %(most)s bytes; subject and text have %(size)s: shorten it",
        most=MAX_PUSH,
        size=size,
    )
    return [Problem(field, "too_large", words)]


def _missing_parts(channel: str, subject: str, text: str, html: str) -> list[Problem]:
    problems = []
    if channel == "email" and not subject.strip():
        problems.append(Problem("subject", "required", say("an e-mail needs a subject")))
    if channel == "email" and not (text.strip() or html.strip()):
        problems.append(Problem("text", "required", say("an e-mail needs a text or an HTML part")))
    if channel == "push" and html:
        problems.append(
            Problem("html", "not_shown", say("a push notification shows subject and text only: remove the HTML"))
        )
    if channel == "push" and not (subject.strip() or text.strip()):
        problems.append(Problem("text", "required", say("a push notification needs a subject (its title) or a text")))
    if channel == "in_app" and not (subject.strip() or text.strip() or html.strip()):
        problems.append(Problem("text", "required", say("an in-app message needs a subject, a text or an HTML part")))
    return problems


def validate_catalogue(*, locale: object, messages: object) -> list[Problem]:
    """What is wrong with a catalogue of ``locale``; a problem's field is ``locale`` or a pointer, ``messages/KEY``."""
    try:
        spoken = Locale.parse(normalise_locale(locale if isinstance(locale, str) else ""), sep="-")
    except (ValueError, UnknownLocaleError):
        return [
            Problem(
                "locale",
                "unknown_locale",
                say("%(locale)s is no known locale: write it like de or de-AT", locale=f"{str(locale)[:40]!r}"),
            )
        ]
    if not isinstance(messages, Mapping):
        return [Problem("messages", "type", say('is an object of messages: {"key": "text"}'))]
    categories = frozenset(spoken.plural_form.tags) | {"other"}
    return [
        Problem(f"messages/{_shown(key)}", code, text)
        for key, message in messages.items()
        for code, text in _message_problems(key, message, categories)
    ]


def _shown(key: object) -> str:
    """A key as any answer and log can hold it, and a step of a JSON pointer (RFC 6901)."""
    return str(key)[:200].encode("utf-8", "replace").decode().replace("\0", "?").replace("~", "~0").replace("/", "~1")


def _message_problems(key: object, message: object, categories: Set[str]) -> Iterator[tuple[str, str]]:
    if not isinstance(key, str) or not key.strip() or len(key) > 200:
        yield "key", say("a key is a text of 1 to 200 characters")
    elif fault := text_fault(key):
        yield "key", fault
    forms = message if isinstance(message, Mapping) else {"other": message}
    if "other" not in forms:
        yield "plural_other", say('plural forms need "other": it serves every count the rest does not')
    for category, text in forms.items():
        if category not in categories:
            yield (
                "plural_category",
                say(
                    "%(category)s is not used by this locale; there are %(known)s",
                    category=f"{category!r}",
                    known=", ".join(sorted(categories)),
                ),
            )
        if not isinstance(text, str):
            yield "type", say('a message is a text, or an object of plural forms: {"one": "...", "other": "..."}')
        elif fault := text_fault(text):
            yield "invalid_text", fault
        elif len(text) > MAX_MESSAGE:
            yield "too_large", say("a message has at most %(most)s characters: shorten it", most=MAX_MESSAGE)
        elif "{{" in text or "{%" in text:
            yield "placeholder", say("a message is no template: write {name}, and pass it as t(key, name=...)")
