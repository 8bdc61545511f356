"""Tests run on servers of their own, below .local/tests, without fsync."""

import os
from pathlib import Path

os.environ.setdefault("LOCAL_DIR", str(Path(__file__).resolve().parent.parent / ".local" / "tests"))
os.environ.setdefault("LOCAL_PG_FSYNC", "off")
