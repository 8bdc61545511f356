"""The files that Prometheus and Grafana are given, as tests read them."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[1]
PROMETHEUS = PROJECT / "deploy" / "prometheus"
GRAFANA = PROJECT / "deploy" / "grafana"
RUNBOOKS = PROJECT / "docs" / "runbooks"
# What Prometheus makes by itself, and no page of metrics has.
ITS_OWN = {"ALERTS", "up"}
_WORDS = {
    *("absent", "and", "by", "count", "histogram_quantile", "increase", "max", "max_over_time", "on", "or", "rate"),
    *("sum", "topk", "vector"),
}  # fmt: skip


def program(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is; without it the test is skipped, and in CI it fails."""
    found = shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"No {name} on the PATH: apt-get install prometheus")
    return str(found)


def rules(name: str) -> list[dict[str, Any]]:
    """Of ``recording`` or ``alerts``, as the file has them."""
    read = yaml.safe_load((PROMETHEUS / f"{name}.yml").read_text())
    return [rule for group in read["groups"] for rule in group["rules"]]


def boards() -> dict[str, Any]:
    """By the file's name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """(board, panel)."""
    for name, board in boards().items():
        for panel in board["panels"]:
            yield name, panel


def metrics(expr: str) -> set[str]:
    """The names of series that an expression asks for, recorded ones included."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on) \([^)]*\)", " ", bare)
    return {name for name in re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*", bare) if name not in _WORDS}
