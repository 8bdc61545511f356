"""What comes of a message that the template service was asked for."""

from __future__ import annotations

import enum
from typing import Final

from delivery.providers.base import scrub
from delivery.rendering import Rendered
from delivery.rendering_limits import RenderError, check_part
from schedules.content import PARTS
from schedules.problems import say
from schedules.template_service.client import ItemError, Message, Refused, TemplateServiceError

AWAY: Final = "template_service_away"
REFUSED: Final = "template_service_refused"
# The service can't answer for this one person, though it answers for others.
SPOILT: Final = "template_service_error"
GONE: Final = "template_gone"
# Codes of the service that are reasons here.
_REASONS: Final = frozenset({"template_error", "fuel_exhausted", "too_large", "header_injection", "no_content"})


class Blame(enum.Enum):
    """Whose fault it is that there is no message, for what follows from it."""

    SERVICE = "service"  # it answers for nobody: all wait
    TIME = "time"  # it answers, and there was no time left: again in some seconds
    PERSON = "person"  # it answers for others: this person's own failure


class Unrendered(Exception):
    """What a message says can't be known at present.

    ``reason`` is one of ``AWAY``, ``REFUSED`` and ``SPOILT``; ``detail`` the failure's code; ``words`` tell a reader.
    ``is_refused``: asking again alone does not help.
    """

    def __init__(self, blame: Blame, reason: str, *, detail: str = "", words: str = "", is_refused: bool = False):
        super().__init__(f"{reason}: {detail}")
        self.blame = blame
        self.reason = reason
        self.detail = detail
        self.words = words or say("The template service did not answer in time: try again in a moment.")
        self.is_refused = is_refused


Result = Rendered | RenderError | Unrendered


def failed(blame: Blame, error: TemplateServiceError) -> Unrendered:
    """Of everybody, or of the one person whom the call was for."""
    is_refused = isinstance(error, Refused)
    reason = SPOILT if blame is Blame.PERSON else reason_of(error)
    words = say("What the message says can't be known at present. %(error)s", error=_why(error))
    return Unrendered(blame, reason, detail=error.code, words=words, is_refused=is_refused)


def _why(error: TemplateServiceError) -> str:
    """What is wrong and who mends it, for a reader."""
    match error.code:
        case "not_configured":
            return say("The template service has no address: an admin has to set TEMPLATE_SERVICE_URL.")
        case "denied":
            return say("The template service refuses the token: an admin has to look at TEMPLATE_SERVICE_TOKEN.")
        case "unreachable" | "timeout" | "cut_off":
            return say("The template service did not answer in time: try again in a moment.")
        case "throttled":
            return say("The template service is asked too often: try again in a moment.")
        case "server_error":
            return say("The template service has an error of its own: try again in a moment.")
    return say("The template service answers otherwise than agreed. %(error)s", error=str(error))


def reason_of(error: TemplateServiceError) -> str:
    """Why everybody waits."""
    return REFUSED if isinstance(error, Refused) else AWAY


def gone() -> RenderError:
    """The version was published once, and the service has it no longer."""
    return RenderError(GONE, say("the template service has this version no longer"))


def read(said: Message | ItemError, channel: str) -> Rendered | RenderError:
    """The result of one item, within the limits of messages of our own."""
    if isinstance(said, ItemError):
        detail = scrub(said.detail)
        if said.code == "empty":
            return RenderError("no_content", detail)
        if said.code in _REASONS:
            return RenderError(said.code, detail)
        return RenderError("template_error", f"{said.code}: {detail}" if detail else said.code)
    if channel == "email" and not (said.text or said.html):
        return RenderError("no_content", say("an e-mail needs a text or an HTML part"))
    try:
        for part in PARTS:
            check_part(part=part, rendered=getattr(said, part))
    except RenderError as error:
        return error.with_traceback(None)
    return Rendered(said.subject, said.text, said.html, said.locale)
