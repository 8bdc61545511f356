"""Tasks of the roof: what beat starts on a floor that must not know Celery."""

from typing import Any

from celery import shared_task
from django.core.management import call_command


@shared_task(name="frontend.tidy")
def tidy(**_: Any) -> None:
    """Throw away expired tokens, spent idempotency keys and uploaded files. Once an hour."""
    # By name: a worker that sends has no use for the API's modules.
    call_command("tidy", verbosity=0)
