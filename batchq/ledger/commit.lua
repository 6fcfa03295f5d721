-- Keeps an outcome and counts it; the first one wins.
-- KEYS 1 run (hash)  2 open batches (hash)  3 outcomes of the batch (hash)
--      4 leases of the batch (hash)  5 counters of the step (hash)  6 recent failures (list)
-- ARGV 1 batch "step:number"  2 index  3 outcome  4 line for the recent failures or ""
--      5 step  6.. counter, amount, counter, amount, ...
-- Returns 1 if this outcome was kept, 0 if another one was or the batch is collated.  O(1)
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
if redis.call('HSETNX', KEYS[3], ARGV[2], ARGV[3]) == 0 then return 0 end
redis.call('HDEL', KEYS[4], ARGV[2])
for i = 6, #ARGV, 2 do redis.call('HINCRBY', KEYS[5], ARGV[i], ARGV[i + 1]) end

if ARGV[4] ~= '' then
  redis.call('LPUSH', KEYS[6], ARGV[4])
  redis.call('LTRIM', KEYS[6], 0, 19)
  local counts = redis.call('HMGET', KEYS[5], 'failed', 'max_failures')
  if counts[2] and tonumber(counts[1]) > tonumber(counts[2])
      and redis.call('HGET', KEYS[1], 'state') == 'running' then
    redis.call('HSET', KEYS[1], 'state', 'failed', 'reason',
      counts[1] .. ' items of step ' .. ARGV[5] .. ' failed, ' .. counts[2] .. ' are allowed')
  end
end
return 1
