"""How fast all processes together may call a provider: as its account allows, slower where it has asked to slow down.

What an account allows is a token bucket: it holds one second's people, and never more have been let through in any time
than its rate makes of it, and that one bucket. Of the 24 hours, what is left when the account was read is counted down.

What a provider lets through besides is unknown to anyone before. It is found as TCP finds that of a network: a
throttled answer halves the rate, quiet lets it grow again (additive increase, multiplicative decrease; Chiu and Jain,
1989; here the increase is five per cent a second, since the limits of accounts lie orders of magnitude apart). Until
the first throttled answer there is no such limit.

What a schedule allows itself is a token bucket too, apart from the others, of some seconds' people: a run of a thousand
a minute goes out evenly, not at the minute's first second.

Real time, the Redis server's, since processes on several machines share it. A ``scope`` is a channel, or one of its
several providers, as a circuit's.
"""

from typing import NamedTuple

from delivery.counters import Script

# People a second below which no provider is taken to go.
SLOWEST = 0.5
_KEEP_MS = 3_600_000


# Seconds of its rate that a schedule's bucket holds: enough for ticks that come a second apart, and now and then late.
BUCKET_S = 5
# Until what is left of the day is known anew.
_DAY_WAIT_MS = 60_000


class Limits(NamedTuple):
    """What an account allows: people a second, and how many since it was ``read``; any text tells readings apart."""

    per_s: float | None = None
    left: int | None = None
    read: str = ""

    @property
    def bucket(self) -> int | None:
        """The most people who may go at once."""
        return None if self.per_s is None else max(int(self.per_s), 1)


NONE = Limits()


def take(scope: str, people: int, limits: Limits = NONE) -> float:
    """Take leave to send to ``people``; the real seconds to wait before asking again, 0.0 with the leave.

    At most a bucket of ``limits`` fits at once. Of the rate that was found a call of many people may run ahead, and is
    waited for afterwards, so that a bulk call always fits. Raises ``CountersAway``.
    """
    per_s, left = ("" if each is None else each for each in (limits.per_s, limits.left))
    wait_ms: int = _TAKE.run([_key(scope)], [people, _KEEP_MS, per_s, left, limits.read, _DAY_WAIT_MS])
    return wait_ms / 1000


def take_some(schedule_id: int, people: int, *, per_minute: int) -> int:
    """Take leave to send to as many of ``people`` as the schedule may at this moment; how many that is.

    None until there is room for a second's worth, so that claims are not of one person each. In any time so many get
    leave as its rate makes of it, and one bucket. Raises ``CountersAway``.
    """
    taken: int = _TAKE_SOME.run([_key(f"schedule:{schedule_id}")], [people, per_minute / 60, bucket_of(per_minute)])
    return taken


def bucket_of(per_minute: int) -> int:
    """The most people of a schedule that may go at once."""
    return max(per_minute * BUCKET_S // 60, 1)


def slow_down(scope: str, *, wait_s: float) -> None:
    """The provider throttled: nobody calls for ``wait_s`` seconds, then at half the rate. Raises ``CountersAway``."""
    _SLOW_DOWN.run([_key(scope)], [round(wait_s * 1000), SLOWEST, _KEEP_MS])


def rate(scope: str) -> float | None:
    """People a second that a throttling provider is called for at present, none where it is not slowed down.

    Raises ``CountersAway``.
    """
    found = _RATE.run([_key(scope)], [])
    return float(found) if found else None


def _key(scope: str) -> str:
    return f"{{pace}}:{scope}"


# seen/second: people of the present second, last: of the one before. peak: what went through when it was too much.
_TIME = """
local time = redis.call('TIME')
local second, now = tonumber(time[1]), tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local key = KEYS[1]
local state = redis.call('HMGET', key, 'second', 'seen', 'last', 'rate', 'tokens', 'at', 'until', 'peak', 'cut')
local seen, last = tonumber(state[2]) or 0, tonumber(state[3]) or 0
local before = tonumber(state[1])
if before ~= second then
  last = (before == second - 1) and seen or 0
  seen = 0
end
local rate = tonumber(state[4])
"""

# room: of the account's bucket, at room_at. read, used: what has gone since the account was read.
_TAKE = Script(
    f"""{_TIME}
local people, per_s, left = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local wait = math.max((tonumber(state[7]) or 0) - now, 0)
local tokens
if wait == 0 and rate then
  local passed = math.max(now - tonumber(state[6]), 0) / 1000
  tokens = math.min((tonumber(state[5]) or 0) + rate * passed, rate)
  rate = rate * 1.05 ^ passed
  if rate > 2 * tonumber(state[8]) then
    redis.call('HDEL', key, 'rate', 'tokens', 'at', 'until', 'peak', 'cut')
    tokens = nil
  elseif tokens <= 0 then
    wait = math.ceil(-tokens / rate * 1000) + 1
  end
end
local account = redis.call('HMGET', key, 'room', 'room_at', 'read', 'used')
local room, used
if per_s then
  local bucket = math.max(math.floor(per_s), 1)
  local passed = math.max(now - (tonumber(account[2]) or now), 0) / 1000
  room = math.min((tonumber(account[1]) or bucket) + per_s * passed, bucket)
  local lacking = math.min(people, bucket) - room
  if lacking > 0 then wait = math.max(wait, math.ceil(lacking / per_s * 1000)) end
end
if left then
  used = (account[3] == ARGV[5]) and tonumber(account[4]) or 0
  if used + people > left then wait = math.max(wait, tonumber(ARGV[6])) end
end
if tokens then
  if wait == 0 then tokens = tokens - people end
  redis.call('HSET', key, 'rate', tostring(rate), 'tokens', tostring(tokens), 'at', now)
end
if wait == 0 then
  redis.call('HSET', key, 'second', second, 'seen', seen + people, 'last', last)
  if room then redis.call('HSET', key, 'room', tostring(room - people), 'room_at', now) end
  if used then redis.call('HSET', key, 'read', ARGV[5], 'used', used + people) end
end
redis.call('PEXPIRE', key, ARGV[2])
return wait
"""
)

# Gone once it would be full again.
_TAKE_SOME = Script(
    """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local people, per_s, bucket = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 'room', 'room_at')
local passed = math.max(now - (tonumber(kept[2]) or now), 0) / 1000
local room = math.min((tonumber(kept[1]) or bucket) + per_s * passed, bucket)
local taken = math.min(people, math.floor(room))
if taken < math.min(people, math.max(math.floor(per_s), 1)) then taken = 0 end
redis.call('HSET', KEYS[1], 'room', tostring(room - taken), 'room_at', now)
redis.call('PEXPIRE', KEYS[1], math.ceil(bucket / per_s * 1000) + 1000)
return taken
"""
)

# Answers of calls that were under way together tell the same thing: one cut a second.
_SLOW_DOWN = Script(
    f"""{_TIME}
local slowest = tonumber(ARGV[2])
if not rate then
  local peak = math.max(seen, last, slowest)
  redis.call('HSET', key, 'rate', tostring(math.max(peak / 2, slowest)), 'peak', peak, 'cut', now)
elseif now - tonumber(state[9]) >= 1000 then
  redis.call('HSET', key, 'rate', tostring(math.max(rate / 2, slowest)), 'cut', now)
end
local til = math.max(tonumber(state[7]) or 0, now + tonumber(ARGV[1]))
redis.call('HSET', key, 'tokens', 0, 'at', til, 'until', til)
redis.call('PEXPIRE', key, math.max(tonumber(ARGV[3]), til - now + 1000))
return 1
"""
)

_RATE = Script("return redis.call('HGET', KEYS[1], 'rate')")
