-- Takes one call under all limits of a provider at once, or nothing at all.
--
-- KEYS   1 rates   hash: per limit NAME tat, NAME:next booked moment, NAME:burst, NAME:large
--                  time of the last large request, NAME:idle time the limit last stood idle
--        2 leases  sorted set: lease -> expiry
--        3 starts  hash: lease -> time of its grant
--        4 pause   string whose time to live is the pause
-- ARGV   1 lease   2 its time to live   3 concurrency (0: no cap)
--        4 how far ahead moments are booked   5 poll   6 poll spacing
--        then for each rate limit: name, cost, amount, window, base burst
-- RETURN {wait, index}: wait 0 is granted; index of the limit in the way, -1 pause,
--        -2 concurrency; a wait below zero means "not before, and none booked: ask in about a
--        second". All times in microseconds of the server's clock.
-- TIME   O(limits + log leases + expired leases). The arithmetic is explained in pacing.py.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local rates, leases, starts = KEYS[1], KEYS[2], KEYS[3]
local lease, ttl, cap = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local horizon = tonumber(ARGV[4])

local function write(field, value)
  redis.call('HSET', rates, field, string.format('%.0f', math.ceil(value)))
end

local function read(field)
  return tonumber(redis.call('HGET', rates, field) or 0)
end

if redis.call('ZSCORE', leases, lease) then
  return {0, 0} -- the answer to an earlier call was lost on its way
end

local paused_ms = redis.call('PTTL', KEYS[4])
if paused_ms > 0 then
  return {paused_ms * 1000, -1}
end

local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 500)
if #expired > 0 then
  redis.call('ZREM', leases, unpack(expired))
  redis.call('HDEL', starts, unpack(expired))
end
if cap > 0 and redis.call('ZCARD', leases) >= cap then
  local moment = math.max(now + tonumber(ARGV[5]), read('concurrency:next'))
  if moment > now + horizon then
    return {-1, -2}
  end
  write('concurrency:next', moment + tonumber(ARGV[6]))
  if redis.call('PTTL', rates) < 0 then
    redis.call('PEXPIRE', rates, 60000)
  end
  return {moment - now, -2}
end

local limits, longest, blocked = {}, 0, 0
for i = 7, #ARGV, 5 do
  local limit = {name = ARGV[i], cost = tonumber(ARGV[i + 1]), amount = tonumber(ARGV[i + 2]),
                 window = tonumber(ARGV[i + 3]), base = tonumber(ARGV[i + 4])}
  local kept = redis.call('HMGET', rates, limit.name, limit.name .. ':burst', limit.name .. ':large')
  limit.tat = tonumber(kept[1] or 0)
  limit.burst = limit.base
  if kept[2] and now - tonumber(kept[3]) < 2 * limit.window then
    limit.burst = math.min(math.max(limit.base, tonumber(kept[2])), math.max(limit.base, limit.amount / 2))
  end
  limit.step = limit.window / (limit.amount - limit.burst + 1)
  local wait = limit.tat + (limit.cost - limit.burst) * limit.step - now
  limits[#limits + 1] = limit
  if wait > longest then
    longest, blocked = wait, #limits
  end
end

if blocked > 0 then
  local limit = limits[blocked]
  local moment = math.max(now + longest, read(limit.name .. ':next'))
  if moment > now + math.max(horizon, longest) then
    return {-math.ceil(longest), blocked}
  end
  write(limit.name .. ':next', moment + limit.cost * limit.step)
  return {math.ceil(moment - now), blocked}
end

local keep = 0
for _, limit in ipairs(limits) do
  local size = math.min(limit.cost, math.max(limit.base, limit.amount / 2))
  local extra = 0
  if size > limit.burst then -- the burst grows: what was granted at the old step is made up for
    extra = size - limit.burst
    limit.step = limit.window / (limit.amount - size + 1)
    limit.burst = size
  end
  if limit.burst > limit.base and limit.cost * 2 > limit.burst then
    write(limit.name .. ':burst', limit.burst)
    write(limit.name .. ':large', now)
  end
  if limit.tat < now then
    write(limit.name .. ':idle', now)
  end
  local tat = math.max(limit.tat, now) + (limit.cost + extra) * limit.step
  write(limit.name, tat)
  keep = math.max(keep, tat - now + 2 * limit.window)
end
if keep > 0 then
  redis.call('PEXPIRE', rates, math.ceil(keep / 1000))
end

redis.call('ZADD', leases, string.format('%.0f', now + ttl), lease)
redis.call('HSET', starts, lease, string.format('%.0f', now))
local live_ms = math.max(math.ceil(ttl / 1000), redis.call('PTTL', leases)) + 1000
redis.call('PEXPIRE', leases, live_ms)
redis.call('PEXPIRE', starts, live_ms)
return {0, 0}
