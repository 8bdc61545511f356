"""Tasks of the roof: what beat starts on a floor that must not know Celery."""

from typing import Any

import structlog
from celery import shared_task
from django.core.management import CommandError, call_command

log = structlog.get_logger(__name__)

# Seconds of one turn of the export: a slow bucket must not hold up what shares the queue.
EXPORT_S = 20.0


@shared_task(name="frontend.tidy")
def tidy(**_: Any) -> None:
    """Throw away expired tokens, spent idempotency keys and uploaded files. Once an hour."""
    # By name: a worker that sends has no use for the API's modules.
    call_command("tidy", verbosity=0)


@shared_task(name="audit.export")
def export_audit(**_: Any) -> None:
    """Export what the audit has sealed. Once a minute; what can't be done now is done by a later turn."""
    # By name too: boto3 is for those who speak with Amazon.
    try:
        call_command("audit_export", verbosity=0, seconds=EXPORT_S)
    except CommandError as error:
        log.error("audit_not_exported", error=error)
