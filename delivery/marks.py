"""What is told of a database outside of it: in the counters' Redis, under a name that the database made for itself."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from delivery import counters
from delivery.counters import CountersAway

# Never back: whoever writes late has seen less.
_TELL: Final = counters.Script("""
local told = redis.call('HGET', KEYS[1], 'number')
if not told or tonumber(told) < tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], 'number', ARGV[1], 'at', ARGV[2])
end
return 1""")
_READ: Final = counters.Script("return redis.call('HMGET', KEYS[1], 'number', 'at', 'successor')")
_HAND_OVER: Final = counters.Script("""
redis.call('HSETNX', KEYS[1], 'number', 0)
redis.call('HSETNX', KEYS[1], 'at', ARGV[2])
redis.call('HSET', KEYS[1], 'successor', ARGV[1])
return 1""")
# No service is restored as often; a bound for a loop over what others could write.
_MOST: Final = 100


@dataclass(frozen=True)
class Mark:
    """The number of the last look that was committed, and its instant (business time).

    ``successor``: the name of the database that took this one's place, once it was restored and settled.
    """

    number: int
    at: datetime
    successor: UUID | None

    def is_ahead_of(self, number: int) -> bool:
        """Whether the service went on after the look of that number, or another database goes on in its place."""
        return self.number > number or self.successor is not None


def read(service: UUID) -> Mark | None:
    """None where nothing is told. Raises ``CountersAway``, also for a moment after Redis did not answer."""
    if counters.rest():
        raise CountersAway
    number, at, successor = _READ.run([_key(service)], [])
    if number is None:
        return None
    return Mark(int(number), datetime.fromisoformat(at.decode()), UUID(successor.decode()) if successor else None)


def latest(service: UUID, mark: Mark) -> tuple[UUID, datetime]:
    """The name of the database that came last in this one's place, itself for none; when any of them looked last.

    Raises ``CountersAway``.
    """
    at, found = mark.at, mark
    for _ in range(_MOST):
        if found.successor is None:
            break
        service = found.successor
        after = read(service)
        if after is None:
            break
        found, at = after, max(at, after.at)
    return service, at


def tell(service: UUID, *, number: int, at: datetime) -> None:
    """Raises ``CountersAway``."""
    _TELL.run([_key(service)], [number, at.isoformat()])


def hand_over(service: UUID, *, successor: UUID, at: datetime) -> None:
    """Whoever still bears the name ``service`` learns that it is not the one that goes on. Raises ``CountersAway``."""
    _HAND_OVER.run([_key(service)], [str(successor), at.isoformat()])


def _key(service: UUID) -> str:
    return f"continuity:{service}"
