"""The tests sign in to the database as the application does; what only its owner may is done inside ``owner()``."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from audit import roles
from tests.migrated import PASSWORD

# Of the test's database, and of all roles: it has made the tables.
_owners: list[BaseDatabaseWrapper] = []


def enter() -> None:
    """From here on each connection is the application's: of this process, its threads, and who takes its settings."""
    roles.grant(password=PASSWORD)
    connection = connections["default"]
    _owners.append(connection.copy())
    connection.close()
    for given in (connection.settings_dict, settings.DATABASES["default"]):
        given.update(USER=roles.APP, PASSWORD=PASSWORD)


def leave() -> None:
    """The owner's again, who drops the test's database."""
    owner = _owners.pop()
    owner.close()
    connections["default"].close()
    for given in (connections["default"].settings_dict, settings.DATABASES["default"]):
        given.update({name: owner.settings_dict[name] for name in ("USER", "PASSWORD")})


@contextmanager
def owner() -> Iterator[None]:
    """Django's connection is another one inside, a superuser's. It sees what is committed."""
    application, (owner,) = connections["default"], _owners
    connections["default"] = owner
    try:
        owner.close_if_unusable_or_obsolete()
        yield
    finally:
        connections["default"] = application
