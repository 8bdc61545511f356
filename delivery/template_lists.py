"""The template service's list, read now and then; how that went is counted."""

from datetime import datetime

import structlog

from delivery import counts
from schedules.template_service import client
from schedules.template_service.mirror import mirror_all

log = structlog.get_logger(__name__)


def mirror(*, now: datetime) -> bool:
    """Bring what is known here up to the service's list; false where there is none, or it does not tell it."""
    if not client.is_configured():
        return False
    result = "ok"
    try:
        mirror_all(now=now)
    except client.TemplateServiceError as error:
        result = error.code
        log.warning("templates_not_mirrored", code=error.code, error=error)
    counts.add({counts.Key(counts.TEMPLATE_SERVICE_LISTS, label=result): 1})
    return result == "ok"
