-- Lets what was granted of a limit count as much of a new amount as it did of the old one.
--
-- KEYS   1 state (as in limits.lua)
-- ARGV   1 the limit   2 the old amount / the new one
-- TIME   O(1)
local ahead = tonumber(redis.call('HGET', state, ARGV[1]) or 0) - now
if ahead > 0 then redis.call('HSET', state, ARGV[1], now + math.ceil(ahead * ARGV[2])) end
