"""What can go wrong with the template service, told by what helps."""

from __future__ import annotations

from typing import Final

from schedules.remote import errors

# Every code, for metrics.
CODES: Final = (
    *(*errors.AWAY, *errors.UNREADABLE, "wrong_count", "too_many", "cursor_gone"),
    "gone",
    *errors.REFUSED,
)


class TemplateServiceError(errors.ServiceError):
    """No answer that can be used."""

    service = "template service"


class Unavailable(TemplateServiceError, errors.Unavailable):
    """The same may be asked again, later. Beside the codes of every service:

    | code | |
    |---|---|
    | wrong_count | more or fewer results than items |
    | too_many | a page of more than ``limit`` templates |
    | cursor_gone | 410: the list is to be asked for again, from its first page |
    """


class Gone(TemplateServiceError):
    """410 (code ``gone``): there is no such template, or no longer this version of it. Asking again doesn't help."""


class Refused(TemplateServiceError, errors.Refused):
    """It helps nothing to ask again before somebody has changed something: the address, the token, the service."""
