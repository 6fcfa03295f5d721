-- Pauses a provider; a pause under way is made longer, never shorter.
--
-- KEYS   1 pause (as in reserve.lua)
-- ARGV   1 milliseconds
-- RETURN the milliseconds that the pause lasts now
-- TIME   O(1)
local left = redis.call('PTTL', KEYS[1])
if tonumber(ARGV[1]) > left then
  redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
  return tonumber(ARGV[1])
end
return left
