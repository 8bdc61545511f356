"""What can go wrong with the user service, told by what helps."""

from __future__ import annotations

from typing import Final

from schedules.remote import errors

# Every code, for metrics.
CODES: Final = (
    *(*errors.AWAY, *errors.UNREADABLE, "wrong_count", "too_many", "empty_page"),
    "cursor_gone",
    *errors.REFUSED,
)


class UserServiceError(errors.ServiceError):
    """No answer that can be used."""

    service = "user service"


class Unavailable(UserServiceError, errors.Unavailable):
    """The same request may be answered later. Beside the codes of every service:

    | code | |
    |---|---|
    | wrong_count | a page whose ``count`` isn't what it holds |
    | too_many | a page of more than ``limit`` people |
    | empty_page | nobody on a page that isn't the last |
    """


class CursorGone(UserServiceError):
    """410: the service has forgotten the cursor. The audience is to be asked for again, from its first page."""


class Refused(UserServiceError, errors.Refused):
    """It helps nothing to ask again before somebody has changed something: the address, the token, the audience."""
