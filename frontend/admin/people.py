"""Recipients and their devices. Deleting a recipient is erasing the person: ``delivery.erasure``."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from delivery import erasure
from frontend.admin.base import Admin, Tabular, only
from frontend.admin.columns import moment
from frontend.admin.filters import IndexedChoices
from frontend.admin_site import site
from schedules import clock
from schedules.models import Channel, Device, Recipient
from schedules.permissions import Ability, can, masked


class RecipientForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Recipient
        fields = ("external_id", "email", "locale", "time_zone", "attributes", "tags", "consent")
        help_texts = {
            "time_zone": "An IANA zone such as Europe/Berlin. A wrong one falls back to the schedule's.",
            "attributes": 'A JSON object: {"plan": "pro"}',
            "tags": 'A JSON list of words: ["beta"]',
            "consent": 'By channel, false means opted out: {"email": false}',
        }

    def clean_attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = _of_type(
            self.cleaned_data["attributes"], dict, 'Write a JSON object: {"plan": "pro"}'
        )
        return attributes

    def clean_tags(self) -> list[str]:
        tags: list[Any] = _of_type(self.cleaned_data["tags"], list, 'Write a JSON list of words: ["beta"]')
        if not all(isinstance(tag, str) for tag in tags):
            raise forms.ValidationError('Every tag is a word in quotes: ["beta"]')
        return tags

    def clean_consent(self) -> dict[str, bool]:
        consent: dict[str, Any] = _of_type(self.cleaned_data["consent"], dict, 'Write a JSON object: {"email": false}')
        if not (consent.keys() <= set(Channel.values) and all(isinstance(value, bool) for value in consent.values())):
            raise forms.ValidationError(f"Map channels ({', '.join(Channel.values)}) to true or false.")
        return consent


def _of_type(value: Any, kind: type, remedy: str) -> Any:
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise forms.ValidationError(remedy)
    return value


class DeviceInline(Tabular):
    model = Device
    fields = ("token", "platform", "active")
    add_ability = change_ability = delete_ability = Ability.EDIT_RECIPIENTS
    # The token is an address: in clear only to those who edit it.
    view_ability = Ability.EDIT_RECIPIENTS


class LocaleFilter(IndexedChoices):
    title = "locale"
    parameter_name = "locale"


class TimeZoneFilter(IndexedChoices):
    title = "time zone"
    parameter_name = "time_zone"


@admin.register(Recipient, site=site)
class RecipientAdmin(Admin):
    add_ability = change_ability = delete_ability = Ability.EDIT_RECIPIENTS
    form = RecipientForm
    consequence = (
        "The person is erased: profile, devices, inbox and kept messages. Whatever is still to come is not sent."
        " The ledger keeps a number and no name. There is no way back."
    )
    inlines = (DeviceInline,)
    list_filter = (LocaleFilter, TimeZoneFilter)
    ordering = ("-id",)
    created = moment("created_at")
    updated = moment("updated_at")

    def get_list_display(self, request: HttpRequest) -> list[str]:
        return ["external_id", _address_field(request), "locale", "time_zone", "tags_shown", "created"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        profile = ["external_id", _address_field(request), "locale", "time_zone", "attributes", "tags", "consent"]
        return profile + (["created", "updated"] if obj else [])

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["masked_email", "created", "updated"]

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # Whoever may not see an address may not guess it letter by letter either.
        by_address = ("email__startswith",) if can(request.user, Ability.SEE_ADDRESSES) else ()
        return ("external_id__startswith", *by_address)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        chosen = list(objs)
        return only(*chosen, *(f"device {device}" for person in chosen for device in person.devices.all()))

    @admin.display(description="e-mail")
    def masked_email(self, recipient: Recipient) -> str:
        return masked(recipient.email) or "—"

    @admin.display(description="tags")
    def tags_shown(self, recipient: Recipient) -> str:
        return ", ".join(str(tag) for tag in recipient.tags) or "—"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.updated_at = clock.now()
        super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        erasure.forget(recipient_id=obj.pk, by=self.by(request), now=clock.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Recipient]) -> None:
        for recipient in queryset:
            self.delete_model(request, recipient)

    # Django's own log would keep the external id of somebody who is erased.
    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None: ...
    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None: ...
    def log_deletions(self, request: HttpRequest, queryset: Any) -> None: ...


def _address_field(request: HttpRequest) -> str:
    return "email" if can(request.user, Ability.SEE_ADDRESSES) else "masked_email"


@admin.register(Device, site=site)
class DeviceAdmin(Admin):
    list_display = ("shown_token", "recipient", "platform", "active", "created")
    list_filter = ("platform", "active")
    list_select_related = ("recipient",)
    search_fields = ("recipient__external_id__startswith",)
    search_help_text = "How the recipient's external id begins"
    ordering = ("-id",)
    fields = ("shown_token", "recipient", "platform", "active", "created")
    readonly_fields = fields
    created = moment("created_at")

    @admin.display(description="token")
    def shown_token(self, device: Device) -> str:
        return masked(device.token)
