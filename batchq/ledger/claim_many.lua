-- Takes items of one batch for a process that nobody has started yet; see claim.lua.
-- KEYS 1 run (hash)  2 open batches (hash)  3 outcomes of the batch (hash)
--      4 leases of the batch (hash)  5 checkpoints of the batch (hash)
-- ARGV 1 batch "step:number"  2 owner  3 the name of this question  4 what tries are called among
--      checkpoints  5.. indexes
-- Returns {has budget, verdict, verdict, ...}; "apart" for an item that was started before.
-- O(indexes)
local is_open = redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1
local run = redis.call('HMGET', KEYS[1], 'state', 'budget')
local has_kept = redis.call('EXISTS', KEYS[5]) == 1
local lease = '1 ' .. ARGV[2] .. ' ' .. ARGV[3]
local reply = {run[2] or ''}
for i = 5, #ARGV do
  local index, verdict = ARGV[i], 'run'
  if not is_open or redis.call('HEXISTS', KEYS[3], index) == 1 then
    verdict = 'done'
  elseif run[1] ~= 'running' then
    verdict = 'stopped'
  elseif has_kept and redis.call('HEXISTS', KEYS[5], index .. ':' .. ARGV[4]) == 1 then
    verdict = 'apart'
  elseif redis.call('HSETNX', KEYS[4], index, lease) == 0
      and redis.call('HGET', KEYS[4], index) ~= lease then
    verdict = 'apart'
  end
  reply[#reply + 1] = verdict
end
return reply
