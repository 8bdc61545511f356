"""A template as a form: its contents, one section for each channel and locale."""

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from frontend.wording.sayings import translated
from schedules.content import MAX_SOURCE
from schedules.models import Channel, MessageTemplate
from schedules.problems import Problem
from schedules.templates import LONGEST_LOCALE, LONGEST_NAME, PARTS

MOST_CONTENTS = 300
PREFIX = "contents"


class HeadForm(forms.Form):
    version = forms.IntegerField(required=False, min_value=1, widget=forms.HiddenInput)
    name = forms.CharField(
        max_length=LONGEST_NAME,
        label=gettext_lazy("Name"),
        help_text=gettext_lazy("Chosen once: imports know the template by it."),
    )
    default_locale = forms.CharField(
        max_length=LONGEST_LOCALE,
        label=gettext_lazy("Default language"),
        help_text=gettext_lazy("Serves everyone whose language has no content of its own. Such as en or de-AT."),
    )

    def __init__(self, *args: Any, is_new: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not is_new:
            del self.fields["name"]


class ContentForm(forms.Form):
    channel = forms.ChoiceField(label=gettext_lazy("Channel"), choices=Channel.choices)
    locale = forms.CharField(required=False, max_length=LONGEST_LOCALE, label=gettext_lazy("Language"))
    subject = forms.CharField(
        required=False,
        max_length=MAX_SOURCE["subject"],
        strip=False,
        label=gettext_lazy("Subject"),
        help_text=gettext_lazy("The title, in push and in-app messages."),
    )
    text = forms.CharField(
        required=False,
        strip=False,
        label=gettext_lazy("Text"),
        widget=forms.Textarea(attrs={"rows": 6, "class": "ns-source"}),
    )
    html = forms.CharField(
        required=False,
        strip=False,
        label=gettext_lazy("HTML"),
        help_text=gettext_lazy("For e-mail and in-app messages; push has none."),
        widget=forms.Textarea(attrs={"rows": 10, "class": "ns-source"}),
    )

    def content(self) -> dict[str, str]:
        """What was typed, valid or not, as ``schedules.templates`` has it; lines end as in a file."""
        return {part: _typed(self[part].value()) for part in PARTS}

    def says_something(self) -> bool:
        return not self._is_deleted() and any(self.content()[part] for part in ("locale", "subject", "text", "html"))

    def _is_deleted(self) -> bool:
        return "DELETE" in self.fields and bool(self["DELETE"].value())

    @property
    def heading(self) -> str:
        """As the section is called."""
        content = self.content()
        channel = dict(Channel.choices).get(content["channel"], content["channel"])
        return f"{channel} · {content['locale'] or _('new')}"


def _typed(value: object) -> str:
    return str(value or "").replace("\r\n", "\n").replace("\r", "\n")


class _Contents(forms.BaseFormSet):  # type: ignore[type-arg]
    def kept(self) -> list[ContentForm]:
        return [form for form in self.forms if form.says_something()]

    def contents(self) -> list[dict[str, str]]:
        return [form.content() for form in self.kept()]

    def is_valid(self) -> bool:
        return super().is_valid() and not any(form.errors for form in self.forms)

    def add_fields(self, form: Any, index: int | None) -> None:
        super().add_fields(form, index)
        form.fields["DELETE"].label = _("Take this content out when saving")


ContentForms = forms.formset_factory(
    ContentForm, formset=_Contents, extra=0, can_delete=True, max_num=MOST_CONTENTS, absolute_max=MOST_CONTENTS
)


def bound(data: Mapping[str, Any]) -> Any:
    return ContentForms(data, prefix=PREFIX)


def unbound(contents: Iterable[Mapping[str, str]]) -> Any:
    return ContentForms(initial=[dict(each) for each in contents], prefix=PREFIX)


def contents_of(template: MessageTemplate) -> list[dict[str, str]]:
    return list(template.contents.values(*PARTS))


def put(problems: Iterable[Problem], head: HeadForm, contents: Any) -> None:
    """Each problem of the domain at its field; what has none above the form."""
    kept = contents.kept()
    for problem in problems:
        match problem.field.split("/"):
            case ["contents", index, *part] if index.isdigit() and int(index) < len(kept):
                kept[int(index)].add_error(part[0] if part else "locale", _sentence(translated(problem.message)))
            case ["defaultLocale"]:
                head.add_error("default_locale", translated(problem.message))
            case ["name"] if "name" in head.fields:
                head.add_error("name", translated(problem.message))
            case _:
                head.add_error(None, translated(problem.message))


def _sentence(words: str) -> str:
    """Begun with a capital and ended with a full stop, as all errors of a form are."""
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"
