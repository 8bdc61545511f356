"""Of a folder it is told whether the machine encrypts what it lies on, by files as Linux has them."""

from pathlib import Path

import pytest

from scheduler_project.volumes import Volume, volume_of

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /tmp rw,nosuid shared:2 - tmpfs tmpfs rw
24 22 253:1 / /var/lib rw,relatime - ext4 /dev/mapper/group-data rw
25 22 253:2 / /srv/plain rw,relatime - ext4 /dev/mapper/group-plain rw
26 22 253:3 / /srv/with\\040space rw,relatime - ext4 /dev/mapper/crypt rw
27 25 253:3 / /srv/plain rw,relatime - ext4 /dev/mapper/crypt rw
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A disk in clear; a logical volume on an encrypted disk, one on a disk in clear, and an encrypted one."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTS)
    devices = tmp_path / "sys/dev/block"
    for number, uuid, lower in (
        ("8:1", "", None),
        ("253:0", "CRYPT-LUKS2-0a1b-disk", "8:1"),
        ("253:1", "LVM-abc", "253:0"),
        ("253:2", "LVM-def", "8:1"),
        ("253:3", "CRYPT-LUKS2-2c3d-other", "8:1"),
    ):
        (devices / number / "slaves").mkdir(parents=True)
        if uuid:
            (devices / number / "dm").mkdir()
            (devices / number / "dm/uuid").write_text(f"{uuid}\n")
        if lower:
            (devices / number / "slaves" / lower.replace(":", "-")).symlink_to(devices / lower)
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "volume"),
    [
        ("/home/somebody", Volume.UNKNOWN),
        ("/tmp/uploads", Volume.MEMORY),
        ("/tmpfiles", Volume.UNKNOWN),
        ("/var/lib/postgresql/18/main", Volume.ENCRYPTED),
        ("/srv/with space/data", Volume.ENCRYPTED),
        ("/srv/plain/data", Volume.ENCRYPTED),
        ("/srv", Volume.UNKNOWN),
    ],
)
def test_a_folder_is_traced_to_its_disks(root, folder, volume):
    assert volume_of(Path(folder), root=root) is volume


def test_a_volume_over_one_encrypted_disk_and_one_in_clear_is_not_encrypted(root):
    slaves = root / "sys/dev/block/253:1/slaves"
    (slaves / "8-1").symlink_to(root / "sys/dev/block/8:1")
    assert volume_of(Path("/var/lib/postgresql"), root=root) is Volume.UNKNOWN


def test_a_logical_volume_on_a_disk_in_clear_is_not_taken_for_encrypted(root):
    mounts = (root / "proc/self/mountinfo").read_text().splitlines()[:-1]
    (root / "proc/self/mountinfo").write_text("\n".join(mounts))
    assert volume_of(Path("/srv/plain/data"), root=root) is Volume.UNKNOWN
