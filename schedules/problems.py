"""What can be wrong with something a person wrote, said in a way that a form, the API and a log can all show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a schedule, a template or a catalogue.

    `field` is the public name ("cron", "runAt", "email.de.subject", ...), `code` is stable and meant for
    programs, `message` says what is wrong and what to write instead.
    """

    field: str
    code: str
    message: str
