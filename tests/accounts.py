"""People who sign in, by role."""

from django.contrib.auth.models import Group, User
from django.test import Client

from schedules.permissions import Role

PASSWORD = "for-tests-only"


def account(role: Role | None, *, name: str = "", password: str | None = None) -> User:
    """Somebody with ``role``; none for somebody who has an account and nothing else.

    Without a password, as hashing one takes longer than most tests.
    """
    person = User.objects.create_user(username=name or (role.lower() if role else "nobody"), password=password)
    if role:
        person.groups.add(Group.objects.get_or_create(name=role.value)[0])
    return person


def signed_in(role: Role | None, *, name: str = "") -> Client:
    """A browser in which such a person is signed in."""
    client = Client()
    client.force_login(account(role, name=name))
    return client
