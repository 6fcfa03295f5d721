-- Returns a lease, corrects token limits to what a call really used, and learns from its answer.
--
-- KEYS   as in limits.lua
-- ARGV   1 lease   2 its time to live   3 tokens reserved   4 tokens used   5 the limits: see terms.py
--        6 "" for an answer that tells nothing, else what it tells, as JSON: verdict, limit (that
--        refused it, "" if it did not say), after (retry-after, -1 without), signals: by limit its
--        amount (0: none) and how long to hold
-- RETURN {held, outage, event, ...}: held is 0 if the lease had expired or was returned before,
--        and then nothing is corrected, so that settling twice is harmless. outage is the time for
--        which the provider has not answered anybody. Events are for the log.
-- TIME   O(limits + log leases)
local lease, tokens, difference = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]) - tonumber(ARGV[3])
local told = ARGV[6] ~= '' and cjson.decode(ARGV[6]) or {verdict = 'answered', after = -1, signals = {}}
local expiry = tonumber(redis.call('ZSCORE', leases, lease) or 0)
redis.call('ZREM', leases, lease)
if expiry <= now then return {0, 0} end
local start = expiry - tonumber(ARGV[2])
local terms, kept = cjson.decode(ARGV[5]), read_state()
local limits, meter = read_limits(terms.limits, tokens, kept), read_meter(kept)
local reply = {1, 0}

local function tell(text)
  if text then reply[#reply + 1] = text end
end

-- What the call used more or less than was reserved.
local function correct(limit)
  if limit.name == 'tpm' then
    meter.tokens = math.max(0, meter.tokens + difference)
    write_meter(meter)
  end
  if limit.amount == 0 or limit.tat == 0 then return end
  -- A refund counts at the smallest step: the grant may have been made at that one. A limit that
  -- stood idle after the grant has forgotten its tokens: nothing to give back.
  local burst = limit.base
  if difference > 0 then
    burst = math.max(burst, math.min(limit.grown_burst or 0, limit.amount / 2))
  elseif start < limit.idle then
    return
  end
  limit.tat = math.ceil(limit.tat + difference * limit.window / (limit.amount - burst + 1))
  write(limit.name, limit.tat)
end

-- What the provider told of its own limit.
local function take_over(limit, amount, hold)
  if hold > 0 and limit.amount > 0 then
    -- The burst is not for this: nobody goes before the hold is over.
    local free = (limit.base - 1) * limit.window / (limit.amount - limit.base + 1)
    limit.tat = math.ceil(math.max(limit.tat, now + hold + free))
    write(limit.name, limit.tat)
  end
  local most = limit.set or limit.given
  if amount > 0 and (most == 0 or amount < most) then
    if amount ~= limit.told then
      write(limit.name .. ':told', amount)
      tell('told ' .. limit.name .. ' ' .. amount)
    end
  elseif amount > 0 and limit.told then
    redis.call('HDEL', state, limit.name .. ':told')
  end
end

for _, limit in ipairs(limits) do
  local signal = told.signals[limit.name]
  if limit.is_tokens and difference ~= 0 then correct(limit) end
  if signal then take_over(limit, signal[1], signal[2]) end
  if limit.tat - now > KEEP_MS * 500 then keep(state, 2 * (limit.tat - now)) end
end
local past = kept.settled and math.max(0, math.min(now - kept.settled, 5000000)) or 0
write('gap', math.floor(0.9 * (kept.gap or 0) + 0.1 * past + 0.5))
write('settled', now)

local breaker = read_breaker(kept.breaker)
tell(note_answer(breaker, lease, told.verdict))
if breaker.opens > 0 then reply[2] = now - breaker.since end

-- Everybody stops once, however many calls were under way.
local function stop(long)
  local paused = tonumber(kept.paused or 0)
  if start >= paused then
    paused = now
    write('paused', now)
  end
  local ends = math.ceil(paused + long)
  if ends > tonumber(kept.pause or 0) and ends > now then
    write('pause', ends)
    keep(state, ends - now)
  end
end

local function less_in_flight()
  local flight = read_learned(kept['concurrency:learned'])
  if flight and start < flight.cut then return 0 end
  local amount = redis.call('ZCOUNT', leases, '(' .. string.format('%.0f', now), '+inf') + 1
  local most = tonumber(kept['concurrency:set'] or terms.cap)
  if most > 0 then amount = math.min(amount, most) end
  if flight then amount = math.min(amount, math.max(1, learned_amount(flight))) end
  local lowered, hold = step_back(flight, amount, 1, 0)
  write_learned('concurrency', lowered)
  tell(string.format('cut concurrency %.6g %.6g', amount, lowered.floor))
  return hold
end

local function slower(limit)
  if limit.learned and start < limit.learned.cut then return 0 end
  local used = metered(limit.name == 'tpm' and meter.tokens or meter.requests, meter, limit.window)
  local amount = math.max(least(math.max(1, limit.cost), limit.window), 1.1 * used)
  if limit.amount > 0 then amount = math.min(limit.amount, amount) end
  local lowered, hold = step_back(limit.learned, amount, limit.cost, limit.window)
  write_learned(limit.name, lowered)
  tell(string.format('cut %s %.6g %.6g', limit.name, amount, lowered.floor))
  return hold
end

-- Finds what is to be lowered where the provider did not say.
local function refused()
  local rates = {}
  for _, limit in ipairs(limits) do rates[limit.name] = limit end
  local name = told.limit
  if name == '' then
    name = rates.tpm.amount > 0 and limits[1].name ~= 'rpm' and 'tokens' or 'requests'
  end
  redis.call('HINCRBY', state, 'refused', 1)
  if name == 'concurrency' then return less_in_flight() end
  return slower(name == 'tokens' and rates.tpm or rates.rpm)
end

if told.verdict == 'refused' then
  stop(math.max(told.after, refused(), 0))
elseif told.verdict == 'overloaded' then
  stop(told.after >= 0 and told.after or OVERLOADED_US)
elseif told.after > 0 then
  stop(told.after)
end
write_state()
return reply
