"""What one part of a message may cost, and the error that says it costs too much."""

import threading
from typing import Final

from schedules.content import CONTROL
from schedules.problems import say

FUEL: Final = 20_000  # instructions a part; an item with ten tokens in a loop takes about 35
MAX_PART: Final = 512 * 1024  # bytes of a rendered part
MAX_SUBJECT: Final = 998  # characters, RFC 5322 section 2.1.1
MAX_VALUE: Final = 16 * 1024  # characters of one attribute, and of what a filter returns
MAX_DEPTH: Final = 32  # of nested attributes; what lies deeper is missing
MAX_RANGE: Final = 1_000

MAX_WORK: Final = 4 * MAX_PART  # characters that a part's values and filters may make
MAX_LOOP_TEXT: Final = 32 * 1024 * 1024  # characters that all iterations of a part's loops may write, at worst


# As the sayings of errors name them.
_PARTS: Final = (say("subject"), say("text"), say("html"))


class RenderError(Exception):
    """A content cannot be rendered for a recipient.

    ``reason`` is one of template_error, fuel_exhausted, too_large, header_injection, no_content and template_gone;
    ``words`` names part, line and cause, without personal data; ``detail`` is its first 200 characters, to be kept.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail[:200]}")
        self.reason = reason
        self.words = detail
        self.detail = detail[:200]


class _Budget(threading.local):
    left: int = 0


_budget = _Budget()


def grant() -> None:
    """A part begins: from here on this thread may spend MAX_WORK characters."""
    _budget.left = MAX_WORK


def spend(size: int) -> None:
    """Charge ``size`` characters to the part being rendered. Raises RenderError (too_large) when they are used up."""
    _budget.left -= size
    if _budget.left < 0:
        raise RenderError(
            "too_large", say("the values of a part have more than %(most)s characters together", most=MAX_WORK)
        )


def check_part(*, part: str, rendered: str) -> None:
    """Raises RenderError (too_large, header_injection) when ``rendered`` cannot be sent as this part."""
    size = len(rendered)
    if part == "subject":
        if size > MAX_SUBJECT:
            raise RenderError(
                "too_large", say("the subject has %(size)s characters, more than %(most)s", size=size, most=MAX_SUBJECT)
            )
        if CONTROL.search(rendered):
            raise RenderError("header_injection", say("the subject contains a line break or another control character"))
    elif size * 4 > MAX_PART and len(rendered.encode(errors="replace")) > MAX_PART:
        raise RenderError("too_large", say("%(part)s is longer than %(most)s bytes", part=say(part), most=MAX_PART))
