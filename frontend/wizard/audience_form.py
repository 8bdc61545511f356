"""The step in which is said who gets the message: everyone, people who match rows, or a query as JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from frontend.wizard.forms import Around, Cards, StepForm
from frontend.wizard.rows import ATTRIBUTE, OTHER, UNITS, Read, Row, Rows, to_query, to_rows
from frontend.wording.attributes import spoken
from frontend.wording.problems import problem_in_words
from schedules.audience.parser import InvalidAudience, parse, parse_text
from schedules.audience.tree import Field, Kind, Operator
from schedules.definition import Definition
from schedules.models import Channel
from schedules.problems import Problem
from schedules.recurrence import ZONE_NAMES

EVERYONE: dict[str, Any] = {"all": []}
_MOST_ROWS = 50
_FIELDS = (
    (Field.LOCALE, gettext_lazy("Language")),
    (Field.TIME_ZONE, gettext_lazy("Time zone")),
    (Field.TAGS, gettext_lazy("Tags")),
    (Field.CHANNELS, gettext_lazy("Can be reached by")),
    (Field.CREATED_AT, gettext_lazy("Profile made")),
    (Field.EXTERNAL_ID, gettext_lazy("External id")),
)
_OPERATORS = {
    Operator.EQ: gettext_lazy("is"),
    Operator.NE: gettext_lazy("is not"),
    Operator.IN: gettext_lazy("is one of"),
    Operator.NOT_IN: gettext_lazy("is none of"),
    Operator.GT: gettext_lazy("is more than"),
    Operator.GTE: gettext_lazy("is at least"),
    Operator.LT: gettext_lazy("is less than"),
    Operator.LTE: gettext_lazy("is at most"),
    Operator.CONTAINS: gettext_lazy("contains"),
    Operator.STARTS_WITH: gettext_lazy("starts with"),
    Operator.EXISTS: gettext_lazy("is known"),
    Operator.BEFORE: gettext_lazy("is before"),
    Operator.AFTER: gettext_lazy("is after"),
    Operator.WITHIN_LAST: gettext_lazy("is within the last"),
}
_OF_LISTS = {
    Operator.CONTAINS: gettext_lazy("include"),
    Operator.IN: gettext_lazy("include one of"),
    Operator.NOT_IN: gettext_lazy("include none of"),
    Operator.EXISTS: gettext_lazy("are there"),
}
_OF_CHANNELS = {
    Operator.CONTAINS: gettext_lazy("is"),
    Operator.IN: gettext_lazy("is one of"),
    Operator.NOT_IN: gettext_lazy("is none of"),
}
_HINTS = {
    Kind.TEXTS: gettext_lazy("several, with commas between"),
    Kind.TAGS: gettext_lazy("several, with commas between"),
    Kind.SCALARS: gettext_lazy("several, with commas between"),
    Kind.CHANNELS: gettext_lazy("email, push, in_app"),
    Kind.NUMBER: gettext_lazy("a number"),
}


def _words(row: Row) -> dict[Operator, Any]:
    special = {Field.TAGS: _OF_LISTS, Field.CHANNELS: _OF_CHANNELS}.get(row.field, {})  # type: ignore[call-overload]
    return {operator: special.get(operator, _OPERATORS[operator]) for operator in row.rules}


class MatchForm(forms.Form):
    """How the rows of one level are joined."""

    match = forms.ChoiceField(
        choices=[("all", gettext_lazy("all of these")), ("any", gettext_lazy("at least one of these"))],
        label=gettext_lazy("People who match"),
    )


class RowForm(forms.Form):
    """One condition; which operators it offers, and as what its value is asked, depends on its field."""

    group = forms.IntegerField(widget=forms.HiddenInput)
    field = forms.ChoiceField(label=gettext_lazy("What"))
    attribute = forms.CharField(label=gettext_lazy("Name of the attribute"), required=False)
    op = forms.ChoiceField(label=gettext_lazy("How"))
    value = forms.CharField(label=gettext_lazy("Value"), required=False)
    unit = forms.ChoiceField(
        label=gettext_lazy("Unit"),
        choices=[
            ("m", gettext_lazy("minutes")),
            ("h", gettext_lazy("hours")),
            ("d", gettext_lazy("days")),
            ("w", gettext_lazy("weeks")),
        ],
    )

    def __init__(self, *args: Any, fields_offered: Any = (), around: Around | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["field"].choices = [("", _("Choose…")), *fields_offered]  # type: ignore[attr-defined]
        initial = kwargs.get("initial") or {}
        self.row = Row(**{name: initial.get(name, default) for name, default in vars(Row()).items()})
        self.fields["op"].choices = list(_words(self.row).items())  # type: ignore[attr-defined]
        self.fields["value"].widget = self._widget(around)

    def _widget(self, around: Around | None) -> forms.Widget:
        match self.row.kind:
            case Kind.BOOLEAN:
                return forms.Select(choices=[("yes", _("yes")), ("no", _("no"))])
            case Kind.CHANNEL:
                return forms.Select(choices=list(Channel.choices))
            case Kind.INSTANT:
                return forms.TextInput(attrs={"type": "datetime-local"})
            case Kind.DURATION:
                return forms.TextInput(attrs={"inputmode": "numeric"})
        suggested = around.vocabulary.values.get(self.row.field, ()) if around else ()
        attrs = {"autocomplete": "off", "placeholder": _HINTS.get(self.row.kind, "") if self.row.kind else ""}
        if suggested or self.row.field == Field.TIME_ZONE:
            attrs["list"] = f"{self.prefix}-offered"
        return forms.TextInput(attrs=attrs)

    @property
    def has_unit(self) -> bool:
        return self.row.kind is Kind.DURATION

    @property
    def names_attribute(self) -> bool:
        return self.row.field == OTHER


RowFormSet = forms.formset_factory(RowForm, extra=0, max_num=_MOST_ROWS, absolute_max=_MOST_ROWS)
MatchFormSet = forms.formset_factory(MatchForm, extra=0, max_num=_MOST_ROWS, absolute_max=_MOST_ROWS)


@dataclass
class ShownRow:
    number: int
    form: RowForm
    offered: tuple[str, ...] = ()
    errors: list[str] = field(default_factory=list)


@dataclass
class ShownGroup:
    number: int
    form: MatchForm
    rows: list[ShownRow]


class AudienceForm(StepForm):
    covers = {"audience_query": "who"}

    who = forms.ChoiceField(
        label=gettext_lazy("Who gets it"),
        choices=[
            ("everyone", gettext_lazy("Everyone")),
            ("match", gettext_lazy("People who match")),
            ("json", gettext_lazy("Query as JSON")),
        ],
        required=False,
        widget=Cards(
            {
                "everyone": gettext_lazy("Everybody who is known at the time."),
                "match": gettext_lazy("By language, tags, attributes and more."),
                "json": gettext_lazy("For experts: the same as text, with every possibility."),
            }
        ),
    )
    shown = forms.CharField(required=False, widget=forms.HiddenInput)
    json = forms.CharField(
        label=gettext_lazy("Query"),
        required=False,
        strip=False,
        max_length=200_000,
        widget=forms.Textarea(attrs={"rows": 10, "spellcheck": "false", "class": "ns-json"}),
    )

    def __init__(self, data: Any = None, *, definition: Definition, around: Around) -> None:
        self.row_errors: dict[int, list[str]] = {}
        self.why_json = ""
        self.added: int | None = None
        super().__init__(data, definition=definition, around=around)
        if data is None:
            self.chosen, self.rows = self.initial["who"], self._kept_rows() or Rows((Row(),))
            if self.chosen == "json" and definition.audience_query:
                self.why_json = _("These conditions go beyond what rows can show, so they stand here as text.")
        else:
            self.chosen, self.rows = data.get("who", ""), self._posted_rows(data)
            self._follow_tab(data)

    def read(self, definition: Definition) -> dict[str, Any]:
        query = dict(definition.audience_query)
        who = "" if not query else "everyone" if query == EVERYONE else "match" if self._kept_rows() else "json"
        return {"who": who, "shown": who, "json": _indented(query or EVERYONE)}

    def _kept_rows(self) -> Rows | None:
        query = self.definition.audience_query
        if not query or query == EVERYONE:
            return None
        return to_rows(query, vocabulary=self.around.vocabulary, time_zone=self.definition.time_zone)

    # What was posted

    def _posted_rows(self, data: Any) -> Rows:
        matches = MatchFormSet(data, prefix="match")
        found = RowFormSet(data, prefix="row")
        if not (matches.management_form.is_valid() and found.management_form.is_valid()):
            return Rows((Row(),))
        names = [each["match"].value() for each in matches.forms]
        rows = []
        for each in found.forms:
            group = str(each["group"].value() or "0")
            row = Row(
                **{name: str(each[name].value() or "") for name in ("field", "op", "value", "attribute")},
                unit=each["unit"].value() if each["unit"].value() in UNITS else "d",
                group=int(group) if group.isdecimal() and int(group) < len(names) else 0,
            )
            rows.append(row if row.kind or not row.rules else replace(row, op=next(iter(row.rules)).value))
        return Rows(tuple(rows), tuple("any" if name == "any" else "all" for name in names) or ("all",))

    def _follow_tab(self, data: Any) -> None:
        """Where another tab is opened, it shows what the last one said."""
        before = data.get("shown", "")
        if before == self.chosen:
            return
        self.data = typed = data.copy()
        typed["shown"] = self.chosen
        if self.chosen == "json" and before == "match":
            typed["json"] = _indented(self._of_rows(self._filled()).query)
        elif self.chosen == "match" and before == "json":
            try:
                query = json.loads(data.get("json", ""))
                rows = to_rows(query, vocabulary=self.around.vocabulary, time_zone=self.definition.time_zone)
            except (ValueError, RecursionError):
                rows = None
            if rows is None:
                self.chosen = typed["who"] = typed["shown"] = "json"
                self.why_json = _("These conditions go beyond what rows can show, so they stay here as text.")
            else:
                self.rows = rows if rows.rows else Rows((Row(),))

    def act(self, action: str) -> None:
        """Add or remove a row or a group, as a button asks: ``add-row:0``, ``remove-row:3``, ``add-group``…"""
        verb, _colon, text = action.partition(":")
        number = int(text) if text.isdecimal() else -1
        if verb == "add-row" and 0 <= number < len(self.rows.matches):
            self.rows = self.rows.with_row(number)
            self.added = len(self.rows.rows) - 1
        elif verb == "add-group":
            self.rows = self.rows.with_group()
            self.added = len(self.rows.rows) - 1
        elif verb == "remove-row" and 0 <= number < len(self.rows.rows):
            self.rows = self.rows.without_row(number)
        elif verb == "remove-group" and 0 < number < len(self.rows.matches):
            self.rows = self.rows.without_group(number)
        if not self.rows.rows:
            self.rows = self.rows.with_row(0)

    # What it means

    def _filled(self) -> Rows:
        """Rows in which nothing is chosen are no conditions."""
        return replace(self.rows, rows=tuple(row for row in self.rows.rows if row.field or row.value))

    def _of_rows(self, rows: Rows) -> Read:
        return to_query(rows, vocabulary=self.around.vocabulary, time_zone=self.definition.time_zone)

    @cached_property
    def query(self) -> dict[str, Any] | None:
        """The query that was posted, None where it is not one yet; its problems stand in the form then."""
        return self.cleaned_data.get("query") if self.is_bound and self.is_valid() else None

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        try:
            values["query"] = self._query()
        except InvalidAudience as error:
            self._tell(error)
        return values

    def _query(self) -> dict[str, Any]:
        if self.chosen == "everyone":
            return EVERYONE
        if self.chosen == "json":
            parse_text(self.data.get("json", ""))
            read: dict[str, Any] = json.loads(self.data["json"])
            return read
        if self.chosen != "match":
            raise InvalidAudience([])
        if not self._filled().rows:
            self.row_errors[0] = [_("Choose what to ask about, or choose “Everyone” above.")]
            self.add_error(None, _("Add at least one condition."))
            raise InvalidAudience([])
        query = self._of_rows(self._filled()).query
        parse(query)
        return query

    def _tell(self, error: InvalidAudience) -> None:
        if self.chosen == "json":
            for problem in error.problems[:5]:
                where = _("At %(place)s: ") % {"place": problem.pointer} if problem.pointer else ""
                self.add_error("json", where + problem_in_words(_as_problem(problem)))
            return
        if self.chosen != "match":
            self.add_error("who", _("Choose who gets it: everyone, or the people who match conditions."))
            return
        numbers = [number for number, row in enumerate(self.rows.rows) if row.field or row.value]
        places = self._of_rows(self._filled())
        for problem in error.problems:
            at = places.row_at(problem.pointer)
            words = problem_in_words(_as_problem(problem))
            if at is None:
                self.add_error(None, words)
            elif not self.rows.rows[numbers[at]].field:
                self.row_errors[numbers[at]] = [_("Choose what to ask about.")]
            elif not self.row_errors.get(numbers[at]):
                self.row_errors[numbers[at]] = [words]
        if self.row_errors and not self.errors:
            self.add_error(None, _("Some conditions are not complete yet."))

    def changes(self) -> dict[str, Any]:
        query = self.cleaned_data.get("query")
        if query is None:
            return {}
        kept = self.definition.audience_query
        rows = self._kept_rows()
        is_same = self.chosen == "match" and rows is not None and rows == self._filled()
        return {"audience_query": dict(kept) if is_same else query}

    def add_problem(self, name: str, problem: Problem, pointer: str) -> None:
        if not self.errors:
            super().add_problem(name, problem, pointer)

    # How it looks

    @property
    def row_management(self) -> Any:
        return RowFormSet(prefix="row", initial=[{} for _ in self.rows.rows]).management_form

    @property
    def match_management(self) -> Any:
        return MatchFormSet(prefix="match", initial=[{} for _ in self.rows.matches]).management_form

    @property
    def groups(self) -> list[ShownGroup]:
        return [
            ShownGroup(
                number,
                MatchForm(prefix=f"match-{number}", initial={"match": match}, label_suffix=""),
                list(self._shown_rows(number)),
            )
            for number, match in enumerate(self.rows.matches)
        ]

    def _shown_rows(self, group: int) -> Iterator[ShownRow]:
        offered = self._fields_offered()
        for number, row in self.rows.of(group):
            form = RowForm(
                prefix=f"row-{number}",
                initial=vars(row),
                fields_offered=offered,
                around=self.around,
                label_suffix="",
            )
            errors = self.row_errors.get(number, [])
            if number == self.added:
                form.fields["field"].widget.attrs["autofocus"] = True
            if errors:
                form.fields["value"].widget.attrs.update({"aria-invalid": "true"})
            values = self.around.vocabulary.values.get(row.field, ())
            if row.field == Field.TIME_ZONE:
                values = (*values, *sorted(ZONE_NAMES - set(values)))
            yield ShownRow(number, form, values, errors)

    def _fields_offered(self) -> list[Any]:
        known = [(f"{ATTRIBUTE}{name}", spoken(name)) for name in self.around.vocabulary.attributes]
        return [*_FIELDS, (_("Attributes"), [*known, (OTHER, _("another attribute…"))])]


def _as_problem(problem: Any) -> Problem:
    return Problem(f"audienceQuery{problem.pointer}", problem.code, problem.message)


def _indented(query: Any) -> str:
    return json.dumps(query, indent=2, ensure_ascii=False)
