"""An export of the audit is verified by a script of one file, in a Python that knows nothing of the service."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.utils import timezone

from audit import export, keys, seals, trail
from audit.models import Action, Seal

pytestmark = pytest.mark.django_db(transaction=True)
SCRIPT = Path(__file__).resolve().parents[2] / "audit" / "standalone_verify.py"


@pytest.fixture
def folder(db, tmp_path) -> Path:
    """An export of three seals, downloaded."""
    for n in range(3):
        changes = {"n": n, "text": "Grüße\u2028\n\"'"}
        trail.record(action=Action.SENDING_STOP, by="user:1", now=timezone.now(), changes=changes)
    seals.seal(now=timezone.now(), limit=1)
    for seal in Seal.objects.all():
        (tmp_path / export.key_of(seal.number)).write_bytes(export.document(seal))
    return tmp_path


def alone(folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    """The script in a Python that knows neither the project nor the environment."""
    command = [sys.executable, "-I", str(SCRIPT), str(folder), *given]
    return subprocess.run(
        command, cwd="/", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False, timeout=60
    )


def test_an_export_is_verified_without_the_service(folder):
    done = alone(folder, keys.public_key())
    assert done.returncode == 0, done.stderr
    assert "Whole and signed: 3 rows under the seals 1 to 3." in done.stdout
    assert Seal.objects.get(number=3).digest in done.stdout


def test_the_script_imports_nothing_of_ours():
    known = {*sys.stdlib_module_names, "cryptography"}
    lines = [line.split() for line in SCRIPT.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert {words[1].split(".")[0] for words in lines} <= known


def edit(number: int, old: bytes, new: bytes) -> Any:
    def edited(folder: Path) -> None:
        path = folder / export.key_of(number)
        body = path.read_bytes()
        assert old in body
        path.write_bytes(body.replace(old, new))

    return edited


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        (edit(2, b"user:1", b"user:2"), "000000000002.ndjson: its rows or its seal were changed"),
        (edit(2, b'"end_tx": ', b'"end_tx": 1'), "000000000002.ndjson: its rows or its seal were changed"),
        (edit(3, b'"signature": "', b'"signature": "00'), "000000000003.ndjson: its signature is wrong"),
        (lambda folder: (folder / export.key_of(2)).unlink(), "000000000003.ndjson: it does not follow seal 1"),
        (
            lambda folder: (folder / export.key_of(2)).write_bytes((folder / export.key_of(1)).read_bytes()),
            "000000000002.ndjson: it holds seal 1",
        ),
        (lambda folder: (folder / export.key_of(1)).write_bytes(b""), "000000000001.ndjson: "),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "There is no export"),
    ],
)
def test_a_changed_export_is_named_without_the_service(folder, deed, told):
    deed(folder)
    done = alone(folder, keys.public_key())
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_another_key_does_not_do(folder):
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    done = alone(folder, stranger)
    assert done.returncode == 1
    assert "signed by an unknown key" in done.stderr


def test_the_last_seals_missing_is_seen_by_the_number_of_the_last(folder):
    (folder / export.key_of(3)).unlink()
    assert "under the seals 1 to 2" in alone(folder, keys.public_key()).stdout


def test_rows_are_counted_and_not_believed(folder):
    whole = alone(folder, keys.public_key()).stdout
    edit(1, b'"rows": 1', b'"rows": 9')(folder)
    assert alone(folder, keys.public_key()).stdout == whole
