"""People who sign in, and the roles they have."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site
from schedules.permissions import Ability


@admin.register(User, site=site)
class UserAdmin(Admin, DjangoUserAdmin):  # type: ignore[misc,type-arg]
    """A role is a group; Django's staff flag and single permissions play no part."""

    view_ability = add_ability = change_ability = delete_ability = Ability.MANAGE_USERS
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "first_name", "last_name", "roles", "is_active", "last_seen")
    list_filter = ("groups", "is_active")
    readonly_fields = ("last_seen", "joined")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password", "is_active")}),
        (_("Person"), {"fields": ("first_name", "last_name", "email")}),
        (_("Roles"), {"fields": ("groups",)}),
        (_("Seen"), {"fields": ("last_seen", "joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "usable_password", "password1", "password2")}),)
    last_seen = moment("last_login", _("last seen"))
    joined = moment("date_joined", _("joined"))

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Whoever deletes himself may have been the last who could let anybody in.
        return super().has_delete_permission(request, obj) and obj != request.user

    @admin.display(description=_("roles"))
    def roles(self, user: User) -> str:
        names = [group.name for group in user.groups.all()] + ([gettext("superuser")] if user.is_superuser else [])
        return ", ".join(names) or gettext("none: can't sign in")


@admin.register(Group, site=site)
class GroupAdmin(Admin):
    """The roles, fixed by ``schedules.permissions``."""

    view_ability = Ability.MANAGE_USERS
    list_display = ("name", "people")
    search_fields = ("name",)
    fields = readonly_fields = ("name", "people")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("user_set")

    @admin.display(description=_("people"))
    def people(self, group: Group) -> str:
        return ", ".join(user.get_username() for user in group.user_set.all()) or "—"
