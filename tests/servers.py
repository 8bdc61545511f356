"""Where the tests' servers lie: below .local/tests, without fsync, and for each process of its own.

A plugin, named in pyproject.toml: pytest-django reads the settings, which start the servers, before any conftest. Tests
would else run on a demo's servers, and those that run in several processes would flush each other's Redis.
"""

import os
from pathlib import Path

from tests import migrated

if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker is told by who has started it
    _BELOW = Path(os.environ.get("LOCAL_DIR") or Path(__file__).resolve().parent.parent / ".local" / "tests")
    os.environ["TESTS_SERVERS"] = str(migrated.folder(_BELOW.resolve()))
_ROOT = Path(os.environ["TESTS_SERVERS"]) / os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["LOCAL_DIR"] = str(_ROOT)
os.environ.setdefault("LOCAL_PG_FSYNC", "off")
migrated.copy(_ROOT)
