"""Whether a folder lies on a volume that Linux encrypts: what the machine itself can tell, and no more.

A disk that a provider encrypts below the machine looks like any other from here.
"""

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
    return Volume.ENCRYPTED if _is_encrypted(root / "sys/dev/block" / device) else Volume.UNKNOWN


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


def _is_encrypted(device: Path) -> bool:
    """Whether it is dm-crypt's, or lies on devices that all are: a volume group may have one encrypted disk of two."""
    uuid = device / "dm/uuid"  # the device mapper's name of it
    if uuid.exists() and uuid.read_text().startswith("CRYPT-"):
        return True
    lower = list((device / "slaves").glob("*"))
    return bool(lower) and all(_is_encrypted(each) for each in lower)
