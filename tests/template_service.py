"""The reference of the template service, for tests: who put templates in takes them out again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from stubs.testing import RunningTemplateService, running_template_service

TOKEN = "of-the-test"
BUILT_IN = "scheduler_project.demo.template_service"
"""The reference that writes with the engine which is built in here."""


def template(template_id: str, **members: Any) -> dict[str, Any]:
    """A template of the contract, as the reference takes one: an e-mail in English that greets by name."""
    greeting = {
        "channel": "email",
        "locale": "en",
        "subject": "Hello {{ first_name }}",
        "text": "Good to have you, {{ first_name }}.",
        "html": "<p>Good to have you, {{ first_name }}.</p>",
    }
    return {"id": template_id, "name": f"Template {template_id}", "contents": [greeting], **members}


@dataclass
class TemplateService:
    """Has no template at first, behaves well, and counts its calls from zero."""

    running: RunningTemplateService
    known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._before = self._calls()

    def put(self, *templates: dict[str, Any]) -> None:
        """New ones, or the next versions of those that it has."""
        self.known |= {each["id"] for each in templates}
        self.running.put(*templates)

    def remove(self, template_id: str, *, version: str = "") -> None:
        """The template, or one version of it, is gone."""
        self.known -= set() if version else {template_id}
        self.running.remove(template_id, version=version)

    def fault(self, kind: str, *, operation: str = "Render", **rule: Any) -> None:
        """One rule in the place of those in force; ``at``: a glob for what it concerns (``stubs.template_service``)."""
        self.running.fault({"kind": kind, "match": {"operation": operation, "to": rule.pop("at", "*")}, **rule})

    def clear_faults(self) -> None:
        self.running.clear_faults()

    def asked(self, operation: str = "Render") -> int:
        """How many calls of that operation there were."""
        return self._calls().get(operation, 0) - self._before.get(operation, 0)

    def _calls(self) -> dict[str, int]:
        found: dict[str, int] = self.running.stats()["calls"]
        return found


@contextmanager
def used_by(settings: Any, running: RunningTemplateService) -> Iterator[TemplateService]:
    """Its templates are rendered by the reference."""
    settings.TEMPLATE_SERVICE_URL, settings.TEMPLATE_SERVICE_TOKEN = running.url, running.token
    made = TemplateService(running)
    try:
        yield made
    finally:
        running.clear_faults()
        for template_id in made.known:
            running.remove(template_id)


@contextmanager
def running_reference() -> Iterator[RunningTemplateService]:
    with running_template_service(token=TOKEN, module=BUILT_IN) as running:
        yield running
