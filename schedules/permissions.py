"""Who may do what: the one answer that admin, pages and API share.

A person's roles are the groups he is in; a superuser is an admin. What a role may is written here and nowhere else.
A token adds scopes: a service's token may what its scopes say, a person's token what scope *and* role say.
"""

from collections.abc import Container, Mapping
from enum import StrEnum

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin

from schedules.fields import UnreadableText


class Role(StrEnum):
    """Names of the groups, made by a migration."""

    MARKETER = "MARKETER"
    ADMIN = "ADMIN"
    ANALYST = "ANALYST"


class Ability(StrEnum):
    """What is asked for at a door."""

    READ = "read"
    SEE_ADDRESSES = "see_addresses"  # e-mail addresses and device tokens in clear
    EDIT_SCHEDULES = "edit_schedules"
    EDIT_TEMPLATES = "edit_templates"
    EDIT_RECIPIENTS = "edit_recipients"  # erasing a person included
    SUPPRESS = (
        "suppress"  # keep an address from being written to; who has complained is let go by EDIT_RECIPIENTS alone
    )
    STOP_SENDING = "stop_sending"
    MANAGE_CLOCK = "manage_clock"
    MANAGE_USERS = "manage_users"
    MANAGE_ENDPOINTS = "manage_endpoints"  # who is told what happens, and what became of it


class Scope(StrEnum):
    """What an access token was issued for."""

    READ = "notification:read"
    WRITE = "notification:write"
    INBOX = "inbox"  # a person's own messages; means nothing in a service's token


_GRANTS: Mapping[Role, frozenset[Ability]] = {
    Role.ANALYST: frozenset({Ability.READ}),
    Role.MARKETER: frozenset(
        {Ability.READ, Ability.SEE_ADDRESSES, Ability.EDIT_SCHEDULES, Ability.EDIT_TEMPLATES, Ability.SUPPRESS}
    ),
    Role.ADMIN: frozenset(Ability),
}
# Abilities that no scope gives stay with people: a token may not manage accounts or the test clock.
_SCOPES: Mapping[Ability, Scope] = {
    Ability.READ: Scope.READ,
    Ability.SEE_ADDRESSES: Scope.WRITE,
    Ability.EDIT_SCHEDULES: Scope.WRITE,
    Ability.EDIT_TEMPLATES: Scope.WRITE,
    Ability.EDIT_RECIPIENTS: Scope.WRITE,
    Ability.SUPPRESS: Scope.WRITE,
    Ability.MANAGE_ENDPOINTS: Scope.WRITE,
}
_ROLES = "_roles_once_read"


def roles_of(user: AbstractBaseUser | AnonymousUser) -> frozenset[Role]:
    """The roles of ``user``, none for the inactive and the anonymous.

    Read once per user object, hence once per request, as Django does with its own permissions.
    """
    if not user.is_active or not isinstance(user, PermissionsMixin):
        return frozenset()
    if not hasattr(user, _ROLES):
        names = set(user.groups.values_list("name", flat=True))
        roles = {role for role in Role if role in names} | ({Role.ADMIN} if user.is_superuser else set())
        setattr(user, _ROLES, frozenset(roles))
    roles_read: frozenset[Role] = getattr(user, _ROLES)
    return roles_read


def can(user: AbstractBaseUser | AnonymousUser, ability: Ability) -> bool:
    return any(ability in _GRANTS[role] for role in roles_of(user))


def scope_for(ability: Ability) -> Scope | None:
    """The scope that a token needs for ``ability``; None where no token is enough."""
    return _SCOPES.get(ability)


def token_can(user: AbstractBaseUser | None, scopes: Container[str], ability: Ability) -> bool:
    """Whether a token with ``scopes`` admits it: a service's (``user`` is None), or a person's who has the role too."""
    needed = _SCOPES.get(ability)
    return needed is not None and needed in scopes and (user is None or can(user, ability))


def shown_address(address: str, *, in_clear: bool) -> str:
    """``address`` as it may be seen: an e-mail address in clear for who has ``SEE_ADDRESSES``, else ``masked``.

    Of several, separated by commas, each. A device token is masked for everyone: nobody reads one.
    """
    if isinstance(address, UnreadableText):
        return address
    parts = (part.strip() for part in address.split(","))
    return ", ".join(part if in_clear and "@" in part else masked(part) for part in parts)


def masked(address: str) -> str:
    """``a…@example.com`` for ``anna@example.com``; of a device token the last six characters."""
    if isinstance(address, UnreadableText):
        return address
    name, at, domain = address.rpartition("@")
    if at:
        return f"{name[:1]}…@{domain}"
    return f"…{address[-6:]}" if address else ""
