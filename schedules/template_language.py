"""The smaller language that template sources are held to before minijinja sees them.

minijinja's fuel counts instructions, neither bytes nor stack, and its Python binding gives no other limit.
Without ``survey_source`` (all seen with minijinja 3.0.5):

- a chain of some thousand operators, filters or ``elif`` overflows the stack: the process dies of SIGSEGV;
- doubling a string by ``~`` or a macro, ``|format``, ``|indent``, ``*`` take gigabytes: it dies of SIGABRT;
- a method of a Python object can be called (``recipient.clear()``).

What is left is bounded: a variable never holds more than what was put in, and one tag is short.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from typing import Final, NamedTuple

from minijinja import Environment, TemplateError

from schedules.problems import say

MAX_TAGS: Final = 2_000  # per source
MAX_ELIFS: Final = 50  # per source; minijinja parses them recursively
MAX_TOKENS: Final = 120  # per tag, for the same reason
MAX_JOINS: Final = 10  # of ~ and + per tag

TAGS: Final = frozenset({"if", "elif", "else", "endif", "for", "endfor", "set"})
FUNCTIONS: Final = frozenset({"t", "range"})
# Most filters are written in delivery.formats, which bounds what they make. None marks a value as safe: every
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


class Survey(NamedTuple):
    """What the renderer needs to know of a source.

    minijinja's own list of undeclared variables leaves out sliced ones and those that ``set`` reassigns (3.0.5).
    """

    tags: int
    loops: int
    longest_loop_text: int  # characters of the longest literal text inside a loop
    names: frozenset[str]  # read somewhere, dotted as far as written: "recipient.locale"
    assigned: frozenset[str]  # variables of for and set
    keys: frozenset[str] = frozenset()  # of catalogues, where t() names one in quotes
    printed: frozenset[str] = frozenset()  # names that stand alone in a tag, as they would be read


class SourceError(Exception):
    """A source steps out of the template language. ``code`` is a slug; the message names line and remedy."""

    def __init__(self, code: str, line: int, message: str) -> None:
        super().__init__(say("line %(line)s: %(message)s", line=str(line), message=message))
        self.code = code


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
    for name in ("cycler", "debug", "dict", "joiner", "namespace", "range"):
        made.remove_global(name)
    return made


def check_source(*, part: str, source: str) -> Survey:
    """Survey and compile the source of a part. Raises SourceError, naming the line, when that fails."""
    survey = survey_source(source)
    try:
        environment().add_template(part, source)
    except TemplateError as error:
        raise SourceError("template_syntax", error.line or 1, error.detail or error.kind) from error
    return survey


def survey_source(source: str) -> Survey:
    """Hold a source against the language. Raises SourceError at the first thing that is not in it."""
    position, depth, longest = 0, 0, 0
    keywords: Counter[str] = Counter()
    names: set[str] = set()
    assigned: set[str] = set()
    keys: set[str] = set()
    printed: set[str] = set()
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
        keys.update(_keys_read(tokens))
        if not keyword and all(kind == "name" or text == "." for kind, text in tokens):
            printed.add("".join(text for _, text in tokens))
        assigned.update(text for kind, text in tokens[1:targets] if kind == "name")
        keywords[keyword] += 1
        depth += (keyword == "for") - (keyword == "endfor")
        if keywords.total() > MAX_TAGS or keywords["elif"] > MAX_ELIFS:
            raise SourceError(
                "too_large",
                line,
                say("has at most %(tags)s tags and %(elifs)s elif: split it", tags=MAX_TAGS, elifs=MAX_ELIFS),
            )
    return Survey(keywords.total(), keywords["for"], longest, *map(frozenset[str], (names, assigned, keys, printed)))


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
            raise SourceError("too_large", line, say("a tag has at most %(most)s words: split it", most=MAX_TOKENS))
    stray = source[position : position + 12].strip()
    shown = f"{stray!r}" if stray else say("'the end'")
    raise SourceError(
        "template_syntax",
        line,
        say(
            "cannot be read from %(stray)s on; is %(closing)s missing before it?",
            stray=shown,
            closing=closing,
        ),
    )


def _check_tag(tokens: list[_Token], *, is_block: bool, line: int) -> tuple[str, int]:
    """The tag's keyword, "" for an expression, and how many tokens at its front are keyword and assigned names."""
    keyword = tokens[0].text if is_block and tokens else ""
    if is_block and keyword not in TAGS:
        raise SourceError(
            "unknown_tag",
            line,
            say("{%% %(keyword)s %%} is not available; there are %(known)s", keyword=keyword, known=_listed(TAGS)),
        )
    if keyword == "set" and tokens[2:3] != [_Token("op", "=")]:
        raise SourceError("unknown_tag", line, say("{% set %} is written {% set name = value %}"))
    if keyword == "for" and _Token("name", "recursive") in tokens:
        raise SourceError("unknown_tag", line, say("a loop cannot be recursive"))
    joins = sum(token.kind == "op" and token.text in "~+" for token in tokens)
    # A variable made of variables can double at each assignment; inside one expression growth is linear.
    if joins > (0 if keyword in ("for", "set") else MAX_JOINS):
        raise SourceError(
            "operator",
            line,
            say("too many ~ or + (for, set: none; else %(most)s): join where you print", most=MAX_JOINS),
        )
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


def _keys_read(tokens: list[_Token]) -> Iterator[str]:
    for function, opened, key in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if function == _Token("name", "t") and opened.text == "(" and key.text[:1] in ("'", '"'):
            yield key.text[1:-1]


def _check_expression(tokens: list[_Token], *, targets: int, line: int) -> None:
    brackets: list[str] = []
    for index, (kind, text) in enumerate(tokens):
        if brackets and brackets[-1] == "list" and kind != "literal" and text not in ",]-":
            raise SourceError("operator", line, say("a list in [ ] holds only texts and numbers"))
        if kind == "name":
            _check_test(tokens, index, line)
        elif text == "*":
            raise SourceError("operator", line, say("* is not available: use |times(n)"))
        elif text == "|":
            _check_name(tokens, index + 1, FILTERS, say("filter"), line)
        elif text == "(":
            brackets.append(_opened(tokens, index, line))
        elif text == "[":
            brackets.append("index" if _is_operand(tokens, index - 1) else "list")
        elif text in (")", "]") and brackets:
            brackets.pop()
        elif text == "," and index >= targets and (not brackets or brackets[-1] == "group"):
            raise SourceError("operator", line, say("a list is written in [ ]"))


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
    raise SourceError(
        "unknown_function",
        line,
        say("%(name)s(...) is not available; there are %(known)s", name=name, known=_listed(FUNCTIONS)),
    )


def _check_test(tokens: list[_Token], index: int, line: int) -> None:
    if tokens[index].text == "is" and not _is_operand(tokens, index):
        negated = tokens[index + 1 : index + 2] == [_Token("name", "not")]
        _check_name(tokens, index + 1 + negated, TESTS, say("test"), line)


def _check_name(tokens: list[_Token], index: int, known: Set[str], noun: str, line: int) -> None:
    name = tokens[index].text if index < len(tokens) else ""
    if name not in known:
        raise SourceError(
            f"unknown_{noun}",
            line,
            say(
                "the %(noun)s %(name)s is not available; there are %(known)s",
                noun=noun,
                name=f"{name!r}",
                known=_listed(known),
            ),
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
