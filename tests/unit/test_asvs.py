"""The table of ASVS 5.0.0: no requirement of levels 1 and 2 is left out, and what it points at exists."""

import re
from pathlib import Path

from django.conf import settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/asvs.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if re.match(r"\| \d", line)]
STATES = ("met", "part", "no", "n/a")
# In each section those of levels 1 and 2 come first: how many they are.
COUNTS = {
    "1.1": 2,
    "1.2": 9,
    "1.3": 11,
    "1.4": 3,
    "1.5": 2,
    "2.1": 3,
    "2.2": 3,
    "2.3": 4,
    "2.4": 1,
    "3.2": 2,
    "3.3": 4,
    "3.4": 6,
    "3.5": 5,
    "3.7": 2,
    "4.1": 3,
    "4.2": 1,
    "4.3": 2,
    "4.4": 4,
    "5.1": 1,
    "5.2": 3,
    "5.3": 2,
    "5.4": 3,
    "6.1": 3,
    "6.2": 12,
    "6.3": 4,
    "6.4": 4,
    "6.5": 5,
    "6.6": 3,
    "6.8": 4,
    "7.1": 3,
    "7.2": 4,
    "7.3": 2,
    "7.4": 5,
    "7.5": 2,
    "7.6": 2,
    "8.1": 2,
    "8.2": 3,
    "8.3": 1,
    "8.4": 1,
    "9.1": 3,
    "9.2": 4,
    "10.1": 2,
    "10.2": 2,
    "10.3": 4,
    "10.4": 11,
    "10.5": 5,
    "10.6": 2,
    "10.7": 3,
    "11.1": 2,
    "11.2": 3,
    "11.3": 3,
    "11.4": 4,
    "11.5": 1,
    "11.6": 1,
    "12.1": 3,
    "12.2": 2,
    "12.3": 4,
    "13.1": 1,
    "13.2": 5,
    "13.3": 2,
    "13.4": 5,
    "14.1": 2,
    "14.2": 4,
    "14.3": 3,
    "15.1": 3,
    "15.2": 3,
    "15.3": 7,
    "16.1": 1,
    "16.2": 5,
    "16.3": 4,
    "16.4": 3,
    "16.5": 3,
    "17.1": 1,
    "17.2": 4,
    "17.3": 2,
}


def test_every_requirement_of_both_levels_stands_there_once_with_its_state():
    told = [number for row in ROWS for number in row[0].split(", ")]
    assert sorted(told) == sorted(f"{section}.{n}" for section, count in COUNTS.items() for n in range(1, count + 1))
    assert len(told) == 253
    assert {len(row) for row in ROWS} == {4}
    assert {row[2] for row in ROWS} == set(STATES)


def test_every_test_that_is_named_is_there():
    named = re.findall(r"`((?:unit|integration|surface|journeys|chaos)/\w+\.py)::(\w+)`", TEXT)
    assert len(named) > 100
    sources = {path: (ROOT / "tests" / path).read_text(encoding="utf-8") for path, _ in named}
    assert [f"{path}::{test}" for path, test in named if not re.search(rf"^def {test}\(", sources[path], re.M)] == []
    assert "::" not in re.sub(r"`[\w/]+\.py::\w+`", "", TEXT)


def test_every_file_setting_and_check_that_is_named_is_there():
    files = re.findall(r"`([a-z_]+/[\w./-]+\.\w+)`", TEXT)
    assert [name for name in files if not (ROOT / name).exists()] == []
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})(?:=\w+)?`", TEXT))
    read = (ROOT / "scheduler_project/settings.py").read_text(encoding="utf-8")
    assert [name for name in named if not hasattr(settings, name) and f'"{name}"' not in read] == []
    checks = "".join(
        path.read_text(encoding="utf-8")
        for app in ("scheduler_project", "frontend", "delivery")
        for path in [*(ROOT / app).glob("checks.py"), *(ROOT / app).glob("hooks.py")]
    )
    numbers = [int(number) for number in re.findall(r"`E(\d{3})`", TEXT)]
    assert [each for each in numbers if not re.search(rf"\b_error\(\s*{each},", checks)] == []


def test_what_is_met_names_where_and_what_is_not_says_what_is_missing():
    assert [row[0] for row in ROWS if row[2] != "n/a" and len(row[3]) < 4] == []
    assert [row[0] for row in ROWS if len(row[1].split()) > 12] == []
