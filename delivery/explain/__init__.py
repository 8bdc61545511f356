"""Why somebody got a message or did not: decided here once, for the page and for the API.

Import from here; the rooms inside are: why → codes, facts, hours.
"""

from delivery.explain.codes import OF_SEARCH, Code
from delivery.explain.facts import (
    Attempt,
    DeviceFact,
    Limit,
    Obstacle,
    Reach,
    Used,
    devices,
    is_asked_again,
    obstacle,
    zone_name,
)
from delivery.explain.hours import Promise, Quieted
from delivery.explain.why import (
    Audience,
    Explanation,
    NotKnown,
    Reachable,
    Story,
    explain,
    of_delivery,
)

__all__ = [
    "OF_SEARCH",
    "Attempt",
    "Audience",
    "Code",
    "DeviceFact",
    "Explanation",
    "Limit",
    "NotKnown",
    "Obstacle",
    "Promise",
    "Quieted",
    "Reach",
    "Reachable",
    "Story",
    "Used",
    "devices",
    "explain",
    "is_asked_again",
    "obstacle",
    "of_delivery",
    "zone_name",
]
