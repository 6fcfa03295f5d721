-- What every script begins with: the server's time, what is kept of a provider, its limits in force.
--
-- KEYS   of all scripts, one hash tag a provider
--        1 state   hash. Of each limit N: N (its TAT), N:burst, N:large (time of the last large
--                  request), N:idle (when it last stood idle), N:learned (see adaptive.lua),
--                  N:told (by the provider), N:set (by hand). Of all: pause, paused (when it
--                  began), breaker (see breaker.lua), meter:* (what was granted lately), gap (the
--                  time between two answers), settled (the last one), reached, blocked (what the
--                  last call waited for), kept and swept (until when), counts
--        2 leases  sorted set: lease -> expiry
--        3 queue   sorted set: lease that waits -> its tag (see line.lua)
--        4 due     sorted set: lease that waits -> the moment it was told
--        5 runs    sorted set: run -> where its next tag begins
--        6 away    sorted set: run -> when the last of its calls comes back that do not wait here
-- Times are microseconds of the server's clock. Every decision has its twin in Python.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local state, leases, queue, due, runs, away = unpack(KEYS)

local function read_state()
  local flat, kept = redis.call('HGETALL', state), {}
  for i = 1, #flat, 2 do kept[flat[i]] = flat[i + 1] end
  return kept
end

-- Fields of the state that are written together at the end.
local changed = {}

local function write(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end

local function write_state()
  if #changed > 0 then redis.call('HSET', state, unpack(changed)) end
end

-- Lets a key live for so long and a while, and never shorter than it would.
local function keep(key, long_us)
  local long_ms = math.ceil(long_us / 1000) + KEEP_MS
  if redis.call('PTTL', key) < long_ms then redis.call('PEXPIRE', key, long_ms) end
end
