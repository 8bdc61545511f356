"""Hostile values, one JSON string a line."""

import json
from pathlib import Path


def corpus(name: str) -> list[str]:
    """The values in ``name``.jsonl."""
    text = (Path(__file__).parent / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
