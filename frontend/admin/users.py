"""People who sign in, and the roles they have."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from audit import trail
from audit.models import Action
from frontend import second_factor, verified
from frontend.access import actor
from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site
from frontend.models import Authenticator
from frontend.wording import number
from frontend.wording.actions import ROLES
from schedules import clock
from schedules.permissions import Ability, can

_ROLES_MEAN = _(
    "A marketer plans, an analyst looks on, an admin does all of it and manages people. Hold Ctrl (⌘ on a Mac) to"
    " choose several."
)


User._meta.app_config.verbose_name = _("People and roles")


class RoleFilter(admin.SimpleListFilter):
    title = _("role")
    parameter_name = "role"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(ROLES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        return queryset.filter(groups__name=self.value()) if self.value() in ROLES else queryset


@admin.register(User, site=site)
class UserAdmin(Admin, DjangoUserAdmin):  # type: ignore[misc,type-arg]
    """A role is a group; Django's staff flag and single permissions play no part."""

    view_ability = add_ability = change_ability = delete_ability = Ability.MANAGE_USERS
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "first_name", "last_name", "roles", "has_second_factor", "is_active", "last_seen")
    actions = ("sign_out", "reset_second_factor")
    list_filter = (RoleFilter, "is_active")
    readonly_fields = ("new_password", "last_seen", "joined")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "new_password", "is_active")}),
        (_("Person"), {"fields": ("first_name", "last_name", "email")}),
        (_("Roles"), {"fields": ("groups",)}),
        (_("Seen"), {"fields": ("last_seen", "joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "password1", "password2")}),)
    last_seen = moment("last_login", _("last seen"))
    joined = moment("date_joined", _("joined"))

    @admin.display(description=_("password"))
    def new_password(self, user: User) -> str:
        """In the place of its algorithm, salt and hash."""
        link = reverse("admin:auth_user_password_change", args=[user.pk])
        return format_html('<a class="ns-link" href="{}">{}</a>', link, gettext("Set a new one"))

    def get_queryset(self, request: HttpRequest) -> Any:
        factor = Authenticator.objects.filter(user=OuterRef("pk"), confirmed=True)
        return super().get_queryset(request).prefetch_related("groups").annotate(has_factor=Exists(factor))

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if field is not None and db_field.name == "groups":
            field.label = _("Roles")
            field.label_from_instance = _in_words  # type: ignore[method-assign, assignment]
            field.help_text = _ROLES_MEAN
        return field

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Whoever deletes himself may have been the last who could let anybody in.
        return super().has_delete_permission(request, obj) and obj != request.user

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        # Names and addresses are people's own: that they changed is kept, not what they are.
        changed: dict[str, Any] = {
            name: "changed" for name in form.changed_data if name in ("username", "first_name", "last_name", "email")
        }
        if change and "is_active" in form.changed_data:
            changed["is_active"] = [form.initial.get("is_active"), obj.is_active]
        if changed or not change:
            self._record(request, Action.ACCOUNT_UPDATE if change else Action.ACCOUNT_CREATE, obj, changed)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        before = _roles_of(form.instance)
        super().save_related(request, form, formsets, change)
        after = _roles_of(form.instance)
        if before != after:
            self._record(request, Action.ACCOUNT_ROLES, form.instance, {"roles": [before, after]})

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self._record(request, Action.ACCOUNT_DELETE, obj, {})
        super().delete_model(request, obj)

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for user in queryset:
            self._record(request, Action.ACCOUNT_DELETE, user, {})
        super().delete_queryset(request, queryset)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        if self.get_object(request, unquote(id)) == request.user:
            return HttpResponseRedirect(reverse("admin:password_change"))  # which asks for the present one
        with transaction.atomic():
            response: HttpResponse = super().user_change_password(request, id, form_url)
            if request.method == "POST" and response.status_code == 302:
                verified.password_changed(User.objects.get(pk=id), by=self.by(request))
        return response

    def _record(self, request: HttpRequest, action: Action, user: User, changes: dict[str, Any]) -> None:
        trail.record(action=action, by=actor(request.user), now=clock.now(), changes={"account": user.pk, **changes})

    @admin.display(description=_("second factor"), boolean=True)
    def has_second_factor(self, user: Any) -> bool:
        return bool(user.has_factor)

    def has_reset_permission(self, request: HttpRequest) -> bool:
        return can(request.user, Ability.MANAGE_USERS)

    @admin.action(description=_("Sign the chosen people out everywhere"), permissions=["reset"])
    def sign_out(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        chosen = list(queryset)
        ended = sum(verified.end_everywhere(each, by=self.by(request)) for each in chosen)
        if request.user in chosen:
            request.session.flush()  # or it would be saved once more, and is gone
        words = ngettext("%(n)s session has ended.", "%(n)s sessions have ended.", ended) % {"n": number(ended)}
        messages.success(request, words)

    @admin.action(description=_("Reset the second factor of the chosen people"), permissions=["reset"])
    def reset_second_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """For who has lost app and codes. One's own is turned off with a code: this session may be somebody else's."""
        others = [pk for pk in queryset.values_list("pk", flat=True) if pk != request.user.pk]
        done = sum(second_factor.reset(user_id=each, by=self.by(request), now=clock.now()) for each in others)
        words = ngettext("%(n)s second factor was reset.", "%(n)s second factors were reset.", done)
        messages.success(request, words % {"n": number(done)})

    @admin.display(description=_("roles"))
    def roles(self, user: User) -> str:
        names = [_in_words(group) for group in user.groups.all()]
        names += [gettext("superuser")] if user.is_superuser else []
        return ", ".join(names) or gettext("none: can't sign in")


def _in_words(group: Group) -> str:
    return str(ROLES.get(group.name, group.name))


def _roles_of(user: User) -> list[str]:
    # Past what has been prefetched: it shows the roles of before.
    return sorted(Group.objects.filter(user=user).values_list("name", flat=True))
