"""Caps: at most so many messages to one person in any 24 hours and in any 7 days.

A claim commits, then it reserves here, then the provider is called; what turns out not to have been sent is
released. Per person there is one sorted set in Redis, ``{c<id % 64>}:u<id>``: a member for each delivery that counts,
named by day and occurrence, scored with the instant of its claim (milliseconds of business time). Reserving is ZADD
and releasing ZREM, so that repeating either is harmless.

Redis is a cache of the ledger. A set is valid only while its mark ``built`` carries the epoch of the server that holds
it (its run id and replication id): a server that was restarted, flushed or failed over has no valid set, and the
ledger's rows are added before the first person is judged by it. Sets exist only for people whom a capped schedule has
asked about. And before anyone is turned away, the ledger is asked what became of the messages that stand in the way.
"""

import contextlib
import random
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import structlog

from delivery import counters, usage
from delivery.counters import CountersAway, Script
from delivery.ledger import Released
from delivery.usage import Standing

log = structlog.get_logger(__name__)

# Batches are cut in their order, so that one call's people share few slots of a cluster.
BUCKETS = 64
DAY, WEEK = timedelta(days=1), usage.WEEK
DAILY, WEEKLY = "daily_cap", "weekly_cap"
# A cap that frees within this makes a message wait. Without it a daily message under a cap of one a day would be turned
# away whenever it is claimed a moment earlier than the day before.
PATIENCE = timedelta(minutes=5)
# How long to wait for the outcome of a message in flight, which may free its place.
IN_FLIGHT_S = 1.5
# Rounds of rebuilding and dropping after which it is up to a later claim.
_ROUNDS = 5
_KEEP = timedelta(days=8)  # of real time, to free memory


@dataclass(frozen=True)
class Limits:
    """Of one schedule: its own caps, none where empty, and whether its messages count toward anyone's."""

    per_day: int | None
    per_week: int | None
    counts: bool

    @property
    def matter(self) -> bool:
        return self.counts or self.per_day is not None or self.per_week is not None


UNCOUNTED = Limits(per_day=None, per_week=None, counts=False)


@dataclass(frozen=True)
class Capped:
    """A person who may not get the message now. ``used`` names the messages that use up the cap, by day and occurrence.

    ``wait_until``: when to ask again, as the cap frees soon or a message in flight may fail; empty where it is final.
    ``may_have_it``: an earlier call, of which nobody knows whether it was made, had a place of its own.
    """

    recipient_id: int
    cap: str
    limit: int
    used: tuple[str, ...]
    wait_until: datetime | None
    may_have_it: bool = False


class _Blocked(NamedTuple):
    """What the script says of a person at a cap: the members in the window with their scores, the oldest first.

    ``has_place``: the delivery itself stood in the set.
    """

    cap: str
    limit: int
    free_at: float
    has_place: bool
    members: tuple[tuple[str, float], ...]


def as_member(day: date, occurrence_id: int) -> str:
    """How a delivery is called in its recipient's set: ``20261121-17``."""
    return f"{day:%Y%m%d}-{occurrence_id}"


def reserve(
    recipient_ids: Sequence[int],
    *,
    member: str,
    limits: Limits,
    now: datetime,
    rng: random.Random,
    is_repeat: bool = False,
) -> dict[int, Capped]:
    """Reserve a place for the delivery ``member`` of each recipient; those who may not have one, by id.

    All claims of these rows are committed. ``now`` is the instant of the claim. ``is_repeat``: nobody knows whether the
    call of an earlier claim was made; where that one has a place, it keeps it. Raises ``CountersAway``: then nobody
    may be sent to, whatever has been reserved; reserving again repeats harmlessly.
    """
    if not limits.matter:
        return {}
    left = list(recipient_ids)
    capped: dict[int, Capped] = {}
    for _ in range(_ROUNDS):
        if not left:
            return capped
        builder = f"building-{secrets.token_hex(8)}"
        answers = _ask(_RESERVE, left, [*_arguments(member, limits, now, builder), int(is_repeat)])
        unbuilt = [pk for pk, answer in answers.items() if answer == _UNBUILT]
        blocked = {pk: _blocked(answer, limits) for pk, answer in answers.items() if isinstance(answer, list)}
        if unbuilt:
            _build(unbuilt, builder=builder, now=now)
        freed: set[int] = set()
        if blocked:
            judged, freed = _judge(blocked, now=now, rng=rng)
            capped.update(
                {pk: _as_repeat(one, blocked[pk], limits) for pk, one in judged.items()} if is_repeat else judged
            )
        left = [*unbuilt, *freed]
    raise CountersAway(f"{len(left)} people's counters change faster than they can be built.")


def release(recipient_ids: Iterable[int], *, member: str, reserved_at: datetime) -> None:
    """Nothing was sent to these: take the reservations of that instant back. Raises ``CountersAway``.

    One that stays because of that stands in nobody's way: before anyone is turned away the ledger is asked. One that a
    later claim of the same delivery has made anew is not ours any more.
    """
    _ask(_RELEASE, list(recipient_ids), [member, _ms(reserved_at)])


def give_back(released: Iterable[Released]) -> None:
    """Free the places of people who turned out to have got nothing. While the counters are away none is freed: one that
    stays taken is when it stands in somebody's way.
    """
    groups: dict[tuple[str, datetime], list[int]] = defaultdict(list)
    for each in released:
        groups[as_member(each.day, each.occurrence_id), each.claimed_at].append(each.recipient_id)
    try:
        for (member, reserved_at), recipient_ids in groups.items():
            release(recipient_ids, member=member, reserved_at=reserved_at)
    except CountersAway as error:
        log.warning("counters_away", error=error)


def forget(recipient_id: int) -> None:
    """Drop the set of somebody who is erased; where the counters are away it expires."""
    with contextlib.suppress(CountersAway):
        _ask(_FORGET, [recipient_id], [])


def _arguments(member: str, limits: Limits, now: datetime, builder: str) -> list[Any]:
    return [_ms(now), member, limits.per_day or 0, limits.per_week or 0, int(limits.counts), _span(_KEEP), builder]


def _judge(blocked: Mapping[int, _Blocked], *, now: datetime, rng: random.Random) -> tuple[dict[int, Capped], set[int]]:
    """Those who are capped, and those for whom the ledger has freed a place."""
    keys = [(pk, *_read_member(name)) for pk, found in blocked.items() for name, _ in found.members]
    standings = usage.standings(keys)
    capped, stale = {}, {}
    for pk, found in blocked.items():
        by_member = {name: standings[pk, *_read_member(name)] for name, _ in found.members}
        free = [(name, score) for name, score in found.members if by_member[name] is Standing.FREE]
        if free:
            stale[pk] = free
        else:
            capped[pk] = _capped(pk, found, by_member, now=now, rng=rng)
    if stale:
        _ask(_DROP, list(stale), [], {pk: _flat(free) for pk, free in stale.items()})
    return capped, set(stale)


def _capped(
    pk: int, found: _Blocked, by_member: Mapping[str, Standing], *, now: datetime, rng: random.Random
) -> Capped:
    used = [name for name, _ in found.members if by_member[name] is Standing.USED]
    free_at = datetime.fromtimestamp(found.free_at / 1000, UTC)
    wait_until = None
    if free_at - now <= PATIENCE:
        wait_until = free_at
    elif len(used) < found.limit:
        wait_until = now + timedelta(seconds=IN_FLIGHT_S * (1 + rng.random()))
    return Capped(pk, found.cap, found.limit, tuple(used[-found.limit :]), wait_until)


def _as_repeat(capped: Capped, found: _Blocked, limits: Limits) -> Capped:
    """Whoever has no place in a valid set was never called, as long as his message counts and so would have had one."""
    return replace(capped, may_have_it=found.has_place or not limits.counts)


def _build(recipient_ids: Sequence[int], *, builder: str, now: datetime) -> None:
    """Add what the ledger knows. Each of these sets carries the mark ``builder`` since before the ledger was read."""
    members: dict[int, list[tuple[str, float]]] = defaultdict(list)
    for use in usage.uses(recipient_ids, now=now):
        members[use.recipient_id].append((as_member(use.day, use.occurrence_id), _ms(use.claimed_at)))
    _ask(_BUILD, recipient_ids, [_span(_KEEP), builder], {pk: _flat(members[pk]) for pk in recipient_ids})


def _ask(
    script: Script,
    recipient_ids: Sequence[int],
    arguments: Sequence[Any],
    lists: Mapping[int, Sequence[Any]] | None = None,
) -> dict[int, Any]:
    """The script's answer for each recipient; ``lists`` are arguments of one's own, each sent after its length."""
    answers: dict[int, Any] = {}
    for group in _groups(recipient_ids):
        more = [item for pk in group for item in (len(lists[pk]), *lists[pk])] if lists is not None else []
        found = script.run([_key(pk) for pk in group], [*arguments, *more])
        answers.update(zip(group, found, strict=True))
    return answers


def _groups(recipient_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Whom one script can serve: all of them on a single server, those of one bucket on a cluster."""
    if not counters.is_cluster():
        yield recipient_ids
        return
    buckets: dict[int, list[int]] = defaultdict(list)
    for pk in recipient_ids:
        buckets[pk % BUCKETS].append(pk)
    yield from buckets.values()


def _key(recipient_id: int) -> str:
    return f"{{c{recipient_id % BUCKETS}}}:u{recipient_id}"


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _span(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def _flat(members: Iterable[tuple[str, float]]) -> list[Any]:
    return [item for name, score in members for item in (score, name)]


def _read_member(name: str) -> tuple[date, int]:
    day, _, occurrence_id = name.partition("-")
    return date(int(day[:4]), int(day[4:6]), int(day[6:])), int(occurrence_id)


def _blocked(answer: Sequence[Any], limits: Limits) -> _Blocked:
    cap, free_at, has_place, *pairs = (item.decode() for item in answer)
    limit = limits.per_day if cap == DAILY else limits.per_week
    members = tuple((name, float(score)) for name, score in zip(pairs[::2], pairs[1::2], strict=True))
    return _Blocked(cap, limit or 0, float(free_at), has_place == "1", members)


# The server's epoch as a number below zero, where no instant lies.
_EPOCH = """
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local replication = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch = -tonumber(string.sub(redis.sha1hex(run .. replication), 1, 12), 16) - 1
local function marked(key, mark) return tonumber(redis.call('ZSCORE', key, mark)) == epoch end
"""

_UNBUILT = 0
_UNTRIMMED = 8  # members, below which old ones may lie until the set grows or is dropped
# For each key: 1 where the place is reserved, 0 where the set must be built first, or the cap that stands in the way
# with the instant at which it frees, whether the delivery has a place, and the members of its window. Where nobody asks
# for a cap, a set that does not exist stays so; one that exists takes the member even unbuilt: somebody may have read
# the ledger before our claim. Whoever comes late, after a later claim of the same delivery, changes nothing of that
# one's.
_RESERVE = Script(
    f"""{_EPOCH}
local now, member, counts, keep, builder = tonumber(ARGV[1]), ARGV[2], ARGV[5] == '1', ARGV[6], ARGV[7]
local is_repeat = ARGV[8] == '1'
local day, week = {_span(DAY)}, {_span(WEEK)}
local trimmed = string.format('%.0f', now - week - {_span(usage.MARGIN)})
local caps = {{}}
if tonumber(ARGV[3]) > 0 then caps[#caps + 1] = {{'{DAILY}', day, tonumber(ARGV[3])}} end
if tonumber(ARGV[4]) > 0 then caps[#caps + 1] = {{'{WEEKLY}', week, tonumber(ARGV[4])}} end

local least = math.huge
for _, cap in ipairs(caps) do least = math.min(least, cap[3]) end

-- `size` counts the mark too, so a set no larger than the least limit leaves room for one more.
local function blocked(key, size)
  if size <= least then return nil end
  local found = nil
  local own = tonumber(redis.call('ZSCORE', key, member))
  for _, cap in ipairs(caps) do
    local since = '(' .. string.format('%.0f', now - cap[2])
    local count = redis.call('ZCOUNT', key, since, '+inf')
    if own and own > now - cap[2] then count = count - 1 end
    if count >= cap[3] then
      local pairs_ = redis.call('ZRANGEBYSCORE', key, since, '+inf', 'WITHSCORES')
      local others = {{}}
      for at = 1, #pairs_, 2 do
        if pairs_[at] ~= member then
          others[#others + 1] = pairs_[at]
          others[#others + 1] = pairs_[at + 1]
        end
      end
      local free_at = tonumber(others[2 * (count - cap[3] + 1)]) + cap[2]
      if not found or free_at > tonumber(found[2]) then
        found = {{cap[1], string.format('%.0f', free_at), own and '1' or '0'}}
        for _, item in ipairs(others) do found[#found + 1] = item end
      end
    end
  end
  return found
end

local answers = {{}}
for index, key in ipairs(KEYS) do
  local is_built = marked(key, 'built')
  if #caps > 0 and not is_built then
    redis.call('ZADD', key, epoch, builder)
    redis.call('PEXPIRE', key, keep)
    answers[index] = {_UNBUILT}
  else
    local size = (is_built or counts) and redis.call('ZCARD', key) or 0
    local cap = #caps > 0 and blocked(key, size)
    if cap then
      local own = tonumber(redis.call('ZSCORE', key, member))
      if own and own <= now and not is_repeat then redis.call('ZREM', key, member) end
      answers[index] = cap
    else
      if counts and size > 0 then
        if size > {_UNTRIMMED} then redis.call('ZREMRANGEBYSCORE', key, 0, trimmed) end
        redis.call('ZADD', key, 'GT', now, member)
        redis.call('PEXPIRE', key, keep)
      end
      answers[index] = 1
    end
  end
end
return answers
"""
)

# Adds the ledger's members to sets that still carry the builder's own mark; one that has lost it meanwhile was flushed,
# and what was reserved since may be missing in what this builder read, whoever marked it anew. A server that came back
# with old contents may know of an earlier attempt than the ledger does.
_BUILD = Script(
    f"""{_EPOCH}
local place, answers = 3, {{}}
for index, key in ipairs(KEYS) do
  local count = tonumber(ARGV[place])
  if marked(key, ARGV[2]) then
    for at = place + 1, place + count, 2 do redis.call('ZADD', key, 'GT', ARGV[at], ARGV[at + 1]) end
    redis.call('ZREMRANGEBYSCORE', key, '-inf', '(0')
    redis.call('ZADD', key, epoch, 'built')
    redis.call('PEXPIRE', key, ARGV[1])
  end
  answers[index] = 1
  place = place + 1 + count
end
return answers
"""
)

# Takes members out that the ledger knows to be free, unless they have been reserved anew meanwhile.
_DROP = Script(
    """
local place, answers = 1, {}
for index, key in ipairs(KEYS) do
  local count = tonumber(ARGV[place])
  for at = place + 1, place + count, 2 do
    if tonumber(redis.call('ZSCORE', key, ARGV[at + 1])) == tonumber(ARGV[at]) then
      redis.call('ZREM', key, ARGV[at + 1])
    end
  end
  answers[index] = 1
  place = place + 1 + count
end
return answers
"""
)

_RELEASE = Script(
    """
local answers = {}
for index, key in ipairs(KEYS) do
  local score = tonumber(redis.call('ZSCORE', key, ARGV[1]))
  answers[index] = score and score <= tonumber(ARGV[2]) and redis.call('ZREM', key, ARGV[1]) or 0
end
return answers
"""
)

_FORGET = Script("return {redis.call('DEL', KEYS[1])}")
