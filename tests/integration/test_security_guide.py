"""The afternoon in docs/security.md, followed to the letter on a demo of the test's own."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import migrated
from tests.integration.test_demo import PROJECT, demo, environment, free_port, manage

_SEAL = "from audit import seals; from django.utils import timezone; seals.seal(now=timezone.now())"


def _followed(root: Path) -> list[str]:
    """What each block of commands prints, errors included; all run in one shell."""
    page = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
    (afternoon,) = re.findall(r"## An afternoon\n(.*?)\n## ", page, re.DOTALL)
    blocks = re.findall(r"```bash\n(.*?)```", afternoon, re.DOTALL)
    commands = "\necho '<next>'\n".join(blocks).replace(".venv", sys.prefix)
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=PROJECT,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    return done.stdout.split("<next>\n")


@pytest.mark.timeout(600)
def test_every_command_of_the_afternoon_shows_what_it_says(tmp_path: Path) -> None:
    migrated.copy(tmp_path)
    with demo(tmp_path, "--recipients", "40", "--port", str(free_port())) as running:
        running.until("In a second terminal")
        assert manage(tmp_path, "shell", "-c", _SEAL).returncode == 0  # a minute is not waited for
        prepared, refused, audit, files, erased = _followed(tmp_path)
        assert prepared == ""
        answers = re.findall("ERROR: .*", refused)
        assert len(answers) == 5
        assert all("permission denied" in answer or "must be owner" in answer for answer in answers), refused

        tampered, _, mended = audit.partition("DROP TABLE")
        assert re.search(r"tampered with: row \d+ was changed.*\n1\n", tampered), audit
        assert re.search(r"The audit is as it was sealed(.*\n)+0\n", mended), audit

        assert "Imported: 1 created" in files
        found = [line for line in files.splitlines() if line.startswith(str(tmp_path))]
        assert found, "the id is nowhere, so that of the address nothing is shown"
        assert not [path for path in found if b"zebulon@example.com" in Path(path).read_bytes()]
        assert all(path.startswith(f"{tmp_path}/database/") for path in found), files

        assert '"noCallStartsAfter"' in erased
        assert not [line for line in erased.splitlines() if "zebulon" in line.lower() and not line.startswith("{")]
        assert "closed" in erased
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0
