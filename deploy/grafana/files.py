"""A board as Grafana's file of it: its panels laid out, its variables, and the ways to the others."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.grafana.panels import DATASOURCE, Panel

SCHEMA_VERSION = 41
TAG = "notification-scheduler"
WIDTH = 24


@dataclass(frozen=True)
class Board:
    """``by_channel``: its queries know the variable of that name. ``page``: the product's page that shows the like."""

    title: str
    about: str
    panels: Sequence[Panel]
    by_channel: bool = False
    page: str = "/dashboard/"

    @property
    def uid(self) -> str:
        return f"{TAG}-{self.title.split()[0].lower()}"


def text(board: Board, *, service: str, docs: str) -> str:
    """``service`` and ``docs``: where the links to pages and runbooks lead, unless a viewer names another place."""
    return json.dumps(_dashboard(board, service=service, docs=docs), indent=2) + "\n"


def _dashboard(board: Board, *, service: str, docs: str) -> dict[str, Any]:
    return {
        "uid": board.uid,
        "title": f"Notifications: {board.title}",
        "description": board.about,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "templating": {"list": _variables(board, service=service, docs=docs)},
        "annotations": {"list": [_ALERTS]},
        "links": _links(board),
        "panels": _laid_out(board.panels),
    }


def _laid_out(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """From left to right, a new line where the next does not fit."""
    shown, x, y, line = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > WIDTH:
            x, y, line = 0, y + line, 0
        shown.append(panel.shown(number, x=x, y=y))
        x, line = x + panel.width, max(line, panel.height)
    return shown


def _variables(board: Board, *, service: str, docs: str) -> list[dict[str, Any]]:
    datasource = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "current": {},
    }
    channel = {
        "name": "channel",
        "label": "Channel",
        "type": "custom",
        "query": "email,push,in_app",
        "hide": 0,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
    places = [_place("service", "Service at", service), _place("docs", "Runbooks at", docs)]
    return [datasource, *([channel] if board.by_channel else []), *places]


def _place(name: str, label: str, url: str) -> dict[str, Any]:
    url = url.rstrip("/")
    current = {"selected": True, "text": url, "value": url}
    return {"name": name, "label": label, "type": "textbox", "query": url, "hide": 0, "options": [], "current": current}


def _links(board: Board) -> list[dict[str, Any]]:
    same = {"asDropdown": False, "icon": "external link", "includeVars": False, "keepTime": False, "tooltip": ""}
    others = {**same, "includeVars": True, "keepTime": True, "targetBlank": False}
    outside = {**same, "type": "link", "tags": [], "targetBlank": True}
    return [
        {**others, "type": "dashboards", "tags": [TAG], "title": "Boards", "url": ""},
        {**outside, "title": "In the service", "url": f"${{service}}{board.page}"},
        {**outside, "title": "Runbooks", "url": "${docs}/docs/runbooks/README.html"},
    ]


# Alerts that fire, as marks over every panel.
_ALERTS = {
    "name": "Alerts",
    "datasource": DATASOURCE,
    "enable": True,
    "hide": False,
    "iconColor": "red",
    "expr": 'ALERTS{alertstate="firing"}',
    "titleFormat": "{{alertname}}",
    "tagKeys": "severity,channel,queue",
    "step": "60s",
    "useValueForTime": False,
}
