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
from schedules import clock, recipients
from schedules.imports.values import MAX_DEVICES, is_token
from schedules.models import Device, Recipient
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

    def clean(self) -> dict[str, Any]:
        """By the rules of files and of the API."""
        profile = {name: value for name, value in self.cleaned_data.items() if name in recipients.FIELDS}
        for problem in recipients.check(external_id=profile.pop("external_id", "-"), profile=profile):
            self.add_error(_FIELDS[problem.field.partition("/")[0]], problem.message)
        return self.cleaned_data


_FIELDS = {**{name: name for name in recipients.FIELDS}, "externalId": "external_id", "timeZone": "time_zone"}


class DeviceForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean_token(self) -> str:
        token: str = self.cleaned_data["token"]
        if not is_token(token):
            raise forms.ValidationError("A token has no spaces.")
        return token


class DeviceInline(Tabular):
    model = Device
    form = DeviceForm
    max_num = MAX_DEVICES
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
        profile = dict(form.cleaned_data)
        who_and_when: dict[str, Any] = {"by": self.by(request), "now": clock.now()}
        if change:
            recipients.replace(recipient_id=obj.pk, profile=profile, keep_objections=False, **who_and_when)
        else:
            obj.pk = recipients.create(external_id=profile["external_id"], profile=profile, **who_and_when).pk

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Devices. What is taken away goes first: its token may stand in another row."""
        formset.save(commit=False)
        of = {"recipient_id": form.instance.pk, "by": self.by(request), "now": clock.now()}
        for device in formset.deleted_objects:
            recipients.remove_device(device_id=device.pk, **of)
        for device, _ in formset.changed_objects:
            said = {"platform": device.platform, "token": device.token, "active": device.active}
            recipients.change_device(device_id=device.pk, **said, **of)
        for device in formset.new_objects:
            recipients.register_device(platform=device.platform, token=device.token, **of)

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
