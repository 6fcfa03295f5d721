-- Takes one call under all limits of a provider at once, or nothing at all.
--
-- KEYS   as in limits.lua
-- ARGV   1 lease: RUN/ANYTHING   2 its time to live   3 its tokens   4 the limits: see terms.py
--        5 for how long it may wait in line
-- RETURN {wait, index}: wait 0 is granted, and index 1 makes it a probe; else index is that of the
--        limit in the way, or what else is: see line.py. A call that has to wait for longer than
--        it may is not in line, and told when to come back.
-- TIME   O(limits + log leases + log waiters), and expired leases in steps of 500
local lease, ttl, tokens = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local terms, patience = cjson.decode(ARGV[4]), tonumber(ARGV[5])
local run, kept = run_of(lease), read_state()

-- A clock that was set back: the last grant counts as made now, and moments that are told are void.
local function mend_clock(ahead)
  redis.call('HDEL', state, 'meter:at', 'meter:from', 'meter:requests', 'meter:tokens', 'pause', 'paused',
             'breaker', 'gap', 'settled', 'swept', 'kept', 'reached', 'concurrency:learned')
  for _, one in ipairs(terms.limits) do
    if kept[one[1]] then redis.call('HSET', state, one[1], math.ceil(kept[one[1]] - ahead)) end
    redis.call('HDEL', state, one[1] .. ':large', one[1] .. ':idle', one[1] .. ':learned')
  end
  redis.call('DEL', queue, due, runs, away)
  kept = read_state()
end

local last = tonumber(kept['meter:at'] or now)
if last - now > SET_BACK_US then mend_clock(last - now) end
local pause, gap = tonumber(kept.pause or 0), tonumber(kept.gap or 0)
local breaker = read_breaker(kept.breaker)
local limits = read_limits(terms.limits, tokens, kept)

-- Rates: which limit takes longest, and the time that this call takes of the provider.
local unit, longest, blocked = 1000, 1, 0
for i, limit in ipairs(limits) do
  if terms.adaptive and limit.name == 'rpm' and not limit.learned then
    limit.learned = {floor = FIRST, top = 0, plateau = 0, age = 0, grown = now, cut = 0, spent = 0, quick = 0}
    write_learned(limit.name, limit.learned)
    enforce(limit)
  end
  if limit.amount > 0 then
    local wait = limit.tat + (limit.cost - limit.burst) * limit.step - now
    unit = math.max(unit, limit.cost * limit.step)
    if wait > longest then longest, blocked = wait, i end
  end
end

-- Calls in flight.
local flight = read_learned(kept['concurrency:learned'])
local most = tonumber(kept['concurrency:set'] or terms.cap)
local cap, is_found, in_flight = most, false, 0
if flight then
  local found = math.max(1, math.floor(learned_amount(flight)))
  is_found = cap == 0 or found < cap
  if is_found then cap = found end
end
if breaker.opens == 0 and breaker.fails >= SLOW_AFTER then
  cap = cap == 0 and SLOW_CALLS or math.min(cap, SLOW_CALLS)
end
if cap > 0 then
  unit = math.max(unit, gap)
  in_flight = redis.call('ZCARD', leases)
end
if (cap > 0 and in_flight >= cap) or now > tonumber(kept.swept or 0) then
  local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 500)
  if #expired > 0 then redis.call('ZREM', leases, unpack(expired)) end
  in_flight = in_flight - #expired
  write('swept', now + 1000000)
end
local unweighted = unit
unit = math.ceil(unit / terms.weight)

local function wait_in_line(index, wait, spread)
  if tonumber(redis.call('ZSCORE', leases, lease) or 0) > now then
    return {0, 0} -- the answer to an earlier call was lost on its way
  end
  write('waited', (kept.waited or 0) + 1)
  local others = {'pause', 'concurrency', 'outage', 'turn'}
  write('blocked', others[-index] or limits[index].name)
  write_state()
  local placed = join(lease, run, unit, wait, spread, patience, kept.reached)
  return {placed or come_back(run, unweighted, index, wait, patience), index}
end

local waiting = redis.call('ZCARD', queue)
if waiting > 0 then waiting = waiting - prune(unit) end

if pause > now then
  return wait_in_line(PAUSE, pause - now, 1000)
end
local is_probe = breaker.opens > 0
if is_probe and now < breaker.till then
  return wait_in_line(OUTAGE, breaker.till - now, SPACING_MAX_US)
end
if is_probe and breaker.probe ~= '' and now < breaker.probe_until then
  return wait_in_line(OUTAGE, 10 * SPACING_MAX_US, SPACING_MAX_US)
end
if cap > 0 and in_flight >= cap then
  if is_found then
    grow(flight)
    write_learned('concurrency', flight)
  end
  local spacing = gap > 0 and math.max(SPACING_MIN_US, math.min(gap / 4, SPACING_MAX_US)) or SPACING_MAX_US
  return wait_in_line(CONCURRENCY, spacing, spacing)
end
if blocked > 0 then
  local limit = limits[blocked]
  if limit.is_learned then
    grow(limit.learned)
    write_learned(limit.name, limit.learned)
  end
  return wait_in_line(blocked, longest, limit.cost * limit.step)
end
local own, heads
if waiting > 0 then
  own = tonumber(redis.call('ZSCORE', queue, lease) or next_tag(run, kept.reached))
  heads = redis.call('ZRANGE', queue, 0, HEADS - 1, 'WITHSCORES')
  if not is_turn(run, own, heads, unit) then
    return wait_in_line(TURN, math.max(unweighted, SPACING_MIN_US), 0)
  end
end

-- Granted, unless it was before.
if redis.call('ZADD', leases, 'NX', now + ttl, lease) == 0 then
  if tonumber(redis.call('ZSCORE', leases, lease)) > now then return {0, 0} end
  redis.call('ZADD', leases, now + ttl, lease)
end
local idle_after = ttl
for _, limit in ipairs(limits) do
  if limit.amount > 0 then
    local size = math.min(limit.cost, limit.largest)
    local extra = 0
    if size > limit.burst then -- the burst grows: what was granted at the old step is made up for
      extra = size - limit.burst
      limit.step = limit.window / (limit.amount - size + 1)
      limit.burst = size
    end
    if limit.burst > limit.base and limit.cost * 2 > limit.burst then
      write(limit.name .. ':burst', math.ceil(limit.burst))
      write(limit.name .. ':large', now)
    end
    if limit.tat < now then write(limit.name .. ':idle', now) end
    local tat = math.ceil(math.max(limit.tat, now) + (limit.cost + extra) * limit.step)
    write(limit.name, tat)
    idle_after = math.max(idle_after, tat - now + 2 * limit.window)
  end
  if limit.learned then
    if not terms.adaptive and limit.most > 0 and not limit.is_learned then
      redis.call('HDEL', state, limit.name .. ':learned') -- it has grown back
    else
      limit.learned.spent = limit.learned.spent + limit.cost
      write_learned(limit.name, limit.learned)
    end
  end
end
if flight and most > 0 and not is_found then
  redis.call('HDEL', state, 'concurrency:learned')
end
if is_probe then
  breaker.probe, breaker.probe_until = lease, now + ttl
  write_breaker(breaker)
end
local meter = read_meter(kept)
meter.requests, meter.tokens = meter.requests + 1, meter.tokens + tokens
write_meter(meter)
write('granted', (kept.granted or 0) + 1)
if waiting > 0 then leave(lease, run, own, heads[1], tonumber(heads[2]), unit, kept.reached) end
write_state()
if now + idle_after > tonumber(kept.kept or 0) then
  keep(state, 2 * idle_after)
  keep(leases, 2 * idle_after)
  redis.call('HSET', state, 'kept', now + 2 * idle_after)
elseif in_flight == 0 then -- the key may be a new one
  keep(leases, kept.kept - now)
end
return {0, is_probe and 1 or 0}
