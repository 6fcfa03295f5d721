-- Returns a lease, corrects token limits to what a call really used, and learns from its answer.
--
-- KEYS   as in limits.lua
-- ARGV   1 lease   2 verdict   3 the limit that refused it, "" if it did not say
--        4 retry-after, -1 without   5 tokens reserved   6 tokens used   7 the limits: see terms.py
--        8 what the provider told, by limit: its amount (0: none), how long to hold; "" for nothing
-- RETURN {held, outage, event, ...}: held is 0 if the lease had expired or was returned before,
--        and then nothing is corrected, so that settling twice is harmless. outage is the time for
--        which the provider has not answered anybody. Events are for the log.
-- TIME   O(limits + log leases)
local lease, verdict, refused_by, retry_after = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local tokens, difference = tonumber(ARGV[5]), tonumber(ARGV[6]) - tonumber(ARGV[5])
local terms, signals = cjson.decode(ARGV[7]), ARGV[8] ~= '' and cjson.decode(ARGV[8]) or {}
local cap = terms.cap
local start = tonumber(redis.call('HGET', starts, lease) or 0)
local in_flight = 0
if verdict == 'refused' then in_flight = redis.call('ZCOUNT', leases, '(' .. string.format('%.0f', now), '+inf') end
local expiry = tonumber(redis.call('ZSCORE', leases, lease) or 0)
redis.call('ZREM', leases, lease)
redis.call('HDEL', starts, lease)
if expiry <= now then
  return {0, 0}
end
local kept = redis.call('HMGET', state, unpack(terms.fields))
local limits = read_limits(terms.limits, tokens, kept, 13)
local changed, reply = {}, {1, 0}

local function write(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end

local function tell(text)
  reply[#reply + 1] = text
end

local past = kept[4] and numbers(kept[4])
local gap = past and 0.9 * past[1] + 0.1 * math.max(0, math.min(now - past[2], 5000000)) or 0
write('gap', string.format('[%.0f,%.0f]', gap, now))

local meter = read_meter(kept[3])
for _, limit in ipairs(limits) do
  local signal = signals[limit.name]
  local told, hold = signal and signal[1] or 0, signal and signal[2] or 0
  -- A limit that stood idle after the grant has forgotten its tokens: nothing to give back.
  if limit.is_tokens and limit.amount > 0 and limit.tat > 0 and difference ~= 0
     and (difference > 0 or start >= limit.idle) then
    local burst = limit.base
    if difference > 0 and limit.grown_burst then
      burst = math.max(burst, math.min(limit.grown_burst, limit.amount / 2))
    end
    -- A refund counts at the smallest step: the grant may have been made at that one.
    limit.tat = limit.tat + difference * limit.window / (limit.amount - burst + 1)
    write(limit.name, whole(limit.tat))
  end
  if hold > 0 and limit.amount > 0 then
    -- The burst is not for this: nobody goes before the hold is over.
    limit.tat = math.max(limit.tat, now + hold + (limit.base - 1) * limit.window / (limit.amount - limit.base + 1))
    write(limit.name, whole(limit.tat))
  end
  if limit.tat - now > KEEP_MS * 500 then keep(state, 2 * (limit.tat - now)) end
  if limit.name == 'tpm' and difference ~= 0 then
    meter.tokens = math.max(0, meter.tokens + difference)
    write('meter', write_meter(meter))
  end
  local most = limit.set or limit.given
  if told > 0 and (most == 0 or told < most) then
    if told ~= limit.told then
      write(limit.name .. ':told', string.format('%.0f', told))
      tell('told ' .. limit.name .. ' ' .. told)
    end
  elseif told > 0 and limit.told then
    redis.call('HDEL', state, limit.name .. ':told')
  end
end

-- An answer of whatever kind shows that the provider is there.
local breaker = read_breaker(kept[2])
local is_probe = lease == breaker.probe
if verdict == 'down' or verdict == 'overloaded' then
  if breaker.opens == 0 or is_probe then
    if breaker.fails == 0 then breaker.since = now end
    breaker.fails = breaker.fails + 1
    if breaker.opens > 0 or breaker.fails >= OPEN_AFTER then
      breaker.opens, breaker.opened = breaker.opens + 1, now
      breaker['until'] = now + math.min(LONGEST_OPEN_US, OPEN_US * 2 ^ math.min(breaker.opens - 1, 10))
      breaker.probe, breaker.probe_until = '', 0
      if breaker.opens == 1 then tell('open') end
    end
    write('breaker', write_breaker(breaker))
  end
elseif verdict == 'unsent' then
  if is_probe then
    breaker.probe, breaker.probe_until = '', 0
    write('breaker', write_breaker(breaker))
  end
elseif breaker.fails > 0 and (breaker.opens == 0 or is_probe) then
  if breaker.opens > 0 then tell('closed') end
  redis.call('HDEL', state, 'breaker')
  breaker.fails, breaker.opens = 0, 0
end
if breaker.opens > 0 then reply[2] = now - breaker.since end

-- Refused, or no room: everybody stops once, however many calls were under way.
local pause, paused = tonumber(kept[1] or 0), tonumber(kept[12] or 0)
local function stop(long)
  if start >= paused then
    paused = now
    write('paused', whole(now))
  end
  local ends = paused + long
  if ends > pause and ends > now then
    pause = ends
    write('pause', whole(pause))
    keep(state, ends - now)
  end
end

local function least(cost, window)
  return math.max(1, cost * window / SLOWEST_US)
end

local function step_back(l, amount, cost, window)
  cost = math.max(1, cost)
  if l and l.cut > 0 and l.age < QUICK_US then
    local quick = l.quick + 1
    if window == 0 then
      local floor = math.max(1, amount * 0.7)
      return {floor = floor, top = math.max(floor, amount), plateau = UNSURE_US, age = 0, grown = now,
              cut = now, spent = 0, quick = quick}, 0
    end
    local accepted = math.max(0, l.spent - cost)
    local measured = accepted / math.max(1, now - l.cut) * window
    local floor = math.max(least(cost, window), math.min(0.8 * amount, math.max(0.15 * amount, 0.95 * measured)))
    local hold = HOLD_US
    if accepted == 0 then hold = math.min(LONGEST_HOLD_US, HOLD_US * 2 ^ math.min(quick, 10)) end
    return {floor = floor, top = math.max(floor, math.min(amount, 1.2 * floor)), plateau = UNSURE_US,
            age = 0, grown = now + hold, cut = now, spent = 0, quick = quick}, hold
  end
  local is_first = l and l.top == 0
  local floor = math.max(least(cost, window), amount * (is_first and 0.5 or 0.95))
  local plateau = is_first and UNSURE_US or math.max(PLATEAU_US, PLATEAU_CALLS * window * cost / amount)
  local hold = window > 0 and HOLD_US or 0
  return {floor = floor, top = math.max(amount, floor), plateau = plateau, age = 0, grown = now + hold,
          cut = now, spent = 0, quick = 0}, hold
end

if verdict == 'refused' then
  redis.call('HINCRBY', state, 'refused', 1)
  if refused_by == '' then
    refused_by = 'requests'
    for _, limit in ipairs(limits) do
      if limit.name == 'tpm' and limit.amount > 0 and limits[1].name ~= 'rpm' then refused_by = 'tokens' end
    end
  end
  local hold = 0
  if refused_by == 'concurrency' then
    local flight = read_learned(kept[5])
    if not flight or start >= flight.cut then
      local amount = math.max(1, in_flight)
      local most = kept[6] and tonumber(kept[6]) or cap
      if most > 0 then amount = math.min(amount, most) end
      if flight then amount = math.min(amount, math.max(1, learned_amount(flight))) end
      flight, hold = step_back(flight, amount, 1, 0)
      write('concurrency:learned', write_learned(flight))
      tell(string.format('cut concurrency %.6g %.6g', amount, flight.floor))
    end
  else
    local name = refused_by == 'tokens' and 'tpm' or 'rpm'
    for _, limit in ipairs(limits) do
      if limit.name == name and (not limit.learned or start >= limit.learned.cut) then
        local used = metered(name == 'tpm' and meter.tokens or meter.requests, meter, limit.window)
        local amount = math.max(least(math.max(1, limit.cost), limit.window), 1.1 * used)
        if limit.amount > 0 then amount = math.min(limit.amount, amount) end
        local learned
        learned, hold = step_back(limit.learned, amount, limit.cost, limit.window)
        write(name .. ':learned', write_learned(learned))
        tell(string.format('cut %s %.6g %.6g', name, amount, learned.floor))
      end
    end
  end
  stop(math.max(retry_after, hold, 0))
elseif verdict == 'overloaded' then
  stop(retry_after >= 0 and retry_after or OVERLOADED_US)
elseif retry_after > 0 then
  stop(retry_after)
end
redis.call('HSET', state, unpack(changed))
return reply
