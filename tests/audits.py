"""Rows to seal, a superuser who tampers with them, and what ``audit_verify`` says of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone
from psycopg.conninfo import make_conninfo

from audit import export, seals, trail
from audit.models import Action
from tests import roles
from tests.factories import NOW


def record(number: int = 1) -> list[int]:
    """Events of a transaction each; their ids."""
    return [trail.record(action=Action.SENDING_STOP, by="user:1", now=NOW, changes={"n": n}).pk for n in range(number)]


def conninfo(**values: str) -> str:
    asked = connection.settings_dict
    own = {"host": asked["HOST"], "port": asked["PORT"], "dbname": asked["NAME"], "user": asked["USER"]}
    return make_conninfo("", **{**own, "password": asked["PASSWORD"], **values})


@contextmanager
def tampering() -> Iterator[Callable[..., None]]:
    """SQL of a superuser who has put the triggers out of action."""
    with roles.owner(), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        yield cursor.execute


def verified() -> str:
    told = StringIO()
    call_command("audit_verify", stdout=told)
    return told.getvalue()


def problem() -> str:
    with pytest.raises(CommandError) as raised:
        call_command("audit_verify", stdout=StringIO())
    assert raised.value.returncode == 1
    return str(raised.value)


# --- Exported ---------------------------------------------------------------------------------------------------------
def seal_each(number: int = 1) -> list[int]:
    """Rows of a transaction each under a seal each; their ids."""
    ids = record(number)
    seals.seal(now=timezone.now(), limit=1)
    return ids


def exported(client: Any, name: str) -> list[str]:
    return [each["Key"] for each in client.list_objects_v2(Bucket=name).get("Contents", [])]


def first_version(client: Any, name: str, number: int) -> dict[str, Any]:
    found = client.list_object_versions(Bucket=name, Prefix=f"audit/{export.key_of(number)}")["Versions"]
    return {"Bucket": name, "Key": found[-1]["Key"], "VersionId": found[-1]["VersionId"]}
