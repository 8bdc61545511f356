"""What it costs to seal the audit and to verify it, by how much there is.

    python -m benchmarks.audit [--rows 200000] [--runs 3]

``verified_per_s`` are rows that ``audit_verify`` compares with their seals in a second; the peer reads the same rows by
COPY, in the table's order, and hashes each as it comes. ``sealed_per_s`` is what one sealer does in a second.
``verify_rss_growth_mb`` is by how much the process has grown since a tenth of a run was done: it holds some seals and
the rows of one, however many there are.
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings
from django.db import connection
from django.utils import timezone

from benchmarks import costs
from benchmarks.harness import emit, execute, note, prepare, query

# isort: split
from audit import keys, seals, verify  # after the servers

NAME = "audit"
PEER = "COPY of the same rows, each hashed"
# Rows of one transaction, of which a seal has as many as fit: the service writes one or a few in each.
TOGETHER = 1_000
_EVERY_S = 0.2

_FILL = """
INSERT INTO notification_audit (action, actor_id, actor_label, schedule_id, payload_diff, request_id, correlation_id,
    created_at)
SELECT (ARRAY['schedule.create', 'schedule.update', 'schedule.pause', 'occurrence.finish'])[1 + n %% 4],
       'user:' || n %% 40, 'Person ' || n %% 40, n %% 5000,
       jsonb_build_object('status', jsonb_build_array('active', 'paused'), 'version', jsonb_build_array(n, n + 1),
           'audienceQuery', jsonb_build_array('{"field": "attributes.plan", "op": "eq", "value": "pro"}'::jsonb, null)),
       md5(n::text), '', %(now)s + n * interval '1 second'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""
_READ = (
    "COPY (SELECT tx, id, action, actor_id, actor_label, schedule_id, payload_diff, request_id, correlation_id,"
    " created_at FROM notification_audit) TO STDOUT"
)


def fill(rows: int) -> None:
    now = timezone.now()
    for first in range(1, rows + 1, TOGETHER):
        execute(_FILL, {"now": now, "first": first, "last": min(first + TOGETHER - 1, rows)})
    execute("VACUUM (ANALYZE) notification_audit")


def _floor() -> None:
    with connection.cursor() as cursor, cursor.copy(_READ) as copy:
        for row in copy:
            sha256(row).digest()


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class Memory:
    """Megabytes of this process, looked at while it is entered."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._ends = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._ends.wait(_EVERY_S):
            self._seen.append(costs.rss_mb(os.getpid())[os.getpid()])

    def __enter__(self) -> "Memory":
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._watch.join()

    @property
    def growth(self) -> float:
        """From a tenth of the time to the most that was seen later; 0 for what was over too soon to be looked at."""
        later = self._seen[len(self._seen) // 10 :]
        return max(later) - later[0] if later else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{NAME}", description="Sealing and verifying the audit."
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3, help="of verifying and of its peer, of which the median is told")
    options = parser.parse_args()
    prepare()
    fill(options.rows)
    ((rows,),) = query("SELECT count(*) FROM notification_audit")
    sealing = _timed(lambda: seals.seal(now=timezone.now()))
    note(f"{rows:,} rows, sealed in {sealing:.1f} s")
    emit(NAME, "sealed_per_s", rows / sealing, "rows/s")
    known = keys.known_keys(settings.AUDIT_FORMER_KEYS)
    taken, floors, growths = [], [], []
    for _ in range(options.runs):
        floors.append(_timed(_floor))
        with Memory() as memory:
            taken.append(_timed(partial(_verify, known, rows)))
        growths.append(memory.growth)
        note(f"  {taken[-1]:.1f} s, the peer {floors[-1]:.1f} s")
    seconds, floor = statistics.median(taken), statistics.median(floors)
    emit(NAME, "verified_per_s", rows / seconds, "rows/s", peer=PEER, ratio=floor / seconds)
    emit(NAME, "verify_s", seconds, "s", peer=PEER, ratio=floor / seconds)
    emit(NAME, "peer_per_s", rows / floor, "rows/s")
    emit(NAME, "verify_rss_growth_mb", max(growths), "MB")


def _verify(known: dict[str, Ed25519PublicKey], rows: int) -> None:
    done = verify.verify(known)
    if (done.rows, done.unsealed) != (rows, 0):
        raise SystemExit(f"benchmark failed: {done.rows} of {rows} rows are sealed")


if __name__ == "__main__":
    main()
