-- What reserve.lua and settle.lua begin with: the server's time, and limits as they are in force.
--
-- KEYS   of all scripts, one hash tag a provider
--        1 state   hash. Of each limit N: N (its TAT), N:burst, N:large (time of the last large
--                  request), N:idle (when it last stood idle), N:learned (see adaptive.py),
--                  N:told (by the provider), N:set (by hand). Of all: pause, paused (when it
--                  began), breaker (see breaker.py), meter, gap, reached, blocked
--                  (what the last call waited for), counts
--        2 leases  sorted set: lease -> expiry
--        3 starts  hash: lease -> time of its grant
--        4 queue   sorted set: lease that waits -> its tag (see line.py)
--        5 due     sorted set: lease that waits -> the moment it was told
--        6 runs    sorted set: run -> where its next tag begins
--        7 away    sorted set: run -> when the last of its calls comes back that do not wait here
-- Times are microseconds of the server's clock. Every decision has its twin in Python.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local state, leases, starts, queue, due, runs, away = unpack(KEYS)

-- What is kept in one field are numbers in the form of a JSON array.
local function numbers(text)
  return cjson.decode(text)
end

local function whole(value)
  return string.format('%.0f', math.ceil(value))
end

local function learned_amount(l)
  if l.top == 0 then
    return math.min(LARGEST, l.floor * 2 ^ math.min(60, l.age / DOUBLE_US))
  end
  local x = (l.age - l.plateau) / l.plateau
  return math.min(LARGEST, l.top + (l.top - l.floor) * x * x * x)
end

local function read_learned(text)
  if not text then return nil end
  local n = numbers(text)
  return {floor = n[1], top = n[2], plateau = n[3], age = n[4], grown = n[5], cut = n[6],
          spent = n[7], quick = n[8]}
end

local function write_learned(l)
  return string.format('[%.17g,%.17g,%.0f,%.0f,%.0f,%.0f,%.0f,%d]', l.floor, l.top, l.plateau, l.age,
                       l.grown, l.cut, l.spent, l.quick)
end

local function read_breaker(text)
  if not text then
    return {fails = 0, since = 0, opens = 0, opened = 0, ['until'] = 0, probe_until = 0, probe = ''}
  end
  local n = numbers(text)
  return {fails = n[1], since = n[2], opens = n[3], opened = n[4], ['until'] = n[5],
          probe_until = n[6], probe = n[7]}
end

local function write_breaker(b)
  return string.format('[%d,%.0f,%d,%.0f,%.0f,%.0f,%s]', b.fails, b.since, b.opens, b.opened,
                       b['until'], b.probe_until, cjson.encode(b.probe))
end

-- What was granted lately: sums that fade, and since when.
local function read_meter(text)
  local n = text and numbers(text) or {now, now, 0, 0}
  local m = {at = n[1], from = n[2], requests = n[3], tokens = n[4]}
  local past = math.max(0, now - m.at)
  if past > 6 * METER_US then
    return {at = now, from = now, requests = 0, tokens = 0}
  end
  local left = math.exp(-past / METER_US)
  m.at, m.requests, m.tokens = now, m.requests * left, m.tokens * left
  return m
end

local function write_meter(m)
  return string.format('[%.0f,%.0f,%.17g,%.17g]', m.at, m.from, m.requests, m.tokens)
end

local function metered(sum, m, window)
  local span = METER_US * (1 - math.exp(-math.max(now - m.from, METER_US / 10) / METER_US))
  return sum / span * window
end

-- The amount in force, and whether it was learned.
local function in_force(amount, learned, told, set)
  local most = set or amount
  if told and (most == 0 or told < most) then most = told end
  if learned then
    local found = learned_amount(learned)
    if most == 0 or found < most then return found, true, most end
  end
  return most, false, most
end

local function paced(limit)
  limit.base = math.max(1, math.floor(limit.amount * limit.share))
  limit.burst = limit.base
  limit.largest = math.max(limit.base, limit.amount / 2)
  if limit.grown_burst and now - limit.large < 2 * limit.window then
    limit.burst = math.min(math.max(limit.base, limit.grown_burst), limit.largest)
  end
  limit.step = limit.window / (limit.amount - limit.burst + 1)
end

-- The limits of the call: what is given of them (see pacing.py), and what is kept.
local function read_limits(given, tokens, kept, place)
  local limits = {}
  for i, one in ipairs(given) do
    local limit = {name = one[1], cost = one[2] == 'tokens' and tokens or 1, is_tokens = one[2] == 'tokens',
                   given = one[3], window = one[4], share = one[5]}
    limit.tat = tonumber(kept[place] or 0)
    limit.grown_burst = kept[place + 1] and tonumber(kept[place + 1])
    limit.large = tonumber(kept[place + 2] or 0)
    limit.idle = tonumber(kept[place + 3] or 0)
    limit.learned = read_learned(kept[place + 4])
    limit.told = kept[place + 5] and tonumber(kept[place + 5])
    limit.set = kept[place + 6] and tonumber(kept[place + 6])
    place = place + 7
    limit.amount, limit.is_learned, limit.most =
      in_force(limit.given, limit.learned, limit.told, limit.set)
    if limit.amount > 0 then paced(limit) end
    limits[i] = limit
  end
  return limits
end

-- Lets a key live for so long and a while, and never shorter than it would.
local function keep(key, long_us)
  local long_ms = math.ceil(long_us / 1000) + KEEP_MS
  if redis.call('PTTL', key) < long_ms then redis.call('PEXPIRE', key, long_ms) end
end
