"""A profile as a form: no JSON but where a value is a list or an object."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from frontend.wording.sayings import translated
from schedules import consents, topics
from schedules.audience.parser import ATTRIBUTE_NAME
from schedules.imports.values import BOOLEANS
from schedules.models import Channel, Device, Recipient, Topic
from schedules.problems import Problem
from schedules.quiet_hours import QuietHours
from schedules.storable import json_fault

_FIELDS = {"externalId": "external_id", "timeZone": "time_zone", "quietHours": "quiet_to"}
SPARE_ROWS = 3


class _Clock(forms.TimeInput):
    input_type = "time"

    def __init__(self) -> None:
        super().__init__(format="%H:%M")


class ProfileForm(forms.Form):
    version = forms.IntegerField(required=False, min_value=1, widget=forms.HiddenInput)
    external_id = forms.CharField(
        max_length=200,
        label=gettext_lazy("External id"),
        help_text=gettext_lazy("The id under which your other programs know the person."),
    )
    email = forms.CharField(required=False, max_length=320, label=gettext_lazy("E-mail address"))
    locale = forms.CharField(
        required=False, max_length=35, label=gettext_lazy("Language"), help_text=gettext_lazy("Such as de or de-AT.")
    )
    time_zone = forms.CharField(
        required=False,
        max_length=64,
        label=gettext_lazy("Time zone"),
        help_text=gettext_lazy("Such as Europe/Vienna. Without one, or with an unknown one, the schedule's is used."),
        widget=forms.TextInput(attrs={"list": "zones", "autocomplete": "off"}),
    )
    quiet_from = forms.TimeField(
        required=False,
        label=gettext_lazy("Quiet hours from"),
        widget=_Clock,
        error_messages={"invalid": gettext_lazy("Write a time such as 09:00.")},
    )
    quiet_to = forms.TimeField(
        required=False,
        label=gettext_lazy("Quiet hours until"),
        help_text=gettext_lazy(
            "On the person's own clock: no e-mail and no push message comes then, but for transactional ones."
        ),
        widget=_Clock,
        error_messages={"invalid": gettext_lazy("Write a time such as 09:00.")},
    )
    tags = forms.CharField(
        required=False,
        label=gettext_lazy("Tags"),
        help_text=gettext_lazy("One a line."),
        widget=forms.Textarea(attrs={"rows": 3}),
    )

    bring_back = forms.BooleanField(
        required=False, label=gettext_lazy("Bring the erased person back"), widget=forms.HiddenInput
    )

    def ask_whether_back(self) -> None:
        """Show the box: whoever is to be kept was erased before."""
        self.fields["bring_back"].widget = forms.CheckboxInput()

    def __init__(self, *args: Any, person: Recipient | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.person = person
        self._topics = topics.offered()
        for topic in (None, *self._topics):
            for channel in Channel:
                self.fields[_field(topic, channel)] = forms.ChoiceField(
                    required=False,
                    label=channel.label,
                    choices=[("", _("Has not said")), ("yes", _("Agreed")), ("no", _("Opted out"))],
                )

    def consents(self) -> list[forms.BoundField]:
        return [self[_field(None, channel)] for channel in Channel]

    def consents_of_topics(self) -> list[tuple[Topic, list[forms.BoundField]]]:
        return [(topic, [self[_field(topic, channel)] for channel in Channel]) for topic in self._topics]

    def clean(self) -> dict[str, Any]:
        """Quiet hours have both their ends, or none."""
        data = self.cleaned_data
        begins, ends = data.get("quiet_from"), data.get("quiet_to")
        for name, own, other in (("quiet_from", begins, ends), ("quiet_to", ends, begins)):
            if own is None and other is not None and name in data:
                self.add_error(name, _("Write a time here too, or leave both empty."))
        return data

    def profile(self) -> dict[str, Any]:
        """As ``schedules.recipients`` has it, without attributes."""
        data = self.cleaned_data
        asked = [name for name in self.fields if name.startswith(_CONSENT)]
        said = {name.removeprefix(_CONSENT): data[name] for name in asked}
        # Of topics that are offered no more what was said stays.
        unasked = {key: agreed for key, agreed in self.person.consent.items() if key not in said} if self.person else {}
        return {
            **{name: data[name] for name in ("external_id", "email", "locale", "time_zone")},
            "quiet_hours": self._quiet_hours(),
            "tags": [tag.strip() for tag in data["tags"].splitlines() if tag.strip()],
            "consent": {**unasked, **{key: answer == "yes" for key, answer in said.items() if answer}},
        }

    def _quiet_hours(self) -> QuietHours | None:
        begins, ends = self.cleaned_data["quiet_from"], self.cleaned_data["quiet_to"]
        return {"from": f"{begins:%H:%M}", "to": f"{ends:%H:%M}"} if begins and ends else None


_CONSENT = "consent_"


def _field(topic: Topic | None, channel: Channel) -> str:
    return _CONSENT + consents.key(channel.value, topic.key if topic else None)


class AttributeForm(forms.Form):
    name = forms.CharField(required=False, max_length=64, label=gettext_lazy("Name"))
    kind = forms.ChoiceField(
        label=gettext_lazy("Kind"),
        choices=[
            ("text", gettext_lazy("text")),
            ("number", gettext_lazy("number")),
            ("boolean", gettext_lazy("yes or no")),
            ("json", gettext_lazy("list or object")),
        ],
    )
    value = forms.CharField(required=False, max_length=16_384, label=gettext_lazy("Value"), strip=False)

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        if data.get("value") and not data.get("name"):
            self.add_error("name", _("Name the attribute, or empty its value."))
        elif data.get("name") and "value" in data:
            if not ATTRIBUTE_NAME.fullmatch(data["name"]):
                self.add_error("name", _("A name has 1 to 64 letters, digits, _ or -."))
            try:
                data["read"] = _read(data.get("kind", ""), data["value"])
            except ValueError as error:
                self.add_error("value", str(error))
        return data


def _read(kind: str, text: str) -> Any:
    """Raises ``ValueError``, with the remedy."""
    if kind == "text":
        return text
    if kind == "boolean":
        if text.strip().casefold() not in BOOLEANS:
            raise ValueError(_("Write yes or no."))
        return BOOLEANS[text.strip().casefold()]
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(_("It is nested too deep.")) from None
    except ValueError as error:
        where = _(" (%(error)s)") % {"error": error} if kind == "json" else ""
        words = _("Write a list such as [1, 2] or an object such as {}.") if kind == "json" else _no_number()
        raise ValueError(f"{words}{where}") from None
    if fault := json_fault(found):
        raise ValueError(fault)
    if kind == "number" and (isinstance(found, bool) or not isinstance(found, int | float)):
        raise ValueError(_no_number())
    return found


def _no_number() -> str:
    return _("Write a number such as 30 or -1.5.")


class _Attributes(forms.BaseFormSet):  # type: ignore[type-arg]
    def clean(self) -> None:
        seen: set[str] = set()
        for form in self.forms:
            name = form.cleaned_data.get("name", "") if hasattr(form, "cleaned_data") else ""
            if name and name in seen:
                form.add_error("name", _("This name stands above already: keep one of the two."))
            seen.add(name)

    def is_valid(self) -> bool:
        return super().is_valid() and not any(form.errors for form in self.forms)

    def read(self) -> dict[str, Any]:
        return {
            form.cleaned_data["name"]: form.cleaned_data["read"] for form in self.forms if "read" in form.cleaned_data
        }


AttributeForms = forms.formset_factory(AttributeForm, formset=_Attributes, extra=SPARE_ROWS, max_num=1_000)


def initial_of(person: Recipient) -> dict[str, Any]:
    said = {f"{_CONSENT}{key}": "yes" if agreed else "no" for key, agreed in person.consent.items()}
    hours = person.quiet_hours or {}
    return {
        "quiet_from": hours.get("from"),
        "quiet_to": hours.get("to"),
        **{name: getattr(person, name) for name in ("version", "external_id", "email", "locale", "time_zone")},
        "tags": "\n".join(str(tag) for tag in person.tags),
        **said,
    }


def attributes_of(person: Recipient) -> list[dict[str, str]]:
    return [attribute_row(name, value) for name, value in sorted(person.attributes.items())]


def attribute_row(name: str, value: object) -> dict[str, str]:
    if isinstance(value, str):
        return {"name": name, "kind": "text", "value": value}
    if isinstance(value, bool):
        return {"name": name, "kind": "boolean", "value": _("yes") if value else _("no")}
    kind = "number" if isinstance(value, int | float) else "json"
    return {"name": name, "kind": kind, "value": json.dumps(value, ensure_ascii=False)}


def put(problems: Iterable[Problem], form: ProfileForm, attributes: Any) -> None:
    """Each problem of the domain at its field; what has none above the form."""
    rows: Mapping[str, forms.Form] = {each.cleaned_data.get("name", ""): each for each in attributes.forms}
    for problem in problems:
        head, _slash, rest = problem.field.partition("/")
        field = _FIELDS.get(head, head)
        if head == "attributes" and rest.partition("/")[0] in rows:
            rows[rest.partition("/")[0]].add_error("value", translated(problem.message))
        elif head == "consent" and f"{_CONSENT}{rest}" in form.fields:
            form.add_error(f"{_CONSENT}{rest}", translated(problem.message))
        elif field in form.fields:
            form.add_error(field, translated(problem.message))
        else:
            form.add_error(None, f"{head}: {translated(problem.message)}")


def _platforms() -> list[tuple[str, str]]:
    return [(str(value), str(label)) for value, label in Device._meta.get_field("platform").flatchoices]


class DeviceForm(forms.Form):
    platform = forms.ChoiceField(label=gettext_lazy("Platform"), choices=_platforms())
    token = forms.CharField(
        max_length=500,
        label=gettext_lazy("Token"),
        help_text=gettext_lazy("The registration token of the push provider. Whoever had it has it no more."),
    )


class EraseForm(forms.Form):
    version = forms.IntegerField(min_value=1, widget=forms.HiddenInput)
    external_id = forms.CharField(max_length=200, strip=False, widget=forms.TextInput(attrs={"autocomplete": "off"}))

    def __init__(self, person: Recipient, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._person = person
        self.fields["external_id"].label = _("Type the external id: %(id)s") % {"id": person.external_id}

    def clean_external_id(self) -> str:
        typed: str = self.cleaned_data["external_id"]
        if typed != self._person.external_id:
            raise forms.ValidationError(_("That is not this person's external id. Nobody was erased."))
        return typed
