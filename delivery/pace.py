"""A channel's shared rate: how fast all processes together may call a provider that has asked to slow down.

Unknown to anyone before, the provider's limit is found as TCP finds that of a network: a throttled answer halves the
rate, quiet lets it grow again (additive increase, multiplicative decrease; Chiu and Jain, 1989; here the increase is
five per cent a second, since the limits of accounts lie orders of magnitude apart). Until the first throttled answer
there is no limit. Real time, the Redis server's, since processes on several machines share it.
"""

from delivery.counters import Script

# People a second below which no provider is taken to go.
SLOWEST = 0.5
_KEEP_MS = 3_600_000


def take(channel: str, people: int) -> float:
    """Take leave to send to ``people``; the real seconds to wait before asking again, 0.0 with the leave.

    A call of many people may run ahead of the rate and is waited for afterwards, so that a bulk call always fits.
    Raises ``CountersAway``.
    """
    wait_ms: int = _TAKE.run([_key(channel)], [people, _KEEP_MS])
    return wait_ms / 1000


def slow_down(channel: str, *, wait_s: float) -> None:
    """The provider throttled: nobody calls for ``wait_s`` seconds, then at half the rate. Raises ``CountersAway``."""
    _SLOW_DOWN.run([_key(channel)], [round(wait_s * 1000), SLOWEST, _KEEP_MS])


def rate(channel: str) -> float | None:
    """People a second allowed at present, none where there is no limit. Raises ``CountersAway``."""
    found = _RATE.run([_key(channel)], [])
    return float(found) if found else None


def _key(channel: str) -> str:
    return f"{{pace}}:{channel}"


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

_TAKE = Script(
    f"""{_TIME}
local people = tonumber(ARGV[1])
local wait = math.max((tonumber(state[7]) or 0) - now, 0)
if wait == 0 and rate then
  local passed = math.max(now - tonumber(state[6]), 0) / 1000
  local tokens = math.min((tonumber(state[5]) or 0) + rate * passed, rate)
  rate = rate * 1.05 ^ passed
  if rate > 2 * tonumber(state[8]) then
    redis.call('HDEL', key, 'rate', 'tokens', 'at', 'until', 'peak', 'cut')
  else
    if tokens > 0 then tokens = tokens - people else wait = math.ceil(-tokens / rate * 1000) + 1 end
    redis.call('HSET', key, 'rate', tostring(rate), 'tokens', tostring(tokens), 'at', now)
  end
end
if wait == 0 then redis.call('HSET', key, 'second', second, 'seen', seen + people, 'last', last) end
redis.call('PEXPIRE', key, ARGV[2])
return wait
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
