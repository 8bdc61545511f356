"""Templates with their contents, and catalogues: kept by ``schedules.templates``, which checks and publishes."""

from collections import defaultdict
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextareaWidget

from frontend.admin.base import Admin, Stacked
from frontend.admin.columns import as_json, moment
from frontend.admin.problems import add_problems
from frontend.admin_site import site
from schedules import clock, templates
from schedules.models import Catalogue, MessageTemplate, TemplateContent, TemplateVersion
from schedules.permissions import Ability
from schedules.problems import Problem
from schedules.templates import PARTS, InvalidTemplate


class ContentFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """All contents of a template are checked together: the problems of each land in its own fields."""

    def contents(self) -> list[dict[str, str]]:
        return [{part: form.cleaned_data.get(part) or "" for part in PARTS} for form in self._kept()]

    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        default_locale = self.data.get("default_locale") or self.instance.default_locale
        forms_kept, left = self._kept(), []
        for problem in templates.check(self.contents(), default_locale=default_locale):
            match problem.field.split("/"):
                case ["contents", index, *part]:
                    place = part[0] if part else "locale"
                    add_problems(forms_kept[int(index)], [Problem(place, problem.code, problem.message)])
                case _:
                    left.append(problem.message)
        if left:
            raise forms.ValidationError(left)

    def validate_unique(self) -> None:
        """``templates.check`` says it better, and knows that de_AT and de-AT are one."""

    def _kept(self) -> list[Any]:
        forms: list[Any] = self.forms
        return [form for form in forms if form.says_something()]

    def is_valid(self) -> bool:
        # Problems are added to forms that were valid by themselves, so ask them once more.
        return super().is_valid() and not any(form.errors for form in self.forms)


class ContentForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = TemplateContent
        fields = PARTS
        widgets = {part: UnfoldAdminTextareaWidget(attrs={"rows": 6}) for part in ("text", "html")}

    def says_something(self) -> bool:
        """Neither left empty nor marked for deletion."""
        data = getattr(self, "cleaned_data", None) or {}
        return bool(data) and not data.get("DELETE") and (self.instance.pk is not None or self.has_changed())

    def _post_clean(self) -> None:
        """The formset checks the contents as a whole; the model's own constraints would only repeat it."""


class ContentInline(Stacked):
    model = TemplateContent
    form = ContentForm
    formset = ContentFormSet
    add_ability = change_ability = delete_ability = Ability.EDIT_TEMPLATES
    fields = (("channel", "locale"), "subject", "text", "html")


@admin.register(MessageTemplate, site=site)
class MessageTemplateAdmin(Admin):
    """The name is what a template is known by in imports: it is chosen once."""

    add_ability = change_ability = Ability.EDIT_TEMPLATES
    inlines = (ContentInline,)
    list_display = ("name", "speaks", "default_locale", "version", "updated")
    search_fields = ("name",)
    ordering = ("name",)
    created = moment("created_at")
    updated = moment("updated_at")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).live().prefetch_related("contents")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["name", "default_locale", *(["version", "created", "updated"] if obj else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["name", "version", "created", "updated"] if obj else []

    @admin.display(description="says something in")
    def speaks(self, template: MessageTemplate) -> str:
        places: dict[str, list[str]] = defaultdict(list)
        for content in template.contents.all():
            places[content.channel].append(content.locale)
        return "; ".join(f"{channel}: {', '.join(locales)}" for channel, locales in places.items()) or "—"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Written with the contents, by one operation."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        (contents,) = formsets
        saved = templates.save(
            name=form.instance.name,
            contents=contents.contents(),
            default_locale=form.instance.default_locale,
            by=self.by(request),
            now=clock.now(),
        )
        form.instance.pk = saved.pk
        contents.new_objects, contents.changed_objects, contents.deleted_objects = [], [], []


class CatalogueForm(forms.ModelForm):  # type: ignore[type-arg]
    by: ClassVar[str]

    class Meta:
        model = Catalogue
        fields = ("locale", "messages")
        help_texts = {
            "messages": '{"greeting": "Hallo", "items": {"one": "{count} Ding", "other": "{count} Dinge"}}',
        }

    def _post_clean(self) -> None:
        """Where a model form would validate the model, the operation does, and writes."""
        if self.errors:
            return
        locale = self.cleaned_data.get("locale") or self.instance.locale
        if self.instance.pk is None and Catalogue.objects.live().filter(locale=locale).exists():
            self.add_error("locale", "There is a catalogue for this locale already: edit that one.")
            return
        try:
            self.instance = templates.save_catalogue(
                locale=locale, messages=self.cleaned_data["messages"], by=self.by, now=clock.now()
            )
        except InvalidTemplate as error:
            add_problems(self, [_in_form(problem) for problem in error.problems])

    def save(self, commit: bool = True) -> Catalogue:
        """The operation has saved; there is nothing left to write."""
        self.save_m2m = lambda: None  # type: ignore[method-assign]
        saved: Catalogue = self.instance
        return saved


def _in_form(problem: Problem) -> Problem:
    """A problem of one message, at the field of all messages."""
    if problem.field == "locale":
        return problem
    return Problem("messages", problem.code, f"{problem.field}: {problem.message}")


@admin.register(Catalogue, site=site)
class CatalogueAdmin(Admin):
    add_ability = change_ability = Ability.EDIT_TEMPLATES
    form = CatalogueForm
    list_display = ("locale", "size", "updated")
    search_fields = ("locale",)
    ordering = ("locale",)
    updated = moment("updated_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["locale"] if obj else []

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.by = self.by(request)
        return form

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).live()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form's operation has saved."""

    @admin.display(description="messages")
    def size(self, catalogue: Catalogue) -> int:
        return len(catalogue.messages)


@admin.register(TemplateContent, site=site)
class TemplateContentAdmin(Admin):
    list_display = ("template", "channel", "locale", "subject")
    list_filter = ("channel",)
    list_select_related = ("template",)
    search_fields = ("template__name", "subject", "text")
    fields = ("template", "channel", "locale", "subject", "text", "html")
    readonly_fields = fields
    ordering = ("template__name", "channel", "locale")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(template__deleted_at__isnull=True)


@admin.register(TemplateVersion, site=site)
class TemplateVersionAdmin(Admin):
    list_display = ("template", "version", "created")
    list_select_related = ("template",)
    search_fields = ("template__name",)
    ordering = ("-id",)
    fields = ("template", "version", "created", "contents_json")
    readonly_fields = fields
    created = moment("created_at")
    contents_json = as_json("contents")
