"""What a template says in a locale: contents, catalogues, plural forms, and the language of the sources.

Everything here works on plain data; nothing reads the database. Sources are minijinja templates in a
smaller language, checked by ``survey_source`` before minijinja sees them. minijinja's fuel counts
instructions, neither bytes nor stack, and its Python binding gives no other limit. Without this check
(all seen with minijinja 3.0.5):

- a chain of some thousand operators, filters or ``elif`` overflows the stack: the process dies of SIGSEGV;
- doubling a string by ``~`` or a macro, ``|format``, ``|indent``, ``*`` take gigabytes: it dies of SIGABRT;
- a method of a Python object can be called (``recipient.clear()``).

What is left is bounded: a variable never holds more than what was put in, and one tag is short.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from babel import Locale, UnknownLocaleError
from babel.numbers import format_decimal
from minijinja import Environment, TemplateError

CHANNELS: Final = ("email", "push", "in_app")
PARTS: Final = ("subject", "text", "html")

MAX_SOURCE: Final = {"subject": 998, "text": 100_000, "html": 250_000}  # characters
MAX_TAGS: Final = 2_000  # per source
MAX_ELIFS: Final = 50  # per source; minijinja parses them recursively
MAX_TOKENS: Final = 120  # per tag, for the same reason
MAX_JOINS: Final = 10  # of ~ and + per tag
MAX_MESSAGE: Final = 10_000  # characters of one catalogue message
MAX_TRANSLATION: Final = 32 * 1024  # characters, its parameters filled in

TAGS: Final = frozenset({"if", "elif", "else", "endif", "for", "endfor", "set"})
FUNCTIONS: Final = frozenset({"t", "range"})
# Most filters are written in delivery.rendering, which bounds what they make. None marks a value as safe: every
# value is escaped in HTML.
BUILTIN_FILTERS: Final = frozenset({"default", "d", "length", "count"})
OWN_FILTERS: Final = frozenset(
    {"number", "currency", "percent", "date", "time", "datetime"}
    | {"upper", "lower", "title", "capitalize", "trim", "replace", "urlencode"}
    | {"first", "last", "join", "int", "float", "round", "abs", "times"}
)
FILTERS: Final = BUILTIN_FILTERS | OWN_FILTERS
TESTS: Final = frozenset(
    {"defined", "undefined", "none", "string", "number", "odd", "even", "divisibleby", "true", "false"}
)

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


class Problem(NamedTuple):
    """Why something cannot be saved: the field, a slug, and a sentence with the remedy."""

    field: str
    code: str
    message: str


class Survey(NamedTuple):
    """What the renderer needs to know of a source.

    minijinja's own list of undeclared variables leaves out sliced ones and those that ``set`` reassigns (3.0.5).
    """

    tags: int
    loops: int
    longest_loop_text: int  # characters of the longest literal text inside a loop
    names: frozenset[str]  # read somewhere, dotted as far as written: "recipient.locale"
    assigned: frozenset[str]  # variables of for and set


class SourceError(Exception):
    """A source steps out of the template language. ``code`` is a slug; the message names line and remedy."""

    def __init__(self, code: str, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.code = code


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
        raise ValueError(f"a message grows past {MAX_TRANSLATION} characters: shorten its parameters")
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


# The template language


_OPEN = re.compile(r"\{[{%#]")
_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
        (?P<close>[-+]?[%}]\})
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<literal>[0-9]+(?:\.[0-9]+)?(?!\w)
          | "[^"\\]*(?:\\.[^"\\]*)*" | '[^'\\]*(?:\\.[^'\\]*)*')
      | (?P<op>//|==|!=|<=|>=|[-+/%~|.,()\[\]:=<>*])
    )""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset({"in", "is", "not", "and", "or", "if", "elif", "else"})
_CONSTANTS = frozenset({"true", "false", "none", "True", "False", "None"})


class _Token(NamedTuple):
    kind: str
    text: str


_NOTHING = _Token("", "")


def environment() -> Environment:
    """A minijinja environment of this language: HTML alone is escaped, and what is missing is empty."""
    made = Environment(
        undefined_behavior="chainable",
        auto_escape_callback=lambda name: name == "html",
        keep_trailing_newline=True,
        pycompat=False,
        debug=False,
    )
    for name in ("debug", "dict", "namespace", "range"):
        made.remove_global(name)
    return made


def survey_source(source: str) -> Survey:
    """Hold a source against the language. Raises SourceError at the first thing that is not in it."""
    position, depth, longest = 0, 0, 0
    keywords: Counter[str] = Counter()
    names: set[str] = set()
    assigned: set[str] = set()
    while match := _OPEN.search(source, position):
        longest = max(longest, match.start() - position if depth else 0)
        if match[0] == "{#":
            end = source.find("#}", match.end())
            position = len(source) if end < 0 else end + 2
            continue
        line = source.count("\n", 0, match.start()) + 1
        tokens, position = _read_tag(source, match.end(), match[0], line)
        keyword, targets = _check_tag(tokens, is_block=match[0] == "{%", line=line)
        names.update(_names_read(tokens, targets))
        assigned.update(text for kind, text in tokens[1:targets] if kind == "name")
        keywords[keyword] += 1
        depth += (keyword == "for") - (keyword == "endfor")
        if keywords.total() > MAX_TAGS or keywords["elif"] > MAX_ELIFS:
            raise SourceError("too_large", line, f"has at most {MAX_TAGS} tags and {MAX_ELIFS} elif: split it")
    return Survey(keywords.total(), keywords["for"], longest, frozenset(names), frozenset(assigned))


def _read_tag(source: str, position: int, opened: str, line: int) -> tuple[list[_Token], int]:
    closing = "}}" if opened == "{{" else "%}"
    position += source[position : position + 1] in ("-", "+")
    tokens: list[_Token] = []
    while match := _TOKEN.match(source, position):
        kind = match.lastgroup or ""
        if kind == "close":
            if match[kind].endswith(closing):
                return tokens, match.end()
            break
        tokens.append(_Token(kind, match[kind]))
        position = match.end()
        if len(tokens) > MAX_TOKENS:
            raise SourceError("too_large", line, f"a tag has at most {MAX_TOKENS} words: split it")
    stray = source[position : position + 12].strip() or "the end"
    raise SourceError("template_syntax", line, f"cannot be read from {stray!r} on; is {closing} missing before it?")


def _check_tag(tokens: list[_Token], *, is_block: bool, line: int) -> tuple[str, int]:
    """The tag's keyword, "" for an expression, and how many tokens at its front are keyword and assigned names."""
    keyword = tokens[0].text if is_block and tokens else ""
    if is_block and keyword not in TAGS:
        raise SourceError("unknown_tag", line, f"{{% {keyword} %}} is not available; there are {_listed(TAGS)}")
    if keyword == "set" and tokens[2:3] != [_Token("op", "=")]:
        raise SourceError("unknown_tag", line, "{% set %} is written {% set name = value %}")
    if keyword == "for" and _Token("name", "recursive") in tokens:
        raise SourceError("unknown_tag", line, "a loop cannot be recursive")
    joins = sum(token.kind == "op" and token.text in "~+" for token in tokens)
    # A variable made of variables can double at each assignment; inside one expression growth is linear.
    if joins > (0 if keyword in ("for", "set") else MAX_JOINS):
        raise SourceError("operator", line, f"too many ~ or + (for, set: none; else {MAX_JOINS}): join where you print")
    targets = {"": 0, "set": 2}.get(keyword, 1)
    if keyword == "for" and _Token("name", "in") in tokens:
        targets = tokens.index(_Token("name", "in"))
    _check_expression(tokens, targets=targets, line=line)
    return keyword, targets


def _names_read(tokens: list[_Token], start: int) -> Iterator[str]:
    for index in range(start, len(tokens)):
        before, after = (tokens[at].text if 0 <= at < len(tokens) else "" for at in (index - 1, index + 1))
        is_test = before == "is" or (before == "not" and index > 1 and tokens[index - 2].text == "is")
        if not _is_operand(tokens, index) or tokens[index].kind != "name" or tokens[index].text in _CONSTANTS:
            continue
        if (
            is_test or before in (".", "|") or after in ("(", "=")
        ):  # a test, an attribute, a filter, a call, a parameter
            continue
        end = index + 1
        while (
            tokens[end : end + 1] == [_Token("op", ".")]
            and tokens[end + 1 : end + 2]
            and tokens[end + 1].kind == "name"
        ):
            end += 2
        yield "".join(text for _, text in tokens[index:end])


def _check_expression(tokens: list[_Token], *, targets: int, line: int) -> None:
    brackets: list[str] = []
    for index, (kind, text) in enumerate(tokens):
        if brackets and brackets[-1] == "list" and kind != "literal" and text not in ",]-":
            raise SourceError("operator", line, "a list in [ ] holds only texts and numbers")
        if kind == "name":
            _check_test(tokens, index, line)
        elif text == "*":
            raise SourceError("operator", line, "* is not available: use |times(n)")
        elif text == "|":
            _check_name(tokens, index + 1, FILTERS, "filter", line)
        elif text == "(":
            brackets.append(_opened(tokens, index, line))
        elif text == "[":
            brackets.append("index" if _is_operand(tokens, index - 1) else "list")
        elif text in (")", "]") and brackets:
            brackets.pop()
        elif text == "," and index >= targets and (not brackets or brackets[-1] == "group"):
            raise SourceError("operator", line, "a list is written in [ ]")


def _is_operand(tokens: list[_Token], index: int) -> bool:
    kind, text = tokens[index] if index >= 0 else _NOTHING
    if kind == "name":
        return text not in _KEYWORDS or (index > 0 and tokens[index - 1].text == ".")
    return kind == "literal" or text in (")", "]")


def _opened(tokens: list[_Token], index: int, line: int) -> str:
    """What a parenthesis opens: a group, or a call of a filter, a test, t or range. Refuses other calls."""
    if not _is_operand(tokens, index - 1):
        return "group"
    name = tokens[index - 1].text
    before = tokens[index - 2].text if index > 1 else ""
    if before == "|" or (before != "." and name in FUNCTIONS) or (before in ("is", "not") and name in TESTS):
        return "call"
    raise SourceError("unknown_function", line, f"{name}(...) is not available; there are {_listed(FUNCTIONS)}")


def _check_test(tokens: list[_Token], index: int, line: int) -> None:
    if tokens[index].text == "is" and not _is_operand(tokens, index):
        negated = tokens[index + 1 : index + 2] == [_Token("name", "not")]
        _check_name(tokens, index + 1 + negated, TESTS, "test", line)


def _check_name(tokens: list[_Token], index: int, known: Set[str], noun: str, line: int) -> None:
    name = tokens[index].text if index < len(tokens) else ""
    if name not in known:
        raise SourceError(f"unknown_{noun}", line, f"the {noun} {name!r} is not available; there are {_listed(known)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


# Validation at save


def validate_content(*, channel: str, subject: str = "", text: str = "", html: str = "") -> list[Problem]:
    """What is wrong with one content; empty when it can be saved."""
    if channel not in CHANNELS:
        return [Problem("channel", "unknown_channel", f"{channel!r} is no channel; there are {_listed(CHANNELS)}")]
    problems = _missing_parts(channel, subject, text, html)
    if CONTROL.search(subject):
        problems.append(Problem("subject", "header_injection", "a subject is one line without control characters"))
    for field, source in zip(PARTS, (subject, text, html), strict=True):
        if len(source) > MAX_SOURCE[field]:
            problems.append(Problem(field, "too_large", f"has at most {MAX_SOURCE[field]:,} characters: shorten it"))
            continue
        try:
            check_source(part=field, source=source)
        except SourceError as error:
            problems.append(Problem(field, error.code, str(error)))
    return problems


def check_source(*, part: str, source: str) -> Survey:
    """Survey and compile the source of a part. Raises SourceError, naming the line, when that fails."""
    survey = survey_source(source)
    try:
        environment().add_template(part, source)
    except TemplateError as error:
        raise SourceError("template_syntax", error.line or 1, error.detail or error.kind) from error
    return survey


def _missing_parts(channel: str, subject: str, text: str, html: str) -> list[Problem]:
    problems = []
    if channel == "email" and not subject.strip():
        problems.append(Problem("subject", "required", "an e-mail needs a subject"))
    if channel == "email" and not (text.strip() or html.strip()):
        problems.append(Problem("text", "required", "an e-mail needs a text or an HTML part"))
    if channel == "push" and html:
        problems.append(
            Problem("html", "not_shown", "a push notification shows subject and text only: remove the HTML")
        )
    if channel == "push" and not (subject.strip() or text.strip()):
        problems.append(Problem("text", "required", "a push notification needs a subject (its title) or a text"))
    if channel == "in_app" and not (subject.strip() or text.strip() or html.strip()):
        problems.append(Problem("text", "required", "an in-app message needs a subject, a text or an HTML part"))
    return problems


def validate_catalogue(*, locale: str, messages: object) -> list[Problem]:
    """What is wrong with a catalogue of ``locale``; a problem's field is ``locale`` or ``messages.<key>``."""
    try:
        spoken = Locale.parse(normalise_locale(locale), sep="-")
    except (ValueError, UnknownLocaleError):
        return [Problem("locale", "unknown_locale", f"{locale!r} is no known locale: write it like de or de-AT")]
    if not isinstance(messages, Mapping):
        return [Problem("messages", "type", 'is an object of messages: {"key": "text"}')]
    categories = frozenset(spoken.plural_form.tags) | {"other"}
    return [
        Problem(f"messages.{key}", code, text)
        for key, message in messages.items()
        for code, text in _message_problems(key, message, categories)
    ]


def _message_problems(key: object, message: object, categories: Set[str]) -> Iterator[tuple[str, str]]:
    if not isinstance(key, str) or not key.strip() or len(key) > 200:
        yield "key", "a key is a text of 1 to 200 characters"
    forms = message if isinstance(message, Mapping) else {"other": message}
    if "other" not in forms:
        yield "plural_other", 'plural forms need "other": it serves every count the rest does not'
    for category, text in forms.items():
        if category not in categories:
            yield (
                "plural_category",
                f"{category!r} is not used by this locale; there are {_listed(categories)}",
            )
        if not isinstance(text, str):
            yield "type", 'a message is a text, or an object of plural forms: {"one": "...", "other": "..."}'
        elif len(text) > MAX_MESSAGE:
            yield "too_large", f"a message has at most {MAX_MESSAGE:,} characters: shorten it"
        elif "{{" in text or "{%" in text:
            yield "placeholder", "a message is no template: write {name}, and pass it as t(key, name=...)"
