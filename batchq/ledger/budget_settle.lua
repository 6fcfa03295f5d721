-- Turns what a call holds into what it used; a second time changes nothing.
-- KEYS 1 budget (hash)  2 held (hash, see budget_reserve.lua)
-- ARGV 1 lease  2 nano-dollars  3 tokens  4 "1" if it was spent though nothing is held for it
-- Returns 1, or 0 if the lease holds nothing.  O(1)
local value = redis.call('HGET', KEYS[2], ARGV[1])
if not value then
  if ARGV[4] == '1' then
    redis.call('HINCRBY', KEYS[1], 'spent_nusd', ARGV[2])
    redis.call('HINCRBY', KEYS[1], 'spent_tokens', ARGV[3])
  end
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
local nusd, tokens, for_nusd, for_tokens = string.match(value, '^(%d+) (%d+) (%d+) (%d+) ')
local function add(field, amount) redis.call('HINCRBY', KEYS[1], field, string.format('%.0f', amount)) end
add('held_nusd', 0 - tonumber(nusd))
add('held_tokens', 0 - tonumber(tokens))
add('spent_nusd', tonumber(ARGV[2]))
add('spent_tokens', tonumber(ARGV[3]))
if tonumber(ARGV[3]) > 0 then -- a call that failed says nothing of the estimates
  add('estimated_nusd', tonumber(for_nusd))
  add('estimated_tokens', tonumber(for_tokens))
  add('settled_nusd', tonumber(ARGV[2]))
  add('settled_tokens', tonumber(ARGV[3]))
end
return 1
