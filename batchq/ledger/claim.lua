-- Takes an item for a process, unless it is done, held by a live one, or its run stands still.
-- KEYS 1 run (hash)  2 open batches (hash)  3 outcomes of the batch (hash)
--      4 leases of the batch (hash)  5 checkpoints of the batch (hash)
--      6 what uploads brought for items of the batch (hash)
-- ARGV 1 batch "step:number"  2 index  3 owner  4 prefix of the keys that say who is alive
--      5 the name of this question: asked again since its answer was lost, it gets the same one
--      6 what the tries of an item are called among its checkpoints
-- Returns {verdict, starts, has budget, what an upload brought, stage, value, stage, value, ...}
-- O(1), and O(checkpoints of the batch) for an item that was started before, also if it was then
-- left for a pause: its tries are among its checkpoints.
-- A holder "later TIME" is nobody: the item waits for its provider.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {'done', 0} end
if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return {'done', 0} end
local run = redis.call('HMGET', KEYS[1], 'state', 'budget')
if run[1] ~= 'running' then return {'stopped', 0} end

local lease = redis.call('HGET', KEYS[4], ARGV[2])
local starts = 1
if lease then
  local before, holder, question = string.match(lease, '^(%d+) (%S*) ?(.*)$')
  starts = tonumber(before)
  if question ~= ARGV[5] then
    if holder ~= '' and redis.call('EXISTS', ARGV[4] .. holder) == 1 then return {'held', 0} end
    starts = starts + 1
  end
end
redis.call('HSET', KEYS[4], ARGV[2], starts .. ' ' .. ARGV[3] .. ' ' .. ARGV[5])

local brought = redis.call('HGET', KEYS[6], ARGV[2])
local reply = {'run', starts, run[2] or '', brought or ''}
local prefix = ARGV[2] .. ':'
if lease or redis.call('HEXISTS', KEYS[5], prefix .. ARGV[6]) == 1 then
  local kept = redis.call('HGETALL', KEYS[5])
  for i = 1, #kept, 2 do
    if string.sub(kept[i], 1, #prefix) == prefix then
      reply[#reply + 1] = string.sub(kept[i], #prefix + 1)
      reply[#reply + 1] = kept[i + 1]
    end
  end
end
return reply
