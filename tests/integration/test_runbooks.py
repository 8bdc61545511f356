"""What the runbooks tell somebody to type is there: statements run, addresses lead somewhere, names are the code's."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.urls import Resolver404, resolve

from tests.alarms import PROJECT, RUNBOOKS, rules

pytestmark = pytest.mark.django_db
PAGES = sorted(RUNBOOKS.glob("*.md"))
ROOMS = ("audit", "schedules", "delivery", "frontend", "scheduler_project")
# Words of others: PostgreSQL's, Prometheus's and compose's own, and what a reason or setting of Amazon's is called.
FOREIGN = {
    *("max_connections", "pg_wal", "pg_stat_activity", "application_name", "cluster_state", "scrape_samples_scraped"),
    *("RUNBOOKS", "PATH", "COMPOSE_ENV_FILES"),
}  # fmt: skip


def code(page: Path) -> list[str]:
    """What stands in backticks or in indented lines."""
    text = page.read_text()
    return [*re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", text), *re.findall(r"^    (\S.*)$", text, re.M)]


def statements(page: Path) -> list[str]:
    """Given to psql."""
    found = []
    for each in code(page):
        words = shlex.split(each.replace("\n", " ")) if each.startswith("psql ") else []
        found += [word for flag, word in pairwise(words) if flag == "-c"]
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if statements(page)], ids=lambda page: page.stem)
def test_the_statements_of_a_page_run(page):
    for statement in statements(page):
        assert statement.startswith("SELECT"), "it only reads"
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


def test_the_addresses_in_the_service_lead_somewhere():
    named = {each for page in PAGES for each in code(page) if re.fullmatch(r"/[a-z_/-]+", each)}
    assert named
    for address in named:
        try:
            resolve(address)
        except Resolver404:
            pytest.fail(address)


def test_the_names_are_those_of_the_code():
    sources = "\n".join(path.read_text() for room in ROOMS for path in (PROJECT / room).rglob("*.py"))
    sources += (PROJECT / "docker-compose.yml").read_text()
    sources += (PROJECT / "docs" / "metrics.md").read_text() + "".join(rule["record"] for rule in rules("recording"))
    for page in PAGES:
        for each in code(page):
            if each.startswith(("psql ", "curl ", "redis-cli ", "aws ", "SELECT ")):
                continue
            for name in re.findall(r"\b(?:[a-z]+_[a-z_]+|[A-Z]+_[A-Z_]+)\b", each):
                assert name.removesuffix("_total") in sources or name in FOREIGN, f"{page.name}: {name}"
