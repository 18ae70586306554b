"""Counts the limits of `relay.gateway.limits.windows` in Redis for all workers: one round trip per beginning and end.

A slot (a running request) is a member of a sorted set that expires unless its worker renews it, so that the slots of a
killed worker become free again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from portal import limits
from portal.services import redis
from relay.errors import RelayUnavailable
from relay.gateway.limits.windows import (
    EXACT,
    PARTS,
    REQUESTS,
    SLOTS,
    TOKENS,
    Check,
    LimitVerdict,
    lower_remaining,
)

logger: Final = logging.getLogger(__name__)
SLOT_SECONDS: Final = 60.0
_RENEW_SECONDS: Final = 10.0  # for the slots of all running requests
_PREFIX: Final = "airelays:limit:"

# A window is a hash: the numbers of its first and last entry (`h`, `n`), what counts in all (`u`), and the entries by
# number, each its time and amount. Times are written so that they are read as the same numbers.
_WINDOW: Final = """
local function entry(key, number)
  local time, amount = string.match(redis.call('HGET', key, number), '^(%S+) (%S+)$')
  return tonumber(time), tonumber(amount)
end
local function write(key, number, time, amount)
  redis.call('HSET', key, number, string.format('%.17g %.17g', time, amount))
end
local function open(key, window, now)
  local got = redis.call('HMGET', key, 'h', 'n', 'u')
  local head, last, used = tonumber(got[1]) or 1, tonumber(got[2]) or 0, tonumber(got[3]) or 0
  if head > last or entry(key, last) > now + window then  -- empty, or the clock was put back
    if got[2] then redis.call('DEL', key) end
    return {1, 0, 0}
  end
  local first = head
  while head <= last do
    local time, amount = entry(key, head)
    if time > now - window then break end
    redis.call('HDEL', key, head)
    head, used = head + 1, used - amount
  end
  if head > last then redis.call('DEL', key); return {1, 0, 0} end
  if head > first then redis.call('HSET', key, 'h', head, 'u', used) end
  return {head, last, used}
end
local function add(key, state, amount, window, now)
  state[3] = state[3] + amount
  local at = state[2] >= state[1] and entry(key, state[2]) or nil
  if at and at > now then now = at end
  local part = window / PARTS
  if at and state[2] - state[1] + 1 >= EXACT and math.floor(at / part) == math.floor(now / part) then
    local _, before = entry(key, state[2])
    write(key, state[2], now, before + amount)
  else
    state[2] = state[2] + 1
    write(key, state[2], now, amount)
  end
  redis.call('HSET', key, 'h', state[1], 'n', state[2], 'u', state[3])
  redis.call('PEXPIRE', key, math.ceil(window * 1000) + 1000)
end
local now = tonumber(ARGV[1])
if now < 0 then local t = redis.call('TIME'); now = tonumber(t[1]) + tonumber(t[2]) / 1e6 end
""".replace("PARTS", str(PARTS)).replace("EXACT", str(EXACT))

# KEYS: one for each check. ARGV: now (below 0: Redis' own clock), slot, slot seconds, then for each check: window
# (0: slots), limit, cost. Returns the number of the check that refuses, the seconds to wait, the time, and for each
# check what counts now and the seconds until nothing does.
_ACQUIRE: Final = (
    _WINDOW
    + """
local refused, retry, states, out = 0, 0, {}, {}
for i, key in ipairs(KEYS) do
  local window, limit, cost = tonumber(ARGV[3*i+1]), tonumber(ARGV[3*i+2]), tonumber(ARGV[3*i+3])
  if window == 0 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if redis.call('ZCARD', key) + cost > limit then refused = i; if retry < 1 then retry = 1 end end
  else
    local state = open(key, window, now)
    states[i] = state
    local over = state[3] + cost - limit
    if over > 0 then
      local needed = window
      for number = state[1], state[2] do
        local time, amount = entry(key, number)
        over = over - amount
        if over <= 0 then needed = time + window - now; break end
      end
      if needed >= retry then refused = i; retry = needed end
    end
  end
end
out[1], out[2], out[3] = refused, tostring(retry), string.format('%.17g', now)
for i, key in ipairs(KEYS) do
  local window, cost, state = tonumber(ARGV[3*i+1]), tonumber(ARGV[3*i+3]), states[i]
  if window == 0 then
    if refused == 0 then
      redis.call('ZADD', key, now + tonumber(ARGV[3]), ARGV[2])
      redis.call('PEXPIRE', key, math.ceil(tonumber(ARGV[3]) * 2000))
    end
    out[i+3] = ''
  else
    if refused == 0 and cost > 0 then add(key, state, cost, window, now) end
    local reset = 0
    if state[2] >= state[1] then reset = entry(key, state[2]) + window - now end
    out[i+3] = string.format('%d %.6f', state[3], reset)
  end
end
return out
"""
)

# KEYS: slots and token windows. ARGV: now, slot, when it was counted, then for each key: window (0: slots), difference
# of tokens. What is given back is part of the first entry that is not older than the request.
_FINISH: Final = (
    _WINDOW
    + """
local since = tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
  local window, more = tonumber(ARGV[2*i+2]), tonumber(ARGV[2*i+3])
  if window == 0 then
    redis.call('ZREM', key, ARGV[2])
  else
    local state = open(key, window, now)
    if more > 0 then
      add(key, state, more, window, now)
    elseif since > now - window then
      local found
      for number = state[2], state[1], -1 do
        if entry(key, number) < since then break end
        found = number
      end
      if found then
        local time, amount = entry(key, found)
        local taken = math.min(-more, amount)
        write(key, found, time, amount - taken)
        redis.call('HSET', key, 'u', state[3] - taken)
      end
    end
  end
end
"""
)
_DOWN: Final = "The portal cannot use the Redis that its limits are counted in. Try again in a few seconds."


class RedisLimiter:
    """Counters that all workers share. Methods raise RelayUnavailable when Redis cannot be used."""

    def __init__(self, url: str, prefix: str = _PREFIX) -> None:
        self._redis: Any = Redis.from_url(url, **redis.options(), health_check_interval=30)
        self._prefix = prefix
        self._acquire = self._redis.register_script(_ACQUIRE)
        self._finish = self._redis.register_script(_FINISH)
        self._slots: dict[str, list[str]] = {}  # the keys of each slot of this worker
        self._away_until = 0.0  # `time.monotonic()` seconds until which nobody waits for Redis, 0: it answers

    async def acquire(self, wanted: Sequence[Check], tokens: int, slot: str, now: float = -1.0) -> LimitVerdict:
        """Count a request against all of its limits, or against none.

        `now` below 0: Redis' own clock, which all workers share. Of a Redis that hangs, one request at a time finds
        out whether it answers again; the others are told at once.
        """
        if self._away_until:
            if time.monotonic() < self._away_until:
                raise RelayUnavailable(_DOWN, retry_after=5)
            self._away_until = time.monotonic() + limits.REDIS_SECONDS
        values: list[str | float] = [repr(now), slot, SLOT_SECONDS]
        for check in wanted:
            values += (check.window, check.limit, check.cost(tokens))
        try:
            async with asyncio.timeout(limits.REDIS_SECONDS):  # connecting, asking and answering together
                found = await self._acquire(keys=[self._prefix + check.key for check in wanted], args=values)
        except (RedisError, OSError) as error:
            hangs = isinstance(error, (TimeoutError, RedisTimeout))
            self._away_until = time.monotonic() + limits.REDIS_AWAY_SECONDS if hangs else 0.0
            logger.error("limits cannot be counted: Redis: %s", _said(error))
            raise RelayUnavailable(_DOWN, retry_after=5) from error
        self._away_until = 0.0
        verdict = LimitVerdict(wanted[int(found[0]) - 1] if found[0] else None, float(found[1]), float(found[2]))
        day = None
        for check, text in zip(wanted, found[3:], strict=True):
            if not text:
                continue
            count, _, seconds = text.partition(b" ")
            used, reset = int(count), float(seconds)
            if check.kind == REQUESTS:
                verdict.requests = lower_remaining(verdict.requests, check, used, reset)
            elif check.kind == TOKENS:
                verdict.tokens = lower_remaining(verdict.tokens, check, used, reset)
            else:
                day = lower_remaining(day, check, used, reset)
        verdict.requests = verdict.requests or day
        if verdict.refused is None:
            keys = [self._prefix + check.key for check in wanted if check.kind == SLOTS]
            if keys:
                self._slots.setdefault(slot, []).extend(keys)
        return verdict

    async def finish(
        self, counted: Sequence[Check], expected: int, used: int | None, slot: str, since: float, now: float = -1.0
    ) -> None:
        """A request ended that was counted at `since`.

        A Redis that cannot be reached is ignored: slots expire, and the expected tokens stand.
        """
        self._slots.pop(slot, None)
        keys, values = [], [repr(now), slot, repr(since)]
        for check in counted:
            if check.kind == SLOTS:
                keys.append(self._prefix + check.key)
                values += ("0", "0")
            elif check.kind == TOKENS and used is not None and used != check.cost(expected):
                keys.append(self._prefix + check.key)
                values += (str(check.window), str(used - check.cost(expected)))
        if keys:
            try:
                async with asyncio.timeout(limits.REDIS_SECONDS):
                    await self._finish(keys=keys, args=values)
            except (RedisError, OSError) as error:
                logger.warning("the end of a request could not be counted: Redis: %s", _said(error))

    async def renew(self, now: float) -> None:
        """Renew the slots of running requests. Must be called well within SLOT_SECONDS."""
        if not self._slots:
            return
        try:
            async with asyncio.timeout(_RENEW_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
                for slot, keys in self._slots.items():
                    for key in keys:
                        pipeline.zadd(key, {slot: now + SLOT_SECONDS}, xx=True)
                        pipeline.pexpire(key, round(SLOT_SECONDS * 2000))
                await pipeline.execute()
        except (RedisError, OSError) as error:
            logger.warning("running requests could not be renewed: Redis: %s", _said(error))

    async def close(self) -> None:
        await self._redis.aclose()


def _said(error: Exception) -> str:
    return str(error) or "it does not answer"  # the text of a timeout is empty
