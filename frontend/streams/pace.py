"""How often a server of streams does what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Real seconds.

    ``look_s``: after so long every inbox is looked at and every token asked for, with or without word. ``between_s``:
    rounds come no closer. ``again_s``: after the database was away. ``heartbeat_s``: nothing is written for no longer.
    ``write_s``: a piece that the reader has not taken by then is the last. ``end_s``: for all to take their leave.
    """

    look_s: float = 15.0
    between_s: float = 0.2
    again_s: float = 2.0
    heartbeat_s: float = 20.0
    write_s: float = 30.0
    end_s: float = 3.0
