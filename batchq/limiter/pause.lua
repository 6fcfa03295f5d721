-- Pauses a provider; a pause under way is made longer, never shorter.
--
-- KEYS   1 state (as in limits.lua)
-- ARGV   1 microseconds
-- RETURN the microseconds that the pause lasts now
-- TIME   O(1)
local ends = tonumber(redis.call('HGET', state, 'pause') or 0)
if now + ARGV[1] > ends then
  ends = now + ARGV[1]
  redis.call('HSET', state, 'pause', ends, 'paused', now)
  keep(state, ends - now)
end
return ends - now
