"""Counts the limits of `relay.gateway.limits.windows` in Redis for all workers: one round trip per beginning and end.

A slot (a running request) is a member of a sorted set that expires unless its worker renews it, so that the slots of a
killed worker become free again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from relay.errors import RelayUnavailable
from relay.gateway.limits.windows import REQUESTS, SLOTS, TOKENS, Check, LimitVerdict, lower_remaining

logger: Final = logging.getLogger(__name__)
SLOT_SECONDS: Final = 60.0
_PREFIX: Final = "airelays:limit:"

# KEYS: one for each check. ARGV: now (below 0: Redis' own clock), slot, slot seconds, then for each check: window
# (0: slots), limit, cost.
_ACQUIRE: Final = """
local now = tonumber(ARGV[1])
if now < 0 then local t = redis.call('TIME'); now = tonumber(t[1]) + tonumber(t[2]) / 1e6 end
local refused, retry, states, out = 0, 0, {}, {}
for i, key in ipairs(KEYS) do
  local window, limit, cost = tonumber(ARGV[3*i+1]), tonumber(ARGV[3*i+2]), tonumber(ARGV[3*i+3])
  if window == 0 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if redis.call('ZCARD', key) + cost > limit then refused = i; if retry < 1 then retry = 1 end end
    states[i] = {0, 0, 0}
  else
    local got = redis.call('HMGET', key, 's', 'c', 'p')
    local start, current, previous = tonumber(got[1]) or now, tonumber(got[2]) or 0, tonumber(got[3]) or 0
    local steps = math.floor((now - start) / window)
    if steps > 0 then
      start = start + steps * window
      previous = steps == 1 and current or 0
      current = 0
    end
    states[i] = {start, current, previous}
    local used = current + previous * math.max(0, 1 - (now - start) / window)
    if used + cost > limit then
      local needed
      if current + cost <= limit then
        needed = previous > 0 and math.max(0, window * (1 - (limit - current - cost) / previous) - (now - start)) or 0
      else
        needed = window - (now - start) + math.max(0, current > 0 and window * (1 - (limit - cost) / current) or 0)
      end
      if needed >= retry then refused = i; retry = needed end
    end
  end
end
out[1], out[2] = refused, tostring(retry)
for i, key in ipairs(KEYS) do
  local window, limit, cost = tonumber(ARGV[3*i+1]), tonumber(ARGV[3*i+2]), tonumber(ARGV[3*i+3])
  local start, current, previous = states[i][1], states[i][2], states[i][3]
  if window == 0 then
    if refused == 0 then
      redis.call('ZADD', key, now + tonumber(ARGV[3]), ARGV[2])
      redis.call('PEXPIRE', key, math.ceil(tonumber(ARGV[3]) * 2000))
    end
    out[i+2] = ''
  else
    if refused == 0 then
      current = current + cost
      redis.call('HSET', key, 's', string.format('%.6f', start), 'c', current, 'p', previous)
      redis.call('PEXPIRE', key, math.ceil(window * 2000))
    end
    local used = current + previous * math.max(0, 1 - (now - start) / window)
    local reset = current > 0 and 2 * window - (now - start) or previous > 0 and window - (now - start) or 0
    out[i+2] = string.format('%.9f %.6f', used, math.max(0, reset))
  end
end
return out
"""

# KEYS: slots and token windows. ARGV: now, slot, then for each key: window (0: slots), difference of tokens.
_FINISH: Final = """
local now = tonumber(ARGV[1])
if now < 0 then local t = redis.call('TIME'); now = tonumber(t[1]) + tonumber(t[2]) / 1e6 end
for i, key in ipairs(KEYS) do
  local window, more = tonumber(ARGV[2*i+1]), tonumber(ARGV[2*i+2])
  if window == 0 then
    redis.call('ZREM', key, ARGV[2])
  else
    local got = redis.call('HMGET', key, 's', 'c', 'p')
    local start, current, previous = tonumber(got[1]) or now, tonumber(got[2]) or 0, tonumber(got[3]) or 0
    local steps = math.floor((now - start) / window)
    if steps > 0 then
      start = start + steps * window
      previous = steps == 1 and current or 0
      current = 0
    end
    redis.call('HSET', key, 's', string.format('%.6f', start), 'c', math.max(0, current + more), 'p', previous)
    redis.call('PEXPIRE', key, math.ceil(window * 2000))
  end
end
"""
_DOWN: Final = "The portal cannot reach the Redis that its limits are counted in. Try again in a few seconds."


class RedisLimiter:
    """Counters that all workers share. Methods raise RelayUnavailable when Redis cannot be used."""

    def __init__(self, url: str, prefix: str = _PREFIX) -> None:
        self._redis: Any = Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, health_check_interval=30)
        self._prefix = prefix
        self._acquire = self._redis.register_script(_ACQUIRE)
        self._finish = self._redis.register_script(_FINISH)
        self._slots: dict[str, list[str]] = {}  # the keys of each slot of this worker

    async def acquire(self, wanted: Sequence[Check], tokens: int, slot: str, now: float = -1.0) -> LimitVerdict:
        """Count a request against all of its limits, or against none.

        `now` below 0: Redis' own clock, which all workers share.
        """
        values: list[str | float] = [repr(now), slot, SLOT_SECONDS]
        for check in wanted:
            values += (check.window, check.limit, check.cost(tokens))
        try:
            found = await self._acquire(keys=[self._prefix + check.key for check in wanted], args=values)
        except (RedisError, OSError) as error:
            logger.error("limits cannot be counted: Redis: %s", error)
            raise RelayUnavailable(_DOWN, retry_after=5) from error
        verdict, day = LimitVerdict(wanted[int(found[0]) - 1] if found[0] else None, float(found[1])), None
        for check, text in zip(wanted, found[2:], strict=True):
            if not text:
                continue
            used, reset = map(float, text.split())
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
        self, counted: Sequence[Check], expected: int, used: int | None, slot: str, now: float = -1.0
    ) -> None:
        """A request ended. A Redis that cannot be reached is ignored: slots expire, and the expected tokens stand."""
        self._slots.pop(slot, None)
        keys, values = [], [repr(now), slot]
        for check in counted:
            if check.kind == SLOTS:
                keys.append(self._prefix + check.key)
                values += ("0", "0")
            elif check.kind == TOKENS and used is not None and used != check.cost(expected):
                keys.append(self._prefix + check.key)
                values += (str(check.window), str(used - check.cost(expected)))
        if keys:
            try:
                await self._finish(keys=keys, args=values)
            except (RedisError, OSError) as error:
                logger.warning("the end of a request could not be counted: Redis: %s", error)

    async def renew(self, now: float) -> None:
        """Renew the slots of running requests. Must be called well within SLOT_SECONDS."""
        if not self._slots:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for slot, keys in self._slots.items():
                    for key in keys:
                        pipeline.zadd(key, {slot: now + SLOT_SECONDS}, xx=True)
                        pipeline.pexpire(key, round(SLOT_SECONDS * 2000))
                await pipeline.execute()
        except (RedisError, OSError) as error:
            logger.warning("running requests could not be renewed: Redis: %s", error)

    async def ping(self) -> bool:
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError):
            return False

    async def close(self) -> None:
        await self._redis.aclose()
