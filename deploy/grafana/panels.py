"""Panels in the shape of Grafana's own schema (dashboard schema version 41), with no more in them than is meant."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Grafana's names of units that are used here.
SECONDS, SHARE, NUMBER = "s", "percentunit", "short"
PER_SECOND, REQUESTS = "mps", "reqps"
# Named colours of Grafana's palette: each theme has its own shade of them.
FINE, BAD = "green", "red"


@dataclass(frozen=True)
class Query:
    """``legend`` is a template over labels, ``{{channel}}``."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """``limit``: from where on it is bad, as in the alert that is named; ``bad_below``: up to where.

    ``page`` is a path of the service. ``width`` is of 24, ``height`` in Grafana's rows of 30 pixels.
    """

    title: str
    queries: Sequence[Query]
    unit: str = NUMBER
    kind: str = "timeseries"
    about: str = ""
    alert: str = ""
    limit: float | None = None
    bad_below: bool = False
    page: str = ""
    width: int = 8
    height: int = 8
    stacked: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def shown(self, number: int, *, x: int, y: int) -> dict[str, Any]:
        """As Grafana reads it."""
        parts = {"timeseries": _timeseries, "stat": _stat, "heatmap": _heatmap}[self.kind](self)
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "links": self._links(),
            "targets": [self._target(n, each) for n, each in enumerate(self.queries)],
            "transparent": False,
            **parts,
        }

    def _target(self, number: int, query: Query) -> dict[str, Any]:
        is_stat = self.kind == "stat"
        return {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "format": "heatmap" if self.kind == "heatmap" else "time_series",
            "instant": is_stat,
            "range": not is_stat,
            "legendFormat": query.legend or "__auto",
        }

    def _links(self) -> list[dict[str, Any]]:
        found = []
        if self.alert:
            found.append((f"What to do: {self.alert}", f"${{docs}}/docs/runbooks/{runbook(self.alert)}.html"))
        if self.page:
            found.append(("In the service", f"${{service}}{self.page}"))
        return [{"title": title, "url": url, "targetBlank": True} for title, url in found]


def stat(title: str, expr: str, **fields: Any) -> Panel:
    """One figure, of this moment; coloured where it has a limit."""
    return Panel(title, [Query(expr)], kind="stat", **{"width": 4, "height": 4, **fields})


def runbook(alert: str) -> str:
    """``SendBacklog`` has its page at ``send-backlog``."""
    return "".join(f"-{each.lower()}" if each.isupper() else each for each in alert).removeprefix("-")


def _defaults(panel: Panel, **more: Any) -> dict[str, Any]:
    return {"unit": panel.unit, "min": 0, "thresholds": _thresholds(panel), "mappings": [], **more}


def _thresholds(panel: Panel) -> dict[str, Any]:
    first, then = (BAD, FINE) if panel.bad_below else (FINE, BAD)
    steps: list[dict[str, Any]] = [{"color": first if panel.limit is not None else FINE, "value": None}]
    if panel.limit is not None:
        steps.append({"color": then, "value": panel.limit})
    return {"mode": "absolute", "steps": steps}


def _timeseries(panel: Panel) -> dict[str, Any]:
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 20 if panel.stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "axisPlacement": "auto",
        "scaleDistribution": {"type": "linear"},
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if panel.limit is None else "line"},
        **panel.options,
    }
    return {
        "fieldConfig": {
            "defaults": _defaults(panel, color={"mode": "palette-classic"}, custom=custom),
            "overrides": [],
        },
        "options": {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _stat(panel: Panel) -> dict[str, Any]:
    return {
        "fieldConfig": {"defaults": _defaults(panel, color={"mode": "thresholds"}), "overrides": []},
        "options": {
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def _heatmap(panel: Panel) -> dict[str, Any]:
    return {
        "fieldConfig": {
            "defaults": {"custom": {"hideFrom": {"legend": False, "tooltip": False, "viz": False}}},
            "overrides": [],
        },
        "options": {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Blues",
                "fill": "blue",
                "exponent": 0.5,
                "steps": 64,
                "reverse": False,
            },
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True},
            "yAxis": {"axisPlacement": "left", "unit": panel.unit, "reverse": False},
        },
    }
