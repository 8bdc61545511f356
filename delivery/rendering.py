"""Renders a template's content for many recipients, each result or error for itself.

Tokens: every top-level attribute by its name (``{{ first_name }}``), and ``recipient.external_id``,
``.locale``, ``.time_zone``, ``.email``, ``.attributes.<name>``, ``schedule.name``, ``occurrence.at`` (a
``formats.Moment`` in the recipient's zone). ``recipient``, ``schedule``, ``occurrence``, ``t``, ``range`` and ``loop``
hide attributes of the same name, and so do ``unsubscribe_url`` and ``preferences_url``, which e-mails have.
What is missing or null renders as an empty string, also in filters and in the parameters of ``t()``; only arithmetic on
it is an error (``points + 1``; write ``points|default(0)``). A list prints its values with commas between them. An
attribute that has fields prints nothing by itself, as nobody would want to read them all in a row:
``{{ address.city }}`` prints one.

``t("key", count=3, name=first_name)`` reads the catalogues by the recipient's locale; its text is plain text,
escaped in HTML like every value. A key that no catalogue has renders empty and is named in ``missing_keys``.
Filters that format follow the recipient's locale and zone: number, currency("EUR"), percent, date, time and
datetime (format short, medium, long, full or a CLDR pattern). A *value* they cannot read gives an empty
string, as if it were missing; an *argument* they cannot read (a currency that does not exist) is an error.

Measured with minijinja 3.0.5: fuel is set on the environment and granted anew to each render. Rendering
holds the GIL, and several threads on one environment are correct but slower than one.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from minijinja import Environment, TemplateError

from delivery import formats
from delivery.rendering_limits import (
    FUEL,
    MAX_DEPTH,
    MAX_LOOP_TEXT,
    MAX_VALUE,
    RenderError,
    check_part,
    grant,
    spend,
)
from schedules.content import PARTS, Catalogues, Content, pick_content
from schedules.problems import say
from schedules.recurrence import UnknownZone, zone
from schedules.template_language import FUNCTIONS, SourceError, Survey, check_source, environment

_UNCOUNTED_TAGS = 50  # so few tags without a loop cannot print much: counting would cost more than it saves
# Links of the one message, ``LINKS`` of a recipient.
LINKS = ("unsubscribe_url", "preferences_url")
_RESERVED = frozenset({"recipient", "schedule", "occurrence", "loop", *LINKS}) | FUNCTIONS
_FIELDS = ("external_id", "locale", "time_zone", "email", "attributes")
_NONE: frozenset[str] = frozenset()


class Rendered(NamedTuple):
    """What one recipient reads; a part that the content lacks is the empty string."""

    subject: str
    text: str
    html: str
    locale: str  # of the content
    missing_keys: frozenset[str] = _NONE  # catalogue keys that no locale of the chain has
    missing_tokens: frozenset[str] = _NONE  # filled by ``preview`` alone


@dataclass(frozen=True, slots=True)
class Shared:
    """What the recipients of one occurrence have in common.

    ``schedule_zone`` is an IANA name and serves recipients without a valid zone. ``occurrence_at`` is aware.
    """

    schedule_name: str
    schedule_zone: str
    occurrence_at: datetime
    default_locale: str = "en"
    catalogues: Catalogues | None = None


def render_many(
    *, contents: Sequence[Content], channel: str, recipients: Iterable[Mapping[str, Any]], shared: Shared
) -> list[Rendered | RenderError]:
    """Each recipient's message in the order given, in the content that fits its locale best. Never raises.

    A recipient has the keys external_id, locale, time_zone and attributes, and may have email and ``at``: the
    aware instant of its own wave, where that is not ``shared.occurrence_at``.
    """
    by_locale: dict[str | None, CompiledContent | RenderError] = {}
    results: list[Rendered | RenderError] = []
    for recipient in recipients:
        locale = recipient.get("locale")
        compiled = by_locale.get(locale)
        if compiled is None:
            compiled = by_locale[locale] = _compiled_for(contents, channel, locale, shared.default_locale)
        if isinstance(compiled, RenderError):
            results.append(compiled)
            continue
        try:
            results.append(compiled.render(recipient=recipient, shared=shared))
        except RenderError as error:
            results.append(error.with_traceback(None))
    return results


def preview(*, contents: Sequence[Content], channel: str, recipient: Mapping[str, Any], shared: Shared) -> Rendered:
    """One recipient's message, with the tokens that the content names and the recipient lacks.

    Raises RenderError.
    """
    compiled = _compiled_for(contents, channel, recipient.get("locale"), shared.default_locale)
    if isinstance(compiled, RenderError):
        raise compiled
    rendered = compiled.render(recipient=recipient, shared=shared)
    return rendered._replace(missing_tokens=compiled.missing_tokens(recipient=recipient, shared=shared))


def reads(field: str, *, contents: Iterable[Content], channel: str) -> bool:
    """Whether some content of the channel reads this field of ``recipient``."""
    for content in contents:
        if content.channel == channel:
            with suppress(RenderError):  # then nobody gets it
                if field in compile_content(content=content).fields:
                    return True
    return False


def compile_content(*, content: Content) -> "CompiledContent":
    """The content ready to render, kept for the next call. Raises RenderError (template_error, too_large)."""
    return _compile(content)


# The key is the content itself, so that nothing has to be forgotten when a template is published anew.
@lru_cache(maxsize=512)
def _compile(content: Content) -> "CompiledContent":
    return CompiledContent(content)


def _compiled_for(
    contents: Sequence[Content], channel: str, locale: str | None, default_locale: str
) -> "CompiledContent | RenderError":
    content = pick_content(contents=contents, channel=channel, locale=locale, default_locale=default_locale)
    if content is None:
        detail = say(
            "the template has no %(channel)s content for %(locale)s nor for its default %(default_locale)s",
            channel=channel,
            locale=f"{locale!r}",
            default_locale=f"{default_locale!r}",
        )
        return RenderError("no_content", detail)
    try:
        return compile_content(content=content)
    except RenderError as error:
        return error.with_traceback(None)


class CompiledContent:
    """A content compiled once. ``render`` may be called from any thread."""

    def __init__(self, content: Content) -> None:
        self.content = content
        sources = {part: getattr(content, part) for part in PARTS}
        surveys = {part: _survey(part, source) for part, source in sources.items()}
        self._live = tuple(part for part in PARTS if surveys[part].tags or "{#" in sources[part])
        self._counted = any(_needs_counting(survey) for survey in surveys.values())
        self._environment = _environment(surveys.values(), counted=self._counted)
        for part in self._live:
            self._environment.add_template(part, sources[part])
        self._tokens = frozenset[str]().union(*(survey.names for survey in surveys.values()))
        self._assigned = frozenset[str]().union(*(survey.assigned for survey in surveys.values()), {"loop"})
        self._printed = frozenset[str]().union(*(survey.printed for survey in surveys.values()))
        self._names = frozenset(name.partition(".")[0] for name in self._tokens)
        self._attributes = tuple(self._names - _RESERVED)
        self._links = tuple(name for name in LINKS if name in self._names)
        self._uncalled = {name: _Uncalled(formats.FUNCTIONS[name]) for name in self._tokens & FUNCTIONS}
        # Only what is named is handed over: making all attributes readable costs more than printing some.
        self.fields = tuple(field for field in _FIELDS if self._tokens_under(field))
        self._fixed = sources
        for part in set(PARTS) - set(self._live):
            check_part(part=part, rendered=sources[part])
        self._constant = None if self._live else Rendered(locale=content.locale, **sources)

    def render(self, *, recipient: Mapping[str, Any], shared: Shared) -> Rendered:
        """One recipient's message; see ``render_many`` for the keys. Raises RenderError."""
        if self._constant is not None:
            return self._constant
        context = self._context(recipient, shared)
        formats.write_for(
            locale=recipient.get("locale"),
            zone=_zone_of(recipient, shared),
            default_locale=shared.default_locale,
            catalogues=shared.catalogues or {},
        )
        subject, text, html = [
            self._render_part(part, context) if part in self._live else self._fixed[part] for part in PARTS
        ]
        return Rendered(subject, text, html, self.content.locale, formats.missing_keys())

    def missing_tokens(self, *, recipient: Mapping[str, Any], shared: Shared) -> frozenset[str]:
        """Dotted names that stand in the content and have nothing to print for this recipient."""
        context = self._context(recipient, shared)
        outside = {name for name in self._tokens if name.partition(".")[0] not in self._assigned}
        return frozenset(name for name in outside if self._is_blank(name, _found(context, name)))

    def _is_blank(self, name: str, value: Any) -> bool:
        if isinstance(value, _Fields | _Named):
            return name in self._printed
        return value is None or isinstance(value, _Uncalled)

    def _tokens_under(self, field: str) -> bool:
        dotted = f"recipient.{field}"
        return any(name in ("recipient", dotted) or name.startswith(f"{dotted}.") for name in self._tokens)

    def _context(self, recipient: Mapping[str, Any], shared: Shared) -> dict[str, Any]:
        attributes = recipient.get("attributes") or {}
        context: dict[str, Any] = {**self._uncalled}
        for name in self._attributes:
            value = attributes.get(name)
            if type(value) is str and len(value) <= MAX_VALUE:
                context[name] = value
            elif value is not None:
                context[name] = _readable(value)
        for name in self._links:
            if url := recipient.get(name):
                context[name] = url
        if self.fields:
            context["recipient"] = _Named(
                **{field: _readable(value) for field in self.fields if (value := recipient.get(field))}
            )
        if "schedule" in self._names:
            context["schedule"] = _Named(name=shared.schedule_name)
        if "occurrence" in self._names:
            at = recipient.get("at") or shared.occurrence_at
            context["occurrence"] = _Named(at=formats.Moment(at.astimezone(_zone_of(recipient, shared))))
        return context

    def _render_part(self, part: str, context: dict[str, Any]) -> str:
        grant()
        try:
            rendered = self._environment.render_template(part, **context)
        except TemplateError as error:
            raise _translated(part, error) from None
        except TypeError as error:  # a filter was called with the wrong arguments
            raise RenderError("template_error", _of_part(part, str(error))) from None
        except (ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
            raise RenderError("template_error", _of_part(part, type(error).__name__)) from None
        except BaseException as error:  # a panic in the native code; it must not end the other recipients
            if type(error).__name__ != "PanicException":
                raise
            raise RenderError("template_error", _of_part(part, say("the engine failed"))) from None
        check_part(part=part, rendered=rendered)
        return rendered


# Bounds


def _survey(part: str, source: str) -> Survey:
    try:
        return check_source(part=part, source=source)
    except SourceError as error:
        raise RenderError("template_error", _in_part(part, str(error))) from error


def _needs_counting(survey: Survey) -> bool:
    return survey.loops > 0 or survey.tags > _UNCOUNTED_TAGS


def _environment(surveys: Iterable[Survey], *, counted: bool) -> Environment:
    made = environment()
    # An iteration takes at least three instructions, whatever the length of the text it writes.
    longest = max(survey.longest_loop_text for survey in surveys)
    made.fuel = max(1_000, min(FUEL, 3 * MAX_LOOP_TEXT // max(longest, 1)))
    formats.add_to(made)
    if counted:
        made.finalizer = _count_output
    return made


def _count_output(value: Any) -> Any:
    if value is None or type(value) is dict:  # ``{{ loop }}``: what a profile holds is another kind
        return ""
    spend(len(value) if isinstance(value, str) else len(str(value)))
    return value


def _translated(part: str, error: TemplateError) -> RenderError:
    if error.kind == "OutOfFuel":
        return RenderError("fuel_exhausted", _on_line(part, error, say("the template does not come to an end")))
    cause = re.sub("[0-9]+", "#", error.detail or error.kind)  # arithmetic quotes its operands
    return RenderError("template_error", _on_line(part, error, cause))


def _on_line(part: str, error: TemplateError, words: str) -> str:
    return _in_part(part, say("line %(line)s: %(message)s", line=str(error.line), message=words))


def _of_part(part: str, words: str) -> str:
    return say("%(part)s: %(words)s", part=say(part), words=words)


def _in_part(part: str, words: str) -> str:
    return say("%(part)s, %(words)s", part=say(part), words=words)


# Values


class _Named(SimpleNamespace):
    """Fields under a name. The name alone prints nothing: it would say how Python writes such an object."""

    def __repr__(self) -> str:
        return ""


class _Uncalled:
    """A function that a source names without calling it somewhere, as in ``{{ t }}``: there it prints nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __str__(self) -> str:
        return ""


class _Hidden:
    """Says of an attribute that it is not there."""

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        raise AttributeError


def _shown_bare(kind: type, printed: Callable[[Any], str]) -> type:
    """A subclass without public methods. minijinja asks for an attribute where an item is missing, so that
    ``items`` would print a method in place of a missing token. (A ``__getattribute__`` takes thrice as long.)
    """
    hidden = {name: _Hidden() for name in dir(kind) if not name.startswith("_")}
    return type(f"_Bare{kind.__name__}", (kind,), {"__slots__": (), "__str__": printed, **hidden})


_Fields = _shown_bare(dict, lambda value: "")
_Items = _shown_bare(list, lambda value: ", ".join(text for item in value if (text := str(item))))


def _readable(value: Any, depth: int = MAX_DEPTH) -> Any:
    if isinstance(value, str):
        if len(value) > MAX_VALUE:
            raise RenderError("too_large", say("an attribute is longer than %(most)s characters", most=MAX_VALUE))
        return value
    if isinstance(value, dict):
        inner = {key: _readable(item, depth - 1) for key, item in value.items() if item is not None} if depth else {}
        return _Fields(inner)
    if isinstance(value, list | tuple):
        return _Items(["" if item is None else _readable(item, depth - 1) for item in value] if depth else [])
    if isinstance(value, datetime):
        return formats.Moment(value)
    return value if isinstance(value, int | float) else str(value)


def _found(context: Mapping[str, Any], dotted: str) -> Any:
    value: Any = context
    for name in dotted.split("."):
        value = dict.get(value, name) if isinstance(value, dict) else getattr(value, name, None)
    return value


def _zone_of(recipient: Mapping[str, Any], shared: Shared) -> tzinfo:
    for name in (recipient.get("time_zone"), shared.schedule_zone):
        if name:
            with suppress(UnknownZone):
                return zone(name)
    return UTC
