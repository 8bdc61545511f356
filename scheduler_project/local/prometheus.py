"""Prometheus on loopback, with the files that a deployment gives it, and what it has seen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from scheduler_project.local.ports import LOOPBACK, answers
from scheduler_project.local.programs import find
from scheduler_project.local.supervisor import Process

FILES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
_ANSWER_S = 30.0


@dataclass(frozen=True)
class Prometheus:
    """``home`` is its folder; ``targets`` are host:port of those whom each job asks, by the job's name.

    ``every`` is how often it asks and reckons, "1s" for one; as in a deployment where it is empty.
    """

    home: Path
    port: int
    targets: Mapping[str, Sequence[str]]
    every: str = ""

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def process(self) -> Process:
        """Raises LocalServicesError where there is no Prometheus."""
        found = find("prometheus")
        (self.home / "targets").mkdir(parents=True, exist_ok=True)  # which it watches for files that name more
        config = self.home / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()))
        options = (f"--storage.tsdb.path={self.home / 'data'}", f"--web.listen-address={LOOPBACK}:{self.port}")
        command = (str(found), f"--config.file={config}", *options, "--log.level=warn")
        return Process("prometheus", command, restarts=10_000, ready=lambda: answers(self.port))

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression finds at this moment. Raises OSError."""
        return list(self._get("query", query=expr)["result"])

    def names(self) -> set[str]:
        """Of all series that it has. Raises OSError."""
        return set(self._get("label/__name__/values"))

    def scrapes(self) -> list[dict[str, Any]]:
        """Whom it asks, with what came of it the last time. Raises OSError."""
        return list(self._get("targets")["activeTargets"])

    def rules(self) -> list[dict[str, Any]]:
        """Those of recording and of alarms, with what came of them the last time. Raises OSError."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load((FILES / "prometheus.yml").read_text())
        config["rule_files"] = [str(FILES / name) for name in config["rule_files"]]
        if self.every:
            config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), self.every)
        config["scrape_configs"] = [self._job(job) for job in config["scrape_configs"]]
        return config

    def _job(self, job: dict[str, Any]) -> dict[str, Any]:
        """With places of ours. Files that name more lie beside a deployment's, and there are none here."""
        if job["job_name"] not in self.targets:
            return job
        others = {name: value for name, value in job.items() if not name.endswith("_sd_configs")}
        return {**others, "static_configs": [{"targets": list(self.targets[job["job_name"]])}]}

    def _get(self, path: str, **parameters: str) -> Any:
        with urlopen(f"{self.address}/api/v1/{path}?{urlencode(parameters)}", timeout=_ANSWER_S) as answer:  # noqa: S310
            return json.load(answer)["data"]
