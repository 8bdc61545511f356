"""A service for programs that call it from outside: whenever one of them waits, beat and workers do what is due."""

import pytest

from frontend import clients
from scheduler_project.outside import waiting
from schedules.models import MessageTemplate, Schedule, ScheduleStatus
from tests.factories import BY, NOW
from tests.service import MINUTE, Service


def give_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a client that may do everything, where commands look for them."""
    made = clients.create_service(name="outside", by=BY, now=NOW)
    monkeypatch.setenv("CLIENT_ID", made.client.client_id)
    monkeypatch.setenv("CLIENT_SECRET", made.secret or "")


def let_work(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pause is a minute of the service's, at whose end all is done that was due."""

    def work(_: float) -> None:
        service.after(MINUTE)
        service.open()
        service.send(rounds=3)
        service.sweep()

    monkeypatch.setattr(waiting, "sleep", work)


def is_clean() -> bool:
    """Whether neither a schedule nor a template is left."""
    live = Schedule.objects.exclude(status=ScheduleStatus.DELETED)
    return not (live.exists() or MessageTemplate.objects.live().exists())
