"""Who may do what."""

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User

from schedules.permissions import Ability, Role, can, roles_of, shown_address
from tests.accounts import account

pytestmark = pytest.mark.django_db

GRANTED = {
    Role.ANALYST: {Ability.READ},
    Role.MARKETER: {
        *(Ability.READ, Ability.SEE_ADDRESSES, Ability.EDIT_SCHEDULES, Ability.EDIT_TEMPLATES, Ability.SUPPRESS),
    },
    Role.ADMIN: set(Ability),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("ability", Ability)
def test_a_role_may_exactly_what_is_granted_to_it(role, ability):
    assert can(account(role), ability) is (ability in GRANTED[role])


@pytest.mark.parametrize("ability", Ability)
def test_nobody_without_a_role_may_anything(ability):
    assert not can(AnonymousUser(), ability)
    assert not can(account(None), ability)


def test_staff_without_a_role_may_nothing():
    staff = User.objects.create_user("staff", is_staff=True)
    assert not any(can(staff, ability) for ability in Ability)


def test_the_inactive_may_nothing():
    gone = account(Role.ADMIN)
    gone.is_active = False
    assert not any(can(gone, ability) for ability in Ability)


def test_a_superuser_is_an_admin():
    assert roles_of(User.objects.create_superuser("root")) == {Role.ADMIN}


def test_roles_add_up():
    both = account(Role.ANALYST)
    both.groups.add(Group.objects.get_or_create(name=Role.MARKETER.value)[0])
    assert roles_of(both) == {Role.ANALYST, Role.MARKETER}
    assert can(both, Ability.EDIT_SCHEDULES)


def test_other_groups_give_nothing():
    stranger = account(None)
    stranger.groups.add(Group.objects.create(name="admin"))
    assert roles_of(stranger) == frozenset()


def test_the_migration_makes_a_group_for_every_role():
    assert set(Group.objects.values_list("name", flat=True)) >= {role.value for role in Role}


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("anna@example.com", "a…@example.com"),
        ("", ""),
        ("a@b@example.com", "a…@example.com"),
        ("token-123456,token-abcdef", "…123456, …abcdef"),
    ],
)
def test_an_analyst_sees_no_address_in_clear(address, masked):
    assert not can(account(Role.ANALYST), Ability.SEE_ADDRESSES)
    assert shown_address(address, in_clear=False) == masked


def test_a_marketer_sees_mail_addresses_and_nobody_sees_tokens():
    assert can(account(Role.MARKETER), Ability.SEE_ADDRESSES)
    assert shown_address("anna@example.com", in_clear=True) == "anna@example.com"
    assert shown_address("token-123456", in_clear=True) == "…123456"


def test_roles_are_read_once_per_user_object(django_assert_num_queries):
    person = User.objects.get(pk=account(Role.MARKETER).pk)
    with django_assert_num_queries(1):
        for ability in Ability:
            can(person, ability)
