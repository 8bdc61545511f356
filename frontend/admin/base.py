"""What all our model admins have in common: permissions by ability, no full counts, and only what is declared."""

from typing import Any, ClassVar

from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin as UnfoldModelAdmin
from unfold.views import ChangeList as UnfoldChangeList

from frontend import actors
from frontend.access import actor
from frontend.admin.paginator import EstimatedPaginator
from schedules.permissions import Ability, can


class ByAbility:
    """Django's permission questions, answered by ``schedules.permissions``; what is not declared nobody may."""

    view_ability: ClassVar[Ability] = Ability.READ
    add_ability: ClassVar[Ability | None] = None
    change_ability: ClassVar[Ability | None] = None
    delete_ability: ClassVar[Ability | None] = None

    def has_module_permission(self, request: HttpRequest) -> bool:
        return can(request.user, self.view_ability)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return can(request.user, self.view_ability)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return _may(request, self.add_ability)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return _may(request, self.change_ability)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return _may(request, self.delete_ability)


def _may(request: HttpRequest, ability: Ability | None) -> bool:
    return ability is not None and can(request.user, ability)


class ChangeList(UnfoldChangeList):  # type: ignore[misc]
    """Offers the way back to the whole list only from a part of it, and knows who made its rows."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.has_active_filters and not self.query:
            self.full_result_count = self.result_count
        makers = actors.names(getattr(row, "created_by", "") for row in self.result_list)
        for row in self.result_list:
            row.known_maker = makers.get(getattr(row, "created_by", ""))


class Admin(ByAbility, UnfoldModelAdmin):  # type: ignore[misc]
    paginator = EstimatedPaginator
    show_full_result_count = False
    list_per_page = 50
    compressed_fields = False
    view_on_site = False  # models of libraries have addresses that this service lacks
    # What deleting does where an operation does it; shown before anybody says yes.
    consequence: ClassVar[str | Promise] = ""
    # What an empty list says.
    nothing: ClassVar[str | Promise] = _("There is nothing here yet.")

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        if self.consequence:
            self.delete_confirmation_template = "frontend/delete.html"
        context = {**(extra_context or {}), "consequence": self.consequence}
        response: HttpResponse = super().delete_view(request, object_id, extra_context=context)
        return response

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: Any) -> HttpResponse:
        """Back to the list, which Django leaves to those who may change what stands in it."""
        super().response_delete(request, obj_display, obj_id)  # says that it is done
        return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """By the list's own filters alone: any other would tell, letter by letter, what the list does not show."""
        asked = self.get_list_filter(request) if request else self.list_filter
        filters = [getattr(each, "parameter_name", each) for each in asked]
        return lookup.partition("__")[0] in filters and super().lookup_allowed(lookup, value, request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ChangeList

    @staticmethod
    def by(request: HttpRequest) -> str:
        return actor(request.user)


def only(*objects: Any) -> tuple[list[str], dict[str, int], set[str], list[str]]:
    """What a confirmation page lists where an operation deletes, not Django's collector."""
    return [str(item) for item in objects], {}, set(), []
