"""What the service knows in codes, told in words: states, reasons, remedies, and why somebody got a message or did not.

States, reasons and stories are imported from here; audiences, timings, schedules, problems and events from their rooms.
"""

from frontend.wording.reasons import HELD, REASONS, REMEDIES, RUN_STATES, STATES, number, reason, remedy, state
from frontend.wording.stories import explanation, limit, obstacle, story

__all__ = [
    "HELD",
    "REASONS",
    "REMEDIES",
    "RUN_STATES",
    "STATES",
    "explanation",
    "limit",
    "number",
    "obstacle",
    "reason",
    "remedy",
    "state",
    "story",
]
