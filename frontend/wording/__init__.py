"""What the service knows in codes, told in words: states, reasons, remedies, and why somebody got a message or did not.

Import from here; the rooms inside are: stories → reasons.
"""

from frontend.wording.reasons import HELD, REASONS, REMEDIES, RUN_STATES, STATES, count, number, reason, remedy, state
from frontend.wording.stories import explanation, limit, obstacle, story

__all__ = [
    "HELD",
    "REASONS",
    "REMEDIES",
    "RUN_STATES",
    "STATES",
    "count",
    "explanation",
    "limit",
    "number",
    "obstacle",
    "reason",
    "remedy",
    "state",
    "story",
]
