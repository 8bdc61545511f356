"""What can go wrong with a service of the organisation, told by what helps."""

from __future__ import annotations

from typing import ClassVar, Final

# Every code that ``http`` and ``reading`` give, for metrics.
AWAY: Final = ("unreachable", "timeout", "cut_off", "throttled", "server_error", "wrong_status", "too_large")
UNREADABLE: Final = ("no_json", "wrong_shape")
REFUSED: Final = ("not_configured", "denied", "not_found", "refused", "redirect", "certificate")


class ServiceError(Exception):
    """No answer that can be used. ``code`` is a slug for metrics and logs; ``reason`` completes “The … service …”
    in English, and names nobody."""

    names_nobody = True  # as logs ask
    service: ClassVar[str] = "service"

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"The {self.service} {reason}.")
        self.code = code
        self.reason = reason


class Unavailable(ServiceError):
    """The same request may be answered later. ``retry_after_s``: seconds that the service asks to wait, if it does.

    | code | |
    |---|---|
    | unreachable | no connection, or no TLS on it |
    | timeout | no answer, or no whole one, in time |
    | cut_off | the connection ended in the middle |
    | throttled | 429 |
    | server_error | 5xx |
    | wrong_status | an answer that isn't in the contract |
    | too_large | more bytes than an answer may have |
    | no_json | a body that is no JSON in UTF-8 |
    | wrong_shape | JSON that isn't what the contract says |
    """

    def __init__(self, code: str, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, reason)
        self.retry_after_s = retry_after_s


class Refused(ServiceError):
    """It helps nothing to ask again before somebody has changed something.

    | code | |
    |---|---|
    | not_configured | there is no address in the settings |
    | denied | 401, 403: the token |
    | not_found | 404, 405: the address |
    | refused | 400, 422 and the like: the request |
    | redirect | another address, which is not followed: the token would go there |
    | certificate | one that isn't trusted, or of another host |
    """
