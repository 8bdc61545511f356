"""An audience query as a Django condition on Recipient: what `matching` says, in SQL.

Names of lookups, operators and functions are written here; what a user wrote becomes parameters only. Every
clause is true or false, never NULL, so that `not` is a plain opposite: hence the COALESCE around the tests of
an attribute that may be absent. No clause can fail on data: nothing is cast before its form is known.
"""

from datetime import datetime, timedelta
from typing import Any, assert_never, cast

from django.contrib.postgres.fields import ArrayField
from django.db.models import (
    BinaryField,
    BooleanField,
    Case,
    DateTimeField,
    Exists,
    Expression,
    ExpressionWrapper,
    F,
    Field,
    Func,
    JSONField,
    OuterRef,
    Q,
    TextField,
    Value,
    When,
)
from django.db.models.functions import Cast, Coalesce, Collate, Concat, Length, StrIndex
from django.db.models.lookups import (
    Exact,
    GreaterThan,
    GreaterThanOrEqual,
    LessThan,
    LessThanOrEqual,
    Lookup,
    Regex,
)

from schedules import encryption
from schedules.audience import tree
from schedules.audience.instants import (
    DATE_LENGTH,
    INSTANT_OR_DATE_PATTERN,
    MIDNIGHT,
    highest_text,
    lowest_text,
)
from schedules.audience.matching import OPPOSITES
from schedules.audience.tree import AllOf, AnyOf, Clause, Node, Not, Operator, Scalar
from schedules.consents import Asked, objecting
from schedules.models import Channel, Device, Suppression

# Values of one list that are looked up in the index; a longer list is a scan.
MAX_PROBES = 20

_COMPARISONS: "dict[Operator, type[Lookup[Any]]]" = {
    Operator.GT: GreaterThan,
    Operator.GTE: GreaterThanOrEqual,
    Operator.LT: LessThan,
    Operator.LTE: LessThanOrEqual,
}
_INDEXED = {
    tree.Field.EXTERNAL_ID: {Operator.EQ, Operator.IN, Operator.STARTS_WITH},
    tree.Field.LOCALE: {Operator.EQ, Operator.IN},
    tree.Field.TIME_ZONE: {Operator.EQ, Operator.IN},
    tree.Field.CREATED_AT: {Operator.BEFORE, Operator.AFTER, Operator.WITHIN_LAST},
    tree.Field.TAGS: {Operator.CONTAINS, Operator.IN},
    tree.Field.CHANNELS: set[Operator](),
    tree.Field.ATTRIBUTE: {Operator.EQ, Operator.IN},
}


def compile(node: Node, *, now: datetime) -> Q:
    """The condition for `Recipient.objects.filter`. `now` is aware; only `within_last` looks at it."""
    match node:
        case AllOf(parts):
            # Django drops an empty Q, and the NOT around it with it.
            return _joined(Q.AND, parts, now) if parts else Q(Value(True, output_field=BooleanField()))
        case AnyOf(parts):
            return _joined(Q.OR, parts, now)
        case Not(part):
            return ~compile(part, now=now)
        case Clause(operator=operator) if operator in OPPOSITES:
            return ~_condition(node, OPPOSITES[operator], now)
        case Clause():
            return _condition(node, node.operator, now)
    assert_never(node)


def is_indexable(node: Node) -> bool:
    """Whether an index can narrow the audience down. Where none can, the whole table is read: a *scan*."""
    match node:
        case AllOf(parts):
            return any(is_indexable(part) for part in parts)
        case AnyOf(parts):
            return all(is_indexable(part) for part in parts)
        case Not():
            return False
        case Clause():
            return node.operator in _INDEXED[node.field] and not _is_long(node)
    assert_never(node)


def _is_long(clause: Clause) -> bool:
    """Texts in columns are not meant: their index takes any list as it is."""
    listed = clause.field in (tree.Field.ATTRIBUTE, tree.Field.TAGS) and isinstance(clause.value, tuple)
    return listed and len(cast("tuple[Scalar, ...]", clause.value)) > MAX_PROBES


def _joined(connector: str, parts: tuple[Node, ...], now: datetime) -> Q:
    return Q(*(compile(part, now=now) for part in parts), _connector=connector)


def _condition(clause: Clause, operator: Operator, now: datetime) -> Q:
    match clause.field:
        case tree.Field.ATTRIBUTE:
            return _attribute(clause, operator, now)
        case tree.Field.TAGS:
            return _tags(clause, operator)
        case tree.Field.CHANNELS:
            return _channels(clause)
        case tree.Field.CREATED_AT:
            return _created_at(clause, operator, now)
        case tree.Field.EXTERNAL_ID:
            return _text("external_id", clause, operator)
        case tree.Field.LOCALE:
            return _text("locale", clause, operator)
        case tree.Field.TIME_ZONE:
            return _text("time_zone", clause, operator)
    assert_never(clause.field)


def _text(column: str, clause: Clause, operator: Operator) -> Q:
    """`column` is one of ours, never a user's word."""
    match operator:
        case Operator.EQ:
            return Q((column, clause.value))
        case Operator.IN:
            return Q((f"{column}__in", clause.value))
        case Operator.CONTAINS:
            return Q((f"{column}__contains", clause.value))
        case Operator.STARTS_WITH:
            return Q((f"{column}__startswith", clause.value))
        case Operator.EXISTS:
            empty = Q((column, ""))
            return ~empty if clause.value else empty
    raise TypeError(f"the parser lets no {operator} through on {clause.field}")


def _created_at(clause: Clause, operator: Operator, now: datetime) -> Q:
    match operator:
        case Operator.BEFORE:
            return Q(created_at__lt=clause.value)
        case Operator.AFTER:
            return Q(created_at__gt=clause.value)
        case Operator.WITHIN_LAST:
            return Q(created_at__gte=now - cast("timedelta", clause.value), created_at__lte=now)
    raise TypeError(f"the parser lets no {operator} through on {clause.field}")


def _tags(clause: Clause, operator: Operator) -> Q:
    match operator:
        case Operator.CONTAINS:
            return Q(tags__contains=[clause.value])
        case Operator.IN:
            wanted = cast("tuple[str, ...]", clause.value)
            has_any = _certain(Q(tags__has_any_keys=wanted))
            return _probed(clause, has_any, "tags", [[tag] for tag in wanted])
        case Operator.EXISTS:
            empty = Q(tags=[])
            return ~empty if clause.value else empty
    raise TypeError(f"the parser lets no {operator} through on {clause.field}")


def _channels(clause: Clause) -> Q:
    channels = cast("tuple[str, ...]", clause.value if isinstance(clause.value, tuple) else (clause.value,))
    return Q(*(reaches(Channel(channel)) for channel in channels), _connector=Q.OR)


def suppressed(channel: Channel) -> Q:
    """Whose address is not written to any more; the claim asks the same in SQL of its own."""
    if channel is not Channel.EMAIL or not Suppression.objects.exists():  # so it costs nothing where nobody is
        return Q(pk__isnull=True)
    fingerprint = Func(
        OuterRef("email_index"),
        template=encryption.fingerprint_sql("%(expressions)s"),
        output_field=BinaryField(max_length=12),
    )
    return Q(Exists(Suppression.objects.filter(channel=channel, fingerprint=fingerprint)))


def reaches(channel: Channel) -> Q:
    """As `matching.reachable_channels`."""
    return has_address(channel) & ~objecting(Asked(channel.value))


def has_address(channel: Channel) -> Q:
    """Who could be reached there, whatever was agreed to."""
    match channel:
        case Channel.EMAIL:
            return ~Q(email="")
        case Channel.PUSH:
            return Q(Exists(Device.objects.filter(recipient=OuterRef("pk"), active=True)))
        case Channel.IN_APP:
            return Q()
    raise TypeError(f"the parser lets no channel {channel} through")


def _attribute(clause: Clause, operator: Operator, now: datetime) -> Q:
    name, value = clause.attribute, clause.value
    if operator in _COMPARISONS:
        # Any two JSON values can be compared, so this order is safe, and it is the faster one.
        compared = _COMPARISONS[operator](_value(name), Value(value, output_field=JSONField()))
        return _certain(Q(compared) & Q(_is_a("number", name)))
    if isinstance(value, datetime):
        return _on_one_side(name, operator, value)
    if isinstance(value, timedelta):
        return _within(name, now - value, now)
    match operator:
        case Operator.EQ:
            return Q(attributes__contains={name: value})
        case Operator.IN:
            wanted = cast("tuple[Scalar, ...]", value)
            is_one = _certain(Q(_infix(_value(name), "=", _any(list(wanted)), output_field=BooleanField())))
            return _probed(clause, is_one, "attributes", [{name: each} for each in wanted])
        case Operator.CONTAINS:
            element = Q(attributes__contains={name: [value]})
            return element | _has_part(name, value) if isinstance(value, str) else element
        case Operator.STARTS_WITH:
            begins = Func(_string(name), Value(value), function="starts_with", output_field=BooleanField())
            return _certain(Q(_is_a("string", name)) & Q(begins))
        case Operator.EXISTS:
            present = _certain(~Q(_is_a("null", name)))
            return present if value else ~present
    raise TypeError(f"the parser lets no {operator} through on {clause.field}")


def _probed(clause: Clause, condition: Q, column: str, documents: list[Any]) -> Q:
    """`condition` on a list of values, and the same again as `@>`, which an index serves.

    `@>` alone would try the documents one by one on every row; `condition` first leaves it the rows that fit. Of
    a long list even those would take too long, so it goes without.
    """
    if _is_long(clause):
        return condition
    return condition & Q(_infix(F(column), "@>", _any(documents), output_field=BooleanField()))


def _has_part(name: str, part: str) -> Q:
    return _certain(Q(_is_a("string", name)) & Q(GreaterThan(StrIndex(_string(name), Value(part)), 0)))


def _on_one_side(name: str, operator: Operator, instant: datetime) -> Q:
    """The texts are compared first: that settles most rows at a tenth of the price of reading an instant."""
    text = Collate(_string(name), "C")
    if operator is Operator.BEFORE:
        return _certain(Q(LessThan(text, highest_text(instant))) & Q(LessThan(_instant(name), instant)))
    return _certain(Q(GreaterThanOrEqual(text, lowest_text(instant))) & Q(GreaterThan(_instant(name), instant)))


def _within(name: str, since: datetime, now: datetime) -> Q:
    text = Collate(_string(name), "C")
    likely = Q(GreaterThanOrEqual(text, lowest_text(since))) & Q(LessThan(text, highest_text(now)))
    # A multirange, because a plain range is rewritten to two comparisons, and the instant would be read twice.
    span = Func(Func(Value(since), Value(now), Value("[]"), function="tstzrange"), function="tstzmultirange")
    return _certain(likely & Q(_infix(_instant(name), "<@", span, output_field=BooleanField())))


def _instant(name: str) -> Expression:
    """The attribute as an instant, NULL where it is none. No JSON but a string can fit the pattern."""
    text = _string(name)
    whole = Case(
        When(Exact(Length(text), DATE_LENGTH), then=Concat(text, Value(MIDNIGHT))),
        default=text,
        output_field=TextField(),
    )
    return Case(When(Regex(text, INSTANT_OR_DATE_PATTERN), then=Cast(whole, DateTimeField())))


def _value(name: str) -> Expression:
    """attributes -> name. Django's own transform takes a name of digits for a position in a list."""
    return _infix(F("attributes"), "->", Value(name), output_field=JSONField())


def _string(name: str) -> Expression:
    return _infix(F("attributes"), "->>", Value(name), output_field=TextField())


def _is_a(json_type: str, name: str) -> "Lookup[Any]":
    return Exact(Func(_value(name), function="jsonb_typeof", output_field=TextField()), json_type)


def _any(documents: list[Any]) -> Expression:
    return Func(Value(documents, output_field=ArrayField(JSONField())), function="ANY")


def _infix(left: Any, operator: str, right: Any, *, output_field: "Field[Any, Any]") -> Expression:
    return Func(left, right, template="(%(expressions)s)", arg_joiner=f" {operator} ", output_field=output_field)


def _certain(condition: Q) -> Q:
    """NULL is false."""
    wrapped = ExpressionWrapper(condition, output_field=BooleanField())
    return Q(Coalesce(wrapped, Value(False), output_field=BooleanField()))
