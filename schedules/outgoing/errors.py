"""What can be wrong with an address that somebody set, told by what helps."""

from __future__ import annotations

from typing import ClassVar, Final

# Every code, for metrics.
CODES: Final = (
    *("malformed", "scheme", "port", "not_public", "certificate"),
    *("unresolved", "unreachable", "timeout", "cut_off", "too_large"),
)


class OutgoingError(Exception):
    """No answer. ``code`` is a slug for metrics and logs; ``reason`` completes “The address …” in English and holds
    nothing of the address. ``permanent``: it helps nothing to call again before somebody has changed something."""

    names_nobody = True  # as logs ask
    permanent: ClassVar[bool]

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"The address {reason}.")
        self.code = code
        self.reason = reason


class Refused(OutgoingError):
    """No request was sent.

    | code | |
    |---|---|
    | malformed | no address of the web in the form that is taken here |
    | scheme | not https |
    | port | one that is not called |
    | not_public | its name leads, with one address at least, to where the public internet is not |
    | certificate | one that isn't trusted, or of another host |
    """

    permanent = True


class Unavailable(OutgoingError):
    """The same call may be answered later. Of a ``timeout``, ``cut_off`` or ``too_large`` nobody knows whether the
    request was taken.

    | code | |
    |---|---|
    | unresolved | its name leads nowhere at the moment |
    | unreachable | no connection, or no TLS on it |
    | timeout | no whole answer in time |
    | cut_off | the connection ended in the middle |
    | too_large | more bytes than may come |
    """

    permanent = False
