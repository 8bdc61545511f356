"""Who may log in to the demo: one account for each role; and a customer of the pretend shop."""

from collections.abc import Mapping
from datetime import timedelta
from secrets import token_urlsafe

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.utils import timezone
from oauth2_provider.models import AccessToken, set_token_value

from frontend.models import Client
from schedules.models import Recipient
from schedules.permissions import Role, Scope

PEOPLE: Mapping[str, Role] = {"marketer": Role.MARKETER, "analyst": Role.ANALYST, "admin": Role.ADMIN}
"""Role by user name."""


def open_accounts(*, password: str) -> None:
    """Create the accounts that are missing; those that exist keep their password."""
    for name, role in PEOPLE.items():
        if User.objects.filter(username=name).exists():
            continue
        user = User(username=name, email=f"{name}@example.com", is_staff=True, is_superuser=role is Role.ADMIN)
        user.set_password(password)
        user.save()
        user.groups.add(Group.objects.get(name=role))


_SHOP = "A pretend shop"
_TOKEN_LIVES = timedelta(minutes=15)


def customer() -> str:
    """The external id of somebody whom the bulletin of each minute reaches; empty while nobody is there."""
    return (
        Recipient.objects.filter(tags__contains=["team"]).order_by("pk").values_list("external_id", flat=True).first()
        or ""
    )


@transaction.atomic
def token_for(name: str) -> str:
    """A token by which the shop reads the inbox of ``name``, as if that person had signed in there."""
    person, _ = User.objects.get_or_create(username=name, defaults={"password": "!"})
    shop, _ = Client.objects.get_or_create(
        name=_SHOP,
        defaults={
            "client_type": Client.CLIENT_CONFIDENTIAL,
            "authorization_grant_type": Client.GRANT_AUTHORIZATION_CODE,
            "client_secret": "!",
            "hash_client_secret": False,
            "scopes": Scope.INBOX.value,
        },
    )
    raw = token_urlsafe(32)
    made = AccessToken(application=shop, user=person, scope=Scope.INBOX.value, expires=timezone.now() + _TOKEN_LIVES)
    set_token_value(made, raw)
    made.save()
    return raw
