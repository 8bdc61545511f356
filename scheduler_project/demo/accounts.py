"""Who may log in to the demo: one account for each role."""

from collections.abc import Mapping

from django.contrib.auth.models import Group, User

from schedules.permissions import Role

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
