"""A database as the migrations leave it, made once. Whoever needs one takes a copy of its files: 0.2 s instead of 8.

It lies in a folder whose name tells what it was made from, and so do the servers of the tests. Nothing of Django is
needed here, since the settings are read afterwards.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from scheduler_project.local.layout import Layout
from scheduler_project.local.locks import is_locked, lock_within, open_lock

_PROJECT = Path(__file__).resolve().parents[1]
_MADE_FROM = (
    *("*/migrations/*.py", "audit/roles.py", "constraints.txt"),
    *("scheduler_project/settings.py", "scheduler_project/local/*.py"),
)
_MADE_WITHIN_S = 180
PASSWORD = "of-the-application"
_URLS = ("DATABASE_URL", "BROKER_URL", "COUNTERS_URL")


def folder(below: Path) -> Path:
    """Of the tests' servers, as long as the migrations are what they are."""
    paths = sorted(path for pattern in _MADE_FROM for path in _PROJECT.glob(pattern))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()
    return below / f"migrated-{digest[:12]}"


def copy(root: Path) -> bool:
    """Whether the servers below ``root``, which have no database yet, will find one that is migrated.

    Only within a run of the tests, which says where the servers lie, and on servers of our own.
    """
    if "TESTS_SERVERS" not in os.environ or "DATABASE_URL" in os.environ or (root / "database").exists():
        return False
    place = Path(os.environ["TESTS_SERVERS"])
    template = place / "template"
    root.mkdir(parents=True, exist_ok=True)
    lock = open_lock(place / "template.lock")
    try:
        lock_within(lock, seconds=_MADE_WITHIN_S, what=place / "template.lock")
        if not template.exists():
            _make(template)
    finally:
        os.close(lock)
    shutil.copy2(template / "password", root)
    shutil.copytree(template / "database", root / "copied", dirs_exist_ok=True)
    (root / "copied").rename(root / "database")  # whole, or not there
    return True


def _make(template: Path) -> None:
    for former in template.parent.parent.glob("migrated-*/"):
        if former != template.parent and not any(map(is_locked, former.glob("*/keeper.lock"))):
            shutil.rmtree(former)
    draft = template.with_name("draft")
    shutil.rmtree(draft, ignore_errors=True)
    env = {name: value for name, value in os.environ.items() if name not in _URLS}
    env |= {"LOCAL_DIR": str(draft), "APP_DATABASE_PASSWORD": PASSWORD}
    for command in (["migrate", "--verbosity=0"], ["grant_roles"]):
        call = [sys.executable, "manage.py", *command]
        subprocess.run(call, cwd=_PROJECT, env=env, stdout=subprocess.DEVNULL, check=True)
    while is_locked(Layout(draft).keeper_lock):  # its servers stop by themselves
        time.sleep(0.05)
    draft.rename(template)
