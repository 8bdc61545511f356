"""Programs that may ask for tokens: who they are and what they may; made by ``manage.py create_service_client``."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Max, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from frontend import clients
from frontend.admin.base import Admin, only
from frontend.admin.columns import moment, named
from frontend.admin_site import site
from frontend.models import Client
from frontend.wording import number
from frontend.wording.actions import SCOPES
from schedules import clock
from schedules.permissions import Ability, can


@admin.register(Client, site=site)
class ClientAdmin(Admin):
    """To look at, to sign out and to remove. Nothing of a secret is shown, not even its hash."""

    view_ability = delete_ability = Ability.MANAGE_USERS
    consequence = _("It is let in no more: its tokens end at once, and it can't ask for new ones.")
    nothing = _("No program asks for tokens yet. On the server, manage.py create_service_client makes one.")
    list_display = ("name", "kind", "may", "live_tokens", "last_token", "made")
    search_fields = ("name", "=client_id")
    search_help_text = _("Name or client id")
    ordering = ("name",)
    fields = readonly_fields = ("name", "id_of_client", "kind", "may", "returns_to", "live_tokens", "made")
    actions = ("revoke",)
    id_of_client = named("client_id", _("client id"))
    made = moment("created", _("made"))
    last_token = moment("last_token_at", _("last token"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Client]:
        live = Q(accesstoken__expires__gt=timezone.now())
        rows: QuerySet[Client] = super().get_queryset(request)
        counted: QuerySet[Client] = rows.annotate(
            live_tokens_count=Count("accesstoken", live), last_token_at=Max("accesstoken__created")
        )
        return counted

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return can(request.user, Ability.MANAGE_USERS)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        return only(*(_("The client “%(name)s” and its tokens") % {"name": client} for client in objs))

    @admin.display(description=_("kind"))
    def kind(self, client: Client) -> Any:
        is_service = client.authorization_grant_type == Client.GRANT_CLIENT_CREDENTIALS
        return _("service") if is_service else _("app that people sign in through")

    @admin.display(description=_("may"), ordering="scopes")
    def may(self, client: Client) -> str:
        return ", ".join(str(SCOPES.get(scope, scope)) for scope in client.scopes.split()) or "—"

    @admin.display(description=_("returns to"))
    def returns_to(self, client: Client) -> str:
        return str(client.redirect_uris) or "—"

    @admin.display(description=_("live tokens"))
    def live_tokens(self, client: Client) -> int:
        live: int = client.live_tokens_count
        return live

    @admin.action(description=_("End all tokens of the chosen clients"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Client]) -> None:
        chosen = list(queryset.values_list("pk", flat=True))
        ended = sum(clients.revoke_tokens(client_id=each, by=self.by(request), now=clock.now()) for each in chosen)
        words = ngettext("%(n)s token has ended.", "%(n)s tokens have ended.", ended) % {"n": number(ended)}
        messages.success(request, f"{words} {_('Each client may ask for new ones.')}")

    def delete_model(self, request: HttpRequest, obj: Client) -> None:
        clients.delete(client_id=obj.pk, by=self.by(request), now=clock.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Client]) -> None:
        for client_id in list(queryset.values_list("pk", flat=True)):
            clients.delete(client_id=client_id, by=self.by(request), now=clock.now())
