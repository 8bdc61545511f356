"""Messages rendered by the organisation's template service: many people a call, each result or error for itself.

Import from here; the rooms inside are: asking → kept, items, results.
"""

from delivery.remote_rendering.asking import Called, Done, Wanted, forget, render_together
from delivery.remote_rendering.items import Remote
from delivery.remote_rendering.results import AWAY, GONE, REFUSED, SPOILT, Blame, Result, Unrendered, reason_of

__all__ = [
    "AWAY",
    "GONE",
    "REFUSED",
    "SPOILT",
    "Blame",
    "Called",
    "Done",
    "Remote",
    "Result",
    "Unrendered",
    "Wanted",
    "forget",
    "reason_of",
    "render_together",
]
