"""From an occurrence to its rows: the audience is found, given its instants, cut into batches and written.

A local audience is one statement, hence one snapshot, and one transaction with the occurrence's cursor: a second
worker, a crash or an edit in between makes the cursor's conditional update find no row, and everything is undone.

Import from here; the rooms inside are: attempts → rows → again.
"""

from delivery.materialise.attempts import (
    TOO_SLOW,
    Materialised,
    Superseded,
    UnderWay,
    attempt,
    give_back,
    lease,
    materialise,
)

__all__ = ["TOO_SLOW", "Materialised", "Superseded", "UnderWay", "attempt", "give_back", "lease", "materialise"]
