"""An audience in plain words: “People whose plan is “pro” and who have the tag “vip””.

Each test is a relative clause of its own, so that they join in any order and in other languages.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, assert_never

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from frontend.instants import show
from frontend.wording.attributes import spoken
from frontend.wording.reasons import number
from schedules.audience.parser import InvalidAudience, parse
from schedules.audience.tree import AllOf, AnyOf, Clause, Field, Node, Not, Operator, Value
from schedules.models import Channel

# Of a longer list so many are told, and how many more there are.
_TOLD = 6

FIELDS = {
    Field.EXTERNAL_ID: gettext_lazy("external id"),
    Field.LOCALE: gettext_lazy("language"),
    Field.TIME_ZONE: gettext_lazy("time zone"),
    Field.CREATED_AT: gettext_lazy("profile made"),
    Field.TAGS: gettext_lazy("tags"),
    Field.CHANNELS: gettext_lazy("channels"),
}

_TESTS = {
    Operator.EQ: gettext_lazy("whose %(field)s is %(value)s"),
    Operator.NE: gettext_lazy("whose %(field)s is not %(value)s"),
    Operator.IN: gettext_lazy("whose %(field)s is %(value)s"),
    Operator.NOT_IN: gettext_lazy("whose %(field)s is not %(value)s"),
    Operator.GT: gettext_lazy("whose %(field)s is above %(value)s"),
    Operator.GTE: gettext_lazy("whose %(field)s is %(value)s or more"),
    Operator.LT: gettext_lazy("whose %(field)s is below %(value)s"),
    Operator.LTE: gettext_lazy("whose %(field)s is %(value)s or less"),
    Operator.CONTAINS: gettext_lazy("whose %(field)s contains %(value)s"),
    Operator.STARTS_WITH: gettext_lazy("whose %(field)s starts with %(value)s"),
    Operator.BEFORE: gettext_lazy("whose %(field)s is before %(value)s"),
    Operator.AFTER: gettext_lazy("whose %(field)s is after %(value)s"),
    Operator.WITHIN_LAST: gettext_lazy("whose %(field)s is within the last %(value)s"),
}
_TAGS = {
    Operator.CONTAINS: gettext_lazy("who have the tag %(value)s"),
    Operator.IN: gettext_lazy("who have the tag %(value)s"),
    Operator.NOT_IN: gettext_lazy("who do not have the tag %(value)s"),
}
_CHANNELS = {
    Operator.CONTAINS: gettext_lazy("who can be reached by %(value)s"),
    Operator.IN: gettext_lazy("who can be reached by %(value)s"),
    Operator.NOT_IN: gettext_lazy("who can not be reached by %(value)s"),
}
_CREATED = {
    Operator.BEFORE: gettext_lazy("whose profile was made before %(value)s"),
    Operator.AFTER: gettext_lazy("whose profile was made after %(value)s"),
    Operator.WITHIN_LAST: gettext_lazy("whose profile was made within the last %(value)s"),
}


def in_words(tree: Node) -> str:
    """Who is in the audience, as a sentence without full stop, in the viewer's language."""
    if isinstance(tree, AllOf) and not tree.parts:
        return _("Everyone")
    return _("People %(clauses)s") % {"clauses": _clauses(tree)}


def query_in_words(query: Mapping[str, Any]) -> str:
    """The same of a query as it is kept, whole or not."""
    if not query:
        return _("Nobody has been chosen yet")
    try:
        return in_words(parse(query))
    except InvalidAudience:
        return _("The audience is not complete yet")


def size_in_words(size: int | None) -> str:
    """How many belong to it, after “It” was named; None: nobody can say."""
    if size is None:
        return _("How many people it goes to can't be said quickly.")
    if not size:
        return _("Nobody belongs to its audience at present.")
    return ngettext("%(n)s person belongs to its audience.", "%(n)s people belong to its audience.", size) % {
        "n": number(size)
    }


def clause_in_words(clause: Clause) -> str:
    """One test as a relative clause: “whose plan is “pro””."""
    match clause.field, clause.operator:
        case Field.TAGS, Operator.EXISTS:
            return _("who have tags") if clause.value else _("who have no tags")
        case _, Operator.EXISTS:
            words = _("whose %(field)s is known") if clause.value else _("whose %(field)s is not known")
            return words % {"field": field_in_words(clause)}
        case Field.TAGS, operator:
            words = str(_TAGS[operator])
        case Field.CHANNELS, operator:
            words = str(_CHANNELS[operator])
        case Field.CREATED_AT, operator:
            words = str(_CREATED[operator])
        case _, operator:
            words = str(_TESTS[operator])
    return words % {"field": field_in_words(clause), "value": _value(clause)}


def field_in_words(clause: Clause) -> str:
    """What is asked about; an attribute by its own name."""
    return spoken(clause.attribute) if clause.attribute else str(FIELDS[clause.field])


def _clauses(node: Node, *, inside: bool = False) -> str:
    match node:
        case AllOf(()):
            return _("whoever they are")
        case AllOf((part,)) | AnyOf((part,)):
            return _clauses(part, inside=inside)
        case AllOf(parts):
            told = _joined([_clauses(part, inside=True) for part in parts], _("and"))
        case AnyOf(parts):
            told = _joined([_clauses(part, inside=True) for part in parts], _("or"))
        case Not(part):
            return _("who are not among those %(clauses)s") % {"clauses": _clauses(part, inside=True)}
        case Clause():
            return clause_in_words(node)
        case _:
            assert_never(node)
    return f"({told})" if inside else told


def _value(clause: Clause) -> str:
    if isinstance(clause.value, tuple):
        return _list([_scalar(value, clause.field) for value in clause.value])
    return _scalar(clause.value, clause.field)


def _scalar(value: Value, field: Field) -> str:
    match value:
        case bool():
            return _("yes") if value else _("no")
        case datetime():
            return show(value)
        case timedelta():
            return _duration(value)
        case str() if field is Field.CHANNELS:
            return str(Channel(value).label)
        case str():
            return _("“%(text)s”") % {"text": value}
    return str(value)


def _duration(value: timedelta) -> str:
    minutes = int(value.total_seconds()) // 60
    if minutes % (24 * 60) == 0:
        days = minutes // (24 * 60)
        return ngettext("%(n)d day", "%(n)d days", days) % {"n": days}
    if minutes % 60 == 0:
        return ngettext("%(n)d hour", "%(n)d hours", minutes // 60) % {"n": minutes // 60}
    return ngettext("%(n)d minute", "%(n)d minutes", minutes) % {"n": minutes}


def _list(items: Sequence[str]) -> str:
    more = len(items) - _TOLD
    if more > 0:
        rest = ngettext("%(n)d more", "%(n)d more", more) % {"n": more}
        items = [*items[:_TOLD], rest]
    return _joined(items, _("or"))


def _joined(items: Sequence[str], word: str) -> str:
    """“a, b and c”."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"
