"""Calls to addresses that a user or a stranger has set: the guard against forged requests (SSRF).

An address is read strictly (``targets``), its name is resolved, every address that comes is judged, and the connection
goes to one of those and to no other (``fetching``). What the operator sets in the environment needs none of this.
"""

from schedules.outgoing.errors import OutgoingError, Refused, Unavailable
from schedules.outgoing.fetching import Answer, check, fetch
from schedules.outgoing.targets import OWN_NETWORKS, Target, is_public, read

__all__ = [
    "OWN_NETWORKS",
    "Answer",
    "OutgoingError",
    "Refused",
    "Target",
    "Unavailable",
    "check",
    "fetch",
    "is_public",
    "read",
]
