"""PgBouncer in transaction mode in front of the tests' PostgreSQL, and programs of the system's that tests need."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connections

from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.pgbouncer import Pgbouncer
from scheduler_project.local.ports import LOOPBACK, free_port
from scheduler_project.local.programs import find
from scheduler_project.local.supervisor import Supervisor
from tests.service import PATIENCE_S

# Each transaction goes to another server connection than the one before: what a session keeps is missed at once.
ROUND = {"server_round_robin": "1", "default_pool_size": "8", "min_pool_size": "4"}


def needed(name: str) -> Path:
    """Without the program the test is skipped, and in CI it fails."""
    try:
        return find(name)
    except LocalServicesError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@contextmanager
def pooled(root: Path, *, more: Mapping[str, str] = ROUND) -> Iterator[Pgbouncer]:
    """Django's connections go by a PgBouncer, up to the end of the block; so do those of threads."""
    needed("pgbouncer")
    given = connections["default"].settings_dict
    before = {name: given[name] for name in ("HOST", "PORT")}
    user, password = (quote(str(given[name]), safe="") for name in ("USER", "PASSWORD"))
    url = f"postgresql://{user}:{password}@{given['HOST']}:{given['PORT']}/{given['NAME']}"
    pooler = Pgbouncer("pgbouncer", root / "pgbouncer", free_port(), url, more=more)
    with Supervisor([pooler.process()], logs=root / "logs") as supervisor:
        supervisor.wait_ready(seconds=PATIENCE_S)
        _lead_to({"HOST": LOOPBACK, "PORT": pooler.port})
        try:
            yield pooler
        finally:
            _lead_to(before)


def _lead_to(address: Mapping[str, Any]) -> None:
    connections["default"].close()
    connections["default"].settings_dict.update(address)
