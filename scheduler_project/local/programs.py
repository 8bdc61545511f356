"""Programs of the system's packages."""

import os
import shutil
from pathlib import Path

from scheduler_project.local.errors import LocalServicesError

# Where Debian puts servers, and where an ordinary user's PATH doesn't lead.
_MORE = ("/usr/sbin", "/usr/local/sbin")


def find(name: str) -> Path:
    """The program, which Debian's package of the same name brings. Raises LocalServicesError, which says so."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_MORE])
    if found := shutil.which(name, path=path):
        return Path(found)
    raise LocalServicesError(
        f"No {name} found: install your system's package `{name}`, or run `make programs` as root on Debian."
    )
