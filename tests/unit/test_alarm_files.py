"""Rules of Prometheus, boards of Grafana and runbooks: whole, held against each other, and by promtool."""

import re
import subprocess
from itertools import combinations
from typing import Any

import pytest
import yaml

from deploy.grafana.__main__ import FOLDER, PLACES
from deploy.grafana.boards import BOARDS
from deploy.grafana.files import text
from tests.alarms import GRAFANA, ITS_OWN, PROJECT, PROMETHEUS, RUNBOOKS, boards, metrics, panels, program, rules

ALERTS = {rule["alert"]: rule for rule in rules("alerts")}
HEADINGS = ["What it means", "Who notices", "Look", "Do", "How it ends", "What is not lost"]
# Pages of docs/runbooks that are about no alert.
GENERAL = {"README.md"}
CASES = sorted(PROMETHEUS.glob("alerts*.test.yml"))
PANELS = list(panels())


# --- Rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "recording.yml", "alerts.yml"),
        ("test", "rules", *(path.name for path in CASES)),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_takes_the_rules_and_sees_them_fire(arguments):
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_of_each_alert_the_rules_are_tried_with_what_fires_it_and_what_does_not():
    tried: dict[str, set[bool]] = {}
    for case in (case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]):
        for asked in case["promql_expr_test"]:
            (alert,) = re.findall(r'alertname="(\w+)"', asked["expr"])
            assert case["name"].startswith(f"{alert}: ")
            tried.setdefault(alert, set()).add(bool(asked["exp_samples"]))
    assert tried == {alert: {True, False} for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_and_who_is_called(alert):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["description"].endswith(".")


def test_every_series_of_the_rules_is_recorded_or_explained():
    recorded = {rule["record"] for rule in rules("recording")}
    explained = (PROJECT / "docs" / "metrics.md").read_text()
    asked = {name for rule in (*rules("recording"), *ALERTS.values()) for name in metrics(rule["expr"])}
    for name in asked - recorded - ITS_OWN:
        assert name.removesuffix("_bucket") in explained or name.startswith("django_"), name
    used = {name for _, panel in PANELS for target in panel["targets"] for name in metrics(target["expr"])}
    assert recorded - asked - used == set(), "recorded, and asked by nobody"


# --- Runbooks ---------------------------------------------------------------------------------------------------------


def page_of(alert: str) -> str:
    return (PROJECT / ALERTS[alert]["annotations"]["runbook_url"]).read_text()


def test_each_alert_has_its_page_and_each_page_its_alert():
    named = {rule["annotations"]["runbook_url"] for rule in ALERTS.values()}
    pages = {f"docs/runbooks/{path.name}" for path in RUNBOOKS.glob("*.md") if path.name not in GENERAL}
    assert named == pages
    assert len(named) == len(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_a_page_answers_the_same_questions_in_the_same_order(alert):
    page = page_of(alert)
    assert re.findall(r"^## (.*)$", page, re.M) == HEADINGS
    assert len(re.findall(r"^# ", page, re.M)) == 1
    assert f"\nAlert `{alert}`, {ALERTS[alert]['labels']['severity']}.\n" in page
    assert all(part.strip() for part in re.split(r"^## .*$", page, flags=re.M))


def test_the_index_names_every_alert_with_its_page():
    index = (RUNBOOKS / "README.md").read_text()
    for alert, rule in ALERTS.items():
        title = page_of(alert).splitlines()[0].removeprefix("# ")
        file = rule["annotations"]["runbook_url"].rpartition("/")[2]
        assert f"| `{alert}` | {rule['labels']['severity']} | [{title}]({file}) |\n" in index


def test_links_and_panels_that_the_pages_name_are_there():
    titles = {panel["title"] for _, panel in PANELS}
    for path in RUNBOOKS.glob("*.md"):
        page = path.read_text()
        for link in re.findall(r"\]\(([^)#]+)", page):
            assert (RUNBOOKS / link).resolve().is_file(), f"{path.name}: {link}"
        if path.name not in GENERAL:
            assert set(re.findall("“([^”]*)”", page)) <= titles, path.name


# --- Boards -----------------------------------------------------------------------------------------------------------


def test_the_boards_are_those_that_are_written_from_python():
    assert set(boards()) == set(BOARDS)
    for name, board in BOARDS.items():
        written = text(board, **PLACES)
        assert (FOLDER / f"{name}.json").read_text() == written, "make dashboards"


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[place] < other[place] + other[size] and other[place] < one[place] + one[size]
        for place, size in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_one_that_grafana_takes(name):
    board = boards()[name]
    assert board["schemaVersion"] >= 41
    assert 8 <= len(board["uid"]) <= 40
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in board["panels"]}) == len(board["panels"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
    assert not any(overlap(one["gridPos"], two["gridPos"]) for one, two in combinations(board["panels"], 2))
    assert not re.search(r"#[0-9a-fA-F]{6}|rgb", (FOLDER / f"{name}.json").read_text()), "a colour of one theme alone"
    variables = {each["name"] for each in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", (FOLDER / f"{name}.json").read_text()))
    assert used <= variables
    assert {"datasource", "service", "docs"} <= variables


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{board}, {panel['title']}" for board, panel in PANELS])
def test_a_panel_says_its_unit_and_marks_where_its_alert_begins(board: str, panel: dict[str, Any]):
    assert panel["targets"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    shown = panel["fieldConfig"]["defaults"]
    assert panel["type"] == "heatmap" or shown["unit"]
    alerts = [link["title"].partition(": ")[2] for link in panel["links"] if "/runbooks/" in link["url"]]
    for alert, link in zip(alerts, panel["links"], strict=False):
        page = ALERTS[alert]["annotations"]["runbook_url"].removesuffix(".md")
        assert link["url"] == f"${{docs}}/{page}.html", "as make docs writes it"
    limits = [step["value"] for step in shown.get("thresholds", {"steps": []})["steps"] if step["value"] is not None]
    # 1 and 0 are yes and no.
    for limit in set(limits) - {0, 1}:
        assert any(limit in numbers(ALERTS[alert]["expr"]) for alert in alerts), limit


def numbers(expr: str) -> set[float]:
    """Those of an expression, products of two included."""
    found = {float(each) for each in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", expr)}
    return found | {round(one * two, 9) for one in found for two in found} | {1 - each for each in found}


def test_grafana_is_led_to_the_boards_and_to_prometheus():
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "files.yml").read_text())["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/var/lib/grafana/dashboards")
    file = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (source,) = file["datasources"]
    interval = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", interval)
