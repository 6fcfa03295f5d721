-- Keeps outcomes of one batch and counts them; the first one of each item wins, as in commit.lua.
-- KEYS 1 run (hash)  2 open batches (hash)  3 outcomes of the batch (hash)
--      4 leases of the batch (hash)  5 counters of the step (hash)  6 recent failures (list)
-- ARGV 1 batch "step:number"  2 step  3.. for each item: index, outcome, line for the recent
--      failures or "", how many counters follow, counter, amount, ...
-- Returns {1 if the run goes on, 1 or 0 for each item: whether its outcome was kept}.
-- O(outcomes)
local is_open = redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1
local grown, kept, has_failed = {}, {0}, false
local at = 3
while at <= #ARGV do
  local index, outcome, line, counters = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local is_kept = is_open and redis.call('HSETNX', KEYS[3], index, outcome) == 1
  at = at + 4
  for _ = 1, tonumber(counters) do
    if is_kept then grown[ARGV[at]] = (grown[ARGV[at]] or 0) + tonumber(ARGV[at + 1]) end
    at = at + 2
  end
  if is_kept then
    redis.call('HDEL', KEYS[4], index)
    if line ~= '' then
      redis.call('LPUSH', KEYS[6], line)
      has_failed = true
    end
  end
  kept[#kept + 1] = is_kept and 1 or 0
end
for name, amount in pairs(grown) do
  redis.call('HINCRBY', KEYS[5], name, string.format('%.0f', amount))
end
local state = redis.call('HGET', KEYS[1], 'state')
if has_failed then
  redis.call('LTRIM', KEYS[6], 0, 19)
  local counts = redis.call('HMGET', KEYS[5], 'failed', 'max_failures')
  if counts[2] and tonumber(counts[1]) > tonumber(counts[2]) and state == 'running' then
    state = 'failed'
    redis.call('HSET', KEYS[1], 'state', state, 'reason',
      counts[1] .. ' items of step ' .. ARGV[2] .. ' failed, ' .. counts[2] .. ' are allowed')
  end
end
kept[1] = state == 'running' and 1 or 0
return kept
