-- Takes one call under all limits of a provider at once, or nothing at all.
--
-- KEYS   as in limits.lua
-- ARGV   1 lease   2 its run   3 its time to live   4 its tokens   5 the limits: see terms.py
--        6 for how long it may wait in line
-- RETURN {wait, index}: wait 0 is granted, and index 1 makes it a probe; else index is that of the
--        limit in the way: -1 pause, -2 concurrency, -3 outage, -4 another run's turn. A call that
--        has to wait for longer than it may is not in line, and told when to come back.
-- TIME   O(limits + log leases + log waiters), and expired leases in steps of 500
local lease, run, ttl, tokens = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local terms, patience = cjson.decode(ARGV[5]), tonumber(ARGV[6])
local cap, weight, is_adaptive = terms.cap, terms.weight, terms.adaptive
local kept = redis.call('HMGET', state, unpack(terms.fields))

-- A clock that was set back: the last grant counts as made now, and moments that are told are void.
local ahead = kept[3] and numbers(kept[3])[1] - now or 0
if ahead > SET_BACK_US then
  redis.call('HDEL', state, 'meter', 'pause', 'paused', 'breaker', 'gap', 'swept', 'kept', 'reached',
             'concurrency:learned')
  for _, one in ipairs(terms.limits) do
    local tat = tonumber(redis.call('HGET', state, one[1]) or 0)
    if tat > 0 then redis.call('HSET', state, one[1], whole(tat - ahead)) end
    redis.call('HDEL', state, one[1] .. ':large', one[1] .. ':idle', one[1] .. ':learned')
  end
  redis.call('DEL', queue, due, runs, away)
  kept = redis.call('HMGET', state, unpack(terms.fields))
end
local pause, breaker, gap = tonumber(kept[1] or 0), read_breaker(kept[2]), kept[4] and numbers(kept[4])[1]
local limits = read_limits(terms.limits, tokens, kept, 13)
local changed = {}

local function write(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end

-- Rates: which limit takes longest, and the time that this call takes of the provider.
local unit, longest, blocked = 1000, 1, 0
for i, limit in ipairs(limits) do
  if is_adaptive and limit.name == 'rpm' and not limit.learned then
    limit.learned = {floor = FIRST, top = 0, plateau = 0, age = 0, grown = now, cut = 0, spent = 0, quick = 0}
    write('rpm:learned', write_learned(limit.learned))
    limit.amount, limit.is_learned, limit.most =
      in_force(limit.given, limit.learned, limit.told, limit.set)
    paced(limit)
  end
  if limit.amount > 0 then
    local wait = limit.tat + (limit.cost - limit.burst) * limit.step - now
    unit = math.max(unit, limit.cost * limit.step)
    if wait > longest then
      longest, blocked = wait, i
    end
  end
end

-- Calls in flight.
local flight = kept[5] and read_learned(kept[5])
local most = kept[6] and tonumber(kept[6]) or cap
cap = most
if flight then
  local found = math.max(1, math.floor(learned_amount(flight)))
  if cap == 0 or found < cap then cap = found else flight.is_done = true end
end
if breaker.opens == 0 and breaker.fails >= SLOW_AFTER then
  cap = cap == 0 and SLOW_CALLS or math.min(cap, SLOW_CALLS)
end
local in_flight = 0
if cap > 0 then
  unit = math.max(unit, gap or 0)
  in_flight = redis.call('ZCARD', leases)
end
if (cap > 0 and in_flight >= cap) or now > tonumber(kept[11] or 0) then
  local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 500)
  if #expired > 0 then
    redis.call('ZREM', leases, unpack(expired))
    redis.call('HDEL', starts, unpack(expired))
    in_flight = in_flight - #expired
  end
  write('swept', whole(now + 1000000))
end
local unweighted = unit
unit = math.ceil(unit / weight)

local function run_of(member)
  return string.match(member, '^[^/]*')
end

-- Gives the call its place among those who wait.
local function next_tag()
  local head = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
  local reached = tonumber(head[2] or kept[9] or 0)
  return math.max(reached, tonumber(redis.call('ZSCORE', runs, run) or 0))
end

-- See line.py, come_back.
local function come_back(index, wait)
  local spacing = index == -3 and SPACING_MAX_US or math.min(AWAY_SPACING_US, AWAY_SHARE * unweighted)
  if index ~= -1 and index ~= -3 and wait <= HOPELESS_US then wait = math.min(wait, LOOK_US) end
  local from = math.max(now + math.max(patience, wait), tonumber(redis.call('ZSCORE', away, run) or 0))
  local at = math.ceil(from + spacing)
  redis.call('ZREMRANGEBYSCORE', away, '-inf', now)
  redis.call('ZADD', away, at, run)
  keep(away, at - now)
  return {at - now, index}
end

local OTHERS = {[-1] = 'pause', [-2] = 'concurrency', [-3] = 'outage', [-4] = 'turn'}

local function wait_in_line(index, wait, spread)
  if tonumber(redis.call('ZSCORE', leases, lease) or 0) > now then
    return {0, 0} -- the answer to an earlier call was lost on its way
  end
  write('waited', (kept[8] or 0) + 1)
  write('blocked', OTHERS[index] or limits[index].name)
  redis.call('HSET', state, unpack(changed))
  local tag
  if not redis.call('ZSCORE', queue, lease) then
    tag = next_tag()
    redis.call('ZADD', queue, tag, lease)
  end
  local long = math.max(1, math.ceil(wait + redis.call('ZRANK', queue, lease) * spread))
  if long > patience then
    redis.call('ZREM', queue, lease)
    redis.call('ZREM', due, lease)
    if not tag then redis.call('ZINCRBY', runs, -unit, run) end
    return come_back(index, wait)
  end
  wait = long
  if tag then redis.call('ZADD', runs, tag + unit, run) end
  redis.call('ZADD', due, now + wait, lease)
  if redis.call('PTTL', queue) < wait / 1000 + KEEP_MS / 2 then
    for _, key in ipairs({state, queue, due, runs}) do keep(key, wait) end
  end
  return {wait, index}
end

local waiting = redis.call('ZCARD', queue)
if waiting > 0 then
  local gone = redis.call('ZRANGEBYSCORE', due, '-inf', now - GRACE_US, 'LIMIT', 0, 100)
  for _, member in ipairs(gone) do
    redis.call('ZREM', queue, member)
    redis.call('ZREM', due, member)
    redis.call('ZINCRBY', runs, -unit, run_of(member))
  end
  waiting = waiting - #gone
end

if pause > now then
  return wait_in_line(-1, pause - now, 1000)
end
local is_probe = breaker.opens > 0
if is_probe and now < breaker['until'] then
  return wait_in_line(-3, breaker['until'] - now, SPACING_MAX_US)
end
if is_probe and breaker.probe ~= '' and now < breaker.probe_until then
  return wait_in_line(-3, 10 * SPACING_MAX_US, SPACING_MAX_US)
end
if cap > 0 and in_flight >= cap then
  if flight and not flight.is_done then
    flight.age, flight.grown = flight.age + math.max(0, math.min(now - flight.grown, 1000000)), now
    write('concurrency:learned', write_learned(flight))
  end
  local spacing = math.max(SPACING_MIN_US, math.min((gap or 0) > 0 and gap / 4 or SPACING_MAX_US, SPACING_MAX_US))
  return wait_in_line(-2, spacing, spacing)
end
if blocked > 0 then
  local limit = limits[blocked]
  local l = limit.learned
  if limit.is_learned then
    l.age, l.grown = l.age + math.max(0, math.min(now - l.grown, 1000000)), now
    write(limit.name .. ':learned', write_learned(l))
  end
  return wait_in_line(blocked, longest, limit.cost * limit.step)
end
local own, heads
if waiting > 0 then
  own = tonumber(redis.call('ZSCORE', queue, lease) or next_tag())
  heads = redis.call('ZRANGE', queue, 0, HEADS - 1, 'WITHSCORES')
  for i = 1, #heads, 2 do
    if run_of(heads[i]) ~= run and tonumber(heads[i + 1]) < own - math.max(2 * unit, AHEAD_US) then
      local at = tonumber(redis.call('ZSCORE', due, heads[i]))
      if now - LATE_US <= at and at <= now + SOON_US then
        return wait_in_line(-4, math.max(unweighted, SPACING_MIN_US), 0)
      end
    end
  end
end

-- Granted, unless it was before.
local expiry = string.format('%.0f', now + ttl)
if redis.call('ZADD', leases, 'NX', expiry, lease) == 0 then
  if tonumber(redis.call('ZSCORE', leases, lease)) > now then return {0, 0} end
  redis.call('ZADD', leases, expiry, lease)
end
redis.call('HSET', starts, lease, string.format('%.0f', now))
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
      write(limit.name .. ':burst', whole(limit.burst))
      write(limit.name .. ':large', whole(now))
    end
    if limit.tat < now then
      write(limit.name .. ':idle', whole(now))
    end
    local tat = math.max(limit.tat, now) + (limit.cost + extra) * limit.step
    write(limit.name, whole(tat))
    idle_after = math.max(idle_after, tat - now + 2 * limit.window)
  end
  local l = limit.learned
  if l then
    if not is_adaptive and limit.most > 0 and not limit.is_learned then
      redis.call('HDEL', state, limit.name .. ':learned') -- it has grown back
    else
      l.spent = l.spent + limit.cost
      write(limit.name .. ':learned', write_learned(l))
    end
  end
end
if flight and flight.is_done and most > 0 then
  redis.call('HDEL', state, 'concurrency:learned')
end
if is_probe then
  breaker.probe, breaker.probe_until = lease, now + ttl
  write('breaker', write_breaker(breaker))
end
local meter = read_meter(kept[3])
meter.requests, meter.tokens = meter.requests + 1, meter.tokens + tokens
write('meter', write_meter(meter))
write('granted', (kept[7] or 0) + 1)

if waiting > 0 then
  if heads[1] ~= lease and run_of(heads[1]) == run and tonumber(heads[2]) < own then
    if not redis.call('ZSCORE', queue, lease) then redis.call('ZADD', runs, own + unit, run) end
    redis.call('ZADD', queue, own, heads[1]) -- one of its own run that sleeps on changes places
    own = tonumber(heads[2])
  elseif not redis.call('ZSCORE', queue, lease) then
    redis.call('ZADD', runs, own + unit, run)
  end
  redis.call('ZREM', queue, lease)
  redis.call('ZREM', due, lease)
  if redis.call('EXISTS', queue) == 0 then
    redis.call('DEL', runs)
    redis.call('HDEL', state, 'reached')
  else
    write('reached', whole(math.max(own, tonumber(kept[9] or 0))))
  end
end
if now + idle_after > tonumber(kept[10] or 0) then
  keep(state, 2 * idle_after)
  write('kept', whole(now + 2 * idle_after))
end
if redis.call('PTTL', leases) < ttl / 1000 + KEEP_MS / 2 then
  keep(leases, ttl)
  keep(starts, ttl)
end
redis.call('HSET', state, unpack(changed))
return {0, is_probe and 1 or 0}
