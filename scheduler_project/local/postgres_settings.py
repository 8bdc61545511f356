"""postgresql.conf for a machine that develops and tests."""

import os
import shutil
from pathlib import Path

from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.ports import LOOPBACK

_MB = 1024 * 1024


def settings_text(*, port: int) -> str:
    fsync = "on" if fsync_wanted() else "off"
    values = {
        "listen_addresses": f"'{LOOPBACK}'",
        "port": port,
        # TCP only: a socket's path may be 107 bytes long, and a checkout's folder longer.
        "unix_socket_directories": "''",
        "max_connections": 200,
        "shared_buffers": f"{_shared_buffers_mb()}MB",
        "dynamic_shared_memory_type": _shared_memory_type(),
        "work_mem": "32MB",
        "maintenance_work_mem": "128MB",
        "fsync": fsync,
        "full_page_writes": fsync,
        "synchronous_commit": "on",
        "wal_compression": "on",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": 1.1,
        "effective_io_concurrency": 16,
        "jit": "off",
        "track_io_timing": "on",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "log_checkpoints": "off",
        # A row or a statement that is refused holds somebody's data.
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
    }
    lines = [f"{name} = {value}" for name, value in values.items()]
    first = "# Written at every start; your own settings go into local.conf."
    return "\n".join([first, *lines, "include = 'local.conf'", ""])


def fsync_wanted() -> bool:
    """`LOCAL_PG_FSYNC`: on (default), or off where a power cut may cost the data.

    Raises LocalServicesError for anything else.
    """
    value = os.environ.get("LOCAL_PG_FSYNC", "on")
    if value not in {"on", "off"}:
        raise LocalServicesError(f"LOCAL_PG_FSYNC is {value!r}; set it to on or off")
    return value == "on"


def _shared_buffers_mb() -> int:
    return max(32, min(512, _memory_bytes() // 8 // _MB))


def _memory_bytes() -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or "max"
        return machine


def _shared_memory_type() -> str:
    """Containers often have 64 MB of /dev/shm, on which parallel queries fail."""
    try:
        return "posix" if shutil.disk_usage("/dev/shm").total >= 256 * _MB else "mmap"  # noqa: S108
    except OSError:
        return "posix"
