"""The steps' forms: each reads some fields of a definition and says at its own fields what is wrong with them.

A form decides nothing: what may be kept is the operations' business, and their problems are put where they belong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from django import forms
from django.utils.translation import gettext_lazy as _

from frontend.wording.problems import problem_in_words
from frontend.zones import Zones
from schedules import topics
from schedules.audience import vocabulary
from schedules.audience.vocabulary import Vocabulary
from schedules.definition import WIRE, Definition
from schedules.models import Channel, Purpose
from schedules.problems import Problem


@dataclass
class Around:
    """What forms know of the viewer and of the people kept here. ``now``: business time."""

    now: datetime
    zones: Zones
    locked: frozenset[str] = field(default_factory=frozenset)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return vocabulary.seen()


class Cards(forms.RadioSelect):
    """Radio buttons as cards, each with a line that explains it."""

    template_name = "frontend/wizard/cards.html"

    def __init__(self, helps: Mapping[str, Any] | None = None, attrs: Any = None) -> None:
        super().__init__(attrs)
        self.helps = helps or {}

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option = super().create_option(name, value, *args, **kwargs)
        option["help"] = self.helps.get(str(value), "")
        return option


class StepForm(forms.Form):
    """``covers``: which field of the form shows the problems of which field of a definition."""

    covers: ClassVar[Mapping[str, str]]
    use_required_attribute = False
    # Set while somebody is still building the step (adds a row, opens a tab): nothing is called wrong yet.
    is_quiet = False

    def __init__(self, data: Any = None, *, definition: Definition, around: Around) -> None:
        self.definition, self.around = definition, around
        super().__init__(data, initial=self.read(definition))
        self.label_suffix = ""

    def read(self, definition: Definition) -> dict[str, Any]:
        """The form's initial values."""
        return {name: getattr(definition, name) for name in self.covers}

    def act(self, action: str) -> None:
        """Change the shape of the form as a button asks, before it is shown again."""

    def changes(self) -> dict[str, Any]:
        """What of the definition the form says, as far as it can be read; asked after ``is_valid``."""
        return {name: self.cleaned_data[name] for name in self.covers if name in self.cleaned_data}

    def full_clean(self) -> None:
        if self.is_quiet:
            self._errors, self.cleaned_data = forms.utils.ErrorDict(), {}
        else:
            super().full_clean()

    def add_problems(self, problems: Iterable[Problem]) -> None:
        """Those of this step's fields, each at its field; one thing for each field."""
        names = {WIRE[name]: place for name, place in self.covers.items()}
        for problem in problems:
            wire, _slash, pointer = problem.field.partition("/")
            if wire in names:
                self.add_problem(names[wire], problem, f"/{pointer}" if pointer else "")

    def add_problem(self, name: str, problem: Problem, pointer: str) -> None:
        if name not in self.errors:
            self.add_error(name, forms.ValidationError(problem_in_words(problem), code=problem.code))


class BasicsForm(StepForm):
    covers = {"name": "name", "channel": "channel"}

    name = forms.CharField(
        label=_("Name"),
        max_length=200,
        help_text=_("For you and your colleagues; the people who get the message never see it."),
        error_messages={"required": _("Give the schedule a name.")},
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": _("Winter sale")}),
    )
    channel = forms.ChoiceField(
        label=_("Channel"),
        choices=[(Channel.EMAIL, _("E-mail")), (Channel.PUSH, _("Push")), (Channel.IN_APP, _("In-app"))],
        error_messages={"required": _("Choose how the message goes out.")},
        widget=Cards(
            {
                Channel.EMAIL: _("To the address in each person's profile."),
                Channel.PUSH: _("To the phones, tablets and browsers that people have registered."),
                Channel.IN_APP: _("Into each person's inbox in your app."),
            }
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "channel" in self.around.locked:
            self.fields["channel"].disabled = True
            self.fields["channel"].help_text = _("The channel can't change once a schedule runs: duplicate it instead.")


class MessageForm(StepForm):
    covers = {"template_id": "template_id", "topic": "topic", "purpose": "purpose"}

    template_id = forms.IntegerField(label=_("Template"), required=False, min_value=1, max_value=2**63 - 1)
    purpose = forms.ChoiceField(
        label=_("What it is for"),
        required=False,
        choices=[(Purpose.MARKETING, _("News and offers")), (Purpose.TRANSACTIONAL, _("What a person must be told"))],
        widget=Cards(
            {
                Purpose.MARKETING: _(
                    "Marketing: nobody gets it who has opted out. E-mails carry a link to unsubscribe."
                ),
                Purpose.TRANSACTIONAL: _(
                    "Transactional, such as a receipt or a password: it is sent whatever a person has opted out of,"
                    " and nobody can unsubscribe. Addresses that bounce, are blocked or have complained get nothing."
                ),
            }
        ),
    )
    topic = forms.ChoiceField(
        label=_("Topic"),
        required=False,
        help_text=_("Whoever unsubscribes from this message gets no more of its topic; without one, of the channel."),
    )
    search = forms.CharField(
        label=_("Search templates"),
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": _("Part of a name"), "autocomplete": "off"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(topic.key, topic.name) for topic in topics.offered()]
        standing = self.definition.topic
        if standing and standing not in dict(choices):
            choices.append((standing, standing))
        self.fields["topic"].choices = [("", _("None: the channel as a whole")), *choices]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Of what the form was not asked, the definition stays as it is; what is transactional has no topic."""
        said = self.cleaned_data
        if not said.get("purpose"):
            said.pop("purpose", None)
            said.pop("topic", None)
        elif "topic" in said:
            said["topic"] = (said["topic"] or None) if said["purpose"] == Purpose.MARKETING else None
        return said

    @property
    def chosen(self) -> int | None:
        """The template that is ticked, there or not."""
        if not self.is_bound:
            return self.definition.template_id
        raw = str(self.data.get("template_id", ""))
        return int(raw) if raw.isdecimal() and len(raw) < 19 else None
