-- Sets a run's budget. What was spent stays spent; more of it may be known from the run folder.
-- KEYS 1 budget (hash)  2 held (hash, see budget_reserve.lua)
-- ARGV 1 nano-dollars or ""  2 tokens or ""  3 pause or fail  4, 5 spent nano-dollars and tokens
--      6 "1" if no process that held something is alive  7 what commands call the run
-- Returns 1.  O(1)
local function limit(field, value)
  if value == '' then redis.call('HDEL', KEYS[1], field) else redis.call('HSET', KEYS[1], field, value) end
end
limit('limit_nusd', ARGV[1])
limit('limit_tokens', ARGV[2])
redis.call('HSET', KEYS[1], 'on_exceeded', ARGV[3], 'name', ARGV[7])
for i, field in ipairs({'spent_nusd', 'spent_tokens'}) do
  local known = tonumber(redis.call('HGET', KEYS[1], field) or '0')
  if tonumber(ARGV[3 + i]) > known then redis.call('HSET', KEYS[1], field, ARGV[3 + i]) end
end
if ARGV[6] == '1' then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'held_nusd', 0, 'held_tokens', 0)
end
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[2])
return 1
