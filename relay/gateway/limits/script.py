"""The scripts with which Redis counts the limits of `relay.gateway.limits.windows`, for many requests in one call.

A window is a hash: in `m` the numbers of its first and newest entry, what counts in all, the times of both, the amount
of the newest, and until when requests may be added to it; and the other entries by number, each a time and an amount.
What runs at once is a number for each counter, and in the hash of each worker its own part of it, so that it can be
taken back when the worker is gone. Of each worker, Redis knows the last batch and its reply: one that is sent again,
because its reply was lost, is not counted again.
"""

from __future__ import annotations

from typing import Final

from relay.gateway.limits.windows import MOST, PARTS, SHARE

# KEYS: 1 the workers, by the time at which each is taken for gone; 2 the hash of this one; then counters.
_WORKERS: Final = """
local function now_of(given)
  if given >= 0 then return given end
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1e6
end
local folder = string.sub(KEYS[2], 1, #KEYS[2] - #ARGV[1])
local function take_back(worker)
  local held = redis.call('HGETALL', folder .. worker)
  for i = 1, #held, 2 do
    if held[i] ~= 'n' and held[i] ~= 'r' then
      if redis.call('DECRBY', held[i], held[i + 1]) <= 0 then redis.call('DEL', held[i]) end
    end
  end
  redis.call('DEL', folder .. worker)
end
"""

# For a worker that Redis does not know, or not as it is. ARGV: 1 the worker, 2 the number of the last batch that Redis
# has taken, 3 packed: the time (below 0: Redis' own clock), the seconds until the worker is gone (0: it leaves), the
# milliseconds for which all wait where Redis has lost what it knew, whether it has for certain (else only if it knows
# nobody), and what the worker holds of each counter. Returns the milliseconds to wait.
JOIN: Final = (
    _WORKERS
    + """
local given = cmsgpack.unpack(ARGV[3])
if given[3] > 0 and (given[4] or redis.call('EXISTS', KEYS[1]) == 0) then
  redis.call('SET', folder .. 'wait', '1', 'PX', given[3], 'NX')
end
take_back(ARGV[1])
if given[2] == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 0
end
for i, held in ipairs(given[5]) do
  redis.call('INCRBY', KEYS[i + 2], held)
  redis.call('HSET', KEYS[2], KEYS[i + 2], held)
end
redis.call('HSET', KEYS[2], 'n', ARGV[2])
redis.call('ZADD', KEYS[1], now_of(given[1]) + given[2], ARGV[1])
return math.max(0, redis.call('PTTL', folder .. 'wait'))
"""
)

# ARGV: 1 the worker, 2 the number of the batch, 3 packed: the time, the seconds until the worker is gone (0: they need
# not be renewed), for each counter its window (0: what runs at once), what ended (counter, number of requests), what
# was spent (counter, difference, limit, when it was counted), what begins (number of limits, and for each its counter,
# limit and cost), workers that have ended. Returns false where the worker has to join first, or packed: the time, and
# for each beginning the number of the limit that refuses, the seconds to wait, and for each window what counts now and
# the seconds until nothing does.
COUNT: Final = (
    (
        _WORKERS
        + """
local number, known = tonumber(ARGV[2]), tonumber(redis.call('HGET', KEYS[2], 'n') or '-1')
if number == known then return redis.call('HGET', KEYS[2], 'r') end
if number ~= known + 1 then return false end
local given = cmsgpack.unpack(ARGV[3])
local now, lengths, ended, spent, begins = now_of(given[1]), given[3], given[4], given[5], given[6]
if given[2] > 0 then
  redis.call('ZADD', KEYS[1], now + given[2], ARGV[1])
  for _, gone in ipairs({redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now), given[7]}) do
    for _, worker in ipairs(gone) do
      take_back(worker)
      redis.call('ZREM', KEYS[1], worker)
    end
  end
end

local slots, names, total, mine, changed = {}, {}, {}, {}, {}
for i, length in ipairs(lengths) do
  if length == 0 then slots[#slots + 1] = i; names[#names + 1] = KEYS[i + 2] end
end
if #slots > 0 then
  local all, own = redis.call('MGET', unpack(names)), redis.call('HMGET', KEYS[2], unpack(names))
  for at, i in ipairs(slots) do
    total[i], mine[i] = tonumber(all[at]) or 0, tonumber(own[at]) or 0
  end
end
local function hold(i, more)
  more = math.max(more, -mine[i])
  total[i], mine[i], changed[i] = math.max(0, total[i] + more), mine[i] + more, true
end

local windows = {}
local function entry(state, at)
  if at == state.last then return state.time, state.amount end
  local found = state.read[at]
  if not found then
    found = {struct.unpack('<dd', redis.call('HGET', state.key, at))}
    state.read[at] = found
  end
  return found[1], found[2]
end
local function window(i)
  local state = windows[i]
  if state then return state end
  state = {key = KEYS[i + 2], length = lengths[i], read = {}, written = {}, gone = {}, head = 1, last = 0, used = 0,
    first = 0, time = 0, amount = 0, till = 0}
  windows[i] = state
  local found = redis.call('HGET', state.key, 'm')
  if not found then return state end
  state.head, state.last, state.used, state.first, state.time, state.amount, state.till =
    struct.unpack('<ddddddd', found)
  if state.time > now + state.length then  -- the clock was put back
    redis.call('DEL', state.key)
    state.head, state.last, state.used = 1, 0, 0
    return state
  end
  while state.head <= state.last and state.first <= now - state.length do
    local _, amount = entry(state, state.head)
    state.used, state.changed = state.used - amount, true
    if state.head < state.last then state.gone[#state.gone + 1] = state.head end
    state.head = state.head + 1
    if state.head <= state.last then state.first = entry(state, state.head) end
  end
  return state
end
local function add(state, amount, limit)
  local held, at = state.last - state.head + 1, now
  if held > 0 and state.time > at then at = state.time end
  state.used, state.changed = state.used + amount, true
  if held > 0 and at < state.till and ((state.amount + amount) * SHARE <= limit or held >= MOST) then
    state.amount, state.time = state.amount + amount, at
  else
    if held > 0 then
      state.read[state.last], state.written[state.last] = {state.time, state.amount}, true
    end
    local part = state.length / PARTS
    state.last, state.time, state.amount, state.till = state.last + 1, at, amount, (math.floor(at / part) + 1) * part
    state.longer = true
  end
  if state.head == state.last then state.first = at end
end
local function give_back(state, amount, since)
  if state.head > state.last or state.time < since then return end
  local low, high = state.head, state.last
  if low < high and entry(state, high - 1) < since then low = high end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if entry(state, middle) < since then low = middle + 1 else high = middle end
  end
  local time, before = entry(state, low)
  local taken = math.min(amount, before)
  if low == state.last then
    state.amount = before - taken
  else
    state.read[low], state.written[low] = {time, before - taken}, true
  end
  state.used, state.changed = state.used - taken, true
end

for at = 1, #ended, 2 do hold(ended[at], -ended[at + 1]) end
for at = 1, #spent, 4 do
  local state, more, since = window(spent[at]), spent[at + 1], spent[at + 3]
  if more > 0 then
    add(state, more, spent[at + 2])
  elseif since > now - state.length then
    give_back(state, -more, since)
  end
end

local out, at = {now}, 1
while at <= #begins do
  local count, refused, retry = begins[at], 0, 0
  for check = 1, count do
    local i, limit, cost = begins[at + 3 * check - 2], begins[at + 3 * check - 1], begins[at + 3 * check]
    if lengths[i] == 0 then
      if total[i] + 1 > limit then
        refused = check
        if retry < 1 then retry = 1 end
      end
    else
      local state = window(i)
      local over = state.used + cost - limit
      if over > 0 or limit <= 0 then
        local needed = state.length
        for number = state.head, state.last do
          local time, amount = entry(state, number)
          over = over - amount
          if over <= 0 and limit > 0 then needed = time + state.length - now; break end
        end
        if needed >= retry then refused = check; retry = needed end
      end
    end
  end
  out[#out + 1], out[#out + 2] = refused, retry
  for check = 1, count do
    local i, limit, cost = begins[at + 3 * check - 2], begins[at + 3 * check - 1], begins[at + 3 * check]
    if lengths[i] == 0 then
      if refused == 0 then hold(i, 1) end
    else
      local state = window(i)
      if refused == 0 and cost > 0 then add(state, cost, limit) end
      out[#out + 1] = state.used
      out[#out + 1] = state.last >= state.head and state.time + state.length - now or 0
    end
  end
  at = at + 3 * count + 1
end

local reply = cmsgpack.pack(out)
local set, fields, zero, none = {}, {'n', ARGV[2], 'r', reply}, {}, {}
for i in pairs(changed) do
  local key = KEYS[i + 2]
  if total[i] > 0 then set[#set + 1] = key; set[#set + 1] = total[i] else zero[#zero + 1] = key end
  if mine[i] > 0 then fields[#fields + 1] = key; fields[#fields + 1] = mine[i] else none[#none + 1] = key end
end
if #set > 0 then redis.call('MSET', unpack(set)) end
if #zero > 0 then redis.call('DEL', unpack(zero)) end
if #none > 0 then redis.call('HDEL', KEYS[2], unpack(none)) end
redis.call('HSET', KEYS[2], unpack(fields))
for _, state in pairs(windows) do
  if state.changed and state.head > state.last then
    redis.call('DEL', state.key)
  elseif state.changed then
    local values = {'m', struct.pack('<ddddddd', state.head, state.last, state.used, state.first, state.time,
      state.amount, state.till)}
    for number in pairs(state.written) do
      if number >= state.head then
        values[#values + 1] = number
        values[#values + 1] = struct.pack('<dd', state.read[number][1], state.read[number][2])
      end
    end
    redis.call('HSET', state.key, unpack(values))
    if #state.gone > 0 then redis.call('HDEL', state.key, unpack(state.gone)) end
    if state.longer then
      redis.call('PEXPIRE', state.key, math.ceil(state.length * (1000 + 1000 / PARTS)) + 1000)
    end
  end
end
return reply
"""
    )
    .replace("PARTS", str(PARTS))
    .replace("SHARE", str(SHARE))
    .replace("MOST", str(MOST))
)
