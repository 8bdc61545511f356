"""What goes wrong in the demo, as it does in life: by whom a message is meant for, so that every start shows the same.

E-mails to some domains fail each in its own way; all lie below .example, which RFC 2606 keeps free. Who imports people
of his own gets every message, unless he gives them such an address. The rules are those of ``stubs.faults``.
"""

from collections.abc import Mapping, Sequence

GOOD_DOMAINS = ("example.com", "example.org", "example.net")
BOUNCES = "bounces.example"
"""Refused for good."""
BUSY = "busy.example"
"""Fails for a moment, every second time: most get it with a retry."""
DOWN = "down.example"
"""Fails for a moment whenever it is tried."""
SILENT = "silent.example"
"""The first call that holds such an address is never answered: up to fifty people of whom nobody knows."""

SHARES: Mapping[str, float] = {BOUNCES: 0.01, BUSY: 0.01, DOWN: 0.01, SILENT: 0.005}
"""Of all people, by domain."""

MAIL: Sequence[Mapping[str, object]] = (
    {"kind": "bulk_entry_status", "code": "MESSAGE_REJECTED", "match": {"to": f"*@{BOUNCES}"}},
    {"kind": "bulk_entry_status", "code": "TRANSIENT_FAILURE", "rate": 0.5, "match": {"to": f"*@{BUSY}"}},
    {"kind": "bulk_entry_status", "code": "TRANSIENT_FAILURE", "match": {"to": f"*@{DOWN}"}},
    {"kind": "silence", "count": 1, "match": {"to": f"*@{SILENT}"}},
)
# What is told of e-mails afterwards: of those that nobody answered for, nothing.
EVENTS: Sequence[Mapping[str, object]] = (
    {"event": "none", "match": {"to": f"*@{SILENT}"}},
    {"event": "bounce", "rate": 0.01},
    {"event": "soft_bounce", "rate": 0.01},
    {"event": "complaint", "rate": 0.003},
    {"event": "delay", "rate": 0.01},
)
# Apps that were removed, and answers that get lost: the message is there all the same, and a repeat replaces it.
PUSH: Sequence[Mapping[str, object]] = (
    {"kind": "status", "error": "UNREGISTERED", "match": {"to": "demo-token-*[27]7-?"}},
    {"kind": "status", "error": "UNAVAILABLE", "accept": True, "rate": 0.01, "match": {"to": "demo-token-*"}},
)

PACE: Mapping[str, str] = {"RETRY_FIRST_DELAY_S": "3", "UNKNOWN_S": "45", "BRAKE_FAILURES": "50"}
"""Settings, so that all this comes to its end within a minute or so, and that a list of a hundred can be held."""
