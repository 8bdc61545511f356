"""What all our model admins have in common: permissions by ability, no full counts, and only what is declared."""

from typing import Any, ClassVar

from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin as UnfoldModelAdmin
from unfold.admin import StackedInline as UnfoldStackedInline
from unfold.admin import TabularInline as UnfoldTabularInline

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


class Admin(ByAbility, UnfoldModelAdmin):  # type: ignore[misc]
    paginator = EstimatedPaginator
    show_full_result_count = False
    list_per_page = 50
    compressed_fields = False

    @staticmethod
    def by(request: HttpRequest) -> str:
        return actor(request.user)


class Tabular(ByAbility, UnfoldTabularInline):  # type: ignore[misc]
    extra = 0


class Stacked(ByAbility, UnfoldStackedInline):  # type: ignore[misc]
    extra = 0


def only(*objects: Any) -> tuple[list[str], dict[str, int], set[str], list[str]]:
    """What a confirmation page lists where an operation deletes, not Django's collector."""
    return [str(item) for item in objects], {}, set(), []
