"""What can go wrong with the user service, told by what helps."""

from __future__ import annotations

from typing import Final

# Every code, for metrics.
CODES: Final = (
    *("unreachable", "timeout", "cut_off", "throttled", "server_error", "wrong_status", "too_large"),
    *("no_json", "wrong_shape", "wrong_count", "too_many", "empty_page"),
    "cursor_gone",
    *("not_configured", "denied", "not_found", "refused", "redirect", "certificate"),
)


class UserServiceError(Exception):
    """No answer that can be used. ``code`` is a slug for metrics and logs; ``reason`` completes “The user service …”
    in English, and names nobody."""

    names_nobody = True  # as logs ask

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"The user service {reason}.")
        self.code = code
        self.reason = reason


class Unavailable(UserServiceError):
    """The same request may be answered later. ``retry_after_s``: seconds that the service asks to wait, if it does.

    | code | |
    |---|---|
    | unreachable | no connection, or no TLS on it |
    | timeout | no answer, or no whole one, in time |
    | cut_off | the connection ended in the middle |
    | throttled | 429 |
    | server_error | 5xx |
    | wrong_status | an answer that isn't in the contract |
    | too_large | more bytes than a page may have |
    | no_json | a body that is no JSON in UTF-8 |
    | wrong_shape | JSON that isn't what the contract says |
    | wrong_count | a page whose ``count`` isn't what it holds |
    | too_many | a page of more than ``limit`` people |
    | empty_page | nobody on a page that isn't the last |
    """

    def __init__(self, code: str, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, reason)
        self.retry_after_s = retry_after_s


class CursorGone(UserServiceError):
    """410: the service has forgotten the cursor. The audience is to be asked for again, from its first page."""


class Refused(UserServiceError):
    """It helps nothing to ask again before somebody has changed something.

    | code | |
    |---|---|
    | not_configured | there is no USER_SERVICE_URL |
    | denied | 401, 403: the token |
    | not_found | 404, 405: the address |
    | refused | 400, 422 and the like: the audience, or the request |
    | redirect | another address, which is not followed: the token would go there |
    | certificate | one that isn't trusted, or of another host |
    """
