"""From an occurrence to its rows: the audience is found, given its instants, cut into batches and written.

A local audience is one statement, hence one snapshot, and one transaction with the occurrence's cursor: a second
worker, a crash or an edit in between makes the cursor's conditional update find no row, and everything is undone. One
that the user service tells comes in pages, each a transaction of its own; when the last is in, the rows are written so.

Import from here; the rooms inside are: attempts → resolving, rows → sharing, again, quiet.
"""

from delivery.materialise.attempts import (
    AWAY,
    REFUSED,
    TOO_SLOW,
    Materialised,
    attempt,
    give_back,
    lease,
    materialise,
)
from delivery.materialise.resolving import mirror_everybody
from delivery.materialise.sharing import AskedByAnother, Superseded, UnderWay, purge

__all__ = [
    "AWAY",
    "REFUSED",
    "TOO_SLOW",
    "AskedByAnother",
    "Materialised",
    "Superseded",
    "UnderWay",
    "attempt",
    "give_back",
    "lease",
    "materialise",
    "mirror_everybody",
    "purge",
]
