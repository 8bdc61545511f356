"""Whether a folder lies on a volume that Linux encrypts: what the machine itself can tell, and no more.

A disk that a provider encrypts below the machine looks like any other from here.
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

_ROOT = Path("/")


class Volume(StrEnum):
    ENCRYPTED = "encrypted by this machine (dm-crypt)"
    MEMORY = "in memory"
    UNKNOWN = "not seen to be encrypted"


def volume_of(folder: Path, *, root: Path = _ROOT) -> Volume:
    """``root`` is where ``/proc`` and ``/sys`` lie. Raises ``OSError`` where there is no ``/proc``."""
    device, kind = _mounted(folder, root)
    if kind in ("tmpfs", "ramfs"):
        return Volume.MEMORY
    names = _below(root / "sys/dev/block" / device)
    return Volume.ENCRYPTED if any(name.startswith("CRYPT-") for name in names) else Volume.UNKNOWN


def _mounted(folder: Path, root: Path) -> tuple[str, str]:
    """Major and minor number of the device below the folder, and the kind of its file system (proc(5), mountinfo)."""
    found = ("", "", "")
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        point = fields[4].encode().decode("unicode_escape")
        # The last of those that are mounted over each other counts.
        if folder.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, fields[2], right.split()[0])
    return found[1:]


def _below(device: Path) -> Iterator[str]:
    """The device mapper's names of a block device and of those that it lies on: a volume group on an encrypted disk."""
    name = device / "dm/uuid"
    if name.exists():
        yield name.read_text().strip()
    for lower in (device / "slaves").glob("*"):
        yield from _below(lower)
