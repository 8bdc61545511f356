"""Templates that try to reach files, Python, other people's memory or a header: refused in words, or harmless."""

import resource
import time
from collections import Counter
from typing import Any

import pytest

from delivery.rendering import Rendered, Shared, compile_content
from delivery.rendering_limits import MAX_PART, MAX_SUBJECT, RenderError
from schedules.content import CONTROL, PARTS, Content, read_catalogues, validate_content
from tests.corpora import corpus
from tests.unit.reading import SHARED, person

HOSTILE = "\"'><script>pwned()</script>{{ 7*7 }}&"
# What Python says of its own things. A method of an instant prints as Python writes methods, and can't be called.
LEAKS = ("<bound", "<class", "<function", "namespace(", "simplenamespace", "secret_key", "root:x:", "uid=0")
CATALOGUES = read_catalogues(
    [
        (
            "en",
            {
                "markup": "<b>{name}</b>",
                "loop": "{name}{name}",
                "twice": "{x}{x}",
                "broken": "a\nb",
                "plural": {"one": "{count} point", "other": "{count} points"},
            },
        )
    ]
)


def _deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


READER = person(
    first_name="Ann",
    hostile=HOSTILE,
    broken="a\r\nBcc: all@example.org",
    address="javascript:pwned()",
    long="x" * 16_384,
    items=["a", {"name": HOSTILE}, 3, None],
    many=[1] * 30,
    nested={"plan": "pro", "__class__": "mine"},
    deep=_deep(200),
)
AROUND = Shared(
    schedule_name=HOSTILE,
    schedule_zone="UTC",
    occurrence_at=SHARED.occurrence_at,
    default_locale="en",
    catalogues=CATALOGUES,
)


def _tried(part: str, source: str) -> str:
    """What becomes of the source as this part: refused at save, failed for its reader, or rendered."""
    parts = {"subject": "S", "text": "T", "html": "", part: source}
    if problems := validate_content(channel="email", **parts):
        assert {problem.field for problem in problems} == {part}
        assert all(problem.code and len(str(problem.message)) > 10 for problem in problems)
        return "refused"
    content = Content("email", "en", **parts)
    try:
        rendered = compile_content(content=content).render(recipient=READER, shared=AROUND)
    except RenderError as error:
        failure = error
    else:
        _check_harmless(rendered)
        return "rendered"
    assert failure.reason in ("template_error", "fuel_exhausted", "too_large", "header_injection")
    assert failure.words
    assert not [value for value in (HOSTILE, "Bcc", "x" * 100) if value in failure.words]
    return "failed"


def _check_harmless(rendered: Rendered) -> None:
    assert len(rendered.subject) <= MAX_SUBJECT
    assert not CONTROL.search(rendered.subject)
    for part in (rendered.text, rendered.html):
        assert len(part.encode(errors="replace")) <= MAX_PART
    assert "<script>pwned" not in rendered.html.lower()
    for said in (rendered.subject, rendered.text, rendered.html):
        found = [word for word in LEAKS if word in said.lower()]
        assert found == []


def test_the_corpus_is_large_and_no_line_stands_twice() -> None:
    lines = corpus("templates")
    assert len(set(lines)) == len(lines) >= 200


@pytest.mark.parametrize("part", PARTS)
def test_every_line_is_refused_in_words_or_harmless_within_time_and_memory(part: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    wrong = []
    for source in corpus("templates"):
        start = time.thread_time()
        try:
            outcomes[_tried(part, source)] += 1
        except (AssertionError, Exception) as error:
            wrong.append(f"{source[:120]!r}: {type(error).__name__}: {str(error)[:300]}")
        if (took := time.thread_time() - start) > 2:
            wrong.append(f"{source[:120]!r} takes {took:.1f} s")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert wrong == []
    assert grown < 100_000, f"{grown} kB more than before"
    assert min(outcomes["refused"], outcomes["failed"], outcomes["rendered"]) >= 10, outcomes
