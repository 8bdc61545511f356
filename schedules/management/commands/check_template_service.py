"""``manage.py check_template_service``: is an organisation's template service as the contract says?"""

from typing import Any

from schedules.management.checking import CheckCommand
from schedules.template_service.client import Client
from schedules.template_service.conformance import suite
from schedules.template_service.conformance.subject import Subject


class Command(CheckCommand):
    help = (
        "Check a template service against docs/contracts/template-service.yaml, over HTTP and with the templates it "
        "has: what was asked, what came, what the contract says, and the remedy. No person's data is sent."
    )
    setting = "TEMPLATE_SERVICE"
    path = "/templates"
    example = "https://templates.example.com/notifications"
    checks = suite.CHECKS

    def subject(self, url: str, *, token: str, timeout_s: float, **options: Any) -> Subject:
        return Subject(Client(url, token=token, timeout_s=timeout_s), has_token=bool(token))
