"""What is deployed, read from its files: the compose file, its environment, the settings that there are."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "scheduler_project" / "settings.py"
# An image with a version that says what one gets, down to its last number.
PINNED = re.compile(r"[a-z0-9./-]+:v?[0-9]+\.[0-9]+(\.[0-9]+)?[a-z0-9.-]*")


@cache
def settings_read() -> frozenset[str]:
    """Names of the variables of the environment that the settings read."""
    found = set()
    for node in ast.walk(ast.parse(SETTINGS.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) == "env"
        ):
            found.add(ast.literal_eval(node.args[0]))
    return frozenset(found)


@cache
def compose() -> dict[str, Any]:
    """docker-compose.yml as YAML has it, its variables left as they are."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return read


def example() -> dict[str, str]:
    """deploy/env.example: what is set, and what is commented out, by name."""
    lines = (ROOT / "deploy" / "env.example").read_text().splitlines()
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", "\n".join(lines), re.MULTILINE))
